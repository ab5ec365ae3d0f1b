"""Models of sequences: each sample is [steps, features]."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.models.builder_arguments import check, check_positive


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
