"""Models of sequences: each sample is [steps, features]."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.models.builder_arguments import check, check_positive
from tfkd.models.pretrained import MOMENTUM


def gru(input_shape: tuple[int, ...], num_classes: int, units: int = 64, unroll: bool = False) -> keras.Model:
    """One GRU layer and a classifier.

    Input: [steps, features], which are not scaled inside. Output: [num_classes] logits.
    3·units·(features + units + 2) + (units + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (steps, features); the number of steps is fixed.
        num_classes: Number of classes or of other outputs, >= 1.
        units: Units of the layer, > 0.
        unroll: Whether the layer is one copy of its cell per step, which builds more slowly but converts to plain ops
            instead of a loop.

    Raises:
        InputError: An argument is out of range.

    >>> gru((6, 4), 5, units=8).count_params() == 3 * 8 * (4 + 8 + 2) + 9 * 5
    True

    Reference:
        Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder (arXiv:1406.1078).
    """
    return _recurrent(layers.GRU, "gru", input_shape, num_classes, units, unroll)


def lstm(input_shape: tuple[int, ...], num_classes: int, units: int = 64, unroll: bool = False) -> keras.Model:
    """One LSTM layer and a classifier.

    Input: [steps, features], which are not scaled inside. Output: [num_classes] logits.
    4·units·(features + units + 1) + (units + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (steps, features); the number of steps is fixed.
        num_classes: Number of classes or of other outputs, >= 1.
        units: Units of the layer, > 0.
        unroll: Whether the layer is one copy of its cell per step; see `gru`.

    Raises:
        InputError: An argument is out of range.

    >>> lstm((6, 4), 5, units=8).count_params() == 4 * 8 * (4 + 8 + 1) + 9 * 5
    True

    Reference:
        Hochreiter and Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997.
    """
    return _recurrent(layers.LSTM, "lstm", input_shape, num_classes, units, unroll)


def _recurrent(
    layer: type[keras.Layer], name: str, input_shape: tuple[int, ...], num_classes: int, units: int, unroll: bool
) -> keras.Model:
    check(name, input_shape, num_classes, ("steps", "features"))
    check_positive(name, units=units)
    sequence = keras.Input(input_shape, name="sequence")
    x = layer(units, unroll=unroll, name=name)(sequence)
    return keras.Model(sequence, layers.Dense(num_classes, name="logits")(x), name=name)


def frame_cnn(
    input_shape: tuple[int, ...], num_classes: int, filters: int = 32, depth: int = 4, kernel: int = 5
) -> keras.Model:
    """Convolutions over time that give each frame a class.

    Input: [frames, features], which are not scaled inside. Output: [frames, num_classes] logits. A frame sees
    1 + depth·(kernel − 1) frames, as many before as after it. With F features: kernel·F·filters +
    (depth − 1)·kernel·filters² + 4·depth·filters + (filters + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (frames, features); the number of frames is fixed.
        num_classes: Number of classes, >= 1.
        filters: Channels of each layer, > 0.
        depth: Number of layers, > 0.
        kernel: Frames that each layer sees, > 0.

    Raises:
        InputError: An argument is out of range.

    >>> frame_cnn((20, 3), 4, filters=8, depth=2, kernel=5).count_params() == 5 * 3 * 8 + 5 * 64 + 4 * 2 * 8 + 9 * 4
    True
    """
    check("frame_cnn", input_shape, num_classes, ("frames", "features"))
    check_positive("frame_cnn", filters=filters, depth=depth, kernel=kernel)
    x = sequence = keras.Input(input_shape, name="sequence")
    for number in range(depth):
        x = layers.Conv1D(filters, kernel, padding="same", use_bias=False, name=f"conv{number + 1}")(x)
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"conv{number + 1}_bn")(x)
        x = layers.ReLU(name=f"conv{number + 1}_relu")(x)
    return keras.Model(sequence, layers.Dense(num_classes, name="logits")(x), name="frame_cnn")


def frame_gru(input_shape: tuple[int, ...], num_classes: int, units: int = 32, unroll: bool = False) -> keras.Model:
    """One GRU layer that gives each frame a class, from this frame and those before it.

    Input: [frames, features], which are not scaled inside. Output: [frames, num_classes] logits.
    3·units·(features + units + 2) + (units + 1)·num_classes parameters (counted by Keras).

    Args:
        input_shape: (frames, features); the number of frames is fixed.
        num_classes: Number of classes, >= 1.
        units: Units of the layer, > 0.
        unroll: Whether the layer is one copy of its cell per step; see `gru`.

    Raises:
        InputError: An argument is out of range.

    >>> frame_gru((6, 4), 5, units=8).count_params() == 3 * 8 * (4 + 8 + 2) + 9 * 5
    True
    """
    check("frame_gru", input_shape, num_classes, ("frames", "features"))
    check_positive("frame_gru", units=units)
    sequence = keras.Input(input_shape, name="sequence")
    x = layers.GRU(units, return_sequences=True, unroll=unroll, name="gru")(sequence)
    return keras.Model(sequence, layers.Dense(num_classes, name="logits")(x), name="frame_gru")


def sensor_cnn(
    input_shape: tuple[int, ...], num_classes: int, filters: int = 32, depth: int = 3, kernel: int = 5
) -> keras.Model:
    """Convolutions over time, and the mean over all steps, for windows of sensor signals.

    Input: [steps, features], which are not scaled inside. Output: [num_classes] logits or values of an embedding. Each
    layer but the first has twice the channels of the one before and halves the steps (own design).

    Args:
        input_shape: (steps, features); the number of steps is fixed.
        num_classes: Number of classes or of other outputs, >= 1.
        filters: Channels of the first layer, > 0.
        depth: Number of layers, > 0.
        kernel: Steps that each layer sees, > 0.

    Raises:
        InputError: An argument is out of range.

    >>> sensor_cnn((64, 3), 32, filters=8, depth=2).count_params() == 5 * 3 * 8 + 5 * 8 * 16 + 4 * 24 + 17 * 32
    True
    """
    check("sensor_cnn", input_shape, num_classes, ("steps", "features"))
    check_positive("sensor_cnn", filters=filters, depth=depth, kernel=kernel)
    x = sequence = keras.Input(input_shape, name="sequence")
    for number in range(depth):
        name, strides = f"conv{number + 1}", 1 if number == 0 else 2
        x = layers.Conv1D(filters << number, kernel, strides=strides, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(sequence, layers.Dense(num_classes, name="outputs")(x), name="sensor_cnn")
