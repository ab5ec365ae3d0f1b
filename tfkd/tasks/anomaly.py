"""Anomaly detection: a model reconstructs its input, and the error of the reconstruction is the anomaly score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.tasks import bootstrap
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from tfkd.data import Split

# The threshold is this quantile of the scores of normal validation samples: 5 % of normal samples are false alarms.
QUANTILE = 0.95
# Largest false positive rate of the partial ROC AUC, as in MLPerf Tiny and DCASE.
MOST_FALSE_POSITIVES = 0.1
# With fewer normal validation samples there is no threshold.
_LEAST_NORMAL = 20
_BINS = 40
# Samples whose scores are computed at a time.
_ROWS = 256


class Anomaly(ScoredTask):
    """Reconstructs the input; labels are bool [N], True for abnormal test samples, and training samples are normal.

    The anomaly score of a sample is the mean squared error of its reconstruction.

    Reference:
        Banbury et al.: MLPerf Tiny Benchmark (arXiv:2106.07597), anomaly detection; Koizumi et al.: Description and
        Discussion on DCASE2020 Challenge Task2 (arXiv:2006.05822), section 3, for AUC and pAUC.
    """

    name = "anomaly"
    labels = "abnormal"
    metrics = (
        Metric("roc_auc", "ROC AUC"),
        Metric("pauc", "pAUC"),
        Metric("f1", "F1"),
        Metric("reconstruction_mse", "MSE of normal samples", "value", larger_is_better=False, high=math.inf),
    )
    takes_one_input = True
    soft_loss = "mean_squared"
    gives_logits = False
    has_threshold = True
    monitor = "loss"
    monitor_rises = False

    @property
    def selection(self) -> Metric:
        """The error of the reconstruction: validation samples are normal."""
        return self.metrics[-1]

    def outputs(self, split: Split) -> int:
        """As many values as a sample has."""
        return math.prod(split.input_shape)

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        fits = super().check_outputs(shape, split) is None
        return None if fits else f"one output per value of a sample, {self.outputs(split)} for {split.name}"

    def hard_loss(self) -> keras.losses.Loss:
        """Mean squared error of the reconstruction."""
        import keras

        return keras.losses.MeanSquaredError()

    def training_metrics(self) -> list[keras.Metric]:
        """None: the loss is the error of the reconstruction."""
        return []

    def with_targets(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of (x, x)."""
        return dataset.map(lambda x, _: (x, getattr(x, "student", x)))

    def choose_threshold(self, outputs: np.ndarray, samples: Split) -> float | None:
        """The 95 % quantile of the scores of normal samples; None with fewer than 20."""
        import numpy as np

        normal = scores_of(outputs, samples)[~samples.y]
        return float(np.quantile(normal, QUANTILE)) if len(normal) >= _LEAST_NORMAL else None

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """ROC AUC, pAUC and F1 of abnormal samples in percent, NaN where one kind is missing; MSE of normal samples.

        The F1 is NaN without a threshold.
        """
        import numpy as np
        from sklearn.metrics import f1_score, roc_auc_score

        scores, abnormal = scores_of(outputs, split), np.asarray(split.y)
        both, called = 0 < abnormal.sum() < len(abnormal), scores > (np.nan if threshold is None else threshold)
        ranking, normal = bootstrap.Ranking(scores, abnormal), (~abnormal).astype(np.float64)

        def replicates_of(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                mse = weights @ (scores * normal) / (weights @ normal)
            f1 = bootstrap.f1(weights, abnormal[:, None], called[:, None])[:, 0]
            columns = [ranking.roc_auc(weights), ranking.partial_roc_auc(weights, MOST_FALSE_POSITIVES), f1, mse]
            return np.stack(columns, axis=1) * [100, 100, 100, 1]

        found = bootstrap.replicate(replicates_of, len(scores), seed)
        if threshold is None or not both:
            found[:, 2] = np.nan
        values = {
            "roc_auc": 100 * float(roc_auc_score(abnormal, scores)) if both else np.nan,
            "pauc": 100 * float(roc_auc_score(abnormal, scores, max_fpr=MOST_FALSE_POSITIVES)) if both else np.nan,
            "f1": 100 * float(f1_score(abnormal, called, zero_division=0))
            if both and threshold is not None
            else np.nan,
            "reconstruction_mse": float(scores[~abnormal].mean()) if normal.any() else np.nan,
        }
        return Scored(
            values,
            {metric.name: found[:, place] for place, metric in enumerate(self.metrics)},
            bootstrap.chance(scores, abnormal) if both else _constant_reconstruction(scores, split, found[:, 3]),
            right=None if threshold is None else called == abnormal,
            errors=scores if threshold is None else None,
            threshold=threshold,
            details=_details(scores, abnormal, threshold) if both else {},
        )


def scores_of(outputs: np.ndarray, split: Split) -> np.ndarray:
    """The anomaly scores: the mean squared error of each reconstruction, float64 [N].

    Args:
        outputs: Reconstructions [N, D].
        split: The N samples, of D values each.
    """
    import numpy as np

    def errors(start: int) -> np.ndarray:
        x = np.asarray(split.x[start : start + _ROWS], np.float64).reshape(-1, outputs.shape[1])
        return ((outputs[start : start + _ROWS] - x) ** 2).mean(axis=1)

    outputs = outputs.reshape(len(split), -1)
    return np.concatenate([errors(start) for start in range(0, len(split), _ROWS)])


def _constant_reconstruction(scores: np.ndarray, split: Split, replicates: np.ndarray) -> ConstantAnswer:
    """Of samples of one kind, such as those for validation: the comparison with the mean sample as reconstruction."""
    import numpy as np

    rows = np.arange(min(len(split), 10 * _ROWS))
    x = np.asarray(split.x[: len(rows)], np.float64).reshape(len(rows), -1)
    constant = float(x.var(axis=0).mean())
    better = bootstrap.is_above(constant - replicates, 0.0) if len(scores) >= _LEAST_NORMAL else None
    return ConstantAnswer(
        "reconstruction_mse", constant, better, f"The mean sample, given as each reconstruction, has {constant:.4g}."
    )


def _details(scores: np.ndarray, abnormal: np.ndarray, threshold: float | None) -> JsonObject:
    """Histograms of the scores, and the curves of a binary decision."""
    import numpy as np

    low, high = np.quantile(scores, [0, 0.99])
    edges = np.linspace(low, max(high, low + 1e-12), _BINS + 1)
    counts = {
        name: np.histogram(np.minimum(scores[chosen], edges[-1]), edges)[0].tolist()
        for name, chosen in (("normal", ~abnormal), ("abnormal", abnormal))
    }
    return {
        **bootstrap.curves(scores, abnormal, "abnormal samples"),
        "scores": {"edges": np.round(edges, 6).tolist(), **counts, "threshold": threshold},
    }


TASK = Anomaly()
