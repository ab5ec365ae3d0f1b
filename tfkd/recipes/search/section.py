"""The table [search] of a recipe: which keys vary, and within which values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Self

import pydantic
from pydantic import Field

from tfkd._internal.suggestion import suggestion
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError
from tfkd.recipes.distillation_section import Distillation
from tfkd.recipes.section import Section
from tfkd.recipes.sections import Data, Student

_RANGE_KEYS = frozenset({"low", "high", "step", "log"})
# Keys that a search cannot vary: the candidates differ in them by definition, or one value holds for all.
_FIXED: dict[str, set[str]] = {
    "distillation": {"seeds", "epochs", "allow_bad_teacher"},
    "data": {"teacher", "validation"},
    "student": set(),
}
_VALUES = "Values are a list, or { low = 8, high = 32 } with step or log where wanted."


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values.

    Args:
        values: The values, JSON values of any type.
    """

    values: tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """A number from low to high, both included.

    Args:
        low: Smallest value.
        high: Largest value.
        step: Distance of two values; None for 1 of integers and for any real number.
        log: Whether the logarithm of the value is drawn evenly; both ends are > 0 then.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False


class Search(Section):
    """What `tfkd search` varies. The tables student, distillation and data have the keys of the tables of these names.

    A value is a list of choices, or a range such as `{ low = 8, high = 32, step = 4 }` or `{ low = 1e-3, high = 1e-1,
    log = true }`. Keys that are not here keep the value that they have in the recipe.
    """

    trials: int = Field(
        default=30,
        ge=1,
        description="Candidates to train. Those outside of the contract are not trained and do not count.",
    )
    hours: float | None = Field(
        default=None,
        examples=[2.0],
        gt=0,
        description="Time after which a call starts no further candidate and interrupts the one that trains, as soon "
        "as one is finished; the final training comes afterwards. Left out: no limit.",
    )
    epochs: int | None = Field(
        default=None,
        examples=[10],
        ge=1,
        description="Passes over the training split for each candidate. Left out: distillation.epochs, which the final "
        "training has in any case.",
    )
    reduction: int = Field(
        default=3,
        ge=2,
        description="Reduction factor of successive halving (arXiv 1502.07943). With 3, the best third of "
        "the candidates that have trained for a ninth of the epochs, rounded up, trains on to three times as many, and "
        "the best third of these to the end.",
    )
    student: JsonObject = Field(
        default={},
        examples=[{"options": {"width": {"low": 8, "high": 32, "step": 4}}}],
        description="Keys of [student] that vary, such as model and options.",
    )
    distillation: JsonObject = Field(
        default={},
        examples=[{"alpha": [0.5, 0.9], "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}],
        description="Keys of [distillation] that vary, such as alpha, temperature, loss, learning_rate, weight_decay "
        "and augment.",
    )
    data: JsonObject = Field(
        default={},
        examples=[{"image_size": [[64, 64], [96, 96]]}],
        description="Keys of [data] that vary, such as image_size. A teacher that takes one size needs [data.teacher].",
    )

    @pydantic.model_validator(mode="after")
    def _check_keys(self) -> Self:
        if not self.space:
            raise InputError(f"nothing varies. Add a table such as [search.student]. {_VALUES}")
        return self

    @property
    def space(self) -> dict[tuple[str, ...], Choice | Range]:
        """What varies, by the path of its key in the recipe.

        Raises:
            InputError: A key is unknown or cannot vary, or a value is neither a list nor a range.
        """
        tables: dict[str, type[pydantic.BaseModel]] = {"student": Student, "distillation": Distillation, "data": Data}
        found: dict[tuple[str, ...], Choice | Range] = {}
        for table, section in tables.items():
            for path, value in _leaves(getattr(self, table), (table,)):
                name = ".".join(path)
                known = set(section.model_fields) - _FIXED[table]
                if len(path) > 1 and path[1] not in known:
                    hint = suggestion(path[1], known) or f" Keys: {', '.join(sorted(known))}."
                    raise InputError(f"{name} is no key that a search can vary.{hint}")
                found[path] = _values(name, value)
        return found


def _leaves(table: JsonRecord, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values of nested tables with their paths; a range is a value."""
    for key, value in table.items():
        if isinstance(value, Mapping) and not (value and value.keys() <= _RANGE_KEYS):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _values(name: str, value: object) -> Choice | Range:
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys():
        raise InputError(f"{name} must be a list or a range. Received: {value!r}. {_VALUES}")
    numbers = [value[key] for key in ("low", "high", "step") if key in value]
    real = [one for one in numbers if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)]
    found = Range(value["low"], value["high"], value.get("step"), value.get("log", False))
    if len(real) < len(numbers) or not found.low < found.high or not isinstance(found.log, bool):
        raise InputError(f"{name} must have numbers with low < high, and log = true or false. Received: {value!r}.")
    if found.log and (found.low <= 0 or found.step is not None) or (found.step is not None and found.step <= 0):
        raise InputError(f"{name} must have step > 0, and with log low > 0 and no step. Received: {value!r}.")
    return found
