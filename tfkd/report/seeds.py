"""Comparison of several trainings over several seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Required, TypedDict

from tfkd.report import words
from tfkd.tasks import CLASSIFICATION, Metric


class SeedRun(TypedDict, total=False):
    """One training run.

    Args:
        seed: Random seed of the run.
        accuracy: Accuracy of the float student on the test split, 0..1.
        value: The first metric of a task other than classification, in place of the accuracy.
    """

    seed: Required[int]
    accuracy: float
    value: float


@dataclasses.dataclass(frozen=True)
class Series:
    """Test accuracies of one training with several seeds.

    Args:
        label: Name of the training.
        by_seed: Accuracy in percent for each seed.
        mean: Mean of the accuracies.
        stdev: Sample standard deviation; None for fewer than two seeds.
    """

    label: str
    by_seed: Mapping[int, float]
    mean: float
    stdev: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One training compared with another, paired by seed, in percentage points.

    Args:
        label: Name of the training.
        against: Name of the training that it is compared with.
        differences: Accuracy of `label` minus accuracy of `against`, for each seed that both have.
        mean: Mean of the differences.
        interval: 95 % confidence interval of the mean (paired Student t); None for fewer than two pairs.
        sentence: The result in words.
    """

    label: str
    against: str
    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    sentence: str


def series(seeds: Mapping[str, Sequence[SeedRun]]) -> list[Series]:
    """One `Series` for each training that has runs."""
    found = []
    for label, runs in seeds.items():
        by_seed = {
            int(run["seed"]): 100 * float(run["accuracy"]) if "accuracy" in run else float(run["value"]) for run in runs
        }
        values = list(by_seed.values())
        if values:
            stdev = statistics.stdev(values) if len(values) > 1 else None
            found.append(Series(label, by_seed, statistics.fmean(values), stdev))
    return found


def compare(all_series: Sequence[Series], metric: Metric = CLASSIFICATION.primary) -> list[Comparison]:
    """Compares each series with the first, over the seeds that both have.

    Args:
        all_series: The series.
        metric: What their values are.
    """
    from scipy import stats

    found = []
    for one in all_series[1:]:
        first = all_series[0]
        pairs = [seed for seed in one.by_seed if seed in first.by_seed]
        if not pairs:
            continue
        differences = tuple(one.by_seed[seed] - first.by_seed[seed] for seed in pairs)
        mean, interval = statistics.fmean(differences), None
        if len(pairs) > 1:
            half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(differences) / math.sqrt(len(pairs))
            interval = (mean - half, mean + half)
        sentence = _sentence(one.label, first.label, mean, interval, len(pairs), metric)
        found.append(Comparison(one.label, first.label, differences, mean, interval, sentence))
    return found


def _sentence(
    label: str, against: str, mean: float, interval: tuple[float, float] | None, pairs: int, metric: Metric
) -> str:
    subject = "Distillation" if "distill" in label.lower() else label
    name = "accuracy" if metric.name == CLASSIFICATION.primary.name else metric.label
    unit = " points" if metric.unit == "percent" else f" {metric.label}"
    gain = f"{label} {words.points(mean)}{unit} against {against}"
    if interval is None:
        return f"One seed does not show whether {subject.lower()} helped: {gain}. Run three seeds or more."
    low, high = (words.points(end) for end in interval)
    detail = f"{gain}, 95% confidence interval {low} to {high} over {pairs} paired seeds"
    low_gain, high_gain = sorted(metric.sign * end for end in interval)
    if low_gain > 0:
        return f"{subject} improved {name}: {detail}."
    if high_gain < 0:
        return f"{subject} {'reduced' if metric.larger_is_better else 'increased'} {name}: {detail}."
    return f"No significant effect of {subject.lower()}: {detail}. The interval includes zero."
