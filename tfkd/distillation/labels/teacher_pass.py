"""Runs a teacher over the views of a split."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfkd.data.augmentation import Augment, augment_batch, view_seeds
from tfkd.data.batches import Samples, output_batch_size

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def run(
    teacher: keras.Model,
    samples: Samples,
    rows: np.ndarray,
    *,
    view: int,
    augment: Augment | None,
    seed: int,
    batch_size: int,
) -> np.ndarray:
    """The teacher logits of some rows in one view.

    Args:
        teacher: Model with logits [B, C].
        samples: Split that is labelled.
        rows: Positions in the split [n].
        view: Number of the view; 0 is the unchanged sample.
        augment: Augmentation of the views > 0.
        seed: Random seed of the views.
        batch_size: Largest number of samples per call of the teacher; large samples are fewer.

    Returns:
        float32 [n, C].
    """
    import tensorflow as tf

    batches, batch_size = [], output_batch_size(samples, batch_size)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        x = tf.constant(samples.x[part].astype("float32"))
        if view and augment is not None:
            x = augment_batch(augment, x, view_seeds(samples.ids[part], view, seed=seed))
        batches.append(np.asarray(_forward(teacher)(x), "float32"))
    return np.concatenate(batches)


@functools.lru_cache(maxsize=2)
def _forward(teacher: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    import tensorflow as tf

    return tf.function(lambda x: teacher(x, training=False), reduce_retracing=True)
