"""Images of coloured shapes with labels for every task on images: generated from a seed, nothing is downloaded.

Each image shows one to four objects, which do not overlap, on a grey background with noise. An object is a circle, a
square or a triangle in one of six colours; squares and triangles are turned at random. Sample i is the same however
many samples are generated. The labels depend on the kind that a task asks for:

| kind | label of an image |
|---|---|
| classes | the shape of its largest object |
| multi_hot | which shapes occur |
| values | how many objects of each shape it shows |
| masks | the shape at each pixel; 0 is the background |
| boxes | a box around each object, with its shape |
| points | the centre of the largest object of each shape; not visible where there is none |

Instead of the image, x can be its caption: token ids of words such as `small red circle left top`, one group of words
for each object, from left to right.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

SHAPES = ("circle", "square", "triangle")
COLORS = {
    "red": (220, 50, 40),
    "green": (50, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (220, 200, 50),
    "cyan": (60, 200, 210),
    "magenta": (200, 60, 190),
}
_SIZES = ("small", "large")
_COLUMNS = ("left", "centre", "right")
_ROWS = ("top", "middle", "bottom")
# Token 0 fills captions up to the length of the longest.
VOCABULARY = ("", *_SIZES, *COLORS, *SHAPES, *_COLUMNS, *_ROWS)
MOST_OBJECTS = 4
_WORDS_OF_OBJECT = 5
_SAMPLES = 2000
_IMAGE_SIZE = (48, 48)
_TEST_SHARE = 0.3
_LEAST_SAMPLES, _LEAST_SIDE = 20, 16
# Radius of the circle around an object, as a share of the shorter side of the image.
_RADII = {"small": (0.09, 0.13), "large": (0.15, 0.21)}
_TRIES = 30
_NOISE = 18.0


@dataclasses.dataclass(frozen=True)
class Object:
    """One object of an image.

    Args:
        shape: Number of its shape in `SHAPES`.
        color: Number of its colour in `COLORS`.
        size: `small` or `large`.
        x: Column of its centre, in pixels from the left edge.
        y: Row of its centre, in pixels from the upper edge.
        radius: Radius of the circle around it, in pixels.
        angle: Rotation, in radians.
    """

    shape: int
    color: int
    size: str
    x: float
    y: float
    radius: float
    angle: float

    def covers(self, height: int, width: int) -> np.ndarray:
        """Whether each pixel's centre lies in the object, bool [height, width]."""
        u = np.arange(width)[None, :] + 0.5 - self.x
        v = np.arange(height)[:, None] + 0.5 - self.y
        if SHAPES[self.shape] == "circle":
            return u**2 + v**2 <= self.radius**2
        sides = 4 if SHAPES[self.shape] == "square" else 3
        inner = self.radius * math.cos(math.pi / sides)  # distance of each side from the centre
        normals = self.angle + 2 * math.pi / sides * np.arange(sides)
        distances = [u * math.cos(normal) + v * math.sin(normal) for normal in normals]
        return np.all([distance <= inner for distance in distances], axis=0)


@dataclasses.dataclass(frozen=True)
class Scene:
    """One sample.

    Args:
        image: Image, uint8 [height, width, 3].
        mask: 0 for the background, 1 + the number of the shape elsewhere; uint8 [height, width].
        objects: Its objects, from left to right.
        boxes: Left, top, right and bottom as shares of width and height, and the number of the shape, float32 [M, 5].
    """

    image: np.ndarray
    mask: np.ndarray
    objects: tuple[Object, ...]
    boxes: np.ndarray

    @property
    def caption(self) -> str:
        """The objects in words, from left to right."""
        return ", ".join(" ".join(words) for words in self.words)

    @property
    def words(self) -> list[tuple[str, ...]]:
        """The words of each object: size, colour, shape, column and row."""
        height, width = self.mask.shape
        return [
            (
                one.size,
                tuple(COLORS)[one.color],
                SHAPES[one.shape],
                _COLUMNS[int(3 * one.x / width)],
                _ROWS[int(3 * one.y / height)],
            )
            for one in self.objects
        ]


def scene(number: int, height: int, width: int, seed: int = 0) -> Scene:
    """The sample of a number.

    Args:
        number: Number of the sample, >= 0.
        height: Height of the image in pixels, >= 16.
        width: Width of the image in pixels, >= 16.
        seed: Seed of the data set, >= 0.

    >>> scene(0, 48, 48).caption.split(", ")[0]
    'large cyan circle left top'
    """
    rng = np.random.default_rng([seed, number])
    objects = _place(rng, height, width)
    image = np.full((height, width, 3), 70 + 90 * rng.random(), np.float64)
    mask = np.zeros((height, width), np.uint8)
    boxes = np.zeros((len(objects), 5), np.float32)
    for place, one in enumerate(objects):
        covered = one.covers(height, width)
        image[covered] = np.array(tuple(COLORS.values())[one.color]) * (0.6 + 0.4 * rng.random())
        mask[covered] = 1 + one.shape
        rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
        ends = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        boxes[place] = (*ends, one.shape)
    image += _NOISE * (rng.random(image.shape) + rng.random(image.shape) - 1)
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, objects, boxes)


def _place(rng: np.random.Generator, height: int, width: int) -> tuple[Object, ...]:
    """One to four objects that do not overlap, from left to right."""
    wanted, side = int(rng.integers(1, MOST_OBJECTS + 1)), min(height, width)
    found: list[Object] = []
    for _ in range(wanted * _TRIES):
        size = _SIZES[int(rng.integers(2))]
        low, high = _RADII[size]
        radius = side * (low + (high - low) * rng.random())
        x, y = (radius + (length - 2 * radius) * rng.random() for length in (width, height))
        shape, color = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLORS)))
        angle = 2 * math.pi * rng.random()
        if all(math.hypot(x - one.x, y - one.y) > radius + one.radius + 1 for one in found):
            found.append(Object(shape, color, size, x, y, radius, angle))
        if len(found) == wanted:
            break
    return tuple(sorted(found, key=lambda one: one.x))


def read(request: Request) -> Arrays:
    """Generates the data set; the last 30 % of the samples are its test part.

    Raises:
        InputError: An option is out of range, or there are no labels of the declared kind.
    """
    options = request.options
    samples, (height, width) = options.sample_count or _SAMPLES, options.image_size or _IMAGE_SIZE
    if samples < _LEAST_SAMPLES or min(height, width) < _LEAST_SIDE:
        raise InputError(
            f"load: shapes needs sample_count >= {_LEAST_SAMPLES} and an image_size of at least {_LEAST_SIDE} x "
            f"{_LEAST_SIDE} pixels. Received: {samples} samples of {height} x {width}. Use more."
        )
    labels = request.labels or "classes"
    if labels not in _LABELS:
        raise InputError(
            f"load: shapes has labels of the kinds {', '.join(_LABELS)}. Received: labels={labels!r}, declared or by "
            "its task. Choose one of these."
        )
    scenes = [scene(number, height, width) for number in range(samples)]
    x = np.stack([_tokens(one) if options.content == "caption" else one.image for one in scenes])
    y = np.stack([_LABELS[labels](one) for one in scenes])
    train = samples - round(_TEST_SHARE * samples)
    return Arrays(
        *(x[:train], y[:train], x[train:], y[train:]),
        class_names=("background", *SHAPES) if labels == "masks" else SHAPES,
        name="shapes",
        location="shapes",
        labels=labels,
    )


def _tokens(one: Scene) -> np.ndarray:
    """The token ids of a caption, uint8 [20]."""
    words = [VOCABULARY.index(word) for words in one.words for word in words]
    return np.array(words + [0] * (MOST_OBJECTS * _WORDS_OF_OBJECT - len(words)), np.uint8)


def _count(one: Scene) -> np.ndarray:
    return np.bincount([found.shape for found in one.objects], minlength=len(SHAPES)).astype(np.float32)


def _padded_boxes(one: Scene) -> np.ndarray:
    rows = np.tile(np.array([0, 0, 0, 0, -1], np.float32), (MOST_OBJECTS, 1))
    rows[: len(one.boxes)] = one.boxes
    return rows


def _points(one: Scene) -> np.ndarray:
    """X and y as shares of width and height, and 1 where the point is visible: float32 [3, 3]."""
    height, width = one.mask.shape
    rows = np.zeros((len(SHAPES), 3), np.float32)
    for found in sorted(one.objects, key=lambda found: found.radius):  # the largest last
        rows[found.shape] = (found.x / width, found.y / height, 1)
    return rows


_LABELS = {
    "classes": lambda one: np.int64(max(one.objects, key=lambda found: found.radius).shape),
    "multi_hot": lambda one: (_count(one) > 0).astype(np.int64),
    "values": _count,
    "masks": lambda one: one.mask,
    "boxes": _padded_boxes,
    "points": _points,
}

SOURCE = Source(
    accepts=lambda request: request.reference == "shapes",
    read=read,
    names=("shapes",),
    options=("sample_count", "image_size", "content"),
)
