"""The accuracy of frames during a training."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor


@keras.saving.register_keras_serializable(package="tfkd")
class FrameAccuracy(keras.metrics.Mean):
    """Share of the frames with the right class; frames with a label below 0 do not count.

    Args:
        name: Name in the logs.
        **kwargs: Further arguments of `keras.metrics.Mean`.
    """

    def __init__(self, name: str = "frame_accuracy", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds a batch: labels [B, T] and logits [B, T, C]. Weights of samples are not used."""
        right = ops.equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        super().update_state(ops.cast(right, "float32"), sample_weight=ops.cast(y_true >= 0, "float32"))
