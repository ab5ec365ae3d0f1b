"""Boxes in TFRecords as the TensorFlow Object Detection API writes them.

Each record has the features `image/encoded`, `image/object/bbox/xmin`, `xmax`, `ymin` and `ymax` as shares of the width
and height, and `image/object/class/label`, whole numbers, or `image/object/class/text`, names, or both. The classes are
in the order of their numbers. Objects with `image/object/is_crowd` are left out.

Reference:
    github.com/tensorflow/models, research/object_detection/g3doc/using_your_own_dataset.md.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfkd.data import boxes, images, records
from tfkd.data.boxes import Box
from tfkd.data.records import Record
from tfkd.data.sources import tfrecord
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_ENCODED, _LABEL, _TEXT = "image/encoded", "image/object/class/label", "image/object/class/text"
_ENDS = tuple(f"image/object/bbox/{end}" for end in ("xmin", "ymin", "xmax", "ymax"))
_CROWD = "image/object/is_crowd"
_OPTIONS = ("image_size", "color", "resize")


class _Class(NamedTuple):
    """A class of objects: its number, 0 where records have names only, and its name, empty where they have numbers."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name or str(self.number)


class _Object(NamedTuple):
    """An object of an image: its class, and its left, top, right and bottom as shares."""

    label: _Class
    ends: Sequence[float]


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and their boxes as float32 [N, M, 5].

    Raises:
        InputError: A file is damaged, a record lacks a feature, or a box is outside of its image; the message names
            file and record.
    """
    found, objects, sizes, part = list[Record](), list[list[_Object]](), list[tuple[int, int]](), list[str]()
    for file, role in records.files_of(request.path).items():
        for record, content in records.read(file):
            features = records.features(record, content)
            objects.append(_objects(record, features))
            sizes.append(_size(record, features))
            found.append(record)
            part.append(role)
    if not found:
        raise InputError(f"load: {request.path} must have records. Received: none. Write some.")
    classes = _classes(request, objects)
    labels: list[list[Box]] = []
    for record, size, several in zip(found, sizes, objects, strict=True):
        width, height = size
        labels.append([])
        for label, ends in several:
            pixels = np.multiply(ends, (width, height, width, height)).tolist()
            labels[-1].append(boxes.of_pixels(pixels, size, classes.index(label), f"{record}: {label}"))
    return Arrays(
        tfrecord.samples(found, dataclasses.replace(request.options, x_feature=_ENCODED)),
        boxes.padded(labels),
        class_names=tuple(map(str, classes)),
        name=request.path.stem.partition(".")[0],
        location=str(request.path),
        part=np.array(part) if len(set(part)) > 1 else None,
        labels="boxes",
    )


def accepts(request: Request) -> bool:
    """Whether the first record at a path has boxes; not where another label is named or declared."""
    if not records.are_at(request.path) or request.labels not in (None, "boxes"):
        return False
    if request.labels == "boxes" or "y_feature" in request.options.given:
        return request.labels == "boxes"
    first = next(iter(records.files_of(request.path)))
    return any(_ENDS[0] in records.features(*one) for one in itertools.islice(records.read(first), 1))


def _objects(record: Record, features: Mapping[str, tf.train.Feature]) -> list[_Object]:
    """The objects of a record; none where it has no such features."""
    if not any(name in features and records.feature(record, features, name)[1] for name in (*_ENDS, _LABEL, _TEXT)):
        return []
    ends = [_values(record, features, name, "float") for name in _ENDS]
    count = len(ends[0])
    numbers = _values(record, features, _LABEL, "int64") if _LABEL in features else [0] * count
    names = _values(record, features, _TEXT, "bytes") if _TEXT in features or _LABEL not in features else [b""] * count
    crowds = _values(record, features, _CROWD, "int64") if _CROWD in features else []
    lengths = {len(one) for one in (*ends, numbers, names, crowds or names)}
    if lengths != {count}:
        raise InputError(
            f"load: {record}: the features of objects must have one value for each object. Received: "
            f"{', '.join(map(str, sorted(lengths)))} values. Correct them."
        )
    return [
        _Object(_Class(number, name.decode(errors="replace")), one)
        for number, name, crowd, *one in zip(numbers, names, crowds or numbers, *ends, strict=True)
        if not (crowds and crowd)
    ]


def _values(record: Record, features: Mapping[str, tf.train.Feature], name: str, kind: str) -> Sequence[Any]:
    found, values = records.feature(record, features, name)
    if values and found != kind:
        raise InputError(f"load: {record}: the feature {name!r} must be {kind}. Received: {found}. Write it as such.")
    return values


def _size(record: Record, features: Mapping[str, tf.train.Feature]) -> tuple[int, int]:
    """Width and height of the image of a record, in pixels."""
    encoded = _values(record, features, _ENCODED, "bytes")
    if len(encoded) != 1:
        raise InputError(
            f"load: {record}: the feature {_ENCODED!r} must be one image. Received: {len(encoded)}. Correct it."
        )
    size = images.size_of(record, encoded[0])
    for name, side in zip(("image/width", "image/height"), size, strict=True):
        declared = list(_values(record, features, name, "int64")) if name in features else []
        if declared not in ([], [side]):
            raise InputError(
                f"load: {record}: {name} must be that of the image, upright by its EXIF data, {side}. Received: "
                f"{declared}. Correct the record or its boxes."
            )
    return size


def _classes(request: Request, objects: Sequence[Sequence[_Object]]) -> list[_Class]:
    """The classes in the order of their numbers; those without numbers by their names."""
    found = sorted({one.label for several in objects for one in several})
    for one, other in itertools.combinations(found, 2):
        if one.name == other.name != "" or one.number == other.number != 0:
            raise InputError(
                f"load: {request.path}: each class must have one number and one name. Received: {one.number} with "
                f"{one.name!r}, and {other.number} with {other.name!r}. Correct the records."
            )
    return found


SOURCE = Source(accepts=accepts, read=read, options=_OPTIONS, labels="boxes")
