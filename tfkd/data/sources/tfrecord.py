"""TFRecord files of `tf.train.Example`: features with the sample, and one with its label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.data import images, lazy, records
from tfkd.data.lazy import LazySamples
from tfkd.data.reading import ReadingOptions, Request
from tfkd.data.records import Record
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

OPTIONS = ("x_feature", "y_feature", "x_shape", "image_size", "color", "resize", "crop")


def read(request: Request) -> Arrays:
    """Reads a TFRecord file, or a folder of them.

    Raises:
        InputError: A file is damaged, or a record lacks a feature or has another type or shape; the message names file
            and record.
    """
    found, labels, part = list[Record](), list[Any](), list[str]()
    for file, role in records.files_of(request.path).items():
        for record, content in records.read(file):
            labels.append(_label(record, content, request, labels))
            found.append(record)
            part.append(role)
    if not found:
        raise InputError(f"load: {request.path} must have records. Received: none. Write some.")
    x = samples(found, request.options)
    y, names = _as_array(labels)
    if y.ndim == 1 and y.dtype.kind == "i" and request.labels in (None, "classes"):
        _check_classes(found, y, names, np.array(part))
    return Arrays(
        x,
        y,
        class_names=names,
        name=request.path.stem.partition(".")[0],
        location=str(request.path),
        part=np.array(part) if len(set(part)) > 1 else None,
    )


def samples(found: Sequence[Record], options: ReadingOptions) -> np.ndarray | LazySamples:
    """The samples of records, decoded when they are used where they are many.

    Args:
        found: The records, at least one.
        options: Features and shape of the sample, and how encoded images are read.

    Raises:
        InputError: A record lacks a feature, or has another type or shape.
    """
    reader = _Reader(found, options)
    lazily = LazySamples(reader, np.arange(len(found)))
    small = int(np.prod(lazily.shape)) * reader.dtype.itemsize <= lazy.IN_MEMORY_BYTES
    return lazily[:] if small else lazily


def _label(record: Record, content: bytes, request: Request, before: Sequence[list[Any]]) -> list[Any]:
    """The label of a record, of the type and length of those before: whole numbers, floats, or a text."""
    name = request.options.y_feature
    kind, values = records.feature(record, records.features(record, content), name)
    first = before[0] if before else None
    several = request.labels not in (None, "classes", "abnormal", "identities")
    known = {float: "float", int: "int64", str: "bytes"}[type(first[0])] if first else kind
    fault = not values or (len(values) > 1 and not (several or kind == "float"))
    if fault or kind != known or (kind == "int64" and min(values) < 0 and request.labels in (None, "classes")):
        raise InputError(
            f"load: {record}: the feature {name!r} must be the class, one int64 from 0 or one text, floats of a "
            f"regression, or the labels of a declared task, and of one type in all records. Received: {kind} "
            f"{list(values[:3])}{f', and {known} before' if kind != known else ''}. Pass y_feature='label' or another "
            "name."
        )
    if first and len(values) != len(first):
        raise InputError(
            f"load: {record}: the feature {name!r} must have as many values as in the first record, {len(first)}. "
            f"Received: {len(values)}. Correct it."
        )
    try:
        return [value.decode() for value in values] if kind == "bytes" else list(values)
    except UnicodeDecodeError as error:
        raise InputError(
            f"load: {record}: the feature {name!r} must be text in UTF-8. Received: {error}. Name another feature."
        ) from None


def _as_array(labels: Sequence[list[Any]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels [N], or [N, K] of K values, and the names of the classes where labels are texts."""
    found = np.array(labels)
    names: tuple[str, ...] = ()
    if found.dtype.kind == "U":
        distinct, places = np.unique(found, return_inverse=True)
        found, names = places.reshape(found.shape).astype(np.int64), tuple(distinct.tolist())
    return (found[:, 0] if found.shape[1] == 1 else found), names


def _check_classes(found: Sequence[Record], y: np.ndarray, names: tuple[str, ...], part: np.ndarray) -> None:
    """Raises for a record whose class is none of those of the training records, or leaves classes without records."""
    known = np.unique(y[part == "train"]) if (part == "train").any() else np.unique(y)
    unknown = np.flatnonzero(~np.isin(y, known))
    gaps = np.flatnonzero(known != np.arange(len(known)))
    row = int(unknown[0]) if len(unknown) else int((y == known[gaps[0]]).argmax()) if len(gaps) else None
    if row is not None:
        received = repr(names[y[row]]) if names else f"{y[row]}, beside {len(known)} classes from {known[0]} to"
        raise InputError(
            f"load: {found[row]}: the class must be one of those of the training records, which are 0, 1, 2 and so "
            f"on without gaps. Received: {received}{'' if names else f' {known[-1]}'}. Correct it, or renumber the "
            "classes."
        )


class _Reader:
    """Decodes the samples of records when they are used.

    Args:
        found: The records.
        options: Features and shape of the sample, and how encoded images are read.
    """

    def __init__(self, found: Sequence[Record], options: ReadingOptions) -> None:
        self._records, self._options = found, options
        first = self._decode(found[0])
        self.sample_shape, self.dtype = first.shape, first.dtype

    def _decode(self, record: Record) -> np.ndarray:
        """Numbers of the shape `x_shape`, float32, or uint8 of raw bytes; or an encoded image, uint8 [H, W, C]."""
        name, shape = self._options.x_feature, self._options.x_shape
        found = records.features(record, record.content())
        if name not in found and "," in name:
            x = np.concatenate([_numbers(record, found, one.strip()) for one in name.split(",")])
        else:
            kind, values = records.feature(record, found, name)
            if kind == "bytes" and len(values) == 1 and shape is None:
                return images.decode(record, self._options, values[0])
            x = np.frombuffer(b"".join(values), np.uint8) if kind == "bytes" else np.array(values, np.float32)
        if shape is not None and x.size != np.prod(shape):
            raise InputError(
                f"load: {record}: the feature {name!r} must have {np.prod(shape):,} values for x_shape={shape}. "
                f"Received: {x.size:,}. Correct x_shape."
            )
        if not np.isfinite(x).all():
            raise InputError(f"load: {record}: the feature {name!r} must be finite. Received: NaN or infinity.")
        return x if shape is None else x.reshape(shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The samples with these numbers [len(rows), ...].

        Raises:
            InputError: A sample cannot be decoded, or has another shape than the first.
        """

        def one(row: int) -> np.ndarray:
            x = self._decode(self._records[row])
            if x.shape != self.sample_shape:
                raise InputError(
                    f"load: {self._records[row]}: each sample must have the shape of the first, {self.sample_shape}. "
                    f"Received: {x.shape}. Pass image_size=(96, 96) for images, or make them equal."
                )
            return x

        return np.stack(list(images.pool().map(one, rows)))

    def fingerprint(self, rows: np.ndarray) -> Iterator[bytes]:
        """The options, and a hash of each record."""
        yield repr(self._options).encode()
        for row in rows:
            yield hashlib.sha256(self._records[row].content()).digest()


def _numbers(record: Record, found: Mapping[str, tf.train.Feature], name: str) -> np.ndarray:
    """The values of one of several features of a sample, float32."""
    kind, values = records.feature(record, found, name)
    if kind == "bytes":
        raise InputError(
            f"load: {record}: each of several features of a sample must have numbers. Received: bytes in {name!r}. "
            "Leave it out."
        )
    return np.array(values, np.float32)


SOURCE = Source(accepts=lambda request: records.are_at(request.path), read=read, options=OPTIONS)
