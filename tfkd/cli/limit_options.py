"""Command-line options for the limits of a contract."""

from __future__ import annotations

from collections.abc import Callable

from tfkd.cli.option_groups import described, with_options
from tfkd.validation.contract import Contract
from tfkd.validation.limits import CONFIDENT, LIMITS

NO_LIMITS = Contract()
_OPTIONS = {limit.name: described(limit.number | None, None, limit.help) for limit in LIMITS.values()}
_OPTIONS["confident"] = described(bool, False, CONFIDENT, "--confident")


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `contract` of a command by one option per limit, such as `--max-bytes`.

    Args:
        command: Function with a parameter `contract`, which receives the `Contract` made from the options.
    """
    return with_options(command, _OPTIONS, lambda values: {"contract": Contract(**values)}, at="contract")
