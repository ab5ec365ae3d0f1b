"""C that prepares the images of a camera as `tfkd.data` prepares those of a data set: color, crop, resize, scale.

Pillow resizes in two passes of integers, along the rows and then along the columns, with weights of 22 fraction bits.
The C has the same weights as tables, and sums the rows of the camera as they come.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from tfkd.data import interpolation
from tfkd.data.reading import ALIASED, FILTERS, ReadingOptions
from tfkd.errors import InputError
from tfkd.micro import task_code
from tfkd.micro.c_context import CTYPES, array_text
from tfkd.micro.emitter import Program
from tfkd.micro.rendering import rendered

_PRECISION = 1 << 22
# Bytes of a pixel in each format, and what they are.
FORMATS = {
    "gray": (1, "one byte of each pixel"),
    "rgb888": (3, "red, green and blue of each pixel, a byte each"),
    "rgb565": (2, "16 bits of each pixel, the low byte first: 5 of red, 6 of green, 5 of blue from the top"),
    "rgb565be": (2, "16 bits of each pixel, the high byte first: 5 of red, 6 of green, 5 of blue from the top"),
}
_LARGEST = 4096


@dataclasses.dataclass(frozen=True)
class Camera:
    """What a camera gives, and how the images of the training were prepared.

    Args:
        width: Pixels of a row, 1..4096.
        height: Rows of an image, 1..4096.
        pixels: Key of `FORMATS`.
        resize: Filter of the training, one of `tfkd.data.reading.FILTERS`.
        crop: How images of another aspect ratio fitted, one of `tfkd.data.reading.CROPS`.
        input_range: What the model expects for the pixels 0 and 255; None for 0 and 255 themselves.

    Raises:
        InputError: A value is wrong.
    """

    width: int
    height: int
    pixels: str
    resize: str = "bilinear"
    crop: str = "none"
    input_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.width <= _LARGEST and 1 <= self.height <= _LARGEST):
            raise InputError(
                f"export-c: a camera must have 1 to {_LARGEST} columns and rows. Received: {self.width}x{self.height}. "
                "Use 160x120:rgb565."
            )
        if self.pixels not in FORMATS:
            raise InputError(
                f"export-c: pixels of a camera must be one of {', '.join(FORMATS)}. Received: {self.pixels!r}. Use "
                "160x120:rgb565."
            )
        ReadingOptions(image_size=(self.height, self.width), resize=self.resize, crop=self.crop)  # checks both
        if self.resize == ALIASED:
            raise InputError(
                f"export-c: the C of a camera has the filters {', '.join(FILTERS)}. Received: resize={ALIASED!r}, "
                "which needs floats. Train with another filter, or resize in the application as tf.image.resize does."
            )
        task_code.check_range(self.input_range)

    @classmethod
    def parse(cls, text: str, **prepared: Any) -> Self:
        """The camera of a text such as `160x120:rgb565`.

        Args:
            text: Width, height and key of `FORMATS`.
            **prepared: How the images of the training were prepared, as for the constructor.

        Raises:
            InputError: The text is none.

        >>> Camera.parse("160x120:rgb565")
        Camera(width=160, height=120, pixels='rgb565', resize='bilinear', crop='none', input_range=None)
        """
        size, _, pixels = text.partition(":")
        width, _, height = size.partition("x")
        if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
            raise InputError(
                f"export-c: a camera must be WIDTHxHEIGHT:PIXELS. Received: {text!r}. Use 160x120:rgb565, or one of "
                f"{', '.join(FORMATS)}."
            )
        return cls(int(width), int(height), pixels, **prepared)


def write(program: Program, camera: Camera) -> dict[str, str]:
    """Writes the files `<name>_camera.h` and `<name>_camera.c`.

    Args:
        program: The C of the model, whose only input is an image, [1, height, width, 1 or 3].
        camera: What the camera gives.

    Raises:
        InputError: The input is no image, or has no room for the range.
    """
    io, shape = program.inputs[0], tuple(program.inputs[0].tensor.shape)
    if len(program.inputs) != 1 or len(shape) != 4 or shape[3] not in (1, 3):
        raise InputError(
            f"export-c: a camera needs a model with one input [1, height, width, 1 or 3]. Received: "
            f"{', '.join(str(list(one.tensor.shape)) for one in program.inputs)}. Leave the option out."
        )
    height, width, channels = shape[1:]
    table = task_code.byte_table(io, camera.input_range)
    if table is None:
        least, most = task_code.held(io) if io.tensor.scales else (0, 0)
        raise InputError(
            f"export-c: a camera needs a quantized input with room for the pixels 0 to 255. Received: "
            f"{io.tensor.dtype} for {least:.4g} to {most:.4g}. Pass --input-range with what the pixels 0 and 255 are."
        )
    columns, rows = _placed(camera, (width, height))
    size, meaning = FORMATS[camera.pixels]
    prefix = f"tfkd_{program.name}_camera"
    variables = {
        "name": program.name,
        "upper": program.name.upper(),
        "value": CTYPES[io.tensor.dtype],
        "camera": camera,
        "width": width,
        "height": height,
        "channels": channels,
        "row_bytes": size * camera.width,
        "meaning": meaning,
        "converts": (camera.pixels, channels) not in (("gray", 1), ("rgb888", 3)),
        "slots": _at_once(rows),
        "table": array_text(f"{prefix}_table", table),
    }
    for kind, taps in (("column", columns), ("row", rows)):
        places = np.cumsum([0, *(len(one.weights) for one in taps)])
        variables |= {
            f"{kind}s": array_text(f"{prefix}_{kind}s", np.array([one.first for one in taps], np.uint16)),
            f"{kind}_places": array_text(f"{prefix}_{kind}_places", places.astype(np.int32)),
            f"{kind}_weights": array_text(
                f"{prefix}_{kind}_weights", np.array([w for one in taps for w in one.weights], np.int32)
            ),
        }
    kinds: Mapping[str, str] = {"h": "camera_header.jinja", "c": "camera.jinja"}
    return {
        f"{program.name}_camera.{end}": rendered(__package__, template, variables) for end, template in kinds.items()
    }


@dataclasses.dataclass(frozen=True)
class _Taps:
    """What a column or row of the result is the sum of.

    Args:
        first: The first column or row of the camera.
        weights: Weights of it and of those that follow, 22 fraction bits.
    """

    first: int
    weights: Sequence[int]


def _at_once(rows: Sequence[_Taps]) -> int:
    """The largest number of rows of the result that one row of the camera is a part of."""
    spans = [(one.first, one.first + len(one.weights)) for one in rows]
    return max(sum(first <= row < end for first, end in spans) for row, _ in spans)


def _placed(camera: Camera, size: tuple[int, int]) -> tuple[list[_Taps], list[_Taps]]:
    """Weights of columns and of rows, as `PIL.ImageOps.fit` (center), `pad` and `Image.resize` (none) place them."""
    own = (camera.width, camera.height)
    boxes, inner = [(0.0, float(length)) for length in own], size
    if own != size and camera.crop == "center":
        left, top, right, bottom = interpolation.centered(own, size)
        boxes = [(left, right), (top, bottom)]
    elif own != size and camera.crop == "pad":
        inner = interpolation.contained(own, size)
        if min(inner) < 1:
            raise InputError(
                f"export-c: crop=pad must leave a pixel of an image. Received: {own[0]}x{own[1]} for "
                f"{size[0]}x{size[1]}. Use crop=center or crop=none."
            )
    found = []
    for length, (start, end), kept, whole in zip(own, boxes, inner, size, strict=True):
        nearest = camera.resize == "nearest"
        taps = _nearest(length, start, end, kept) if nearest else _taps(length, start, end, kept, camera.resize)
        before = round((whole - kept) * 0.5)
        # A border is black: the sum of one pixel of weight 0.
        after = whole - kept - before
        found.append([*[_Taps(0, (0,))] * before, *taps, *[_Taps(length - 1, (0,))] * after])
    return found[0], found[1]


def _step(start: float, end: float, size: int) -> float:
    """Pixels of the camera from one pixel of the result to the next; Pillow keeps the ends in float32."""
    return float(np.float32(end) - np.float32(start)) / size


def _nearest(length: int, start: float, end: float, size: int) -> list[_Taps]:
    """The nearest pixel; positions are sums, whose rounding decides where two are equally near."""
    step = _step(start, end, size)
    at, found = float(np.float32(start)) + step * 0.5, []
    for _ in range(size):
        found.append(_Taps(int(at), (_PRECISION,)) if 0 <= at < length else _Taps(0 if at < 0 else length - 1, (0,)))
        at += step
    return found


def _taps(length: int, start: float, end: float, size: int, resize: str) -> list[_Taps]:
    """The weights of a filter that is as wide as a pixel of the result, if that is larger than one of the camera."""
    reach, weight = _FILTERS[resize]
    step = _step(start, end, size)
    wide = max(1.0, step)
    support, found = reach * wide, []
    for place in range(size):
        center = float(np.float32(start)) + (place + 0.5) * step
        first, last = max(0, int(center - support + 0.5)), min(length, int(center + support + 0.5))
        values = [weight((i - center + 0.5) * (1 / wide)) for i in range(first, last)]
        total = functools.reduce(operator.add, values, 0.0) or 1.0  # `sum` would round better than Pillow
        found.append(_Taps(first, [int(w / total * _PRECISION + (-0.5 if w < 0 else 0.5)) for w in values]))
    return found


def _cubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    def sinc(at: float) -> float:
        return 1.0 if at == 0 else math.sin(math.pi * at) / (math.pi * at)

    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


# Each filter of Pillow: how far it reaches in pixels, and its weight at a distance.
_FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
    "bilinear": (1.0, lambda x: max(0.0, 1 - abs(x))),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, _lanczos),
}
