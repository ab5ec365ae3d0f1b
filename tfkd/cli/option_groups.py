"""Options that several commands have in common, added to a command by a decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.models import OptionInfo


class Option(NamedTuple):
    """One command-line option.

    Args:
        kind: Type of the value.
        default: Value where the option is not given.
        info: `typer.Option(...)`.
    """

    kind: Any
    default: object
    info: OptionInfo


def with_options(
    command: Callable[..., None],
    options: Mapping[str, Option],
    receive: Callable[[dict[str, Any]], Mapping[str, object]],
    *,
    at: str | None = None,
) -> Callable[..., None]:
    """A command with more options, whose values it gets in another form.

    Args:
        command: Function of a command.
        options: Options by the name of their parameter, in the order of the help.
        receive: Function from the values of the options to arguments of the command.
        at: Parameter of the command in whose place the options are; None for before the last, which is --json.
    """
    signature = inspect.signature(command, eval_str=True)

    def call(**arguments: object) -> None:
        values = {name: arguments.pop(name, option.default) for name, option in options.items()}
        command(**arguments, **receive(values))

    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=option.default,
            annotation=Annotated[option.kind, option.info],
        )
        for name, option in options.items()
    ]
    own = list(signature.parameters.values())
    place = len(own) - 1 if at is None else list(signature.parameters).index(at)
    after = own[place:] if at is None else own[place + 1 :]
    with_values: Any = functools.wraps(command)(call)
    with_values.__signature__ = signature.replace(parameters=[*own[:place], *added, *after])
    return cast(Callable[..., None], with_values)


def described(kind: Any, default: object, text: str | None, *flags: str) -> Option:
    """An option with a help text.

    Args:
        kind: Type of the value.
        default: Value where the option is not given.
        text: Help.
        *flags: Its names, such as `--confident`; by default the name of the parameter.
    """
    return Option(kind, default, typer.Option(*flags, help=text))
