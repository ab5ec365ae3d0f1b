"""Command-line options for the limits of a contract."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tfkd.validation.contract import Contract
from tfkd.validation.limits import CONFIDENT, LIMITS

NO_LIMITS = Contract()


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `contract` of a command by one option per limit, such as `--max-bytes`.

    Args:
        command: Function with a parameter `contract`, which receives the `Contract` made from the options.
    """
    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(
            limit.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[limit.number | None, typer.Option(help=limit.help)],
        )
        for limit in LIMITS.values()
    ]
    options.append(
        inspect.Parameter(
            "confident",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=False,
            annotation=Annotated[bool, typer.Option("--confident", help=CONFIDENT)],
        )
    )

    @functools.wraps(command)
    def with_contract(**arguments: Any) -> None:
        limits = {name: arguments.pop(name, None) for name in LIMITS}
        command(contract=Contract(**limits, confident=arguments.pop("confident", False)), **arguments)

    parameters = []
    for name, parameter in signature.parameters.items():
        parameters += options if name == "contract" else [parameter]
    with_contract.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_contract
