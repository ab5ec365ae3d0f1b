"""The decoder of heatmaps: one point for each channel, the same for each model and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def decode(logits: np.ndarray) -> np.ndarray:
    """The point of each channel: its largest logit, moved to the centre of mass of the 3 x 3 cells around it.

    The mass of a cell is `sigmoid(logit)`. Of several largest logits the first in the order of rows and columns counts.

    Args:
        logits: Heatmaps [N, h, w, K].

    Returns:
        x and y as shares of width and height, and the score `sigmoid(largest logit)`: float64 [N, K, 3].
    """
    import numpy as np

    samples, height, width, points = logits.shape
    flat = logits.astype(np.float64).reshape(samples, height * width, points)
    best = flat.argmax(axis=1)
    rows, columns = np.divmod(best, width)
    mass = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -60, 60)))
    padded = np.pad(mass, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sample, point = np.arange(samples)[:, None], np.arange(points)[None]
    total, moved_x, moved_y = (np.zeros((samples, points)) for _ in range(3))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            part = padded[sample, rows + 1 + down, columns + 1 + right, point]
            total, moved_x, moved_y = total + part, moved_x + right * part, moved_y + down * part
    x = (columns + 0.5 + moved_x / total) / width
    y = (rows + 0.5 + moved_y / total) / height
    scores = mass.reshape(samples, -1, points).max(axis=1)
    return np.stack([x, y, scores], axis=-1)
