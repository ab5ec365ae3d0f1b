"""Events in sequences of frame classes: runs of equal classes other than the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Event(NamedTuple):
    """A run of frames of one class.

    Args:
        label: The class, > 0.
        start: First frame.
        end: Frame after the last.
    """

    label: int
    start: int
    end: int

    def overlap(self, other: Event) -> int:
        """Number of frames that two events of one class have in common; 0 for events of different classes."""
        return max(0, min(self.end, other.end) - max(self.start, other.start)) if self.label == other.label else 0

    def matches(self, other: Event) -> bool:
        """Whether the intersection is more than half of the union, so that each event matches at most one other."""
        common = self.overlap(other)
        return 2 * common > (self.end - self.start) + (other.end - other.start) - common


def find(frames: np.ndarray) -> list[Event]:
    """The events of a sequence.

    Args:
        frames: Class of each frame [T]; 0 and less is no event.

    >>> import numpy as np
    >>> [tuple(event) for event in find(np.array([0, 2, 2, 1, 0, 1]))]
    [(2, 1, 3), (1, 3, 4), (1, 5, 6)]
    """
    import numpy as np

    edges = np.flatnonzero(np.diff(frames)) + 1
    starts, ends = np.append(0, edges), np.append(edges, len(frames))
    return [
        Event(int(frames[start]), int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
        if frames[start] > 0
    ]


class Counts(NamedTuple):
    """Events of one sequence.

    Args:
        found: Number of predicted events that match a labelled one.
        predicted: Number of predicted events.
        labelled: Number of labelled events.
        false: Number of predicted events without a common frame with a labelled event of their class.
    """

    found: int
    predicted: int
    labelled: int
    false: int


def count(predicted: list[Event], labelled: list[Event]) -> Counts:
    """Compares the events of one sequence.

    Args:
        predicted: Predicted events.
        labelled: Labelled events.
    """
    found = sum(any(one.matches(other) for other in labelled) for one in predicted)
    false = sum(not any(one.overlap(other) for other in labelled) for one in predicted)
    return Counts(found, len(predicted), len(labelled), false)
