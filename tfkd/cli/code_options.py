"""Command-line options that execute the user's own Python code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

_OPTIONS: dict[str, tuple[Any, Any, Any]] = {
    "imports": (
        list[str] | None,
        None,
        typer.Option(
            "--import",
            help="Python module to import first, from the working directory or installed, such as one that registers "
            "custom layers; may be repeated. Its code runs with your rights.",
        ),
    ),
    "allow_lambda": (
        bool,
        False,
        typer.Option(
            "--allow-lambda",
            help="Load model files with Lambda layers, whose Python code is in the file and runs with your rights.",
        ),
    ),
}


def code_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that loads Keras models the options `--import` and `--allow-lambda`.

    Args:
        command: Function of a command; it does not get the options.
    """
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def with_code(**arguments: Any) -> None:
        imports, allow_lambda = (arguments.pop(name, default) for name, (_, default, _) in _OPTIONS.items())
        if imports or allow_lambda:  # without them, a command may need no Keras
            from tfkd.models import own_code

            own_code.allow(imports or (), lambdas=allow_lambda)
        command(**arguments)

    options = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[kind, info]
        )
        for name, (kind, default, info) in _OPTIONS.items()
    ]
    *parameters, last = signature.parameters.values()  # --json stays the last
    with_code.__signature__ = signature.replace(parameters=[*parameters, *options, last])  # type: ignore[attr-defined]
    return with_code
