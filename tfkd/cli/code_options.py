"""Command-line options that execute the user's own Python code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfkd.cli.option_groups import described, with_options

_OPTIONS = {
    "imports": described(
        list[str] | None,
        None,
        "Python module to import first, from the working directory or installed, such as one that registers custom "
        "layers; may be repeated. Its code runs with your rights.",
        "--import",
    ),
    "allow_lambda": described(
        bool,
        False,
        "Load model files with Lambda layers, whose Python code is in the file and runs with your rights.",
        "--allow-lambda",
    ),
}


def code_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that loads Keras models the options `--import` and `--allow-lambda`.

    Args:
        command: Function of a command; it does not get the options.
    """
    return with_options(command, _OPTIONS, _allow)


def _allow(values: Mapping[str, Any]) -> Mapping[str, object]:
    if values["imports"] or values["allow_lambda"]:  # without them, a command may need no Keras
        from tfkd.models import own_code

        own_code.allow(values["imports"] or (), lambdas=values["allow_lambda"])
    return {}
