"""Where a .tflite runs. One protocol: a model and raw inputs in, a `Measurement` out."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping

from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError, ToolMissingError
from tfkd.targets.microcontrollers import CORES, is_emulated, with_board, with_compiler
from tfkd.targets.target import Target, check_inputs, cores
from tfkd.targets.vela import ACCELERATORS

__all__ = [
    "Target", "available", "check_inputs", "cores", "defaults", "get", "is_emulated", "names", "with_board",
    "with_compiler",
]  # fmt: skip

# The class of each target by the first word of its specification. It is imported at its first use, since some targets
# need packages that other platforms lack. A new target is a new module and one line here.
_TARGETS = {
    "host": "tfkd.targets.host:Host",
    "tflm": "tfkd.targets.tflm:TFLM",
    "arm64": "tfkd.targets.arm64:ARM64",
    **dict.fromkeys(CORES, "tfkd.targets.cortex_m:CortexM"),
    **dict.fromkeys(ACCELERATORS, "tfkd.targets.ethos_u:EthosU"),
    "ssh": "tfkd.targets.ssh:SSH",
    "android": "tfkd.targets.android:Android",
    "adb-binary": "tfkd.targets.adb_binary:AdbBinary",
    "browser": "tfkd.targets.browser:Browser",
}


def names() -> tuple[str, ...]:
    """All specifications without settings, except those that name a machine of the user, such as `ssh:HOST`."""
    return tuple(
        name for target in dict.fromkeys(_TARGETS) for name in _class(target).names() if _first(name) == target
    )


def defaults() -> tuple[str, ...]:
    """The targets on which a model is validated if none are chosen; a platform may lack some, see `available`."""
    return ("host", "tflm")


def available(specs: Iterable[str]) -> list[tuple[str, str | None]]:
    """Which targets can run on this machine.

    Devices are not contacted.

    Args:
        specs: Specifications of targets.

    Returns:
        Each specification with None, or with the reason why it is unavailable: a program or package that is not
        installed, and how to install it.

    Raises:
        InputError: A specification is wrong.

    >>> available(["host"])
    [('host', None)]
    """
    found: list[tuple[str, str | None]] = []
    for spec in specs:
        try:
            get(spec)
        except ToolMissingError as error:
            found.append((spec, str(error)))
        else:
            found.append((spec, None))
    return found


def get(spec: str, **options: object) -> Target:
    """Makes a target from its specification.

    Args:
        spec: `host` (LiteRT with XNNPACK), `host:plain` (LiteRT's own kernels), `host:reference` (its reference
            kernels), `tflm` (TensorFlow Lite Micro), `arm64` (LiteRT for ARM under QEMU, also `arm64:cortex-a53`), an
            emulated core such as `cortex-m4`, also with the flash and RAM of a board as in `cortex-m4:nrf52840`,
            `ethos-u55-128` (an NPU, estimated by Vela),
            `ssh:user@host` (LiteRT on an edge device), `android` or `android:SERIAL` (a phone),
            `adb-binary:benchmark_model@SERIAL` (LiteRT's benchmark tool on a phone), `browser`, `browser:firefox` or
            `browser:/path` (LiteRT.js in a browser here), or `browser:wait` (in that of a phone). Settings may follow:
            `host,threads=4,batch=8`.
        **options: Settings of the target, such as `threads=4` of `host` or `timeout_s=60`.

    Returns:
        The target; no device is contacted.

    Raises:
        InputError: Unknown target or setting, or a wrong value.
        ToolMissingError: A program or package that the target needs is not installed.

    >>> get("host:reference,threads=2").threads
    2
    """
    place, *settings = re.split(r",(?=\w+(?:[=,]|$))", str(spec))  # a compiler's own options have commas too
    name, _, detail = place.partition(":")
    if name not in _TARGETS:
        raise InputError(
            f"targets.get: unknown target {spec!r}. Choose one of {', '.join(_TARGETS)}.{suggestion(name, _TARGETS)}"
        )
    target_class = _class(name)
    fixed = [one for one in target_class.names() if _first(one) == name]
    if fixed and place not in fixed:
        raise InputError(
            f"targets.get: unknown target {spec!r}. Choose one of {', '.join(fixed)}.{suggestion(place, fixed)}"
        )
    chosen = target_class.parse(name, detail)
    written = dict(setting.partition("=")[::2] for setting in settings)
    return target_class(**chosen, **_options(target_class, name, chosen, written, options))


def _class(name: str) -> type[Target]:
    module, _, class_name = _TARGETS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def _first(spec: str) -> str:
    return re.split("[:,]", spec)[0]


def _options(
    target_class: type[Target],
    name: str,
    chosen: Mapping[str, object],
    written: Mapping[str, str],
    options: Mapping[str, object],
) -> dict[str, object]:
    """Checks and converts the settings of a specification, and adds the options.

    Args:
        target_class: Class of the target.
        name: First word of the specification.
        chosen: Arguments that the place already stands for.
        written: Settings of the specification, as text.
        options: Settings given in Python.
    """
    parameters = inspect.signature(target_class).parameters.values()
    known = {one.name: one.default for one in parameters if one.name not in chosen}
    writable = {option: default for option, default in known.items() if isinstance(default, int | float | str)}
    for given, allowed in ((options, known), (written, writable)):
        for option in given:
            if option not in allowed:
                raise InputError(
                    f"targets.get: {name} has no setting {option!r}. Choose one of {', '.join(allowed)}."
                    f"{suggestion(option, allowed)}"
                )
    converted = dict(options)
    for option, text in written.items():
        kind = type(writable[option])
        try:
            converted[option] = bool(int(text)) if kind is bool else kind(text)
        except ValueError:
            raise InputError(
                f"targets.get: {option} of {name} must be a number. Received: {text!r}. "
                f"Write {name},{option}={writable[option]}."
            ) from None
    return converted
