"""Scores of one model's outputs over the test split: accuracy, agreement, confusion matrix, output divergence."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.targets.measurement import Measurement

if TYPE_CHECKING:
    from tfkd.data import Split

_Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of one model; the fields are those of `tfkd.validation.results.Row`."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    constant_accuracy: float
    worst_class: tuple[str, float]
    confusion: np.ndarray
    ties: float
    top5: float | None
    agreement: float | None
    flips: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class OutputDivergence:
    """Difference between the raw outputs of the same model on two targets, in quantization steps.

    Args:
        max_steps: Largest difference of one output value.
        mean_steps: Mean difference.
        share_changed: Share of the output values that differ, 0..1.
        against: Target that was compared with: the first that ran the model.
    """

    max_steps: int
    mean_steps: float
    share_changed: float
    against: str


@dataclasses.dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy of a model minus that of another model on the test split.

    Args:
        against: Name of the other model.
        points: The difference, in percentage points.
        interval: Its 95 % confidence interval, in percentage points.
    """

    against: str
    points: float
    interval: tuple[float, float]

    def to_json(self) -> JsonObject:
        """The difference as plain JSON values."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}


def score(outputs: np.ndarray, test: Split, reference_labels: np.ndarray | None) -> Scores:
    """Compares outputs with the labels and with the predictions of a reference.

    Args:
        outputs: Logits or their quantized values, [N, ...] with C values per sample.
        test: Split with the N samples.
        reference_labels: Labels that the reference predicts, int [N], or None.
    """
    # In NumPy: scikit-learn has all of this, but takes longer to import than a validation takes to run.
    logits = outputs.reshape(len(test), -1)
    predicted = logits.argmax(axis=1)
    right = predicted == test.y
    confusion = np.zeros((test.num_classes, test.num_classes), np.int64)
    np.add.at(confusion, (test.y, predicted), 1)
    count = confusion.sum(axis=1)
    recall = np.where(count > 0, np.diag(confusion) / np.maximum(count, 1), np.inf)  # skips classes without samples
    worst = int(recall.argmin())
    agreement, flips, top5 = None, None, None
    if test.num_classes > 10:
        largest = np.argsort(logits, axis=1, kind="stable")[:, -5:]
        top5 = float((largest == test.y[:, None]).any(axis=1).mean())
    if reference_labels is not None:
        reference_right = reference_labels == test.y
        agreement = float((predicted == reference_labels).mean())
        flips = count_flips(reference_right, right)
    return Scores(
        accuracy=float(right.mean()),
        accuracy_interval=_wilson(int(right.sum()), len(test)),
        constant_accuracy=float(count.max() / len(test)),
        worst_class=(test.class_names[worst], float(recall[worst])),
        confusion=confusion,
        ties=float(((logits == logits.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean()),
        top5=top5,
        agreement=agreement,
        flips=flips,
    )


def count_flips(right_before: np.ndarray, right_after: np.ndarray) -> tuple[int, int]:
    """Number of samples that regressed (right to wrong) and that were fixed (wrong to right).

    Args:
        right_before: Whether the first model is right, bool [N].
        right_after: Whether the second model is right, bool [N].
    """
    return int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())


def measure_difference(right: np.ndarray, other: np.ndarray, *, paired: bool, against: str) -> AccuracyDifference:
    """Compares the accuracy of two models.

    Args:
        right: Whether the model is right, bool [N].
        other: Whether the other model is right, bool [N], or [M] if it sees other samples.
        paired: Whether both see the same samples in the same order.
        against: Name of the other model.

    Reference:
        Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data
        (1998), method 10; without the correlation: Interval estimation for the difference between independent
        proportions (1998), method 10.
    """
    share, other_share = float(right.mean()), float(other.mean())
    low, high = _wilson(int(right.sum()), len(right))
    other_low, other_high = _wilson(int(other.sum()), len(other))
    correlation = _correlation(right, other) if paired else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))

    difference = share - other_share
    below = difference - distance(share - low, other_high - other_share)
    above = difference + distance(high - share, other_share - other_low)
    # 90 % - 89 % is 1 point, not 1.0000000000000009.
    return AccuracyDifference(against, round(100 * difference, 9), (100 * below, 100 * above))


def _correlation(right: np.ndarray, other: np.ndarray) -> float:
    """The phi coefficient of two models' right answers, with Newcombe's continuity correction."""
    both, neither = int((right & other).sum()), int((~right & ~other).sum())
    only, only_other = int((right & ~other).sum()), int((~right & other).sum())
    scale = (both + only) * (only_other + neither) * (both + only_other) * (only + neither)
    product: float = both * neither - only * only_other
    if product > 0:
        product = max(product - len(right) / 2, 0)
    return product / math.sqrt(scale) if scale else 0.0


def _wilson(right: int, samples: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share.

    Reference:
        Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    share = right / samples
    middle = share + _Z95**2 / (2 * samples)
    half = _Z95 * math.sqrt(share * (1 - share) / samples + (_Z95 / (2 * samples)) ** 2)
    low, high = ((middle + sign * half) / (1 + _Z95**2 / samples) for sign in (-1, 1))
    return (low if right else 0.0), (high if right < samples else 1.0)


def measure_divergence(measured: Measurement, first: Measurement | None) -> OutputDivergence | None:
    """Compares the outputs of two measurements.

    Args:
        measured: Measurement of one target.
        first: Measurement of the first target that ran the model; None if there is none.

    Returns:
        The divergence; None without a first measurement and for float outputs.
    """
    if first is None or measured.outputs[0].dtype.kind not in "iu":
        return None
    # int64: the difference of two int8 values does not fit into int8.
    steps = np.abs(measured.outputs[0].astype(np.int64) - first.outputs[0].astype(np.int64))
    return OutputDivergence(int(steps.max()), float(steps.mean()), float((steps > 0).mean()), first.target)
