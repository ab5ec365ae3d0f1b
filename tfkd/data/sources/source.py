"""What a data source is: which references it accepts, and the arrays that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Arrays(NamedTuple):
    """The content of a source, not yet checked.

    Args:
        x_train: Training samples [N, ...].
        y_train: Training labels [N] or [N, 1].
        x_test: Test samples [M, ...]; None in a source without a test part.
        y_test: Test labels [M] or [M, 1]; None in a source without a test part.
        class_names: Name of each class; empty if the source does not name them.
        name: Name of the data set.
        location: File, folder or name, for error messages.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    name: str = "arrays"
    location: str = "arrays"


class Request(NamedTuple):
    """The arguments of `tfkd.data.load` that concern the source.

    Args:
        reference: Name or path of the data set.
        image_size: (height, width) to which images are resized, or None.
    """

    reference: str
    image_size: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """The reference as a path."""
        return Path(self.reference)


@dataclasses.dataclass(frozen=True)
class Source:
    """One row of the table of sources in `tfkd.data.sources`.

    Args:
        accepts: Whether the source can read a request; the first source that accepts a request reads it.
        read: Reads the arrays of a request.
        names: Names of data sets that this source offers; for the list in error messages.
        resizes: Whether `image_size` has a meaning for this source.
    """

    accepts: Callable[[Request], bool]
    read: Callable[[Request], Arrays]
    names: tuple[str, ...] = ()
    resizes: bool = False
