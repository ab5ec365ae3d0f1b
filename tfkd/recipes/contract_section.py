"""The table [contract] of a recipe, whose keys are the limits of a contract."""

from __future__ import annotations

import pydantic
from pydantic import Field

from tfkd.recipes.section import Section
from tfkd.validation.contract import Contract
from tfkd.validation.limits import CONFIDENT, LIMITS


def _limits(section: Section) -> Section:
    """Checks that each limit of the contract is in its range."""
    Contract(**section.model_dump())
    return section


_LIMIT_EXAMPLES = {
    "percent": 90.0, "points": 1.0, "bytes": 65_536, "instructions": 12_000_000, "ms": 5.0, "steps": 2, "value": 2.5,
    "ratio": 0.9,
}  # fmt: skip
ContractSection = pydantic.create_model(
    "ContractSection",
    __base__=Section,
    __doc__="Limits that the shipped model must keep on every target. A limit that is left out is not checked. "
    "Without min_accuracy, max_drop_from_teacher or another limit on a metric against labels or teacher, "
    "the verdict is UNKNOWN.",
    __validators__={"_check_limits": pydantic.model_validator(mode="after")(_limits)},
    **{
        limit.name: (
            limit.number | None,
            Field(default=None, description=limit.help, examples=[_LIMIT_EXAMPLES[limit.unit]]),
        )
        for limit in LIMITS.values()
    },
    confident=(bool, Field(default=False, description=CONFIDENT)),  # type: ignore[call-overload]
)
