"""The table of augmentations, and chains of them.

A new augmentation is one dataclass with a name, and one line in `AUGMENTATIONS`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import mixing
from tfkd.data.augmentation import Augment, CropFlip, EveryCropFlip, augment_batch, step_seeds
from tfkd.data.image_augmentation import ColorJitter, Cutout, Flip, RandAugment, ResizedCrop, Rotation
from tfkd.data.mixing import Mixing
from tfkd.data.sound_augmentation import Noise, SpecAugment, TimeShift
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# By name: dataclasses that are called with a sample and a seed, see `tfkd.data.augmentation.Augment`.
AUGMENTATIONS: Mapping[str, type] = {
    kind.name: kind
    for kind in (
        CropFlip, Flip, ResizedCrop, Rotation, ColorJitter, RandAugment, Cutout, Noise, TimeShift, SpecAugment
    )
}  # fmt: skip
NAMES = (*AUGMENTATIONS, *mixing.NAMES)
# Those that a store of soft labels names.
_STORED: Mapping[str, type] = {EveryCropFlip.name: EveryCropFlip, **AUGMENTATIONS}


@dataclasses.dataclass(frozen=True)
class Chain:
    """Augmentations one after the other, each with random numbers of its own.

    Args:
        steps: The augmentations.
    """

    name: ClassVar[str] = "chain"
    steps: tuple[Augment, ...]

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return self.batch(x[None], seed[None])[0]

    def batch(self, x: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Augments a batch.

        Args:
            x: Samples [B, ...].
            seeds: Seed of each sample, int32 [B, 2].
        """
        for number, step in enumerate(self.steps):
            x = augment_batch(step, x, step_seeds(seeds, number))
        return x


def build(
    names: Sequence[str],
    options: Mapping[str, JsonRecord],
    own: Mapping[str, Augment] | None = None,
) -> tuple[Augment | None, Mixing | None]:
    """The augmentation of samples and that of batches.

    Args:
        names: Names of `NAMES`, or of the user's functions, in the order in which they are applied; mixing comes last.
        options: Arguments by name, such as `{"rotation": {"degrees": 10}}`; of `mixup` and `cutmix` `alpha`.
        own: Functions of the user by name, see `tfkd.data.augmentation.Augment`.

    Returns:
        The two; None where there is none.

    Raises:
        InputError: A name or an option is unknown, occurs twice, or is out of range.

    >>> build(["flip", "rotation"], {"rotation": {"degrees": 10.0}})[0]
    Chain(steps=(Flip(), Rotation(degrees=10.0)))
    """
    check(names, options)
    own = own or {}
    steps = [own[name] if name in own else AUGMENTATIONS[name](**options.get(name, {})) for name in _steps(names)]
    mixed = {name: float(options.get(name, {}).get("alpha", _ALPHAS[name])) for name in mixing.NAMES if name in names}
    augment = steps[0] if len(steps) == 1 else Chain(tuple(steps)) if steps else None
    return augment, Mixing(**mixed) if mixed else None


_ALPHAS = {"mixup": 0.2, "cutmix": 1.0}


def _steps(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in mixing.NAMES]


def mixes(names: Sequence[str]) -> list[str]:
    """The names that mix samples of a batch."""
    return [name for name in names if name in mixing.NAMES]


def check(names: Sequence[str], options: Mapping[str, JsonRecord]) -> None:
    """Checks names and options; those of the user's functions, `module:function`, only for their form.

    Args:
        names: Names of `NAMES`, or `module:function`.
        options: Arguments by name.

    Raises:
        InputError: A name or an option is unknown, occurs twice, or is out of range.
    """
    for name in names:
        if name not in NAMES and ":" not in name:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(NAMES)}, or module:function."
            raise InputError(f"augment: {name!r} is unknown. {hint}")
    if len(set(names)) < len(names):
        raise InputError(f"augment: each name may occur once. Received: {', '.join(names)}. Remove one.")
    for name, arguments in options.items():
        if name not in names:
            raise InputError(
                f"augment: the options of {name!r} need it in augment. Received: {', '.join(names)}. Add it."
            )
        known = _options_of(name)
        for option, value in arguments.items():
            if option not in known:
                raise InputError(
                    f"augment: {name} has the options {', '.join(known) or '(none)'}. Received: {option}. Correct it."
                )
            _check_type(name, option, value, type(known[option]))
        AUGMENTATIONS[name](**arguments) if name in AUGMENTATIONS else Mixing(**{name: arguments.get("alpha")})


def _check_type(name: str, option: str, value: object, kind: type) -> None:
    accepted, text = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
    }[kind]
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise InputError(f"augment: {option} of {name} must be {text}. Received: {value!r}. Correct it.")


def _options_of(name: str) -> dict[str, object]:
    """The options of an augmentation with their defaults."""
    if name in mixing.NAMES:
        return {"alpha": _ALPHAS[name]}
    if name not in AUGMENTATIONS:
        return {}
    return {field.name: field.default for field in dataclasses.fields(AUGMENTATIONS[name])}


def from_key(key: JsonRecord) -> Augment | None:
    """The augmentation of a store of soft labels, from its name and parameters; None for a function of the user.

    Args:
        key: `name` and `parameters`, see `to_key`.
    """
    name, parameters = key["name"], key["parameters"]
    if name in _STORED:
        return _STORED[name](**parameters)
    if name != Chain.name:
        return None
    steps = [from_key(one) for one in parameters["steps"]]
    return None if None in steps else Chain(tuple(step for step in steps if step))


def to_key(augment: Augment) -> JsonObject:
    """Name and parameters of an augmentation; a dataclass names its parameters, another function has none."""
    if isinstance(augment, Chain):
        return {"name": augment.name, "parameters": {"steps": [to_key(step) for step in augment.steps]}}
    settings: Any = augment if dataclasses.is_dataclass(augment) and not isinstance(augment, type) else None
    parameters = {} if settings is None else dataclasses.asdict(settings)
    for name, kind in _STORED.items():
        if isinstance(augment, kind):
            return {"name": name, "parameters": parameters}
    function = augment if hasattr(augment, "__qualname__") else type(augment)
    return {"name": f"{function.__module__}:{function.__qualname__}", "parameters": parameters}
