"""Checks of ids and logits before they are written to a store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfkd._internal.types import Tensor
from tfkd.data import label_augmentation
from tfkd.data.augmentation import Augment
from tfkd.distillation.labels import codec, kinds
from tfkd.errors import InputError
from tfkd.models.logits import are_softmax

# Largest divergence between outputs and their stored form, see `tfkd.distillation.labels.kinds`.
TOLERANCE = 1e-3


def check_settings(classes: int, views: int, top_k: int | None, dtype: str, kind: str) -> None:
    """Raises for settings that no store can have.

    Args:
        classes: Number of classes, >= 2, or of other outputs, >= 1.
        views: Number of views, >= 1.
        top_k: Number of stored logits per sample, 1..classes-1; None for all, as always of outputs other than classes.
        dtype: `float16` or `float32`.
        kind: One of `tfkd.distillation.labels.kinds.KINDS`.

    Raises:
        InputError: A setting is out of range.
    """
    if kind not in kinds.KINDS or (kind != kinds.CLASSES and (top_k is not None or classes < 1)):
        raise InputError(
            f"SoftLabels.create: kind must be one of {', '.join(kinds.KINDS)}, and only classes have top_k. Received: "
            f"kind={kind!r}, {classes} outputs, top_k={top_k}. Correct the argument."
        )
    classes = classes if kind == kinds.CLASSES else max(classes, 2)
    if classes < 2 or views < 1 or dtype not in ("float16", "float32") or not (top_k is None or 1 <= top_k < classes):
        raise InputError(
            f"SoftLabels.create: needs classes >= 2, views >= 1, dtype float16 or float32, 1 <= top_k < classes. "
            f"Received: classes={classes}, views={views}, dtype={dtype!r}, top_k={top_k}. Correct the argument."
        )


def check_ids(ids: Tensor) -> np.ndarray:
    """Ids of samples as int64 [N].

    Args:
        ids: Integers [N], each once.

    Raises:
        InputError: They are not integers, or an id occurs twice.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise InputError(
            f"SoftLabels: ids must be [N] integers. Received: shape {ids.shape}, {ids.dtype}. Use the ids of a split."
        )
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise InputError(
            f"SoftLabels: each id must occur once. Received: {unique[counts > 1][0]} twice or more. Remove duplicates."
        )
    return ids.astype("int64")


def check_logits(path: str, ids: np.ndarray, logits: np.ndarray, classes: int, kind: str) -> None:
    """Raises for values that are not logits of all classes, or other outputs of a store.

    Args:
        path: Folder or URL of the store, for the error message.
        ids: Ids of the samples [n].
        logits: Values to check, expected as float32 [n, C].
        classes: Number C of classes.
        kind: One of `tfkd.distillation.labels.kinds.KINDS`.

    Raises:
        InputError: The shape is wrong, or the values are not finite or are probabilities.
    """
    if logits.shape != (len(ids), classes):
        raise InputError(
            f"{path}: logits must be [{len(ids)}, {classes}]. Received: shape {logits.shape}. Pass one row for each id."
        )
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{path}: logits must be finite. Received: NaN or infinity for ids {ids[~finite][:5].tolist()}. Check the "
            "teacher and its inputs."
        )
    if kind == kinds.CLASSES and are_softmax(logits):
        raise InputError(f"{path}: needs logits. Received: probabilities. Use tfkd.models.load(teacher).")


def check_precision(
    path: str, logits: np.ndarray, packed: Mapping[str, np.ndarray], top_k: int | None, kind: str
) -> None:
    """Raises where the stored type changes the probabilities of the logits, or the values.

    Args:
        path: Folder or URL of the store, for the error message.
        logits: Logits, float32 [n, C].
        packed: Stored form of the logits, see `codec.pack`.
        top_k: Number of stored logits per sample; None for all.
        kind: One of `tfkd.distillation.labels.kinds.KINDS`.

    Raises:
        InputError: The divergence exceeds `TOLERANCE`.
    """
    classes = logits.shape[1]
    exact = codec.unpack(codec.pack(logits, top_k, "float32"), classes)
    error = kinds.divergence(kind, exact, codec.unpack(packed, classes)).max()
    if error > TOLERANCE:
        raise InputError(
            f"{path}: {packed['logits'].dtype} is not precise enough for the outputs. Received: values up to "
            f"{np.abs(logits).max():g}, a divergence of {error:.2g}. Create the store with dtype='float32'."
        )


def find_rows(path: str, known: np.ndarray, ids: np.ndarray, view: int, views: int) -> np.ndarray:
    """The rows of a store that hold some ids in one view.

    Args:
        path: Folder or URL of the store, for the error message.
        known: Id of each row.
        ids: Ids to find.
        view: Number of the view.
        views: Number of views of the store.

    Returns:
        Positions in `known`, integers [n].

    Raises:
        InputError: There is no such view, or an id is unknown.
    """
    if not 0 <= view < views:
        raise InputError(f"{path}: view must be in 0..{views - 1}. Received: {view}. Use 0.")
    order = np.argsort(known)
    positions = np.searchsorted(known, ids, sorter=order)
    found = positions < len(known)
    rows = order[np.where(found, positions, 0)]
    found &= known[rows] == ids
    if not found.all():
        raise InputError(
            f"{path}: ids must be those of the store. Received: {(~found).sum()} unknown, the first "
            f"{np.asarray(ids)[~found][0]}. Use the split that was labelled."
        )
    return rows


def check_sides(path: str, augment: Augment | None, samples: object) -> None:
    """Raises for stored views of mirrored images whose class is another one then, which `SoftLabels.build` refuses.

    Args:
        path: The store, for the message.
        augment: Augmentation of its views; None where it has one view.
        samples: The samples, such as a `Split`.

    Raises:
        InputError: There are such classes.
    """
    pair = label_augmentation.exchanged(augment, samples)
    if pair is not None:
        raise InputError(
            f"{path}: its views must not mirror images of classes with sides, whose labels would be wrong. Received: "
            f"the classes {pair[0]!r} and {pair[1]!r}. Build it again with another augmentation, such as crop_flip "
            "with flip = false, or rename classes that are no sides."
        )
