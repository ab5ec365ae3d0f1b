"""Runs a teacher over the views of a split, and says what its labels belong to."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal import keras_compat
from tfkd.data.augmentation import augment_batch, view_seeds

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split


def keys(teacher: Any, split: Any, augment: Any, seed: int) -> dict[str, Any]:
    """What labels belong to: the hashes of the teacher, the data and the augmentation; of what is None, nothing."""
    found: dict[str, Any] = {}
    if teacher is not None:
        found["teacher"] = teacher_hash(teacher)
    if split is not None:
        found["data"] = split.content_hash
        if augment is not None:
            found["augmentation"] = _about(augment, split, seed)
    return found


def teacher_hash(teacher: keras.Model) -> str:
    """The hash of a model's graph and weights, the same whatever its layers happen to be called."""
    digest = hashlib.sha256()
    try:
        graph = json.dumps(json.loads(teacher.to_json())["config"], sort_keys=True)
    except (NotImplementedError, TypeError, ValueError):  # a model built by code has no graph to show
        graph = type(teacher).__name__
    # Longer names first: one may begin another.
    names = dict.fromkeys(layer.name for layer in (teacher, *keras_compat.inner_layers(teacher)))
    for number, name in enumerate(names):
        graph = graph.replace(f'"{name}"', f'"#{number}"')
    digest.update(graph.encode())
    for weight in teacher.weights:
        value = np.ascontiguousarray(weight.numpy())
        digest.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


def _about(augment: Any, split: Split, seed: int) -> dict[str, Any]:
    """An augmentation's name, parameters and what it makes of one sample."""
    import tensorflow as tf

    sample = tf.constant(split.x[:1].astype("float32"))
    probe = [np.asarray(augment_batch(augment, sample, view_seeds(split.ids[:1], view, seed=seed))) for view in (1, 2)]
    parameters = (
        dataclasses.asdict(augment) if dataclasses.is_dataclass(augment) and not isinstance(augment, type) else {}
    )
    return {
        "name": getattr(augment, "name", getattr(augment, "__name__", type(augment).__name__)),
        "parameters": parameters,
        "probe": hashlib.sha256(np.round(probe, 3).tobytes()).hexdigest(),
    }


def run(
    teacher: Any, split: Split, rows: np.ndarray, *, view: int, augment: Any, seed: int, batch_size: int
) -> np.ndarray:
    """What the teacher says of some rows in one view."""
    import tensorflow as tf

    said = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        x = tf.constant(split.x[part].astype("float32"))
        if view:
            x = augment_batch(augment, x, view_seeds(split.ids[part], view, seed=seed))
        said.append(np.asarray(_forward(teacher)(x), "float32"))
    return np.concatenate(said)


@functools.lru_cache(maxsize=2)
def _forward(teacher: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    return tf.function(lambda x: teacher(x, training=False), reduce_retracing=True)
