"""Runs a teacher over the views of a split."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import keras_compat, matrix_products
from tfkd._internal.types import Nest, SampleData
from tfkd.data import label_augmentation
from tfkd.data.augmentation import Augment, augment_view
from tfkd.data.batches import Samples, output_batch_size
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.streams import as_split
from tfkd.errors import InputError, ModelError
from tfkd.models import inputs, logits
from tfkd.tasks import find, get

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfkd.data import Split

# (samples [B, ...], their ids [B], number of the view) -> the view of the samples.
Views = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], "tf.Tensor"]


def prepare(
    teacher: keras.Model, samples: SampleData, task: str | None, augment: Augment | None
) -> tuple[Split, int, str]:
    """Checks that a teacher has the outputs that the labels need, and that these are right for each view.

    Args:
        teacher: The teacher.
        samples: Labelled data in any form, see `tfkd.data.as_split`.
        task: Name of the task; None to find it.
        augment: Augmentation of the views; None for a single one.

    Returns:
        The samples as a split; the number of outputs; and their kind, see `tfkd.distillation.labels.kinds`.

    Raises:
        InputError: The labels are not those of the task, its outputs cannot be stored, or the labels of a mirrored
            sample are those of another class.
        ModelError: The teacher does not end in logits, or has another number of outputs.
    """
    matrix_products.correct()
    declared, known = None if task is None else get(task), logits.known_classes(teacher)
    logits.check_gives_logits("teacher", teacher, activation=declared is None or declared.gives_logits)
    split = as_split(
        samples, "train", num_classes=2 if known == 1 else known, labels=None if declared is None else declared.labels
    )
    label_augmentation.check(augment, split)
    found = find(split, known, task)
    if found.stored is None:
        raise InputError(
            f"SoftLabels.build: the outputs of the task {found.name} are not stored. Let the teacher run in each "
            "training step."
        )
    check = logits.check_are_logits if found.gives_logits else logits.shape_of_outputs
    outputs, expected = check("teacher", teacher, _taken(teacher, split.x[:8]))[-1], found.outputs(split)
    if outputs != expected:
        what = f"the {expected} classes" if found.is_classification else f"an output for each of the {expected} labels"
        raise ModelError(
            f"SoftLabels.build: the teacher must have {what} of the data. Received: {outputs}. Give it as many "
            f"{'logits' if found.gives_logits else 'outputs'}."
        )
    return split, expected, found.stored


def views_of(augment: Augment | None, seed: int) -> Views | None:
    """Computes the views of batches in a graph, as training does; op by op, a chain takes several times as long.

    Args:
        augment: Augmentation of the views; None for a single view.
        seed: Random seed of the views.
    """
    import tensorflow as tf

    if augment is None:
        return None
    return tf.function(
        lambda x, ids, view: augment_view(augment, x, ids, view, seed=seed), autograph=False, reduce_retracing=True
    )


def run(
    teacher: keras.Model,
    samples: Samples,
    rows: np.ndarray,
    *,
    view: int,
    shown: Views | None,
    batch_size: int,
) -> np.ndarray:
    """The teacher outputs of some rows in one view.

    Args:
        teacher: Model with outputs [B, C].
        samples: Split that is labelled.
        rows: Positions in the split [n].
        view: Number of the view; 0 is the unchanged sample.
        shown: Computes the views > 0, see `views_of`; None if there are none.
        batch_size: Largest number of samples per call of the teacher; large samples are fewer.

    Returns:
        float32 [n, C].
    """
    import tensorflow as tf

    batches, batch_size = [], output_batch_size(samples, batch_size)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        x = _taken(teacher, samples.x[part])
        if view and shown is not None:
            x = shown(tf.constant(x), tf.constant(samples.ids[part]), tf.constant(view))
        batches.append(np.asarray(_forward(teacher)(x), "float32"))
    return np.concatenate(batches)


def _taken(teacher: keras.Model, x: np.ndarray | NamedArrays) -> Nest:
    """Samples as the teacher takes them, of several inputs by their names."""
    if isinstance(x, NamedArrays):
        return inputs.arranged(teacher, x, "SoftLabels.build: the teacher")
    if keras_compat.shows_layers(teacher) and len(teacher.inputs) > 1:
        raise ModelError(
            "SoftLabels.build: the teacher must have one input for these samples, which are one array. Received: the "
            f"inputs {', '.join(map(str, inputs.of(teacher)))}. Give samples as a dict of arrays by these names."
        )
    return x.astype("float32")


@functools.lru_cache(maxsize=2)
def _forward(teacher: keras.Model) -> Callable[[Nest], tf.Tensor]:
    import tensorflow as tf

    return tf.function(lambda x: teacher(x, training=False), reduce_retracing=True)
