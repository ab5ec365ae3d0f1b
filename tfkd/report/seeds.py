"""Comparison of several trainings over several seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

from tfkd.report import words


class SeedRun(TypedDict):
    """One training run.

    Args:
        seed: Random seed of the run.
        accuracy: Accuracy of the float student on the test split, 0..1.
    """

    seed: int
    accuracy: float


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
        by_seed = {int(run["seed"]): 100 * float(run["accuracy"]) for run in runs}
        values = list(by_seed.values())
        if values:
            stdev = statistics.stdev(values) if len(values) > 1 else None
            found.append(Series(label, by_seed, statistics.fmean(values), stdev))
    return found


def compare(all_series: Sequence[Series]) -> list[Comparison]:
    """Compares each series with the first, over the seeds that both have."""
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
        sentence = _sentence(one.label, first.label, mean, interval, len(pairs))
        found.append(Comparison(one.label, first.label, differences, mean, interval, sentence))
    return found


def _sentence(label: str, against: str, mean: float, interval: tuple[float, float] | None, pairs: int) -> str:
    subject = "Distillation" if "distill" in label.lower() else label
    gain = f"{label} {words.points(mean)} points against {against}"
    if interval is None:
        return f"One seed does not show whether {subject.lower()} helped: {gain}. Run three seeds or more."
    low, high = (words.points(end) for end in interval)
    detail = f"{gain}, 95% confidence interval {low} to {high} over {pairs} paired seeds"
    if interval[0] > 0:
        return f"{subject} improved accuracy: {detail}."
    if interval[1] < 0:
        return f"{subject} reduced accuracy: {detail}."
    return f"No significant effect of {subject.lower()}: {detail}. The interval includes zero."
