"""Boxes of annotation files: checked against their image, as shares of it, in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfkd.errors import InputError

# Boxes may exceed the image by this many pixels, the rounding of annotation tools; they are cut off.
_ROUNDING = 1.0

# Left, top, right, bottom as shares of width and height, and the class.
Box = tuple[float, float, float, float, int]


def of_pixels(ends: Sequence[float], size: tuple[int, int], number: int, where: str) -> Box:
    """A box as shares of its image, cut off at its edges.

    Args:
        ends: Left, top, right and bottom in pixels.
        size: Width and height of the image in pixels.
        number: Class number.
        where: File and object, for messages.

    Raises:
        InputError: The box is empty or outside of the image.
    """
    left, top, right, bottom = ends
    width, height = size
    if not all(np.isfinite(ends)) or left >= right or top >= bottom:
        raise InputError(
            f"load: {where}: a box must have left < right and top < bottom. Received: {_text(ends)}. Correct or remove "
            "it."
        )
    low, high = min(left, top), max(right - width, bottom - height)
    if low < -_ROUNDING or high > _ROUNDING:
        raise InputError(
            f"load: {where}: a box must lie in its image of {width} x {height} pixels. Received: {_text(ends)}. "
            "Correct or remove it."
        )
    found = np.clip([left / width, top / height, right / width, bottom / height], 0, 1)
    if found[0] >= found[2] or found[1] >= found[3]:
        raise InputError(f"load: {where}: a box must lie in its image. Received: {_text(ends)}. Correct or remove it.")
    start_x, start_y, end_x, end_y = map(float, found)
    return start_x, start_y, end_x, end_y, number


def _text(ends: Sequence[float]) -> str:
    return f"left {ends[0]:g}, top {ends[1]:g}, right {ends[2]:g}, bottom {ends[3]:g}"


def padded(boxes: Sequence[Sequence[Box]]) -> np.ndarray:
    """The boxes of all images, float32 [N, M, 5]; rows of class -1 fill up to the largest number of boxes.

    >>> padded([[(0.0, 0.0, 0.5, 0.5, 1)], []])[:, 0, 4].tolist()
    [1.0, -1.0]
    """
    most = max(1, *map(len, boxes))
    found = np.zeros((len(boxes), most, 5), np.float32)
    found[..., 4] = -1
    for row, one in enumerate(boxes):
        if one:
            found[row, : len(one)] = one
    return found
