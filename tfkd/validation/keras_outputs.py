"""Outputs of a Keras model on a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import matrix_products
from tfkd._internal.types import Nest
from tfkd.conversion import rnn
from tfkd.data.batches import output_batch_size
from tfkd.data.named_arrays import NamedArrays

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split


def compute(model: keras.Model, split: Split) -> np.ndarray:
    """The outputs [N, ...] of a model with one output. Each sample is computed from a state of zero, as on all targets.

    Args:
        model: A Keras model. One with several inputs takes those of `NamedArrays` by their names.
        split: Samples.
    """
    matrix_products.correct()
    if isinstance(split.x, NamedArrays):
        return _of_named(model, split, split.x)
    if not rnn.states(model):
        return np.asarray(model.predict(split.batches(output_batch_size(split)), verbose=0))
    return _one_by_one(model, (x for x, _ in split.batches(1)))


def _of_named(model: keras.Model, split: Split, x: NamedArrays) -> np.ndarray:
    import keras

    from tfkd.models import inputs

    arrays = inputs.arranged(model, x, f"model {model.name!r}")
    if not rnn.states(model):
        return np.asarray(model.predict(arrays, batch_size=output_batch_size(split), verbose=0))
    flat = keras.tree.flatten(arrays)
    samples = ([array[row : row + 1] for array in flat] for row in range(len(split)))
    return _one_by_one(model, (keras.tree.pack_sequence_as(arrays, sample) for sample in samples))


def _one_by_one(model: keras.Model, samples: Iterable[Nest]) -> np.ndarray:
    """The outputs of samples [1, ...], each from a state of zero."""
    rows = []
    for x in samples:
        with rnn.initial_states(model):
            rows.append(np.asarray(model(x, training=False)))
    return np.concatenate(rows)
