"""Bootstrap intervals, with all resamples of a metric computed at once.

A resample draws N of N samples with replacement; it is the number of times that each sample was drawn, a row of
`counts`. A metric of a resample is the metric with these numbers as weights of the samples. So two models on the same
samples, with the same counts, have paired replicates, whose difference has the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.tasks.task import ConstantAnswer, Value

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
PERMUTATIONS = 200
# Values of one block of counts, which limits the memory.
_BLOCK = 4_000_000
# With fewer positives or negatives, a threshold that is chosen is worse than the default.
_LEAST_OF_EACH = 5
# Points of a curve in the report.
_MOST_POINTS = 200
# With more undefined replicates than this, such as those without a positive sample, there is no interval.
_MOST_UNDEFINED = 0.05


def counts(samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The resamples in blocks of float64 [B, N], in total `RESAMPLES` rows; the same for the same arguments."""
    import numpy as np

    rng, left = np.random.default_rng(seed), RESAMPLES
    while left:
        rows = min(left, max(1, _BLOCK // samples))
        drawn = rng.integers(0, samples, (rows, samples)) + samples * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples).astype(np.float64)
        left -= rows


def replicate(metric: Callable[[np.ndarray], np.ndarray], samples: int, seed: int = 0) -> np.ndarray:
    """A metric on all resamples.

    Args:
        metric: Function of weights [B, N] that returns [B, ...].
        samples: Number N of samples.
        seed: Seed of the resamples.
    """
    import numpy as np

    return np.concatenate([metric(block) for block in counts(samples, seed)])


def interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """The 95 % percentile interval; None where too many replicates are undefined.

    Reference:
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3.
    """
    import numpy as np

    finite = replicates[np.isfinite(replicates)]
    if len(finite) < (1 - _MOST_UNDEFINED) * len(replicates):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def difference(value: float, other: float, replicates: np.ndarray, others: np.ndarray) -> Value:
    """The difference of two values with its interval.

    Args:
        value: Value of a model.
        other: Value of the model that it is compared with.
        replicates: Replicates of the first, [B].
        others: Replicates of the second, [B]; of the same resamples where the samples are the same.
    """
    import numpy as np

    with np.errstate(invalid="ignore"):
        return Value(round(value - other, 9), interval(replicates - others))


def is_above(replicates: np.ndarray, bound: float | np.ndarray) -> bool | None:
    """Whether a value is significantly above a bound, at 95 %, one-sided; None where the replicates do not decide.

    Args:
        replicates: Replicates of the value, [B].
        bound: The bound, or its replicates [B].
    """
    import numpy as np

    excess = replicates - bound
    finite = excess[np.isfinite(excess)]
    if len(finite) < (1 - _MOST_UNDEFINED) * len(excess):
        return None
    return bool(np.quantile(finite, 0.05) > 0)


class Ranking:
    """Samples in the order of a score, for weighted ROC AUC and average precision of all resamples at once.

    Args:
        scores: Scores [N]; equal ones are one threshold.
        positive: Whether each sample is positive, bool [N].
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        import numpy as np

        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))  # last sample of each threshold
        self._positive = positive[self._order].astype(np.float64)

    def _cumulated(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the positives and of all samples at or above each threshold, [B, T]."""
        import numpy as np

        ranked = weights[:, self._order]
        true = np.cumsum(ranked * self._positive, axis=1)[:, self._ends]
        return true, np.cumsum(ranked, axis=1)[:, self._ends]

    def roc_auc(self, weights: np.ndarray) -> np.ndarray:
        """Area under the ROC curve, [B, N] -> [B]; NaN where a resample lacks one of the two classes."""
        import numpy as np

        true, called = self._cumulated(weights)
        false = called - true
        steps = np.diff(false, axis=1, prepend=0.0)
        middles = (true + np.concatenate([np.zeros((len(true), 1)), true[:, :-1]], axis=1)) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (steps * middles).sum(axis=1) / (true[:, -1] * false[:, -1])

    def equal_error_rate(self, weights: np.ndarray) -> np.ndarray:
        """The rate at which as many negatives are accepted as positives rejected, [B, N] -> [B]; NaN without either.

        Between two thresholds both rates are interpolated linearly.
        """
        import numpy as np

        true, called = self._cumulated(weights)
        start = np.zeros((len(true), 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            accepted = np.concatenate([start, (called - true) / (called - true)[:, -1:]], axis=1)
            rejected = 1 - np.concatenate([start, true / true[:, -1:]], axis=1)
        rows, after = np.arange(len(true)), np.argmax(accepted >= rejected, axis=1)
        before = np.maximum(after - 1, 0)
        gap_before, gap_after = ((rejected - accepted)[rows, place] for place in (before, after))
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(gap_before > gap_after, gap_before / (gap_before - gap_after), 0.0)
        found = accepted[rows, before] + share * (accepted[rows, after] - accepted[rows, before])
        return np.where(np.isfinite(accepted).all(axis=1) & np.isfinite(rejected).all(axis=1), found, np.nan)

    def partial_roc_auc(self, weights: np.ndarray, most: float) -> np.ndarray:
        """Standardized area under the ROC curve up to a false positive rate, [B, N] -> [B].

        The area is mapped so that chance has 0.5 and the best curve 1; NaN where a resample lacks one of both classes.

        Args:
            weights: Weights of the samples, [B, N].
            most: Largest false positive rate, 0 < most < 1.

        Reference:
            McClish: Analyzing a portion of the ROC curve, Medical Decision Making 9, 1989.
        """
        import numpy as np

        true, called = self._cumulated(weights)
        start = np.zeros((len(true), 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = np.concatenate([start, (called - true) / (called - true)[:, -1:]], axis=1)
            recall = np.concatenate([start, true / true[:, -1:]], axis=1)
            steps, rises = np.diff(rate, axis=1), np.diff(recall, axis=1)
            inside = np.clip((most - rate[:, :-1]) / np.where(steps > 0, steps, 1.0), 0, 1)  # share of each step
        area = (steps * inside * (recall[:, :-1] + rises * inside / 2)).sum(axis=1)
        chance = most**2 / 2
        return (1 + (area - chance) / (most - chance)) / 2

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Average precision, `Σ (R_n − R_{n−1}) · P_n`, [B, N] -> [B]; NaN where a resample has no positive."""
        import numpy as np

        true, called = self._cumulated(weights)
        steps = np.diff(true, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (steps * true / np.maximum(called, 1e-300)).sum(axis=1) / true[:, -1]

    def average_precision_of(self, permutations: np.ndarray) -> np.ndarray:
        """Average precision of permuted labels, permutations [P, N] -> [P]."""
        import numpy as np

        true = np.cumsum(self._positive[permutations], axis=1)[:, self._ends]
        steps = np.diff(true, axis=1, prepend=0.0)
        return (steps * true / (self._ends + 1)).sum(axis=1) / true[:, -1]


def ranks_above(scores: np.ndarray, positive: np.ndarray) -> bool | None:
    """Whether positives rank above negatives: the Mann-Whitney U test, one-sided at 95 %.

    Args:
        scores: Scores [N].
        positive: Whether each sample is positive, bool [N].

    Returns:
        None with fewer than 3 of either.
    """
    from scipy.stats import mannwhitneyu

    if positive.sum() < 3 or (~positive).sum() < 3:
        return None
    return bool(mannwhitneyu(scores[positive], scores[~positive], alternative="greater").pvalue < 0.05)


def chance(scores: np.ndarray, positive: np.ndarray) -> ConstantAnswer:
    """The comparison of a ROC AUC with that of a constant answer.

    Args:
        scores: Scores [N].
        positive: Whether each sample is positive, bool [N].
    """
    return ConstantAnswer("roc_auc", 50.0, ranks_above(scores, positive), "A constant answer has a ROC AUC of 50%.")


def is_significant(value: float, of_permutations: np.ndarray) -> bool:
    """Whether a value has a probability of at most 5 % if labels and outputs are independent.

    Args:
        value: Value of a model.
        of_permutations: Values with the samples' labels permuted at random, [P].

    Reference:
        Phipson, Smyth: Permutation P-values Should Never Be Zero (arXiv:1603.05766), section 3.
    """
    return bool((1 + (of_permutations >= value - 1e-12).sum()) / (1 + len(of_permutations)) <= 0.05)


def permutations(samples: int, seed: int = 0) -> np.ndarray:
    """Random orders of the samples, int64 [P, N]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(samples), (PERMUTATIONS, 1)), axis=1)


def f1(weights: np.ndarray, positive: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """F1 of each label: [B, N], bool [N, C], bool [N, C] -> [B, C]; 0 without positives and predictions."""
    import numpy as np

    true = weights @ (positive & predicted).astype(np.float64)
    total = weights @ positive.astype(np.float64) + weights @ predicted.astype(np.float64)
    return 2 * true / np.maximum(total, 1e-300)


def are_enough(positive: np.ndarray) -> bool:
    """Whether there are enough positive and negative samples to choose a threshold, bool [N, C] -> bool."""
    counts = positive.sum(axis=0)
    return bool(min(counts.max(), (len(positive) - counts).max()) >= _LEAST_OF_EACH)


def best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold with the highest F1: in the middle between two scores, so that rounding moves few samples.

    Args:
        scores: Scores [N, C].
        positive: Whether each label applies, bool [N, C]; the mean F1 over the C labels counts.
    """
    import numpy as np

    distinct = np.unique(scores)
    if len(distinct) > 256:  # of the many scores of a float model, the quantiles
        distinct = np.unique(np.quantile(scores, np.linspace(0, 1, 257)))
    candidates = np.append(distinct[0] - 1.0, (distinct[:-1] + distinct[1:]) / 2)
    ones = np.ones((1, len(scores)))
    values = [float(f1(ones, positive, scores > one).mean()) for one in candidates]
    best = np.flatnonzero(np.isclose(values, max(values), rtol=0, atol=1e-12))
    return float(candidates[best[len(best) // 2]])


def curves(scores: np.ndarray, positive: np.ndarray, name: str) -> JsonObject:
    """The ROC curve and the curve of precision and recall for the report, thinned out.

    Args:
        scores: Scores [N].
        positive: Whether each sample is positive, bool [N]; some are, some are not.
        name: Name of the positives.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_positive, true_positive, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores)

    def thinned(*lines: np.ndarray) -> list[list[float]]:
        rows = np.unique(np.linspace(0, len(lines[0]) - 1, _MOST_POINTS).round().astype(int))
        return [np.round(line[rows], 5).tolist() for line in lines]

    return {
        "positive": name,
        "share": float(positive.mean()),
        "roc": thinned(false_positive, true_positive),
        "pr": thinned(recall, precision),
    }
