"""A callback that tells the data set which epoch begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

from tfkd.data import epoch_counters
from tfkd.data.streams import form_of
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class EpochSync(keras.callbacks.Callback):
    """Sets the epoch counter of a data set at the start of each epoch.

    A resumed run then gets the order and the augmentation that it would have had without the interruption.
    `Distiller.fit` adds this callback itself; pass it when another Keras model is trained.

    Args:
        dataset: Data set of `Split.batches`, or one made from it by `map`, `filter`, `zip` and so on.

    Raises:
        InputError: The data set was not made from one of `Split.batches`.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        super().__init__()
        self.counters = epoch_counters(dataset)
        if not self.counters:
            raise InputError(
                f"EpochSync: needs a data set that was made by Split.batches. Received: {form_of(dataset)} "
                "without an epoch counter. Transform it with methods of tf.data, not with a Python generator."
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for counter in self.counters:
            counter.assign(epoch - 1)  # the pass itself adds 1 before its first batch
