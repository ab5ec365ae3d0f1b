"""The decoder of grid detectors: logits of cells to centres of objects, the same for each model and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Centres(NamedTuple):
    """The centres that were found in one sample, the most certain first.

    Args:
        x: Shares of the width, float64 [D].
        y: Shares of the height, float64 [D].
        classes: Classes, int64 [D].
        scores: Probabilities, float64 [D].
    """

    x: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def decode(logits: np.ndarray, threshold: float) -> Centres:
    """The centres of objects.

    A cell is a centre of class c where its probability `p = softmax(logits)[c + 1]` is at least the threshold and no
    neighbour of the eight has a higher one; of equal neighbours the first in the order of rows and columns counts. Its
    place is the middle of the cell. The C file that `tfkd export-c --decode grid` writes computes the same.

    Args:
        logits: Logits of one sample, [h, w, 1 + C]; channel 0 is the background.
        threshold: Smallest probability, > 0.
    """
    import numpy as np

    height, width, channels = logits.shape
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    p = np.exp(shifted)
    p = (p / p.sum(axis=-1, keepdims=True))[..., 1:]
    padded = np.pad(p, ((1, 1), (1, 1), (0, 0)))
    peak = p >= threshold
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            other = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            if (down, right) < (0, 0):
                peak &= p > other
            elif (down, right) > (0, 0):
                peak &= p >= other
    rows, columns, classes = np.nonzero(peak)
    scores = p[rows, columns, classes]
    order = np.argsort(-scores, kind="stable")
    x, y = (columns + 0.5) / width, (rows + 0.5) / height
    return Centres(x[order], y[order], classes[order], scores[order])
