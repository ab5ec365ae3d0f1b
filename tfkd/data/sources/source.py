"""What a data source is: which references it accepts, and the arrays that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.reading import Request
from tfkd.data.splits import ROLES, Role

__all__ = ["Arrays", "Request", "Samples", "Source"]


class Samples(NamedTuple):
    """The samples of one part of a source, or of all.

    Args:
        x: Samples [N, ...], of several inputs by name.
        y: Labels [N] or [N, K].
        paths: Their files, relative to the data set, with `/` on every system, str [N]; None where a sample is not a
            file.
    """

    x: np.ndarray | LazySamples | NamedArrays
    y: np.ndarray
    paths: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Samples:
        """Some of the samples.

        Args:
            rows: Positions, integers [M].
        """
        return Samples(self.x.take(rows, axis=0), self.y[rows], None if self.paths is None else self.paths[rows])


class Arrays(NamedTuple):
    """The content of a source, not yet checked.

    Args:
        x_train: Training samples [N, ...], of several inputs by name.
        y_train: Training labels [N] or [N, K].
        x_test: Test samples [M, ...]; None in a source without a test part.
        y_test: Test labels [M] or [M, K]; None in a source without a test part.
        class_names: Name of each class; empty if the source does not name them.
        name: Name of the data set.
        location: File, folder or name, for error messages.
        part: In a source of files the part of each sample of x_train, of which some are then validation or test
            samples: `train`, `val` or `test`, str [N]. None if all are training samples.
        paths: Files of x_train, see `Samples`; None where a sample is not a file.
        labels: Kind of the labels where the source knows it, see `tfkd.data.label_kinds`; None to find it.
        frame_seconds: Time from one frame of a sequence to the next in seconds; None where it is not known.
    """

    x_train: np.ndarray | LazySamples | NamedArrays
    y_train: np.ndarray
    x_test: np.ndarray | LazySamples | NamedArrays | None = None
    y_test: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    name: str = "arrays"
    location: str = "arrays"
    part: np.ndarray | None = None
    paths: np.ndarray | None = None
    labels: str | None = None
    frame_seconds: float | None = None

    def parts(self) -> dict[Role, Samples]:
        """The samples of each part that the source has, in the order train, val, test."""
        samples = Samples(self.x_train, self.y_train, self.paths)
        if self.part is not None:
            rows = {role: np.flatnonzero(self.part == role) for role in ROLES}
            return {role: samples.take(found) for role, found in rows.items() if len(found)}
        if self.x_test is None or self.y_test is None:
            return {"train": samples}
        return {"train": samples, "test": Samples(self.x_test, self.y_test)}


@dataclasses.dataclass(frozen=True)
class Source:
    """One row of the table of sources in `tfkd.data.sources`.

    Args:
        accepts: Whether the source can read a request; the first source that accepts a request reads it.
        read: Reads the arrays of a request.
        names: Names of data sets that this source offers; for the list in error messages.
        options: Names of the options of `tfkd.data.reading.ReadingOptions` that have a meaning for this source.
        labels: Kind of the labels where the source has one only, see `tfkd.data.label_kinds`.
    """

    accepts: Callable[[Request], bool]
    read: Callable[[Request], Arrays]
    names: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    labels: str | None = None
