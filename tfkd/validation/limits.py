"""The limits that a contract can have: their texts, their range and the value that each applies to."""

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
_MEASURED = frozenset({"measured"})


@dataclasses.dataclass(frozen=True)
class Limit:
    """Everything about one limit of a contract: its texts, its range and the value that it applies to.

    Args:
        name: Field of `Contract`. It starts with `min` or `max`.
        label: Name of the value in reports.
        unit: Unit of limit and value: `percent`, `points`, `bytes`, `ms` or `steps`.
        number: Type of the command-line option.
        low: Smallest permitted limit.
        high: Largest permitted limit.
        help: Help text of the command-line option.
        example: How to write a limit, for the error message.
        missing: What to say if no target returned the value.
        read: Takes a row; returns the value, or None if unknown.
        interval: Takes a row; returns the 95 % interval of the value, or None if the value has none.
        quality: Whether the limit bounds the accuracy of the model. A contract needs at least one of these.
        against: Role of the Keras model whose accuracy is compared: `reference`, `teacher` or `alone`, or None.
        evidence_field: Key of `Measurement.evidence` that says how the value was obtained; None for a property of the
            file itself, which counts as measured.
        decisive: Evidence that may decide about this limit.
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

    @property
    def range(self) -> str:
        """The permitted values, such as `in 0..100` or `>= 1`."""
        return f"in {self.low:g}..{self.high:g}" if math.isfinite(self.high) else f">= {self.low:g}"

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


def percent(share: float | None) -> float | None:
    """A share as percent, rounded where floating point adds digits: 100 * 0.07 is 7, not 7.000000000000001."""
    return None if share is None else round(100 * share, 9)


def _accuracy_interval(row: Row) -> Interval | None:
    low, high = row.accuracy_interval or (None, None)
    return None if low is None or high is None else (100 * low, 100 * high)


def _gain(role: str) -> Callable[[Row], float | None]:
    """The accuracy of a row minus that of another model, in points."""
    return lambda row: row.differences[role].points if role in row.differences else None


def _gain_interval(role: str) -> Callable[[Row], Interval | None]:
    return lambda row: row.differences[role].interval if role in row.differences else None


def _drop(role: str) -> Callable[[Row], float | None]:
    """The accuracy of another model minus that of a row, in points."""
    return lambda row: -row.differences[role].points if role in row.differences else None


def _drop_interval(role: str) -> Callable[[Row], Interval | None]:
    def interval(row: Row) -> Interval | None:
        low, high = row.differences[role].interval if role in row.differences else (None, None)
        return None if low is None or high is None else (-high, -low)

    return interval


def _p90_ms(row: Row) -> float | None:
    return row.measurement.latency.p90_ms if row.measurement and row.measurement.latency else None


def _memory(field: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.measurement.memory, field) if row.measurement else None


CONFIDENT = (
    "Limits on accuracy must hold for the end of the 95% interval that counts against the model, not only for the "
    "number that was measured."
)
"""Help text of `Contract.confident`."""

_PERCENT = "Write percent: 95 for 95 %."
_POINTS = "Write percentage points: 1.0 for one point."
_NO_OUTPUTS = "No target returned outputs."
_NO_REFERENCE = "A reference model (--reference) is needed, and a target that returns outputs."

LIMITS: dict[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit(
            name="min_accuracy",
            label="Accuracy",
            unit="percent",
            number=float,
            low=0,
            high=100,
            help="Minimum accuracy on the test split, in percent, such as 90.",
            example=_PERCENT,
            missing=_NO_OUTPUTS,
            read=lambda row: percent(row.accuracy),
            interval=_accuracy_interval,
            quality=True,
        ),
        Limit(
            name="max_accuracy_drop",
            label="Accuracy drop",
            unit="points",
            number=float,
            low=0,
            high=100,
            help="Maximum accuracy drop against the reference model, which is the student before conversion, in "
            "percentage points.",
            example=_POINTS,
            missing=_NO_REFERENCE,
            read=_drop("reference"),
            interval=_drop_interval("reference"),
            quality=True,
            against="reference",
        ),
        Limit(
            name="max_drop_from_teacher",
            label="Accuracy drop from the teacher",
            unit="points",
            number=float,
            low=0,
            high=100,
            help="Maximum accuracy drop against the teacher, in percentage points.",
            example=_POINTS,
            missing="The teacher (--teacher) is needed, and a target that returns outputs.",
            read=_drop("teacher"),
            interval=_drop_interval("teacher"),
            quality=True,
            against="teacher",
        ),
        Limit(
            name="min_gain_over_alone",
            label="Accuracy gain over the student alone",
            unit="points",
            number=float,
            low=0,
            high=100,
            help="Minimum accuracy gain over the same student trained without a teacher, in percentage points.",
            example=_POINTS,
            missing="The student trained without a teacher (--alone) is needed, and a target that returns outputs.",
            read=_gain("alone"),
            interval=_gain_interval("alone"),
            quality=True,
            against="alone",
        ),
        Limit(
            name="min_agreement",
            label="Agreement",
            unit="percent",
            number=float,
            low=0,
            high=100,
            help="Minimum share of test samples with the same label as the reference model predicts, in percent.",
            example=_PERCENT,
            missing=_NO_REFERENCE,
            read=lambda row: percent(row.agreement),
        ),
        Limit(
            name="max_bytes",
            label="File size",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum size of the .tflite file, in bytes.",
            example="Write bytes: 50_000 for 50 kB.",
            missing="There is no file.",
            read=lambda row: row.bytes,
            evidence_field=None,
        ),
        Limit(
            name="max_arena_bytes",
            label="Tensor arena",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum size of the tensor arena, in bytes.",
            example="Write bytes: 65_536 for 64 KiB.",
            missing="No target reported the tensor arena. Add the target tflm.",
            read=_memory("arena_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_ram_bytes",
            label="RAM",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum RAM on a microcontroller (tensor arena and stack), in bytes.",
            example="Write bytes: 65_536 for 64 KiB.",
            missing="No target reported RAM. Add a microcontroller such as cortex-m4.",
            read=_memory("ram_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_flash_bytes",
            label="Flash",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum flash on a microcontroller (code and weights), in bytes.",
            example="Write bytes: 262_144 for 256 KiB.",
            missing="No target reported flash. Add a microcontroller such as cortex-m4.",
            read=_memory("flash_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_p90_ms",
            label="Latency p90",
            unit="ms",
            number=float,
            low=1e-9,
            high=math.inf,
            help="Maximum 90th percentile of the measured latency, in milliseconds.",
            example="Write milliseconds: 5.0.",
            missing="No target measured latency. Add a target that runs on the device itself.",
            read=lambda row: _p90_ms(row),
            evidence_field="latencies_ns",
            decisive=_MEASURED,
        ),
        Limit(
            name="max_divergence_steps",
            label="Output divergence",
            unit="steps",
            number=int,
            low=0,
            high=math.inf,
            help="Maximum difference of one output value between two targets, in quantization steps.",
            example="Write quantization steps: 2.",
            missing="There are no two integer outputs to compare. Validate a quantized model on two targets.",
            read=lambda row: row.output_divergence.max_steps if row.output_divergence else None,
        ),
    )
}
"""The limits of a contract by name. Options of the command line and labels of the reports come from here."""
