"""Checks of samples and labels before they become splits."""

from __future__ import annotations

import collections
import logging
import re
from collections.abc import Mapping

import numpy as np

from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

# Sides of images; more channels than this are rare.
_LEAST_SIDE = 8

log = logging.getLogger("tfkd")


def fits_uint8(x: np.ndarray | LazySamples | NamedArrays) -> bool:
    """Whether all values are whole numbers in 0..255."""
    if isinstance(x, NamedArrays):  # each input has a type of its own
        return False
    if isinstance(x, LazySamples):
        return x.dtype == np.uint8
    return x.dtype.kind in "bui" and x.size > 0 and x.min() >= 0 and x.max() <= 255


def check_x(
    x: np.ndarray | LazySamples | NamedArrays, key: str, where: str, fits_uint8: bool
) -> np.ndarray | LazySamples | NamedArrays:
    """Samples as uint8 where all parts fit into it, otherwise as float32.

    Args:
        x: Samples [N, ...].
        key: Name of the array, for messages.
        where: File, folder or name, for messages.
        fits_uint8: Whether the values of all parts fit into uint8.

    Raises:
        InputError: They are not finite numbers, or there are none.
    """
    if isinstance(x, NamedArrays) and (not len(x) or any(0 in shape for shape in x.shapes.values())):
        raise InputError(
            f"load: {where}: {key} must not be empty. Received: {len(x)} samples of {x.shapes}. Add samples."
        )
    if isinstance(x, LazySamples | NamedArrays):  # checked by its source
        return x
    if x.dtype.kind not in "buif":
        raise InputError(f"load: {where}: {key} must be numbers. Received: dtype {x.dtype}. Save uint8 or float32.")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"load: {where}: {key} must be [N, ...] and not empty. Received: shape {x.shape}. Add samples."
        )
    if fits_uint8:
        x = x.astype(np.uint8, copy=False)
        # [N, H, W] bytes are grayscale images; [N, T, F] floats are sequences.
        return x[..., None] if x.ndim == 3 else x
    return to_float32(x, key, where)


def examine_layout(shape: tuple[int, ...], where: str) -> None:
    """Warns of images whose channels seem to be their first axis.

    Args:
        shape: Shape of a sample.
        where: File, folder or name, for the message.
    """
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= _LEAST_SIDE:
        log.warning(
            "%s: samples of the shape %s are read as %s rows of pixels with %s channels. If the channels come first, "
            "save np.moveaxis(x, 1, -1).",
            where,
            shape,
            shape[0],
            shape[2],
        )


def to_float32(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """Numbers [N, ...] as float32.

    Args:
        values: Samples or labels.
        key: Name of the array, for messages.
        where: File, folder or name, for messages.

    Raises:
        InputError: Some are not finite in float32.
    """
    with np.errstate(over="ignore"):  # a float64 that exceeds float32 becomes infinite and raises below
        values = values.astype(np.float32, copy=False)
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise InputError(
            f"load: {where}: {key} must be finite in float32. Received: NaN or infinity in {bad.sum()} rows, first "
            f"in row {bad.argmax()}. Repair these rows, or remove them from samples and labels."
        )
    return values


def check_rows(y: np.ndarray, key: str, rows: int, where: str) -> None:
    """Refuses labels that are not one for each sample.

    Args:
        y: Labels [N, ...].
        key: Name of the array, such as `y_train`, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: Their number is another one.
    """
    if len(y) != rows:
        raise InputError(
            f"load: {where}: {key} must have the length of {key.replace('y', 'x', 1)}. Received: {len(y)} labels for "
            f"{rows} samples. Save one label per sample."
        )


def check_y(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Labels as int64 [N].

    Args:
        y: Labels [N] or [N, 1].
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are not whole numbers, or not one for each sample.
    """
    if y.dtype.kind in "US":
        raise InputError(
            f"load: {where}: {key} must be integers. Received: texts, such as {str(y.flat[0])!r}. Save class numbers "
            f"0..C-1: names, {key} = np.unique({key}, return_inverse=True), with the same names for all parts."
        )
    if y.dtype.kind not in "bui":
        raise InputError(
            f"load: {where}: {key} must be integers. Received: dtype {y.dtype}. Save class numbers 0..C-1; "
            f"those of one-hot rows are np.argmax({key}, axis=1). For a regression declare the task: "
            "labels='values' in Python, --task regression or task = \"regression\" elsewhere."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"load: {where}: {key} must be [N] or [N, 1]. Received: shape {y.shape}. For one-hot labels save "
            f"{key}.argmax(axis=1)."
        )
    check_rows(y, key, rows, where)
    return y.astype(np.int64)


def check_classes(labels_of: Mapping[str, np.ndarray], names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The name of each class.

    Warns of classes that the test part lacks, and of names that differ in capitals only or are equal numbers.

    Args:
        labels_of: Labels of each part by the name of the array, with `y_train`.
        names: Names of the classes; empty for their numbers.
        where: File, folder or name, for messages.

    Raises:
        InputError: A label is no class of the training data, or a class has no training sample.
    """
    found = np.unique(labels_of["y_train"])
    classes = len(names) or int(found[-1]) + 1
    for key, y in labels_of.items():
        labels = np.unique(y)
        if labels[0] < 0 or labels[-1] >= classes:
            outside = labels[0] if labels[0] < 0 else labels[-1]
            row = int((y == outside).argmax())
            raise InputError(
                f"load: {where}: labels must be in 0..{classes - 1}, the classes of y_train. Received: {outside} in "
                f"{key}, row {row}. Renumber the classes from 0 and give each a training sample."
            )
    if len(found) < classes:
        gaps = np.flatnonzero(found != np.arange(len(found)))
        empty = int(gaps[0]) if len(gaps) else len(found)
        largest = "" if names else f" (label {classes - 1} in row {labels_of['y_train'].argmax()})"
        raise InputError(
            f"load: {where}: each class needs training samples. Received: none of class "
            f"{names[empty] if names else empty}, while there are {classes} classes"
            f"{largest}. Add samples or renumber the classes."
        )
    names = names or tuple(str(number) for number in range(classes))
    untested = np.setdiff1d(found, labels_of["y_test"]) if "y_test" in labels_of else ()
    if len(untested):
        listed = ", ".join(names[number] for number in untested[:5])
        log.warning(
            "%s: the test part has no sample of %s of %s classes, which are not validated: %s%s.",
            where,
            len(untested),
            classes,
            listed,
            ", ..." if len(untested) > 5 else "",
        )
    for what, form in (("whose names differ in capitals only", str.casefold), ("that are equal numbers", _number)):
        forms = [form(name) for name in names]
        alike = collections.Counter(forms)
        doubled = [name for name, one in zip(names, forms, strict=True) if alike[one] > 1]
        if doubled:
            log.warning("%s: classes %s: %s.", where, what, ", ".join(doubled[:5]))
    return names


def _number(name: str) -> str | float:
    """The number that a name is, such as 1 and 1.0, or the name."""
    return float(name) if re.fullmatch(r"[+-]?\d+(\.\d*)?", name, re.ASCII) else name
