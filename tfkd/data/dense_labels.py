"""Labels of images with positions: masks, boxes and points.

| kind | y |
|---|---|
| masks | uint8 [N, H, W]: the class of each pixel, `IGNORED` for a pixel that does not count |
| boxes | float32 [N, M, 5]: left, top, right, bottom as shares of width and height, class; rows of class -1 fill |
| points | float32 [N, K, 3]: x, y as shares of width and height, and 1 where the point is visible, otherwise 0 |

Boxes and points are shares of the image, not pixels, so that they stay right where images are resized.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfkd.data import checks
from tfkd.errors import InputError

KINDS = ("masks", "boxes", "points")
# The class of a pixel of a mask that counts neither in a loss nor in a metric, as in Pascal VOC.
IGNORED = 255
# Boxes may exceed the image by this share of its side, the rounding of annotation tools; they are cut off.
_ROUNDING = 1e-3


def check_masks(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Masks as uint8 [N, H, W].

    Args:
        y: Class numbers, integers [N, H, W] or [N, H, W, 1].
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are no whole numbers in 0..255, or not one mask for each sample.
    """
    y = y[..., 0] if y.ndim == 4 and y.shape[-1] == 1 else y
    if y.dtype.kind not in "bui" or y.ndim != 3 or 0 in y.shape:
        raise InputError(
            f"load: {where}: {key} must be masks, integers [N, H, W]. Received: {y.dtype} of shape {y.shape}. Save the "
            "class number of each pixel."
        )
    checks.check_rows(y, key, rows, where)
    outside = ((y < 0) | (y > IGNORED)).reshape(len(y), -1).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"load: {where}: {key} must be in 0..{IGNORED}. Received: {y[row].min()}..{y[row].max()} in row {row}. "
            f"Number the classes from 0; {IGNORED} is for pixels that do not count."
        )
    return y.astype(np.uint8)


def check_boxes(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Boxes as float32 [N, M, 5], cut off at the edges of the image.

    Args:
        y: Numbers [N, M, 5], see the table of this module.
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are no such boxes, or a box is empty or outside of its image.
    """
    y = _floats(y, key, rows, where, 5, "boxes [N, M, 5] of left, top, right, bottom and class")
    real = y[..., 4] >= 0
    whole = y[..., 4] == np.floor(y[..., 4])
    ends = y[..., :4]
    inside = ((ends >= -_ROUNDING) & (ends <= 1 + _ROUNDING)).all(axis=-1)
    cut = np.clip(ends, 0, 1)
    filled = (cut[..., 0] < cut[..., 2]) & (cut[..., 1] < cut[..., 3])
    _refuse(~real & (y[..., 4] != -1) | ~whole, y, key, where, "have a whole class number, or -1 in a row that fills")
    _refuse(real & ~inside, y, key, where, "lie in their image, with shares of its width and height in 0..1")
    _refuse(real & ~filled, y, key, where, "have left < right and top < bottom")
    return np.concatenate([cut, y[..., 4:]], axis=-1).astype(np.float32)


def check_points(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Points as float32 [N, K, 3]; those that are not visible are 0, 0, 0.

    Args:
        y: Numbers [N, K, 3], see the table of this module.
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are no such points, or a visible one is outside of its image.
    """
    y = _floats(y, key, rows, where, 3, "points [N, K, 3] of x, y and whether they are visible")
    visible = y[..., 2] > 0
    inside = ((y[..., :2] >= -_ROUNDING) & (y[..., :2] <= 1 + _ROUNDING)).all(axis=-1)
    _refuse(visible & ~inside, y, key, where, "lie in their image, with shares of its width and height in 0..1")
    found = np.concatenate([np.clip(y[..., :2], 0, 1), np.ones((*y.shape[:2], 1))], axis=-1)
    return np.where(visible[..., None], found, 0).astype(np.float32)


CHECKS = {"masks": check_masks, "boxes": check_boxes, "points": check_points}


def _floats(y: np.ndarray, key: str, rows: int, where: str, columns: int, what: str) -> np.ndarray:
    if y.dtype.kind not in "buif" or y.ndim != 3 or y.shape[2] != columns:
        raise InputError(
            f"load: {where}: {key} must be {what}. Received: {y.dtype} of shape {y.shape}. Save such rows."
        )
    checks.check_rows(y, key, rows, where)
    return checks.to_float32(y, key, where)


def _refuse(wrong: np.ndarray, y: np.ndarray, key: str, where: str, rule: str) -> None:
    """Raises for the first row that is wrong, bool [N, M]."""
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        values = np.round(y[row, place].astype(float), 4).tolist()
        raise InputError(f"load: {where}: each of {key} must {rule}. Received: {values} in row {row}. Correct it.")


def check_names(parts: Mapping[str, np.ndarray], names: tuple[str, ...], labels: str, where: str) -> tuple[str, ...]:
    """The name of each class of masks and boxes, or of each point.

    Args:
        parts: Checked labels of each part by the name of the array, with `y_train`.
        names: Given names; empty for numbers.
        labels: Their kind.
        where: File, folder or name, for messages.

    Raises:
        InputError: A class has no name or no training sample, masks have one class only, or the parts have different
            numbers of points.
    """
    if labels == "points":
        return _point_names(parts, names, where)
    used = {key: classes_of(y, labels) for key, y in parts.items()}
    if not len(used["y_train"]):
        raise InputError(f"load: {where}: y_train must have labels. Received: none at all. Add labelled samples.")
    count = len(names) or int(used["y_train"][-1]) + 1
    if labels == "masks" and count < 2:
        raise InputError(
            f"load: {where}: masks must have two classes or more. Received: one, {used['y_train'][0]}. Number them "
            f"from 0: where {IGNORED} is an object, save 1, because pixels of {IGNORED} do not count."
        )
    for key, found in used.items():
        if len(found) and found[-1] >= count:
            numbers = parts[key] if labels == "masks" else parts[key][..., 4]
            row = int((numbers == found[-1]).reshape(len(numbers), -1).any(axis=1).argmax())
            raise InputError(
                f"load: {where}: classes must be in 0..{count - 1}, those of y_train. Received: {found[-1]} in {key}, "
                f"row {row}. Correct it, or give the class a name and training samples."
            )
    missing = sorted(set(range(count)) - set(used["y_train"].tolist()))
    if missing:
        raise InputError(
            f"load: {where}: each class needs training samples. Received: none of class "
            f"{names[missing[0]] if names else missing[0]}, while there are {count} classes. Add samples, or remove "
            "or renumber the classes."
        )
    return names or tuple(map(str, range(count)))


def classes_of(y: np.ndarray, labels: str) -> np.ndarray:
    """The classes that occur, in order.

    Args:
        y: Checked labels of the kind masks or boxes.
        labels: Their kind.
    """
    found = np.unique(y if labels == "masks" else y[..., 4]).astype(np.int64)
    return found[found != IGNORED] if labels == "masks" else found[found >= 0]


def shows(y: np.ndarray, labels: str) -> np.ndarray:
    """Which sample shows which class, bool [N, classes].

    Args:
        y: Checked labels of the kind masks or boxes.
        labels: Their kind.
    """
    rows = (y if labels == "masks" else y[..., 4]).reshape(len(y), -1)
    found = [(rows == one).any(axis=1) for one in classes_of(y, labels)]
    return np.stack(found, axis=1) if found else np.zeros((len(y), 0), bool)


def _point_names(parts: Mapping[str, np.ndarray], names: tuple[str, ...], where: str) -> tuple[str, ...]:
    count = len(names) or parts["y_train"].shape[1]
    for key, y in parts.items():
        if y.shape[1] != count:
            raise InputError(
                f"load: {where}: {key} must have {count} points for each sample. Received: {y.shape[1]}. Save the "
                "same points, with the same names, in all parts."
            )
    empty = np.flatnonzero(~parts["y_train"][..., 2].any(axis=0))
    if len(empty):
        name = names[empty[0]] if names else empty[0]
        raise InputError(
            f"load: {where}: each point needs training samples where it is visible. Received: none of {name}. Add "
            "samples or remove it."
        )
    return names or tuple(map(str, range(count)))


def check_images(x_shape: tuple[int, ...], labels: str, where: str) -> None:
    """Refuses labels with positions of samples that are no images.

    Args:
        x_shape: Shape of one sample.
        labels: Kind of the labels.
        where: File, folder or name, for messages.

    Raises:
        InputError: A sample has another number of axes than an image.
    """
    if len(x_shape) != 3:
        raise InputError(
            f"load: {where}: samples with {labels} must be images, [N, height, width, channels]. Received: samples of "
            f"shape {x_shape}. Save images, or declare other labels."
        )


def check_sizes(y: np.ndarray, x_shape: tuple[int, ...], key: str, where: str) -> None:
    """Refuses masks of another size than their images.

    Args:
        y: Masks, uint8 [N, H, W].
        x_shape: Shape of one sample.
        key: Name of the array, for messages.
        where: File, folder or name, for messages.

    Raises:
        InputError: Height or width differ.
    """
    if y.shape[1:] != x_shape[:2]:
        raise InputError(
            f"load: {where}: masks of {key} must have the height and width of their images, "
            f"{' x '.join(map(str, x_shape[:2]))}. Received: {y.shape[1]} x {y.shape[2]}. Save one class for each "
            "pixel."
        )
