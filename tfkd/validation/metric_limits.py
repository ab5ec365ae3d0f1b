"""The limits on the metrics of tasks, which follow from the metrics themselves; the accuracy has its own.

A metric `x` whose larger values are better has the limits `min_x`, `max_x_drop` and `max_x_drop_from_teacher`; an error
has `max_x`, `max_x_increase` and `max_x_increase_from_teacher`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tfkd.tasks import TASKS, Metric
from tfkd.validation.limit import Limit

if TYPE_CHECKING:
    from tfkd.tasks import Value
    from tfkd.validation.results import Row

_OTHERS = {
    "reference": ("", "the reference model, which is the student before conversion", "A reference model (--reference)"),
    "teacher": ("_from_teacher", "the teacher", "The teacher (--teacher)"),
}
_UNITS = {"percent": "in percent", "value": "in the unit of the labels", "ratio": "a number up to 1"}
_UNITS_OF_CHANGES = {"points": "in percentage points", "value": "in the unit of the labels", "ratio": "a number"}
_EXAMPLES = {
    "percent": "Write percent: 95 for 95 %.",
    "value": "Write the unit of the labels: 2.5.",
    "ratio": "Write a number up to 1: 0.9.",
}


def of_tasks() -> Iterator[Limit]:
    """The limits of all metrics but the accuracy, in the order of the registry, each once."""
    metrics: dict[str, Metric] = {}
    tasks: dict[str, tuple[str, ...]] = {}
    for task in TASKS.values():
        for metric in task.metrics[task.is_classification :]:
            metrics[metric.name] = metric
            tasks[metric.name] = (*tasks.get(metric.name, ()), task.name)
    for name, metric in metrics.items():
        yield from _of_metric(metric, tasks[name])


def _of_metric(metric: Metric, tasks: tuple[str, ...]) -> Iterator[Limit]:
    side, what = ("min", "Minimum") if metric.larger_is_better else ("max", "Maximum")
    yield Limit(
        name=f"{side}_{metric.name}",
        label=metric.label,
        unit=metric.unit,
        number=float,
        low=metric.low,
        high=metric.high,
        help=f"{what} {metric.label} on the test split, {_UNITS[metric.unit]} ({', '.join(tasks)}).",
        example=_EXAMPLES[metric.unit],
        missing="No target returned outputs, or the test split is too small for it.",
        read=_value(metric.name),
        interval=_interval(metric.name),
        quality=metric.is_quality,
        tasks=tasks,
    )
    change = "drop" if metric.larger_is_better else "increase"
    unit = "points" if metric.unit == "percent" else metric.unit
    for role, (suffix, other, missing) in _OTHERS.items():
        yield Limit(
            name=f"max_{metric.name}_{change}{suffix}",
            label=f"{metric.label} {change}{' from the teacher' if suffix else ''}",
            unit=unit,
            number=float,
            low=0,
            high=metric.high if metric.unit == "percent" else math.inf,
            help=f"Maximum {change} of {metric.label} against {other}, {_UNITS_OF_CHANGES[unit]} ({', '.join(tasks)}).",
            example="Write percentage points: 1.0 for one point." if unit == "points" else "Write a number: 0.1.",
            missing=f"{missing} is needed, and a target that returns outputs.",
            read=_value(metric.name, role, -metric.sign),
            interval=_interval(metric.name, role, -metric.sign),
            quality=metric.is_quality,
            against=role,
            tasks=tasks,
        )


def _of(row: Row, name: str, role: str | None) -> Value | None:
    """A metric of a row, or its difference from that of another model; None where it is unknown."""
    result = row.result or row.class_metrics
    if result is None:
        return None
    found = (result.metrics if role is None else result.differences.get(role, {})).get(name)
    return found if found is not None and math.isfinite(found.value) else None


def _value(name: str, role: str | None = None, sign: int = 1) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        found = _of(row, name, role)
        return None if found is None else sign * found.value

    return read


def _interval(name: str, role: str | None = None, sign: int = 1) -> Callable[[Row], tuple[float, float] | None]:
    def read(row: Row) -> tuple[float, float] | None:
        found = _of(row, name, role)
        if found is None or found.interval is None:
            return None
        low, high = sorted(sign * end for end in found.interval)
        return low, high

    return read
