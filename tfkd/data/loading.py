"""Reads a data set and divides it into training, validation and test split."""

from __future__ import annotations

import dataclasses
import difflib
import os
from typing import Any

import numpy as np

from tfkd.data.sources import NAMES, SOURCES
from tfkd.data.sources.source import Arrays, Request
from tfkd.data.splits import Split, Splits, class_ranks
from tfkd.errors import InputError

# A source without a test part is divided with this share and seed, whatever the user's seed, so that two runs are
# evaluated on the same samples.
_TEST_SHARE = 0.3
_TEST_SEED = 20240229


def load(
    name_or_path: str | os.PathLike[str] = "digits",
    *,
    validation: float = 0.1,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
) -> Splits:
    """Loads a data set; the validation split is a stratified part of the training data.

    Args:
        name_or_path: One of the following; a name has precedence over a path (write `./digits` for a folder `digits`).
            A name of `NAMES`: `digits` is embedded, the others come from `$TFKD_DATA/NAME.npz`, else from the cache of
            Keras, else by download. The name of another file `$TFKD_DATA/NAME.npz`. A `.npz` file with x_train,
            y_train, x_test, y_test. A folder of PNG and JPEG images with one sub-folder per class, or with `train/` and
            `test/` of that form.
        validation: Share of the training data for validation, 0 <= validation < 1; at least one sample of each class
            unless 0.
        seed: Random seed of the validation split, >= 0.
        image_size: (height, width) in pixels to which the images of a folder are resized; by default all must have one
            size.

    Returns:
        The training, validation and test split. Grayscale images get a channel axis. A source without a test part is
        divided 70 : 30 into training and test data, stratified and always in the same way.

    Raises:
        InputError: The source is missing, malformed or too small, or an argument is out of range.
        ToolMissingError: A named data set could not be downloaded.

    >>> load("digits").test
    <Split digits/test: 539 x (8, 8, 1), 10 classes>
    """
    request = Request(str(name_or_path), image_size)
    source = next((source for source in SOURCES if source.accepts(request)), None)
    if source is None:
        near = difflib.get_close_matches(request.reference, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(NAMES)}, a .npz file or a folder."
        raise InputError(f"load: {request.reference!r} is neither a known data set nor a file or folder. {hint}")
    if image_size is not None and not source.resizes:
        raise InputError(
            f"load: image_size is for a folder of images. Received: {request.reference}. Leave image_size out."
        )
    return _split(source.read(request), validation=validation, seed=seed)


def from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    name: str = "arrays",
    class_names: tuple[str, ...] = (),
    validation: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Makes splits of arrays in memory, with the checks of `load`.

    Args:
        train: Samples [N, ...] and labels [N] or [N, 1] for training and validation.
        test: Samples [M, ...] and labels [M] or [M, 1] of the test split.
        name: Name of the data set.
        class_names: Name of each class; by default "0", "1", ...
        validation: Share of the training data for validation, 0 <= validation < 1.
        seed: Random seed of the validation split, >= 0.

    Raises:
        InputError: The arrays are malformed or too small, or an argument is out of range.

    >>> import numpy as np
    >>> x, y = np.zeros((6, 2), "float32"), np.array([0, 1] * 3)
    >>> from_arrays((x, y), (x, y), validation=0.34).val
    <Split arrays/val: 2 x (2,), 2 classes>
    """
    x_train, y_train, x_test, y_test = (np.asarray(array) for array in (*train, *test))
    arrays = Arrays(x_train, y_train, x_test, y_test, tuple(class_names), name=name, location=name)
    return _split(arrays, validation=validation, seed=seed)


def _split(arrays: Arrays, *, validation: float, seed: int) -> Splits:
    if not 0 <= validation < 1:
        raise InputError(f"load: validation must be in [0, 1). Received: validation={validation}. Use 0.1.")
    if seed < 0:
        raise InputError(f"load: seed must be >= 0. Received: seed={seed}. Use 0.")
    where, name = arrays.location, arrays.name
    x_train, y_train, x_test, y_test = _with_test_part(arrays)
    fits_uint8 = _fits_uint8(x_train) and _fits_uint8(x_test)
    x_train = _check_x(x_train, "x_train", where, fits_uint8)
    x_test = _check_x(x_test, "x_test", where, fits_uint8)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"load: {where}: samples of x_train and x_test must have the same shape. "
            f"Received: {x_train.shape[1:]} and {x_test.shape[1:]}. Resize or pad one of them."
        )
    y_train = _check_y(y_train, "y_train", len(x_train), where)
    y_test = _check_y(y_test, "y_test", len(x_test), where)
    class_names = _check_classes(y_train, y_test, arrays.class_names, where)
    ids = np.arange(len(y_train) + len(y_test))
    test = Split(x_test, y_test, ids[len(y_train) :], "test", name, class_names)
    in_val = _choose(y_train, validation, seed, part="validation", where=where, names=class_names)
    train = Split(x_train, y_train, ids[: len(y_train)], "train", name, class_names, held_out=test)
    val = dataclasses.replace(train.take(np.flatnonzero(in_val)), role="val")
    return Splits(train.take(np.flatnonzero(~in_val)), val, test)


def _with_test_part(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, y_train, x_test, y_test; the test part is split off where the source has none."""
    x, y = arrays.x_train, arrays.y_train
    if arrays.x_test is not None and arrays.y_test is not None:
        return x, y, arrays.x_test, arrays.y_test
    in_test = _choose(y, _TEST_SHARE, _TEST_SEED, part="test", where=arrays.location, names=arrays.class_names)
    return x[~in_test], y[~in_test], x[in_test], y[in_test]


def _fits_uint8(x: np.ndarray) -> bool:
    return x.dtype.kind in "bui" and x.size > 0 and x.min() >= 0 and x.max() <= 255


def _check_x(x: np.ndarray, key: str, where: str, fits_uint8: bool) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise InputError(f"load: {where}: {key} must be numbers. Received: dtype {x.dtype}. Save uint8 or float32.")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"load: {where}: {key} must be [N, ...] and not empty. Received: shape {x.shape}. Add samples."
        )
    if fits_uint8:
        x = x.astype(np.uint8, copy=False)
        return (
            x[..., None] if x.ndim == 3 else x
        )  # [N, H, W] bytes are grayscale images; [N, T, F] floats are sequences
    with np.errstate(over="ignore"):  # a float64 that exceeds float32 becomes infinite and raises below
        x = x.astype(np.float32, copy=False)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        raise InputError(
            f"load: {where}: {key} must be finite in float32. Received: NaN or infinity in {bad.sum()} samples, first "
            f"in row {bad.argmax()}. Repair these rows, or remove them from samples and labels."
        )
    return x


def _check_y(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    if y.dtype.kind not in "bui":
        raise InputError(
            f"load: {where}: {key} must be integers. Received: dtype {y.dtype}. Save class numbers 0..C-1; "
            f"those of one-hot rows are np.argmax({key}, axis=1)."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"load: {where}: {key} must be [N] or [N, 1]. Received: shape {y.shape}. For one-hot labels save "
            f"{key}.argmax(axis=1)."
        )
    if len(y) != rows:
        raise InputError(
            f"load: {where}: {key} must have the length of {key.replace('y', 'x', 1)}. Received: {len(y)} labels for "
            f"{rows} samples. Save one label per sample."
        )
    return y.astype(np.int64)


def _check_classes(y_train: np.ndarray, y_test: np.ndarray, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    found = np.unique(y_train)
    classes = len(names) or int(found[-1]) + 1
    for key, labels in (("y_train", found), ("y_test", np.unique(y_test))):
        if labels[0] < 0 or labels[-1] >= classes:
            outside = labels[0] if labels[0] < 0 else labels[-1]
            raise InputError(
                f"load: {where}: labels must be in 0..{classes - 1}, the classes of y_train. Received: {outside} in "
                f"{key}. Renumber the classes from 0 and give each a training sample."
            )
    if len(found) < classes:
        gaps = np.flatnonzero(found != np.arange(len(found)))
        empty = int(gaps[0]) if len(gaps) else len(found)
        raise InputError(
            f"load: {where}: each class needs training samples. Received: none of class "
            f"{names[empty] if names else empty}, while there are {classes} classes. Add samples or renumber the "
            "classes."
        )
    return names or tuple(str(number) for number in range(classes))


def _choose(y: np.ndarray, share: float, seed: int, *, part: str, where: str, names: tuple[str, ...]) -> np.ndarray:
    """A mask [N] that chooses `share` of each class at random, at least one sample of it and never all."""
    if share == 0:
        return np.zeros(len(y), bool)
    rank, size = class_ranks(y, seed)
    if size.min() < 2:
        label = int(y[size.argmin()])
        raise InputError(
            f"load: {where}: a {part} part needs 2 training samples of each class. Received: 1 of class "
            f"{names[label] if names else label}. Add samples, or "
            f"{'use validation=0' if part == 'validation' else 'provide a separate test part'}."
        )
    return rank < np.clip(np.rint(share * size), 1, size - 1)
