"""A uniform draw of rows from data that are read once."""

from __future__ import annotations

import numpy as np


class Drawn:
    """Rows that are kept: all, or some that are drawn at random, always the same ones.

    Each row gets a random key, and those with the smallest keys are kept: a uniform draw in one pass, with no more than
    about twice as many rows in memory.

    Args:
        draw: Number of rows to draw; None for all.
    """

    def __init__(self, draw: int | None) -> None:
        self._draw, self._rng = draw, np.random.default_rng(0)
        self._parts: list[list[np.ndarray]] = []
        self._size = 0

    def add(self, *columns: np.ndarray) -> None:
        """Adds a batch: arrays [B, ...] with the same number of rows, as many at each call."""
        rows = len(columns[0])
        self._parts.append([*columns, self._rng.random(rows)])
        self._size += rows
        if self._draw is not None and self._size > 2 * self._draw:
            self._prune(self._draw)

    def columns(self) -> list[np.ndarray]:
        """The rows that are kept, one array for each column, in the order in which they were added."""
        if self._draw is not None:
            self._prune(self._draw)
        return [np.concatenate(column) for column in zip(*self._parts, strict=True)][:-1]

    def _prune(self, draw: int) -> None:
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        rows = np.sort(np.argsort(columns[-1], kind="stable")[:draw])
        self._parts, self._size = [[column[rows] for column in columns]], len(rows)
