"""The accuracy of pixels during a training."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.data.dense_labels import IGNORED


@keras.saving.register_keras_serializable(package="tfkd")
class PixelAccuracy(keras.metrics.Mean):
    """Mean over the images of the share of pixels with the right class; pixels of the class 255 do not count.

    Args:
        name: Name in the logs.
        **kwargs: Further arguments of `keras.metrics.Mean`.
    """

    def __init__(self, name: str = "pixel_accuracy", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds a batch: masks [B, H, W] and logits [B, H, W, C]."""
        labels = ops.cast(y_true, "int32")
        counted = ops.cast(labels != IGNORED, "float32")
        right = ops.cast(labels == ops.cast(ops.argmax(y_pred, axis=-1), "int32"), "float32")
        shares = ops.sum(right * counted, axis=(1, 2)) / ops.maximum(ops.sum(counted, axis=(1, 2)), 1.0)
        super().update_state(shares, sample_weight=sample_weight)
