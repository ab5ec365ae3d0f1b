"""The range in which an untrained regression model starts."""

from __future__ import annotations

import keras
import numpy as np

from tfkd._internal import keras_compat


def start_at(model: keras.Model, y: np.ndarray) -> None:
    """Makes an untrained model predict values of the mean and spread of the labels, in place.

    The bias of its last layer becomes the mean of the labels, and its kernel is multiplied by their standard deviation.
    Otherwise labels of, say, 150 need thousands of steps in which the weights of the last layer only grow.

    Args:
        model: An untrained model. It is not changed unless its last layer is a `Dense` without activation.
        y: Labels of a regression, float32 [N, K].
    """
    if not keras_compat.shows_layers(model):
        return
    layer: keras.Layer = keras_compat.producer(model.outputs[0])
    if type(layer) is not keras.layers.Dense or layer.activation is not keras.activations.linear or not layer.use_bias:
        return
    mean, deviation = y.mean(axis=0, dtype=np.float64), y.std(axis=0, dtype=np.float64)
    layer.kernel.assign(np.asarray(layer.kernel) * np.where(deviation > 0, deviation, 1.0))
    layer.bias.assign(mean)
