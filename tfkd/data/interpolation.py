"""Bilinear interpolation between the four nearest pixels, without antialiasing, and where parts of an image are placed.

TensorFlow, and with it `keras.utils.image_dataset_from_directory`, resizes so; other libraries round in other ways.
The result of `resized` is that of `tf.image.resize` with its defaults, rounded to whole numbers, ties to even.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Size = tuple[int, int]
# Left, top, right and bottom end, in pixels.
Box = tuple[float, float, float, float]


class _Neighbours(NamedTuple):
    """The two pixels along an axis that each pixel of the result lies between.

    Args:
        before: Number of the first one, int64 [N].
        after: Number of the second one, int64 [N].
        share: Share of the second one in the result, 0..1, float32 [N].
    """

    before: np.ndarray
    after: np.ndarray
    share: np.ndarray


def fitted(pixels: np.ndarray, size: Size, crop: str) -> np.ndarray:
    """An image in another size.

    Args:
        pixels: Image, uint8 [h, w] or [h, w, C].
        size: Width and height of the result in pixels.
        crop: One of `tfkd.data.reading.CROPS`.

    Returns:
        Image, uint8 [height, width] or [height, width, C].

    Raises:
        ValueError: No pixel of the image is left within the borders of `pad`.
    """
    own = (pixels.shape[1], pixels.shape[0])
    if crop == "center":
        return resized(pixels, size, centered(own, size))
    if crop == "none":
        return resized(pixels, size, (0.0, 0.0, *own))
    inner = contained(own, size)
    if min(inner) < 1:
        raise ValueError(f"{own[0]} x {own[1]} pixels, of which none is left in {size[0]} x {size[1]}")
    left, top = (round((whole - part) * 0.5) for whole, part in zip(size, inner, strict=True))
    padded = np.zeros((*size[::-1], *pixels.shape[2:]), np.uint8)
    padded[top : top + inner[1], left : left + inner[0]] = resized(pixels, inner, (0.0, 0.0, *own))
    return padded


def resized(pixels: np.ndarray, size: Size, box: Box) -> np.ndarray:
    """A part of an image in another size, see `fitted`."""
    rows = _neighbours(pixels.shape[0], box[1], box[3], size[1])
    columns = _neighbours(pixels.shape[1], box[0], box[2], size[0])
    shape = (-1, *[1] * (pixels.ndim - 2))
    above, below = (_across(pixels[places], columns, columns.share.reshape(shape)) for places in rows[:2])
    share = rows.share.reshape(-1, 1, *shape[1:])
    return np.rint(above + (below - above) * share).astype(np.uint8)


def _across(pixels: np.ndarray, columns: _Neighbours, share: np.ndarray) -> np.ndarray:
    """Rows with the columns of the result, float32; `share` is that of the columns, in the shape of their pixels."""
    before, after = (pixels[:, places].astype(np.float32) for places in columns[:2])
    return before + (after - before) * share


def _neighbours(length: int, start: float, end: float, size: int) -> _Neighbours:
    """The pixels around the centres of `size` equal parts of an axis from start to end, all in float32."""
    half, first = np.float32(0.5), np.float32(start)
    step = (np.float32(end) - first) / np.float32(size)
    places = (np.arange(size, dtype=np.float32) + half) * step - half
    if start:
        places += first
    below = np.floor(places)
    before, after = (ends.astype(np.int64).clip(0, length - 1) for ends in (below, np.ceil(places)))
    return _Neighbours(before, after, places - below)


def centered(own: Size, size: Size) -> Box:
    """The largest part of an image that has the aspect ratio of another size, in its middle."""
    ratio, width, height = size[0] / size[1], float(own[0]), float(own[1])
    if own[0] / own[1] > ratio:
        width = ratio * own[1]
    elif own[0] / own[1] < ratio:
        height = own[0] / ratio
    left, top = (own[0] - width) * 0.5, (own[1] - height) * 0.5
    return left, top, left + width, top + height


def contained(own: Size, size: Size) -> Size:
    """The largest size of an image within another, with its own aspect ratio; 0 where no pixel is left."""
    ratio, wanted = own[0] / own[1], size[0] / size[1]
    if ratio > wanted:
        return size[0], round(own[1] / own[0] * size[0])
    return (round(own[0] / own[1] * size[1]), size[1]) if ratio < wanted else size
