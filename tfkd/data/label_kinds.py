"""Kinds of labels: class numbers, real values, rows of zeros and ones; masks, boxes and points of images.

| kind | y | one output of a model is |
|---|---|---|
| classes | int64 [N], in 0..C-1 | a class |
| values | float32 [N, K] | a number |
| multi_hot | int64 [N, C] of 0 and 1 | a label that applies or not |
| abnormal | bool [N], see `tfkd.data.abnormal_labels` | a value of the reconstructed sample |
| identities | int64 [N], different ones in each part, see `tfkd.data.identity_labels` | a value of the embedding |
| frames | int32 [N, T], the class of each frame or -1, see `tfkd.data.frame_labels` | a class of a frame |

Masks, boxes and points are described in `tfkd.data.dense_labels`.
"""

from __future__ import annotations

import numpy as np

from tfkd.data import abnormal_labels, checks, dense_labels, frame_labels, identity_labels
from tfkd.errors import InputError

KINDS = (
    "classes",
    "values",
    "multi_hot",
    abnormal_labels.KIND,
    frame_labels.KIND,
    identity_labels.KIND,
    *dense_labels.KINDS,
)


def kind_of(y: np.ndarray) -> str:
    """The kind of checked labels, by their type and shape."""
    if y.ndim == 3:
        return "masks" if y.dtype.kind in "ui" else "boxes" if y.shape[2] == 5 else "points"
    if y.dtype.kind == "b":
        return abnormal_labels.KIND
    if y.dtype == np.int32 and y.ndim == 2:
        return frame_labels.KIND
    return "values" if y.dtype.kind == "f" else "classes" if y.ndim == 1 else "multi_hot"


def check_kind(labels: str | None, where: str) -> None:
    """Refuses a name that is no kind of labels.

    Args:
        labels: Name of a kind, or None.
        where: Function, for the message.

    Raises:
        InputError: It is none.
    """
    if labels is not None and labels not in KINDS:
        raise InputError(f"{where}: labels must be one of {', '.join(KINDS)}. Received: {labels!r}. Choose one.")


def detect(y: np.ndarray) -> str:
    """The kind of labels that were not declared.

    Floats of which some are no whole numbers are values; rows of 0 and 1 of which some have another sum than 1 are
    multi-hot; whole numbers [N, H, W] are masks. Everything else is taken for classes, whose check says what is wrong
    with it.

    Args:
        y: Labels [N, ...].
    """
    if y.dtype.kind == "f" and y.ndim in (1, 2) and not _are_whole(y):
        return "values"
    if y.dtype.kind in "ui" and y.ndim == 3:
        return "masks"
    is_rows = y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "buif"
    if is_rows and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) != 1).any():
        return "multi_hot"
    return "classes"


def _are_whole(y: np.ndarray) -> bool:
    return bool((y[np.isfinite(y)] == np.floor(y[np.isfinite(y)])).all())


def check_values(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Real labels as float32 [N, K].

    Args:
        y: Labels [N] or [N, K].
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are not finite numbers, or not one row for each sample.
    """
    if y.dtype.kind not in "buif" or y.ndim not in (1, 2) or 0 in y.shape[1:]:
        raise InputError(
            f"load: {where}: {key} must be numbers [N] or [N, K]. Received: {y.dtype} of shape {y.shape}. Save floats."
        )
    checks.check_rows(y, key, rows, where)
    return checks.to_float32(y.reshape(len(y), -1), key, where)


def check_multi_hot(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Rows of 0 and 1 as int64 [N, C].

    Args:
        y: Labels [N, C].
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are no such rows, or not one for each sample.
    """
    if y.dtype.kind not in "buif" or y.ndim != 2 or not ((y == 0) | (y == 1)).all():
        raise InputError(
            f"load: {where}: {key} must be rows of 0 and 1, [N, C]. Received: {y.dtype} of shape {y.shape}. Save a "
            "column for each label, with 1 where it applies."
        )
    checks.check_rows(y, key, rows, where)
    return y.astype(np.int64)


def check_names(parts: dict[str, np.ndarray], names: tuple[str, ...], labels: str, where: str) -> tuple[str, ...]:
    """The name of each column of values or multi-hot labels.

    Args:
        parts: Checked labels of each part by the name of the array, with `y_train`.
        names: Given names; empty for the numbers of the columns.
        labels: Their kind.
        where: File, folder or name, for messages.

    Raises:
        InputError: The parts have different numbers of columns, there are other names than columns, or a label has no
            training sample.
    """
    columns = parts["y_train"].shape[1]
    for key, y in parts.items():
        if y.shape[1] != columns:
            raise InputError(
                f"load: {where}: {key} must have the {columns} columns of y_train. Received: {y.shape[1]}. Save the "
                "same columns in all parts."
            )
    if names and len(names) != columns:
        raise InputError(
            f"load: {where}: there must be one name for each of the {columns} columns of labels. Received: "
            f"{len(names)}. Correct class_names."
        )
    found = names or tuple(str(number) for number in range(columns))
    empty = np.flatnonzero(~parts["y_train"].any(axis=0)) if labels == "multi_hot" else np.zeros(0, int)
    if len(empty):
        raise InputError(
            f"load: {where}: each label needs training samples. Received: none of label {found[empty[0]]}. Add samples "
            "or remove its column."
        )
    return found
