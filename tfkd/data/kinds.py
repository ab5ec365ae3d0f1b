"""The kinds of files that are samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkd.data import images, sounds
from tfkd.data.lazy import LazySamples
from tfkd.data.reading import ReadingOptions


class Kind(NamedTuple):
    """A kind of files.

    Args:
        name: Their name in messages.
        suffixes: Suffixes of their names, in lower case.
        options: Names of the reading options that have a meaning for them.
        read: Function (location, root, paths, options) -> (samples, positions), see `tfkd.data.images.read`.
    """

    name: str
    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    read: Callable[[str, Path, np.ndarray, ReadingOptions], tuple[np.ndarray | LazySamples, np.ndarray]]

    def accepts(self, file: str) -> bool:
        """Whether a file is of this kind, by its name."""
        return file.lower().endswith(self.suffixes)


IMAGES = Kind("images", images.SUFFIXES, images.OPTIONS, images.read)
SOUNDS = Kind("sounds", sounds.SUFFIXES, sounds.OPTIONS, sounds.read)
KINDS = (IMAGES, SOUNDS)
# Options that have a meaning for one of the kinds.
OPTIONS = tuple(dict.fromkeys(option for kind in KINDS for option in kind.options))


def kind_of(file: str) -> Kind | None:
    """The kind of a file, by its name."""
    return next((kind for kind in KINDS if kind.accepts(file)), None)
