"""A model of tables: each sample is a row of numbers."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.models.builder_arguments import check, check_positive


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
    check("mlp", input_shape, num_classes, ("features",))
    check_positive("mlp", units=units, depth=depth)
    features = keras.Input(input_shape, name="features")
    x = features
    for number in range(depth):
        x = layers.Dense(units, activation="relu", name=f"hidden_{number}")(x)
    return keras.Model(features, layers.Dense(num_classes, name="logits")(x), name="mlp")
