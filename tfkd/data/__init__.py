"""Data sets as three splits: where samples come from, how they are batched and augmented.

`load` reads a source (`tfkd.data.sources`) into `Splits`; `Split.batches` turns one split into a `tf.data.Dataset`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfkd.data.augmentation import CropFlip, EveryCropFlip, crop_flip, every_crop_flip, view_seeds
    from tfkd.data.batches import EpochCounter, SoftLabelInputs, TeacherStudentInputs, epoch_counters
    from tfkd.data.loading import from_arrays, load
    from tfkd.data.mixing import Mixing
    from tfkd.data.named_arrays import NamedArrays
    from tfkd.data.partner import Partner
    from tfkd.data.reading import ReadingOptions, Request
    from tfkd.data.sources import NAMES
    from tfkd.data.splits import Split, Splits
    from tfkd.data.streams import Stream, as_split

__all__ = [
    "NAMES",
    "CropFlip",
    "EpochCounter",
    "EveryCropFlip",
    "Mixing",
    "NamedArrays",
    "Partner",
    "ReadingOptions",
    "Request",
    "SoftLabelInputs",
    "Split",
    "Splits",
    "Stream",
    "TeacherStudentInputs",
    "as_split",
    "crop_flip",
    "epoch_counters",
    "every_crop_flip",
    "from_arrays",
    "load",
    "view_seeds",
]

# The module of each name. They are imported on first use: the command line needs `reading` for its options, but no
# NumPy for `--help`.
_MODULES = {
    "NAMES": "sources",
    "CropFlip": "augmentation",
    "EpochCounter": "batches",
    "EveryCropFlip": "augmentation",
    "Mixing": "mixing",
    "NamedArrays": "named_arrays",
    "Partner": "partner",
    "ReadingOptions": "reading",
    "Request": "reading",
    "SoftLabelInputs": "batches",
    "Split": "splits",
    "Splits": "splits",
    "Stream": "streams",
    "TeacherStudentInputs": "batches",
    "as_split": "streams",
    "crop_flip": "augmentation",
    "epoch_counters": "batches",
    "every_crop_flip": "augmentation",
    "from_arrays": "loading",
    "load": "loading",
    "view_seeds": "augmentation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tfkd.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfkd.data.{_MODULES[name]}"), name)
