"""Command-line options for a data set and how its files are read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tfkd.data.reading import HELP, ReadingOptions, Request

_FORMS = "a .npz file, a manifest (.csv, .jsonl), or a folder with one folder of images per class"
DataOption = Annotated[
    Request, typer.Option("--data", help=f"Data set: digits, mnist, fashion_mnist, cifar10, cifar100, {_FORMS}.")
]
DIGITS = Request("digits")

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "image_size": (tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help=HELP["image_size"])),
    "color": (str | None, typer.Option(help=HELP["color"])),
    "resize": (str, typer.Option(help=HELP["resize"])),
    "crop": (str, typer.Option(help=HELP["crop"])),
    "skip_broken": (bool, typer.Option("--skip-broken", help=HELP["skip_broken"])),
}


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that has a data set the options with which its files are read.

    Args:
        command: Function with one parameter that is annotated as `Annotated[Request, ...]`, or with a Request or None.
            It becomes an option for the name or path, with its default, and the others follow it.
    """
    signature = inspect.signature(command, eval_str=True)
    name = next(one.name for one in signature.parameters.values() if _is_request(one.annotation))
    defaults = ReadingOptions()
    more = [
        inspect.Parameter(
            option,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=getattr(defaults, option),
            annotation=Annotated[kind, info],
        )
        for option, (kind, info) in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def with_data(**arguments: Any) -> None:
        options = ReadingOptions(**{option: arguments.pop(option, getattr(defaults, option)) for option in _OPTIONS})
        reference = arguments.pop(name, None)
        command(**arguments, **{name: None if reference is None else Request(reference, options)})

    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == name:
            info = parameter.annotation.__metadata__[0]
            default = parameter.default.reference if isinstance(parameter.default, Request) else parameter.default
            kind: Any = str | None if default is None else str
            parameters += [parameter.replace(annotation=Annotated[kind, info], default=default), *more]
        else:
            parameters.append(parameter)
    with_data.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_data


def _is_request(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (Request, Request | None)
