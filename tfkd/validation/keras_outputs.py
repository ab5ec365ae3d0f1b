"""Outputs of a Keras model on a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import matrix_products
from tfkd.conversion import rnn
from tfkd.data.batches import output_batch_size

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split


def compute(model: keras.Model, split: Split) -> np.ndarray:
    """The outputs [N, ...] of a model with one output. Each sample is computed from a state of zero, as on all targets.

    Args:
        model: A Keras model.
        split: Samples.
    """
    matrix_products.correct()
    if not rnn.states(model):
        return np.asarray(model.predict(split.batches(output_batch_size(split)), verbose=0))
    rows = []
    for x, _ in split.batches(1):
        with rnn.initial_states(model):
            rows.append(np.asarray(model(x, training=False)))
    return np.concatenate(rows)
