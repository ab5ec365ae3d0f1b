"""What the outputs of one model over the test split say: accuracy, agreement, confusion, drift."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.measurement import Measurement

if TYPE_CHECKING:
    from tfkd.data import Split


@dataclasses.dataclass(frozen=True)
class Drift:
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
    from scipy.stats import binomtest
    from sklearn.metrics import confusion_matrix, top_k_accuracy_score

    scores = outputs.reshape(len(test), -1)
    guess, classes = scores.argmax(axis=1), range(test.num_classes)
    right = guess == test.y
    interval = binomtest(int(right.sum()), len(test)).proportion_ci(0.95, method="wilson")
    confusion = confusion_matrix(test.y, guess, labels=list(classes))
    count = confusion.sum(axis=1)
    recall = np.where(count > 0, np.diag(confusion) / np.maximum(count, 1), np.inf)  # a class without samples is none
    worst = int(recall.argmin())
    found = {
        "accuracy": float(right.mean()),
        "accuracy_interval": (float(interval.low), float(interval.high)),
        "worst_class": (test.class_names[worst], float(recall[worst])),
        "confusion": confusion.astype(np.int64),
        "ties": float(((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean()),
    }
    if test.num_classes > 10:
        found["top5"] = float(top_k_accuracy_score(test.y, scores, k=5, labels=list(classes)))
    if reference is not None:
        before = reference == test.y
        found["agreement"] = float((guess == reference).mean())
        found["flips"] = (int((before & ~right).sum()), int((~before & right).sum()))
    return found


def drift(measured: Measurement, first: Measurement | None) -> Drift | None:
    """How far a measurement's outputs lie from the first's; None without a first and for float outputs."""
    if first is None or measured.outputs[0].dtype.kind not in "iu":
        return None
    # int64: the difference of two int8 values does not fit into int8.
    steps = np.abs(measured.outputs[0].astype(np.int64) - first.outputs[0].astype(np.int64))
    return Drift(int(steps.max()), float(steps.mean()), float((steps > 0).mean()), first.target)
