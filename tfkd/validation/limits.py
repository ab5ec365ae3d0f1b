"""The limits that a contract can have: their texts, their range and the value that each applies to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfkd.tasks import CLASSIFICATION
from tfkd.validation.limit import MEASURED, Limit
from tfkd.validation.metric_limits import of_tasks

if TYPE_CHECKING:
    from tfkd.validation.results import Row

    Interval = tuple[float, float]

__all__ = ["CONFIDENT", "LIMITS", "Limit", "percent"]


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

_CLASSIFICATION = (CLASSIFICATION.name,)

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
            tasks=_CLASSIFICATION,
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
            tasks=_CLASSIFICATION,
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
            tasks=_CLASSIFICATION,
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
            tasks=_CLASSIFICATION,
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
            tasks=_CLASSIFICATION,
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
            name="max_bytes_ratio_to_teacher",
            label="Size relative to the teacher",
            unit="ratio",
            number=float,
            low=1e-6,
            high=1,
            help="Maximum size of the .tflite file relative to the weights of the teacher in memory, a number up to 1 "
            "such as 0.25.",
            example="Write a number up to 1: 0.25 for a quarter.",
            missing="The teacher (--teacher) is needed.",
            read=lambda row: row.bytes / row.teacher_bytes if row.teacher_bytes else None,
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
            name="max_instructions",
            label="Instructions",
            unit="instructions",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum number of instructions that an emulated microcontroller executes for one inference.",
            example="Write a number of instructions: 12_000_000.",
            missing="No target counted instructions. Add a microcontroller such as cortex-m4.",
            read=lambda row: row.measurement.instructions if row.measurement else None,
            evidence_field="instructions",
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
            decisive=MEASURED,
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
        *of_tasks(),
    )
}
"""The limits of a contract by name. Options of the command line and labels of the reports come from here."""
