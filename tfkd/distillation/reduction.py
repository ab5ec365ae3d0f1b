"""Losses and logs of one step on one replica, weighted, masked and divided as Keras does it for a compiled loss.

Keras divides each loss by the number of replicas, whose gradients are added. A mean over the batch of all replicas is
then exact where they have equally many samples. In the logs the losses are undivided.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.types import Tensor


class _Identity(keras.losses.Loss):
    """Passes on values that are losses already; the base class applies weights, masks and the number of replicas."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred


def weighted_mean(
    values: Tensor, student_logits: Tensor, sample_weight: Tensor | None, counted: Tensor | None = None
) -> Tensor:
    """The weighted mean of per-sample losses.

    Args:
        values: Loss of each sample or position [B, ...].
        student_logits: Tensor that carries the Keras mask of the values, or None for no mask.
        sample_weight: Weight of each value, broadcastable to [B, ...], or None.
        counted: Which values count, bool in the shape of the values; None for all. Without effect on a loss that has
            one value for all positions of a sample, such as `ChannelWise`.

    Returns:
        A float32 scalar.
    """
    mask = keras_compat.mask_of(student_logits)
    if counted is not None and len(counted.shape) == len(values.shape):
        mask = counted if mask is None else ops.logical_and(counted, mask)
    if mask is not None:
        keras_compat.set_mask(values, mask)
    return _Identity(name="mean", dtype="float32")(values, values, sample_weight)


def replicas() -> int:
    """Number of replicas that compute the step together, >= 1."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def add_regularization(loss: Tensor | None, terms: list[Tensor]) -> Tensor:
    """A loss plus regularization and activity losses, divided by the number of replicas.

    Args:
        loss: Scalar, float32, divided already; None for no loss.
        terms: The `losses` of a Keras model.

    Returns:
        A float32 scalar.
    """
    values = [] if loss is None else [loss]
    values += [ops.sum(ops.cast(term, "float32")) / replicas() for term in terms]
    return values[0] if len(values) == 1 else ops.sum(values)


def total(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of the terms that are not None; None if there are none.

    Args:
        terms: Scalars and None.
    """
    values = [term for term in terms if term is not None]
    return sum(values[1:], values[0]) if values else None


def gatherable(logs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logs in the shape that Keras averages: under several workers along an axis that scalars do not have."""
    if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return {name: ops.reshape(value, (1,)) for name, value in logs.items()}
    return logs
