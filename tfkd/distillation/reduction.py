"""The mean of per-sample losses, weighted and masked as Keras does it for a compiled loss."""

from __future__ import annotations

from typing import Any

import keras

from tfkd._internal import keras_compat


class _Identity(keras.losses.Loss):
    """Passes on values that are losses already; the base class applies weights, masks and the number of replicas."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def weighted_mean(values: Any, student_logits: Any, sample_weight: Any) -> Any:
    """The weighted mean of per-sample losses.

    Args:
        values: Loss of each sample or position [B, ...].
        student_logits: Tensor that carries the Keras mask of the values, or None for no mask.
        sample_weight: Weight of each value, broadcastable to [B, ...], or None.

    Returns:
        A float32 scalar.
    """
    mask = keras_compat.mask_of(student_logits)
    if mask is not None:
        keras_compat.set_mask(values, mask)
    return _Identity(name="mean", dtype="float32")(values, values, sample_weight)
