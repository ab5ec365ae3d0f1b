"""Macro F1 and calibration error of a classification, with the replicates that their intervals come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.tasks import Value, bootstrap
from tfkd.tasks.classification import sum_to_1
from tfkd.validation import task_results

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel

# Bins of equal width over the confidence, as in the paper.
_BINS = 15


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Scores of one model's outputs.

    Args:
        values: `macro_f1` and `ece` in percent.
        replicates: The same on bootstrap samples, float64 [B] for each.
    """

    values: Mapping[str, float]
    replicates: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """What `ClassScores` say, in the form of a report.

    Args:
        metrics: Each value with its 95 % bootstrap interval.
        differences: The values minus those of the `reference`, of the `teacher` and of the student trained `alone`, by
            these names and by metric.
    """

    metrics: Mapping[str, Value]
    differences: Mapping[str, Mapping[str, Value]]

    def to_json(self) -> JsonObject:
        """The metrics as plain JSON values."""
        of_roles = self.differences.items()
        return {
            "metrics": {name: one.to_json() for name, one in self.metrics.items()},
            "differences": {role: {name: one.to_json() for name, one in found.items()} for role, found in of_roles},
        }


def compute(outputs: np.ndarray, y: np.ndarray, model: keras.Model | TFLiteModel) -> ClassScores:
    """The scores of real outputs, not quantized ones.

    Macro F1 is the mean of the F1 of the classes that occur in labels or predictions. The expected calibration error is
    the mean of |accuracy − confidence| over 15 bins of the confidence, the largest probability, weighted by their
    samples; the probabilities are those of the model at the temperature 1.

    Args:
        outputs: Logits or probabilities, [N, C]: probabilities where the model ends in a softmax or a sigmoid, or where
            each row sums to 1, such as the mean of several softmaxes.
        y: Labels, int [N].
        model: The model, for its last op.

    Reference:
        Guo et al.: On Calibration of Modern Neural Networks (arXiv:1706.04599), equation 3.
    """
    values = outputs.reshape(len(y), -1).astype(np.float64)
    predicted = values.argmax(axis=1)
    confidence = _confidences(values, model)
    # The bins (0, 1/15], (1/15, 2/15] and so on.
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    right, classes = predicted == y, values.shape[1]
    gaps = right - confidence

    def both(weights: np.ndarray) -> np.ndarray:
        return np.array([(_macro_f1(y, predicted, right, row, classes), _error(bins, gaps, row)) for row in weights])

    value, replicates = 100 * both(np.ones((1, len(y))))[0], 100 * bootstrap.replicate(both, len(y))
    names = ("macro_f1", "ece")
    return ClassScores(
        {name: float(value[place]) for place, name in enumerate(names)},
        {name: replicates[:, place] for place, name in enumerate(names)},
    )


def metrics_of(scores: ClassScores, others: Mapping[str, tuple[ClassScores, bool]]) -> ClassMetrics:
    """The metrics of a model.

    Args:
        scores: Its scores.
        others: Scores of the model in each role, and whether its samples are the same.
    """
    return ClassMetrics(
        task_results.values_of(scores),
        {role: task_results.differences(scores, one, paired=paired) for role, (one, paired) in others.items()},
    )


def _confidences(values: np.ndarray, model: keras.Model | TFLiteModel) -> np.ndarray:
    """The largest probability of each sample, [N, C] -> [N]; an int8 softmax does not sum to exactly 1."""
    ends = (task_results.ends_in(model, activation) for activation in ("softmax", "sigmoid"))
    if sum_to_1(values) or any(ends):
        return np.clip(values.max(axis=1), 0.0, 1.0)
    return 1 / np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1)


def _macro_f1(y: np.ndarray, predicted: np.ndarray, right: np.ndarray, weights: np.ndarray, classes: int) -> float:
    hits = np.bincount(y[right], weights[right], classes)
    total = np.bincount(y, weights, classes) + np.bincount(predicted, weights, classes)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def _error(bins: np.ndarray, gaps: np.ndarray, weights: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, weights * gaps)).sum() / weights.sum())
