"""The loss of heatmaps on points, and their training metric."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError


def targets_of(points: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """A Gaussian of height 1 around each visible point, 0 for others.

    Args:
        points: Shares of width and height, and whether they are visible, [B, K, 3].
        height: Rows of a heatmap.
        width: Columns of a heatmap.
        sigma: Standard deviation, in cells.

    Returns:
        float32 [B, height, width, K].
    """
    points = ops.cast(points, "float32")
    across = ops.arange(width, dtype="float32")[None, None, :, None] + 0.5 - points[:, None, None, :, 0] * width
    down = ops.arange(height, dtype="float32")[None, :, None, None] + 0.5 - points[:, None, None, :, 1] * height
    bell = ops.exp(-(across**2 + down**2) / (2 * sigma**2))
    return bell * ops.cast(points[:, None, None, :, 2] > 0, "float32")


@keras.saving.register_keras_serializable(package="tfkd")
class HeatmapCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of heatmap logits with Gaussians around the visible points.

    `loss = Σ w · BCE / Σ w` for each sample over positions and points, with `w = 1 + (point_weight − 1) · target`:
    cells near a point weigh more, since the others are many more.

    Args:
        sigma: Standard deviation of a Gaussian in cells, > 0.
        point_weight: Weight of the cell of a point, >= 1.
    """

    def __init__(
        self, sigma: float = 1.0, point_weight: float = 20.0, name: str = "heatmap_crossentropy", **kwargs: object
    ) -> None:
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        if not sigma > 0 or not point_weight >= 1:
            raise InputError(
                f"HeatmapCrossentropy: sigma must be > 0 and point_weight >= 1. Received: {sigma} and {point_weight}. "
                "Use 1 and 20."
            )
        self.sigma, self.point_weight = float(sigma), float(point_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Points [B, K, 3] and logits [B, h, w, K] -> [B]."""
        targets = targets_of(y_true, y_pred.shape[1], y_pred.shape[2], self.sigma)
        losses = -targets * ops.log_sigmoid(y_pred) - (1 - targets) * ops.log_sigmoid(-y_pred)
        weights = 1 + (self.point_weight - 1) * targets
        return ops.sum(weights * losses, axis=(1, 2, 3)) / ops.sum(weights, axis=(1, 2, 3))

    def get_config(self) -> JsonObject:
        config: JsonObject = {**super().get_config(), "sigma": self.sigma, "point_weight": self.point_weight}
        return config


@keras.saving.register_keras_serializable(package="tfkd")
class NearCells(keras.metrics.Metric):
    """The share of visible points whose largest logit is in their cell or one of its eight neighbours."""

    def __init__(self, name: str = "near_points", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.counts = self.add_weight(shape=(2,), initializer="zeros", name="counts")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Counts near points and visible points; weights of samples are ignored."""
        height, width = y_pred.shape[1], y_pred.shape[2]
        points = ops.cast(y_true, "float32")
        flat = ops.reshape(y_pred, (-1, height * width, y_pred.shape[3]))
        best = ops.cast(ops.argmax(flat, axis=1), "int32")
        across = ops.abs(best % width - ops.cast(ops.floor(points[..., 0] * width), "int32"))
        down = ops.abs(best // width - ops.cast(ops.floor(points[..., 1] * height), "int32"))
        visible = points[..., 2] > 0
        near = visible & (across <= 1) & (down <= 1)
        self.counts.assign_add(ops.stack([ops.sum(ops.cast(found, "float32")) for found in (near, visible)]))

    def result(self) -> Tensor:
        """Near points / visible points; 0 without any."""
        return self.counts[0] / ops.maximum(self.counts[1], 1.0)
