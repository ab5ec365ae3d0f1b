"""A static plan of one arena: where each buffer lies while it lives."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

ALIGNMENT = 4
_TRIES = 400
# (number of a buffer, number of one that it overwrites): bytes that the first must start before the second
Overlaps = Mapping[tuple[int, int], int]


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Bytes that are needed for a while.

    Args:
        name: for the report.
        bytes: size.
        first: step of its first use; -1 for an input.
        last: step of its last use, included.
    """

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both live at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Where each buffer lies.

    Args:
        buffers: what was placed.
        offsets: bytes from the arena's start, one for each buffer.
        overlaps: buffers that may share bytes although they live together, see `plan`.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    overlaps: Overlaps = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of the arena."""
        return max((o + _aligned(b.bytes) for b, o in zip(self.buffers, self.offsets, strict=True)), default=0)

    @property
    def lower_bound(self) -> int:
        """The largest sum of what lives at one step: no plan of these buffers is smaller."""
        return max((self.live_bytes(step) for step in {b.first for b in self.buffers}), default=0)

    def live_bytes(self, step: int) -> int:
        """Sum of what lives at a step; bytes that are shared count once."""
        shared = 0
        for (over, under), lag in self.overlaps.items():
            pair = self.buffers[over], self.buffers[under]
            if all(b.first <= step <= b.last for b in pair):
                shared += saving(pair[0].bytes, pair[1].bytes, lag)
        return sum(b.bytes for b in self.buffers if b.first <= step <= b.last) - shared


def saving(over: int, under: int, lag: int) -> int:
    """Bytes saved where a buffer of `over` bytes starts `lag` bytes before one of `under` bytes and overwrites it."""
    return max(0, over + under - max(over, lag + under))


def plan(buffers: Sequence[Buffer], overlaps: Overlaps | None = None, *, seed: int = 0) -> MemoryPlan:
    """Places buffers by best fit: largest first, then in seeded random orders until the lower bound is met.

    Args:
        buffers: with their lifetimes.
        overlaps: `(a, b): lag` where buffer a is written while b is read from its start on: they may share bytes if a
            starts at least `lag` bytes before b.
        seed: of the random orders.

    Returns:
        The smallest plan found.

    >>> plan([Buffer("a", 8, 0, 1), Buffer("b", 4, 1, 2), Buffer("c", 8, 2, 3)]).bytes
    12
    """
    buffers, overlaps = tuple(buffers), overlaps or {}
    aligned = tuple(dataclasses.replace(b, bytes=_aligned(b.bytes)) for b in buffers)
    bound = MemoryPlan(aligned, (), overlaps).lower_bound
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, buffers[i].first))
    best, shuffler = _placed(buffers, order, overlaps), random.Random(seed)
    for _ in range(_TRIES):
        if best.bytes <= bound:
            break
        # Neighbours of the best order: a few buffers taken out and put in elsewhere.
        changed = list(order)
        for _ in range(shuffler.randint(1, 4)):
            changed.insert(shuffler.randrange(len(changed)), changed.pop(shuffler.randrange(len(changed))))
        candidate = _placed(buffers, changed, overlaps)
        if candidate.bytes <= best.bytes:
            best, order = candidate, changed
    return best


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _placed(buffers: tuple[Buffer, ...], order: Sequence[int], overlaps: Overlaps) -> MemoryPlan:
    offsets: dict[int, int] = {}
    for i in order:
        size, end, best = _aligned(buffers[i].bytes), 0, None
        taken = []
        for j, start in offsets.items():
            if not buffers[i].meets(buffers[j]):
                continue
            stop = start + _aligned(buffers[j].bytes)
            if (j, i) in overlaps:  # only j's bytes before the lag are in the way
                stop = min(stop, start + overlaps[j, i])
            elif (i, j) in overlaps:  # i may reach into j, all but its first bytes
                start += max(0, size - overlaps[i, j])
            taken.append((start, stop))
        for start, stop in sorted(taken):
            if start - end >= size and (best is None or start - end < best[0]):
                best = (start - end, end)
            end = max(end, stop)
        offsets[i] = best[1] if best else end
    return MemoryPlan(buffers, tuple(offsets[i] for i in range(len(buffers))), overlaps)
