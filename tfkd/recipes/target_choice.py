"""The targets of a command or a recipe: those that were chosen, or the defaults that this platform has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfkd import targets
from tfkd._internal.types import JsonRecord
from tfkd.errors import InputError
from tfkd.targets import Target

if TYPE_CHECKING:
    import numpy as np

    from tfkd.data import Request, Split


def choose(
    specs: Sequence[str] | None,
    *,
    optional: Sequence[str] = (),
    board: str | None = None,
    cc: str | None = None,
    connect: bool = True,
    on_progress: Callable[[str, int], None] | None = None,
) -> list[Target | str]:
    """Makes targets before the work begins, so that a missing tool or device is an error now and not after it.

    Args:
        specs: Specifications of the chosen targets, see `tfkd.targets.get`; None for the defaults.
        optional: More specifications.
        board: Board of the emulated microcontroller, see `tfkd.targets.with_board`.
        cc: C compiler of emulated microcontrollers, see `tfkd.targets.with_compiler`.
        connect: Whether devices must be reachable now.
        on_progress: Called with the name of a phase of a run and its progress in percent.

    Returns:
        The targets. One of the defaults or of `optional` that is unavailable stays a specification; its row in a
        validation has the reason.

    Raises:
        InputError: A specification, the board or the compiler is wrong.
        ToolMissingError: A tool of one of `specs` is not installed.
        DeviceError: The device of a target cannot be reached.
    """
    named = list(specs or ())
    found = [*(named or targets.defaults())]
    found += [spec for spec in optional if spec not in found]
    may_be_missing = set(found) - set(named)
    found = targets.with_compiler(targets.with_board(found, board), cc)
    missing = unavailable([spec for spec in found if spec in may_be_missing])
    chosen: list[Target | str] = []
    for spec in found:
        if spec in missing:
            chosen.append(spec)
            continue
        target = targets.get(spec)
        target = target if on_progress is None else target.with_progress(on_progress)
        if connect:
            target.check()
        chosen.append(target)
    return chosen


def with_features(
    chosen: Sequence[Target | str], how: JsonRecord | None, sounds: np.ndarray | None = None
) -> list[Target | str]:
    """Targets that compute the features of sounds, as far as they do.

    Args:
        chosen: The targets; specifications stay as they are.
        how: Definition of the features, or None for samples that are no features of sounds.
        sounds: See `tfkd.targets.Target.with_features`.
    """
    return [one if how is None or isinstance(one, str) else one.with_features(how, sounds) for one in chosen]


def for_sounds(
    chosen: Sequence[Target | str], request: Request, test: Split, *, from_sounds: bool
) -> list[Target | str]:
    """Targets that count what the features of a data set of sounds cost, or start from its sounds.

    Args:
        chosen: The targets.
        request: The data set.
        test: Its test split, or a part of it.
        from_sounds: Whether targets that compute features start from the sounds.

    Raises:
        InputError: `from_sounds` with a data set that is not read as features of sound files, or without a target that
            computes features.
    """
    from tfkd.data import sounds

    how = sounds.features_of(request, test)
    if not from_sounds:
        return with_features(chosen, how)
    if how is None:
        raise InputError(
            f"validate: --from-sounds needs sound files that are read as features. Received: {request.reference}, "
            f"features {request.options.features}. Add --features log_mel or mfcc."
        )
    if not any(one.with_features(how) is not one for one in chosen if not isinstance(one, str)):
        raise InputError(
            "validate: --from-sounds needs an emulated core, which computes features. Received: other targets. Add "
            "--target cortex-m4."
        )
    return with_features(chosen, how, sounds.samples_of(request, test))


def unavailable(specs: Sequence[str]) -> dict[str, str]:
    """The targets that this machine cannot run, with the reasons."""
    return {spec: reason for spec, reason in targets.available(specs) if reason is not None}


def installed_defaults() -> list[str]:
    """The default targets that this platform has."""
    missing = unavailable(targets.defaults())
    return [spec for spec in targets.defaults() if spec not in missing]
