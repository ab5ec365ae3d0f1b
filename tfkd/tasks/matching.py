"""Assigns what a model found to labelled objects, and counts it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Matches:
    """What was found in N samples, in the order of decreasing scores within each sample.

    Args:
        sample: Row of the sample of each detection, int64 [D].
        classes: Class of each detection, int64 [D].
        scores: Score of each detection, float64 [D].
        right: Whether it was assigned to an object, bool [D].
        objects: Number of objects of each sample and class, int64 [N, C].
    """

    sample: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    objects: np.ndarray

    def counts(self, threshold: float) -> np.ndarray:
        """Right detections, detections and objects of each sample and class, int64 [N, C, 3].

        Args:
            threshold: Smallest score that counts.
        """
        import numpy as np

        found = np.zeros((*self.objects.shape, 3), np.int64)
        counted = self.scores >= threshold
        for place, chosen in enumerate((counted & self.right, counted)):
            np.add.at(found[..., place], (self.sample[chosen], self.classes[chosen]), 1)
        found[..., 2] = self.objects
        return found


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of right detections, detections and objects: [..., 3] -> [...]; 0 where there are neither."""
    import numpy as np

    return 2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1e-300)


def best_threshold(matches: Matches, default: float) -> float:
    """The threshold with the highest F1: in the middle between two scores, so that rounding moves few detections.

    Args:
        matches: What was found at all scores.
        default: The threshold where nothing was found right.
    """
    import numpy as np

    order = np.argsort(-matches.scores, kind="stable")
    scores, right = matches.scores[order], np.cumsum(matches.right[order])
    if not len(scores) or not right[-1]:
        return default
    values = 2 * right / (np.arange(1, len(scores) + 1) + matches.objects.sum())
    # Detections of equal scores are kept or left out together.
    last = np.append(np.diff(scores) != 0, True)
    best = int(np.flatnonzero(last)[values[last].argmax()])
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2)


def greedy(distances: np.ndarray, limit: float) -> np.ndarray:
    """Assigns detections, the best first, each to the nearest object that is free.

    Args:
        distances: Distance of each detection from each object, float64 [D, M]; infinite where they do not belong
            together.
        limit: Largest distance.

    Returns:
        The object of each detection, int64 [D]; -1 for none.
    """
    import numpy as np

    found, free = np.full(len(distances), -1), np.ones(distances.shape[1], bool)
    for row, one in enumerate(distances):
        possible = np.where(free, one, np.inf)
        if len(possible) and possible.min() <= limit:
            found[row] = possible.argmin()
            free[found[row]] = False
    return found
