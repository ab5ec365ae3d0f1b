"""Data sets as three splits: where samples come from, how they are batched and augmented.

`load` reads a source (`tfkd.data.sources`) into `Splits`; `Split.batches` turns one split into a `tf.data.Dataset`.
"""

from __future__ import annotations

from tfkd.data.augmentation import CropFlip, crop_flip, view_seeds
from tfkd.data.batches import EpochCounter, SoftLabelInputs, TeacherStudentInputs, epoch_counters
from tfkd.data.loading import from_arrays, load
from tfkd.data.partner import Partner
from tfkd.data.sources import NAMES
from tfkd.data.splits import Split, Splits

__all__ = [
    "NAMES",
    "CropFlip",
    "EpochCounter",
    "Partner",
    "SoftLabelInputs",
    "Split",
    "Splits",
    "TeacherStudentInputs",
    "crop_flip",
    "epoch_counters",
    "from_arrays",
    "load",
    "view_seeds",
]
