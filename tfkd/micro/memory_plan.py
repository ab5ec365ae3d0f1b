"""A static plan of one arena: where each buffer lies while it lives."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

ALIGNMENT = 4
_TRIES = 400


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
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the arena."""
        return max((o + _aligned(b.bytes) for b, o in zip(self.buffers, self.offsets, strict=True)), default=0)

    @property
    def lower_bound(self) -> int:
        """The largest sum of what lives at one step: no plan of these buffers is smaller."""
        return _lower_bound(self.buffers)

    def live_bytes(self, step: int) -> int:
        """Sum of what lives at a step."""
        return sum(b.bytes for b in self.buffers if b.first <= step <= b.last)


def plan(buffers: Sequence[Buffer], *, seed: int = 0) -> MemoryPlan:
    """Places buffers by best fit: largest first, then in seeded random orders until the lower bound is met.

    Args:
        buffers: with their lifetimes.
        seed: of the random orders.

    Returns:
        The smallest plan found.

    >>> plan([Buffer("a", 8, 0, 1), Buffer("b", 4, 1, 2), Buffer("c", 8, 2, 3)]).bytes
    12
    """
    buffers = tuple(buffers)
    bound = _lower_bound(tuple(dataclasses.replace(b, bytes=_aligned(b.bytes)) for b in buffers))
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, buffers[i].first))
    best, shuffler = _placed(buffers, order), random.Random(seed)
    for _ in range(_TRIES):
        if best.bytes <= bound:
            break
        # Neighbours of the best order: a few buffers taken out and put in elsewhere.
        changed = list(order)
        for _ in range(shuffler.randint(1, 4)):
            changed.insert(shuffler.randrange(len(changed)), changed.pop(shuffler.randrange(len(changed))))
        candidate = _placed(buffers, changed)
        if candidate.bytes <= best.bytes:
            best, order = candidate, changed
    return best


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _lower_bound(buffers: tuple[Buffer, ...]) -> int:
    steps = {b.first for b in buffers}
    return max((sum(b.bytes for b in buffers if b.first <= step <= b.last) for step in steps), default=0)


def _placed(buffers: tuple[Buffer, ...], order: Sequence[int]) -> MemoryPlan:
    offsets: dict[int, int] = {}
    for i in order:
        taken = sorted((offsets[j], offsets[j] + _aligned(buffers[j].bytes)) for j in offsets
                       if buffers[i].meets(buffers[j]))  # fmt: skip
        size, end, best = _aligned(buffers[i].bytes), 0, None
        for start, stop in taken:
            if start - end >= size and (best is None or start - end < best[0]):
                best = (start - end, end)
            end = max(end, stop)
        offsets[i] = best[1] if best else end
    return MemoryPlan(buffers, tuple(offsets[i] for i in range(len(buffers))))
