"""Regression: each output is a real number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.tasks import bootstrap
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split

# Points of the plot of residuals.
_MOST_POINTS = 500
# With fewer samples nothing is significant.
_LEAST = 10


class Regression(ScoredTask):
    """Predicts K real numbers for each sample; labels are float32 [N, K]."""

    name = "regression"
    labels = "values"
    metrics = (
        Metric("mae", "MAE", "value", larger_is_better=False, high=math.inf),
        Metric("rmse", "RMSE", "value", larger_is_better=False, high=math.inf),
        Metric("r2", "R\N{SUPERSCRIPT TWO}", "ratio", high=1.0, low=-math.inf),
    )
    soft_loss = "mean_squared"
    stored = "values"
    gives_logits = False
    monitor = "mae"
    monitor_rises = False

    def hard_loss(self) -> keras.losses.Loss:
        """Mean squared error."""
        import keras

        return keras.losses.MeanSquaredError()

    def training_metrics(self) -> list[keras.Metric]:
        """The mean absolute error."""
        import keras

        return [keras.metrics.MeanAbsoluteError(name="mae")]

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """MAE, RMSE and R²; of several outputs the means over all, for R² the mean of the R² of each."""
        import numpy as np
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        y, predicted = split.y.astype(np.float64), outputs.reshape(split.y.shape).astype(np.float64)
        mean = split.train_mean
        constant = np.broadcast_to(y.mean(axis=0) if mean is None else mean, y.shape)
        error, constant_error = predicted - y, constant - y
        values = {
            "mae": float(mean_absolute_error(y, predicted)),
            "rmse": float(np.sqrt(np.mean(error**2)))
            if y.shape[1] > 1
            else float(root_mean_squared_error(y, predicted)),
            "r2": float(r2_score(y, predicted)) if len(y) > 1 else math.nan,
        }
        columns = np.stack([np.abs(error).mean(axis=1), (error**2).mean(axis=1), (constant_error**2).mean(axis=1)], 1)
        n = len(y)
        means = bootstrap.replicate(lambda weights: weights @ columns / n, n, seed)
        replicates = {
            "mae": means[:, 0],
            "rmse": np.sqrt(means[:, 1]),
            "r2": bootstrap.replicate(lambda weights: _r2(weights, y, error), n, seed),
        }
        better = bootstrap.is_above(means[:, 2] - means[:, 1], 0.0) if n >= _LEAST else None
        source = "the test labels" if mean is None else "the training labels"
        constant_rmse = float(np.sqrt(np.mean(constant_error**2)))
        return Scored(
            values,
            replicates,
            ConstantAnswer(
                "rmse",
                constant_rmse,
                better,
                f"The mean of {source}, given to every sample, has an RMSE of {constant_rmse:.4g}.",
            ),
            errors=np.abs(error).max(axis=1),
            details=_details(y, predicted, split),
        )


def _r2(weights: np.ndarray, y: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The mean R² of all outputs, [B, N] -> [B]; NaN where the labels of a resample are constant."""
    import numpy as np

    n = weights.shape[1]
    centred = y - y.mean(axis=0)
    total = weights @ centred**2 / n - (weights @ centred / n) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - (weights @ error**2 / n) / total
    return np.where(total > 1e-12 * np.maximum(centred**2, 1e-300).mean(axis=0), r2, np.nan).mean(axis=1)


def _details(y: np.ndarray, predicted: np.ndarray, split: Split) -> JsonObject:
    """Label and prediction of some samples, drawn at random, and the errors of each output."""
    import numpy as np

    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:_MOST_POINTS])
    error = predicted - y
    return {
        "outputs": list(split.class_names),
        "labels": np.round(y[rows], 6).tolist(),
        "predictions": np.round(predicted[rows], 6).tolist(),
        "by_output": [
            {
                "name": name,
                "mae": float(np.abs(error[:, place]).mean()),
                "rmse": float(np.sqrt((error[:, place] ** 2).mean())),
                "bias": float(error[:, place].mean()),
            }
            for place, name in enumerate(split.class_names)
        ],
    }


TASK = Regression()
