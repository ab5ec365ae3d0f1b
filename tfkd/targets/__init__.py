"""Where a .tflite runs. One protocol: a model and raw inputs in, a Measurement out."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tfkd.errors import InputError
from tfkd.targets.target import Target, check_inputs, cores

__all__ = ["Target", "check_inputs", "cores", "get", "names", "with_board", "with_compiler"]


def names() -> tuple[str, ...]:
    """The specifications that `get` takes."""
    from tfkd.targets.arm64 import CPUS
    from tfkd.targets.cortex_m import CORES, boards
    from tfkd.targets.host import KERNELS

    on_boards = (f"{board.core}:{board.name}" for board in boards().values() if board.core)
    return (
        "host",
        *(f"host:{kernels}" for kernels in KERNELS),
        "tflm",
        "arm64",
        *(f"arm64:{cpu}" for cpu in CPUS),
        *CORES,
        *on_boards,
    )


def get(spec: str, **options: Any) -> Target:
    """A target by its specification.

    Args:
        spec: `host` (LiteRT with XNNPACK), `host:plain` (its own kernels), `host:reference` (its reference kernels),
            `tflm` (TensorFlow Lite Micro), `arm64` (LiteRT for ARM under QEMU, also `arm64:cortex-a53`), or an emulated
            core such as `cortex-m4`, with a board's flash and RAM as in `cortex-m4:nrf52840`, or `ssh:user@host`, an
            edge box, or `android` (`android:SERIAL`), a phone, or `adb-binary:benchmark_model@SERIAL`, LiteRT's own
            tool there. Settings may follow: `host,threads=4,batch=8`.
        **options: of the target, such as `threads=4` for `host`, or `timeout_s=60`.

    Raises:
        ValueError: no target of that name or no such option.
        RuntimeError: the target's package is not installed.

    >>> get("host:reference,threads=2").threads
    2
    """
    from tfkd.targets.adb_binary import AdbBinary
    from tfkd.targets.android import Android
    from tfkd.targets.arm64 import ARM64
    from tfkd.targets.cortex_m import CORES, CortexM
    from tfkd.targets.host import Host
    from tfkd.targets.ssh import SSH
    from tfkd.targets.tflm import TFLM

    place, *settings = re.split(r",(?=\w+(?:[=,]|$))", str(spec))  # a compiler's own options have commas too
    name, _, detail = place.partition(":")
    kinds: dict[str, Any] = {
        "host": Host,
        "tflm": TFLM,
        "arm64": ARM64,
        "ssh": SSH,
        "android": Android,
        "adb-binary": AdbBinary,
    }
    kinds |= dict.fromkeys(CORES, CortexM)
    if name not in ("ssh", "android", "adb-binary") and place not in names():
        raise InputError(
            f"targets.get: must be one of {', '.join(names())}, android, ssh:user@host or "
            f"adb-binary:FILE. Received: {spec!r}."
            f"{_near(place, names())}"
        )
    said = {"host": "kernels", "arm64": "cpu", "ssh": "destination", "android": "serial"}.get(name, "board")
    chosen = {said: detail} if detail or name == "ssh" else {}
    if name in CORES:
        chosen["core"] = name
    if name == "adb-binary":
        binary, _, serial = detail.partition("@")
        chosen = {"binary": binary, "serial": serial}
    return kinds[name](**chosen, **_options(kinds[name], name, settings, options, chosen))


def _options(
    kind: Any, name: str, settings: Sequence[str], options: dict[str, Any], chosen: dict[str, Any]
) -> dict[str, Any]:
    """The options and the settings of a specification, after checking that the target has them."""
    known = {one.name: one.default for one in inspect.signature(kind).parameters.values() if one.name not in chosen}
    said = dict(setting.partition("=")[::2] for setting in settings)
    plain = {option: default for option, default in known.items() if isinstance(default, int | float | str)}
    for given, allowed in ((options, known), (said, plain)):
        for option in given:
            if option not in allowed:
                near = _near(option, allowed)
                raise InputError(f"targets.get: {name} takes {', '.join(allowed)}. Received: {option}.{near}")
    found = dict(options)
    for option, value in said.items():
        kind = type(plain[option])
        try:
            found[option] = bool(int(value)) if kind is bool else kind(value)
        except ValueError:
            raise InputError(
                f"targets.get: {option} of {name} must be a number. Received: {value!r}. Write {name},{option}="
                f"{plain[option]}."
            ) from None
    return found


def with_board(specs: Sequence[str], board: str | None) -> list[str]:
    """Specifications with the emulated cores on a board; its own core is added where none is asked for.

    Settings stay, and so do cores that are on a board already.

    Raises:
        ValueError: no such board, or one with another core.

    >>> with_board(["tflm", "cortex-m4,stream=1"], "nrf52840")
    ['tflm', 'cortex-m4:nrf52840,stream=1']
    """
    from tfkd.targets.cortex_m import CORES, boards

    if board is None:
        return list(specs)
    if board not in boards() or boards()[board].core is None:
        known = sorted(name for name, found in boards().items() if found.core)
        raise InputError(f"targets: board must be one of {', '.join(known)}. Received: {board!r}.{_near(board, known)}")
    core = str(boards()[board].core)
    bare = {spec: spec.partition(",")[::2] for spec in specs if spec.partition(",")[0] in CORES}
    if other := [spec for spec, (place, _) in bare.items() if place != core]:
        raise InputError(f"targets: {board} has a {core}. Received: {other[0]}. Leave the target out.")
    placed = {spec: ",".join(filter(None, (f"{core}:{board}", settings))) for spec, (_, settings) in bare.items()}
    kept = [placed.get(spec, spec) for spec in specs]
    there = any(spec.partition(",")[0] == f"{core}:{board}" for spec in kept)
    return kept if there else [*kept, f"{core}:{board}"]


def with_compiler(specs: Sequence[str], cc: str | None) -> list[str]:
    """Specifications with a compiler of the user's for the emulated cores.

    Raises:
        ValueError: there is no emulated core.

    >>> with_compiler(["tflm", "cortex-m4"], "arm-none-eabi-gcc")
    ['tflm', 'cortex-m4,cc=arm-none-eabi-gcc']
    """
    from tfkd.targets.cortex_m import CORES

    if cc is None:
        return list(specs)
    emulated = [spec for spec in specs if re.split("[:,]", spec)[0] in CORES]
    if not emulated:
        raise InputError(f"targets: cc must go with an emulated core. Received: {', '.join(specs)}. Add cortex-m4.")
    return [f"{spec},cc={cc}" if spec in emulated else spec for spec in specs]


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
