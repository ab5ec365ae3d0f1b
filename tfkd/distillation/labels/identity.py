"""The identity of the labels in a store: hashes of teacher, data and augmentation, and comparisons of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data.augmentation import Augment, augment_view
from tfkd.data.augmentations import to_key
from tfkd.data.batches import Samples
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras


def keys(teacher: keras.Model | None, samples: Samples | None, augment: Augment | None, seed: int) -> JsonObject:
    """What labels belong to; an argument that is None has no key.

    Args:
        teacher: Teacher that computes the labels.
        samples: Split that is labelled.
        augment: Augmentation of the views.
        seed: Random seed of the views.

    Returns:
        `teacher` and `data`, SHA-256 hashes, and `augmentation`, a dictionary.
    """
    found: JsonObject = {}
    if teacher is not None:
        found["teacher"] = teacher_hash(teacher)
    if samples is not None:
        found["data"] = samples.content_hash
        if augment is not None:
            found["augmentation"] = _augmentation_key(augment, samples, seed)
    return found


def teacher_hash(teacher: keras.Model) -> str:
    """SHA-256 of the architecture and the weights of a model; it does not depend on the names of layers."""
    digest = hashlib.sha256()
    try:
        graph = json.dumps(json.loads(teacher.to_json())["config"], sort_keys=True)
    except (NotImplementedError, TypeError, ValueError):  # a subclassed model without get_config
        graph = type(teacher).__name__
    # In the order of the layers, so that automatic names such as dense_7 do not count. JSON puts each in quotes.
    layers = (teacher, *keras_compat.inner_layers(teacher))
    operations = [
        one for layer in layers if keras_compat.shows_layers(layer) for one in keras_compat.functional(layer).operations
    ]
    names = dict.fromkeys(one.name for one in (*layers, *operations))
    for number, name in enumerate(names):
        graph = graph.replace(f'"{name}"', f'"#{number}"')
    digest.update(graph.encode())
    for weight in teacher.weights:
        value = np.ascontiguousarray(weight.numpy())
        digest.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


def _augmentation_key(augment: Augment, samples: Samples, seed: int) -> JsonObject:
    """Name and parameters of an augmentation, and a hash of what it computes for one sample."""
    import tensorflow as tf

    sample = tf.constant(samples.x[:1].astype("float32"))
    probe = [np.asarray(augment_view(augment, sample, samples.ids[:1], view, seed=seed)) for view in (1, 2)]
    return {**to_key(augment), "probe": hashlib.sha256(np.round(probe, 3).tobytes()).hexdigest()}


def check_equal(path: str, found: JsonRecord, expected: JsonRecord) -> None:
    """Raises where the metadata of a store differ from the expected metadata.

    Args:
        path: Folder or URL of the store, for the error message.
        found: Metadata of the store.
        expected: Metadata to compare with; a missing entry is not compared.

    Raises:
        InputError: An entry differs; the message names it.
    """
    changed = [key for key in expected.get("keys", {}) if found["keys"].get(key) != expected["keys"][key]]
    changed += [key for key in expected if key not in ("keys", "tfkd") and found.get(key) != expected[key]]
    if changed:
        raise InputError(
            f"{path}: the labels must belong to this teacher, data and augmentation. Received: another "
            f"{', '.join(changed)}. Use another folder for the labels, or delete this one."
        )
