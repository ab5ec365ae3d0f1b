"""A model of tables: each sample is a row of numbers."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.errors import InputError


def mlp(input_shape: tuple[int, ...], num_classes: int, units: int = 32, depth: int = 2) -> keras.Model:
    """Multi-layer perceptron for rows of features.

    Input: [features], which are not scaled inside: give them similar ranges, since one step size quantizes them all.
    Output: [num_classes] logits or values. units·(features + 1) + (depth − 1)·units·(units + 1) +
    (units + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (features,).
        num_classes: Number of outputs, >= 1.
        units: Units of each hidden layer, >= 1.
        depth: Number of hidden layers, >= 1.

    Raises:
        InputError: An argument is out of range.
    """
    if len(input_shape) != 1 or not isinstance(input_shape[0], int) or input_shape[0] < 1:
        raise InputError(
            f"mlp: input_shape must be (features), an integer > 0. Received: {tuple(input_shape)}. Use the input_shape "
            "of a split."
        )
    for name, value in (("num_classes", num_classes), ("units", units), ("depth", depth)):
        if value < 1:
            raise InputError(f"mlp: {name} must be >= 1. Received: {name}={value}. Leave it out for the default.")
    features = keras.Input(input_shape, name="features")
    x = features
    for number in range(depth):
        x = layers.Dense(units, activation="relu", name=f"hidden_{number}")(x)
    return keras.Model(features, layers.Dense(num_classes, name="logits")(x), name="mlp")
