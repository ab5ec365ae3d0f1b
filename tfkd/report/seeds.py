"""Whether one way of training beats another over several seeds, with the spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Series:
    """Test accuracies of one way of training, in percent, by seed.

    Args:
        label: the way of training.
        by_seed: accuracy in percent for each seed.
        mean: of them.
        stdev: sample standard deviation; None for fewer than two seeds.
    """

    label: str
    by_seed: Mapping[int, float]
    mean: float
    stdev: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One way of training against another, paired by seed, in percentage points.

    Args:
        label: the way of training.
        against: the one that it is compared with.
        differences: label minus against for each seed that both have.
        mean: of the differences.
        interval: 95 % interval of the mean (paired Student t); None for fewer than two pairs.
        sentence: what that says.
    """

    label: str
    against: str
    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    sentence: str


def series(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Series]:
    """One `Series` for each label that has runs."""
    found = []
    for label, runs in seeds.items():
        by_seed = {int(run["seed"]): 100 * float(run["accuracy"]) for run in runs}
        values = list(by_seed.values())
        if values:
            stdev = statistics.stdev(values) if len(values) > 1 else None
            found.append(Series(label, by_seed, statistics.fmean(values), stdev))
    return found


def compare(all_series: Sequence[Series]) -> list[Comparison]:
    """Each series against the first, over the seeds that both have."""
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
            reach = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(differences) / math.sqrt(len(pairs))
            interval = (mean - reach, mean + reach)
        sentence = _sentence(one.label, first.label, mean, interval, len(pairs))
        found.append(Comparison(one.label, first.label, differences, mean, interval, sentence))
    return found


def _sentence(label: str, against: str, mean: float, interval: tuple[float, float] | None, pairs: int) -> str:
    from tfkd.report.words import points

    subject = "Distillation" if "distill" in label.lower() else label
    gap = f"{label} {points(mean)} points against {against}"
    if interval is None:
        return f"One seed cannot tell whether {subject.lower()} paid: {gap}. Run three or more."
    detail = f"{gap}, 95% interval {points(interval[0])} to {points(interval[1])} over {pairs} paired seeds"
    if interval[0] > 0:
        return f"{subject} paid: {detail}."
    if interval[1] < 0:
        return f"{subject} cost accuracy: {detail}."
    return f"A gain from {subject.lower()} is not shown: {detail}, which includes no difference."
