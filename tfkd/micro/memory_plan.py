"""A static memory plan: offsets of buffers in one arena, so that buffers that live at the same time do not overlap.

Time is counted in steps, one for each layer.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

ALIGNMENT = 4
_TRIES = 400
# (index of a buffer, index of one that it overwrites): bytes by which the first must start before the second.
Overlaps = Mapping[tuple[int, int], int]


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A buffer and its lifetime.

    Args:
        name: Name for the report.
        bytes: Size.
        first: Step of the first use; -1 for an input of the model.
        last: Step of the last use, included.
    """

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both live at the same step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Offsets of buffers in the arena.

    Args:
        buffers: The buffers.
        offsets: Bytes from the start of the arena, one for each buffer.
        overlaps: Buffers that may share bytes although they live at the same time, see `plan`.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    overlaps: Overlaps = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of the arena."""
        return max((o + aligned(b.bytes) for b, o in zip(self.buffers, self.offsets, strict=True)), default=0)

    @property
    def lower_bound(self) -> int:
        """The largest number of live bytes at a step: no plan of these buffers is smaller."""
        return max((self.live_bytes(step) for step in {b.first for b in self.buffers}), default=0)

    def live_bytes(self, step: int) -> int:
        """Sum of the buffers that live at a step; shared bytes count once."""
        shared = 0
        for (over, under), lag in self.overlaps.items():
            pair = self.buffers[over], self.buffers[under]
            if all(b.first <= step <= b.last for b in pair):
                shared += saving(pair[0].bytes, pair[1].bytes, lag)
        return sum(b.bytes for b in self.buffers if b.first <= step <= b.last) - shared


def saving(over: int, under: int, lag: int) -> int:
    """Bytes saved where a buffer of `over` bytes starts `lag` bytes before one of `under` bytes and overwrites it.

    >>> saving(100, 100, lag=12)
    88
    """
    return max(0, over + under - max(over, lag + under))


def plan(buffers: Sequence[Buffer], overlaps: Overlaps | None = None, *, seed: int = 0) -> MemoryPlan:
    """Places buffers by best fit: first in order of size, then in random orders until the lower bound is reached.

    Args:
        buffers: Buffers with their lifetimes.
        overlaps: `(a, b): lag` where buffer a is written while b is read from its start on: they may share bytes if a
            starts at least `lag` bytes before b.
        seed: Random seed of the orders.

    Returns:
        The smallest plan found.

    >>> plan([Buffer("a", 8, 0, 1), Buffer("b", 4, 1, 2), Buffer("c", 8, 2, 3)]).bytes
    12
    """
    buffers, overlaps = tuple(buffers), overlaps or {}
    bound = MemoryPlan(tuple(dataclasses.replace(b, bytes=aligned(b.bytes)) for b in buffers), (), overlaps).lower_bound
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, buffers[i].first))
    best, generator = _placed(buffers, order, overlaps), random.Random(seed)
    for _ in range(_TRIES):
        if best.bytes <= bound:
            break
        # A neighbour of the best order: one to four buffers move to other positions.
        changed = list(order)
        for _ in range(generator.randint(1, 4)):
            changed.insert(generator.randrange(len(changed)), changed.pop(generator.randrange(len(changed))))
        candidate = _placed(buffers, changed, overlaps)
        if candidate.bytes <= best.bytes:
            best, order = candidate, changed
    return best


def aligned(size: int) -> int:
    """A size rounded up to the arena's alignment.

    >>> aligned(5)
    8
    """
    return -(-size // ALIGNMENT) * ALIGNMENT


def _placed(buffers: tuple[Buffer, ...], order: Sequence[int], overlaps: Overlaps) -> MemoryPlan:
    """Places buffers in an order, each into the smallest gap that fits, or behind all others."""
    offsets: dict[int, int] = {}
    for i in order:
        size, end, best = aligned(buffers[i].bytes), 0, None  # best: (bytes of the gap, its offset)
        for start, stop in sorted(_taken(buffers, i, offsets, overlaps)):
            if start - end >= size and (best is None or start - end < best[0]):
                best = (start - end, end)
            end = max(end, stop)
        offsets[i] = best[1] if best else end
    return MemoryPlan(buffers, tuple(offsets[i] for i in range(len(buffers))), overlaps)


def _taken(
    buffers: tuple[Buffer, ...], i: int, offsets: Mapping[int, int], overlaps: Overlaps
) -> list[tuple[int, int]]:
    """The byte ranges that buffer `i` must not touch."""
    taken = []
    for j, start in offsets.items():
        if not buffers[i].meets(buffers[j]):
            continue
        stop = start + aligned(buffers[j].bytes)
        if (j, i) in overlaps:  # buffer j overwrites i: only its first `lag` bytes must lie before i
            stop = min(stop, start + overlaps[j, i])
        elif (i, j) in overlaps:  # buffer i overwrites j: all of i but its first `lag` bytes may lie in j
            start += max(0, aligned(buffers[i].bytes) - overlaps[i, j])
        taken.append((start, stop))
    return taken
