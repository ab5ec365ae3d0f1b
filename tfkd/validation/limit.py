"""One limit of a contract: its texts, its range and the value that it applies to."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfkd.validation.results import Row

    Interval = tuple[float, float]

# An emulator executes the same kernels, so its outputs and its memory may decide. Its time is not the device's.
_EXECUTED = frozenset({"measured", "emulated"})
MEASURED = frozenset({"measured"})


@dataclasses.dataclass(frozen=True)
class Limit:
    """Everything about one limit of a contract: its texts, its range and the value that it applies to.

    Args:
        name: Field of `Contract`. It starts with `min` or `max`.
        label: Name of the value in reports.
        unit: Unit of limit and value: `percent`, `points`, `bytes`, `instructions`, `ms`, `steps`, `value` (that of
            the labels) or `ratio` (none).
        number: Type of the command-line option.
        low: Smallest permitted limit.
        high: Largest permitted limit.
        help: Help text of the command-line option.
        example: How to write a limit, for the error message.
        missing: What to say if no target returned the value.
        read: Takes a row; returns the value, or None if unknown.
        interval: Takes a row; returns the 95 % interval of the value, or None if the value has none.
        quality: Whether the limit bounds the quality of the model. A contract needs one of these against labels or
            teacher.
        against: Role of the Keras model that is compared: `reference`, `teacher` or `alone`, or None.
        evidence_field: Key of `Measurement.evidence` that says how the value was obtained; None for a property of the
            file itself, which counts as measured.
        decisive: Evidence that may decide about this limit.
        tasks: Names of the tasks that have the value; None for all.
    """

    name: str
    label: str
    unit: str
    number: type[int] | type[float]
    low: float
    high: float
    help: str
    example: str
    missing: str
    read: Callable[[Row], float | None]
    interval: Callable[[Row], Interval | None] = lambda row: None
    quality: bool = False
    against: str | None = None
    evidence_field: str | None = "outputs"
    decisive: frozenset[str] = _EXECUTED
    tasks: tuple[str, ...] | None = None

    @property
    def range(self) -> str:
        """The permitted values, such as `in 0..100` or `>= 1`."""
        if math.isfinite(self.high):
            return f"in {self.low:g}..{self.high:g}" if math.isfinite(self.low) else f"<= {self.high:g}"
        return f">= {self.low:g}"

    def refusal(self, value: float) -> str | None:
        """Why a value cannot be the limit and what to write; None if it is a finite number in the range."""
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not self.low <= value <= self.high:
            return f"must be a number {self.range}. Received: {self.name}={value!r}. {self.example}"
        # Once these limits were shares, 0..1. Read as percent, an old limit would permit any model.
        if self.unit == "percent" and 0 < value <= 1:
            return (
                f"is in percent now, not a share. Received: {self.name}={value!r}. "
                f"Write {self.name}={round(100 * value, 9):g}."
            )
        return None

    @property
    def sign(self) -> int:
        """1 if larger values are better, -1 if smaller ones are."""
        return -1 if self.name.startswith("max") else 1
