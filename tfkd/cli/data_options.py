"""Command-line options for a data set and how its files are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from tfkd import tasks
from tfkd.cli.option_groups import Option, described, with_options
from tfkd.data.reading import HELP, ReadingOptions, Request
from tfkd.errors import InputError

_FORMS = (
    "a .npz or .tfrecord file, a manifest (.csv, .jsonl), or a folder with one folder of images or sounds per class"
)
DataOption = Annotated[
    Request,
    typer.Option(
        "--data",
        help="Data set: digits, the generated shapes, vibration, gestures, gaits and commands, mnist, fashion_mnist, "
        f"cifar10, cifar100, tfds:NAME, {_FORMS}.",
    ),
]
DIGITS = Request("digits")

_DEFAULTS = ReadingOptions()
_OPTIONS = {
    "image_size": Option(tuple[int, int] | None, None, typer.Option(metavar="HEIGHT WIDTH", help=HELP["image_size"])),
    "color": described(str | None, _DEFAULTS.color, HELP["color"]),
    "resize": described(str, _DEFAULTS.resize, HELP["resize"]),
    "crop": described(str, _DEFAULTS.crop, HELP["crop"]),
    "skip_broken": described(bool, _DEFAULTS.skip_broken, HELP["skip_broken"], "--skip-broken"),
    "sample_rate": described(int | None, _DEFAULTS.sample_rate, HELP["sample_rate"]),
    "seconds": described(float | None, _DEFAULTS.seconds, HELP["seconds"]),
    "features": described(str, _DEFAULTS.features, HELP["features"]),
    "mel_bands": described(int, _DEFAULTS.mel_bands, HELP["mel_bands"]),
    "coefficients": described(int, _DEFAULTS.coefficients, HELP["coefficients"]),
    "frame_ms": described(float, _DEFAULTS.frame_ms, HELP["frame_ms"]),
    "hop_ms": described(float, _DEFAULTS.hop_ms, HELP["hop_ms"]),
    "x_feature": described(str, _DEFAULTS.x_feature, HELP["x_feature"]),
    "y_feature": described(str, _DEFAULTS.y_feature, HELP["y_feature"]),
    "x_shape": Option(str | None, None, typer.Option(metavar="SIZE,SIZE,...", help=HELP["x_shape"])),
    "sample_count": described(int | None, _DEFAULTS.sample_count, HELP["sample_count"]),
    "content": described(str, _DEFAULTS.content, HELP["content"]),
    "task": described(str | None, None, tasks.HELP),
}


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that has a data set the options with which its files are read.

    Args:
        command: Function with one parameter that is annotated as `Annotated[Request, ...]`, or with a Request or None.
            It becomes an option for the name or path, with its default, and the others follow it.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    data: Any = next(one for one in parameters if _is_request(one.annotation))
    default = data.default.reference if isinstance(data.default, Request) else data.default
    kind: Any = str | None if default is None else str
    reference = Option(kind, default, data.annotation.__metadata__[0])

    def receive(values: dict[str, Any]) -> Mapping[str, object]:
        path, shape, task = (values.pop(name) for name in (data.name, "x_shape", "task"))
        options = ReadingOptions(**values, x_shape=None if shape is None else _sizes(shape))
        labels = None if task is None else tasks.get(task).labels
        return {data.name: None if path is None else Request(path, options, labels, task)}

    return with_options(command, {data.name: reference, **_OPTIONS}, receive, at=data.name)


def _sizes(text: str) -> tuple[int, ...]:
    """The sizes of `28,28,1`."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise InputError(f"--x-shape must be numbers with commas. Received: {text!r}. Use 28,28,1.") from None


def _is_request(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) in (Request, Request | None)
