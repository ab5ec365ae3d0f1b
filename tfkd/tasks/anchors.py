"""Anchors of detectors, and the decoder from their outputs to boxes: the same for each model and engine.

A model has one row of `4 + C` values for each anchor: the offsets of its box and one logit for each class. The anchors
follow from the size of the image and the number of rows:

    level k of the strides, such as (8, 16)    rows × columns = ceil(height / stride) × ceil(width / stride)
    in each cell, in this order                side 0.2 · 2^k of the shorter side of the image, for the ratios of
                                               width and height 1, 2 and 1/2, of equal area

Reference:
    Liu et al.: SSD: Single Shot MultiBox Detector (arXiv:1512.02325), section 2.2.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

from tfkd.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

RATIOS = (1.0, 2.0, 0.5)
# The strides of models, in the order in which a number of anchors is looked up.
STRIDES = ((8, 16), (8, 16, 32), (16, 32), (16, 32, 64), (4, 8, 16), (8,), (16,))
_SMALLEST = 0.2
# Offsets are divided by these, so that their values have about the magnitude 1.
VARIANCES = (0.1, 0.2)
# Largest exponent of a size, as in other detectors: sizes of an untrained model stay finite.
LARGEST_EXPONENT = 4.135
# Largest IoU of two boxes of a class that are both kept, largest number of boxes of a sample.
NMS_IOU, MOST = 0.5, 100


class Boxes(NamedTuple):
    """The boxes that were found in one sample, the most certain first.

    Args:
        ends: Left, top, right, bottom as shares of width and height, float64 [D, 4].
        classes: Classes, int64 [D].
        scores: Probabilities, float64 [D].
    """

    ends: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@functools.lru_cache(maxsize=32)
def of(height: int, width: int, strides: tuple[int, ...]) -> np.ndarray:
    """The anchors of an image: x and y of the centre, width and height, as shares of the image, float64 [A, 4]."""
    import numpy as np

    found = []
    for level, stride in enumerate(strides):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        side = _SMALLEST * 2**level * min(height, width)
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        for_ratios = [
            np.stack([x, y, *(np.full_like(x, size) for size in (side * r**0.5 / width, side / r**0.5 / height))], -1)
            for r in RATIOS
        ]
        found.append(np.stack(for_ratios, axis=2).reshape(-1, 4))
    return np.concatenate(found)


def for_outputs(input_shape: tuple[int, ...], count: int) -> np.ndarray:
    """The anchors of a model with `count` rows, float64 [count, 4].

    Args:
        input_shape: Height, width and channels of an image.
        count: Number of rows of its outputs.

    Raises:
        ModelError: No strides give that number.
    """
    strides = strides_of(input_shape, count)
    if strides is None:
        raise ModelError(
            f"object_detection: outputs must have a row for each anchor of one of the strides {STRIDES}, with "
            f"{len(RATIOS)} anchors in a cell. Received: {count} rows for images of {input_shape[0]} x "
            f"{input_shape[1]}. Use tfkd.models.ssdlite."
        )
    return of(input_shape[0], input_shape[1], strides)


def strides_of(input_shape: tuple[int, ...], count: int | None) -> tuple[int, ...] | None:
    """The strides that give a number of anchors; None where there are none."""
    for strides in STRIDES:
        cells = sum(math.ceil(input_shape[0] / one) * math.ceil(input_shape[1] / one) for one in strides)
        if cells * len(RATIOS) == count:
            return strides
    return None


def decode(outputs: np.ndarray, anchors: np.ndarray, threshold: float) -> Boxes:
    """The boxes of one sample.

    `x = a_x + 0.1 · t_x · a_w` and `w = a_w · exp(0.2 · t_w)`, likewise y and h; the probability of a class is the
    sigmoid of its logit. Of boxes of a class with an IoU above 0.5 the most certain is kept; at most 100 are.

    Args:
        outputs: Offsets t and logits, [A, 4 + C].
        anchors: The anchors, [A, 4].
        threshold: Smallest probability, > 0.
    """
    import numpy as np

    values = outputs.astype(np.float64)
    scores = 1 / (1 + np.exp(-np.clip(values[:, 4:], -60, 60)))
    rows, classes = np.nonzero(scores >= threshold)
    found = scores[rows, classes]
    order = np.argsort(-found, kind="stable")
    rows, classes, found = rows[order], classes[order], found[order]
    ends = boxes_of(values[rows, :4], anchors[rows])
    kept: list[int] = []
    suppressed = np.zeros(len(rows), bool)
    for row in range(len(rows)):
        if suppressed[row]:
            continue
        kept.append(row)
        if len(kept) == MOST:
            break
        # Row by row: all pairs of the boxes of an untrained model would take many gigabytes.
        suppressed |= (iou(ends[row : row + 1], ends)[0] > NMS_IOU) & (classes == classes[row])
    return Boxes(np.clip(ends[kept], 0, 1), classes[kept], found[kept])


def boxes_of(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of offsets from anchors, [A, 4], [A, 4] -> [A, 4]."""
    import numpy as np

    centre = anchors[:, :2] + VARIANCES[0] * offsets[:, :2] * anchors[:, 2:]
    size = anchors[:, 2:] * np.exp(np.minimum(VARIANCES[1] * offsets[:, 2:], LARGEST_EXPONENT))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, [D, 4], [E, 4] -> [D, E]."""
    import numpy as np

    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(ends[:, 2:] - ends[:, :2]).prod(axis=1) for ends in (one, other)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-300)
