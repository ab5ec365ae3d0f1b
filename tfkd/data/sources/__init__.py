"""The table of data sources: embedded and generated ones, keras.datasets, archives, TFRecords, folders, manifests.

A new source is one module with a `Source` and one line in `SOURCES`.
"""

from __future__ import annotations

from tfkd.data.sources import (
    coco,
    commands,
    detection_records,
    digits,
    folder,
    gaits,
    gestures,
    keras_datasets,
    manifest,
    masks,
    npy,
    npz,
    shapes,
    tfds,
    tfrecord,
    vibration,
    voc,
)
from tfkd.data.sources.source import Source

# In the order in which a reference is tried: names before paths.
SOURCES: tuple[Source, ...] = (
    digits.SOURCE,
    shapes.SOURCE,
    vibration.SOURCE,
    gestures.SOURCE,
    gaits.SOURCE,
    commands.SOURCE,
    keras_datasets.SOURCE,
    npz.NAMED,
    tfds.SOURCE,
    npy.SOURCE,
    detection_records.SOURCE,
    tfrecord.SOURCE,
    masks.SOURCE,
    coco.SOURCE,
    voc.SOURCE,
    folder.SOURCE,
    manifest.SOURCE,
    npz.SOURCE,
)
NAMES: tuple[str, ...] = tuple(name for source in SOURCES for name in source.names)
