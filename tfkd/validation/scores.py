"""What the outputs of one model over the test split say: accuracy, agreement, confusion, output divergence."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.targets.measurement import Measurement

if TYPE_CHECKING:
    from tfkd.data import Split


@dataclasses.dataclass(frozen=True)
class OutputDivergence:
    """How far the raw outputs of one engine lie from those of another, in quantization steps.

    Args:
        max_steps: the largest difference of one output value.
        mean_steps: the mean difference.
        share_changed: share of the output values that differ, 0..1.
        against: the target that was compared with: the first that ran the model.
    """

    max_steps: int
    mean_steps: float
    share_changed: float
    against: str


def score(outputs: np.ndarray, test: Split, reference: np.ndarray | None) -> dict[str, Any]:
    """The fields of a `validation.Row` that follow from outputs and labels.

    Args:
        outputs: [N, ...], C values for each sample; logits or their quantized values.
        test: the split that they were made from.
        reference: the reference's labels [N], or None.
    """
    # In NumPy: scikit-learn and SciPy have all of it, and take longer to import than a validation to run.
    scores = outputs.reshape(len(test), -1)
    guess = scores.argmax(axis=1)
    right = guess == test.y
    confusion = np.zeros((test.num_classes, test.num_classes), np.int64)
    np.add.at(confusion, (test.y, guess), 1)
    count = confusion.sum(axis=1)
    recall = np.where(count > 0, np.diag(confusion) / np.maximum(count, 1), np.inf)  # a class without samples is none
    worst = int(recall.argmin())
    found = {
        "accuracy": float(right.mean()),
        "accuracy_interval": _wilson(int(right.sum()), len(test)),
        "worst_class": (test.class_names[worst], float(recall[worst])),
        "confusion": confusion,
        "ties": float(((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean()),
    }
    if test.num_classes > 10:
        highest = np.argsort(scores, axis=1, kind="stable")[:, -5:]
        found["top5"] = float((highest == test.y[:, None]).any(axis=1).mean())
    if reference is not None:
        before = reference == test.y
        found["agreement"] = float((guess == reference).mean())
        found["flips"] = (int((before & ~right).sum()), int((~before & right).sum()))
    return found


def _wilson(right: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927)."""
    z, share = statistics.NormalDist().inv_cdf(0.975), right / samples
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / samples) for sign in (-1, 1))
    return (low if right else 0.0), (high if right < samples else 1.0)


def measure_divergence(measured: Measurement, first: Measurement | None) -> OutputDivergence | None:
    """How far a measurement's outputs lie from the first's; None without a first and for float outputs."""
    if first is None or measured.outputs[0].dtype.kind not in "iu":
        return None
    # int64: the difference of two int8 values does not fit into int8.
    steps = np.abs(measured.outputs[0].astype(np.int64) - first.outputs[0].astype(np.int64))
    return OutputDivergence(int(steps.max()), float(steps.mean()), float((steps > 0).mean()), first.target)
