"""TFRecord files of `tf.train.Example`: a feature with the sample and one with its class."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfkd.data import images, lazy
from tfkd.data.lazy import LazySamples
from tfkd.data.manifest import PARTS
from tfkd.data.reading import ReadingOptions, Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".tfrecord", ".tfrecords")
OPTIONS = ("x_feature", "y_feature", "x_shape", "image_size", "color", "resize", "crop")
# A record: its length (uint64), a checksum (uint32), its bytes, and a checksum of them.
_HEADER, _FOOTER = 12, 4
# The default of TensorFlow, which prints a line where none is given.
_BUFFER_BYTES = 262_144


class _Record(NamedTuple):
    """Where a record is.

    Args:
        file: The file.
        number: Number of the record in the file, from 0.
        start: Position of its bytes.
        length: Their number.
    """

    file: Path
    number: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}, record {self.number}"

    def content(self) -> bytes:
        """The bytes of the record."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


def read(request: Request) -> Arrays:
    """Reads a TFRecord file, or a folder of them whose names begin with train, val or test.

    Raises:
        InputError: A file is damaged, or a record lacks a feature or has another type or shape; the message names file
            and record.
    """
    files = _files(request.path)
    records, y, part = [], [], []
    for file in files:
        found = list(_index(file))
        records += found
        y += list(_labels(file, found, request.options))
        part += [_part_of(file)] * len(found)
    if not records:
        raise InputError(f"load: {request.path} must have records. Received: none. Write some.")
    reader = _Reader(records, request.options)
    _check_classes(records, np.array(y), np.array(part))
    samples = LazySamples(reader, np.arange(len(records)))
    small = int(np.prod(samples.shape)) * reader.dtype.itemsize <= lazy.IN_MEMORY_BYTES
    has_parts = len(set(part)) > 1
    return Arrays(
        samples[:] if small else samples,
        np.array(y),
        name=request.path.stem,
        location=str(request.path),
        part=np.array(part) if has_parts else None,
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(one for one in path.iterdir() if is_tfrecord(one.name))


def is_tfrecord(name: str) -> bool:
    """Whether a file name ends as those of TFRecords: `.tfrecord`, or `.tfrecord-00000-of-00010`."""
    return any(f"{suffix}-" in name or name.endswith(suffix) for suffix in SUFFIXES)


def _part_of(file: Path) -> str:
    """The part that the name of a file begins with; train for another name."""
    names = [name for name in sorted(PARTS, key=len, reverse=True) if file.name.startswith(name)]
    return PARTS[names[0]] if names else "train"


def _index(file: Path) -> Iterator[_Record]:
    """The records of a file, found by their headers."""
    size, start, number = file.stat().st_size, 0, 0
    with file.open("rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            raise InputError(f"load: {file} must not be compressed. Received: gzip. Decompress it with gunzip.")
        while start < size:
            stream.seek(start)
            header = stream.read(_HEADER)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else size
            if start + _HEADER + length + _FOOTER > size:
                raise InputError(
                    f"load: {file}, record {number}: must be complete. Received: a file that ends within it, or no "
                    "TFRecord. Write it again."
                )
            yield _Record(file, number, start + _HEADER, length)
            start, number = start + _HEADER + length + _FOOTER, number + 1


def _labels(file: Path, records: Sequence[_Record], options: ReadingOptions) -> Iterator[int]:
    """The class of each record; TensorFlow compares the checksums."""
    import tensorflow as tf

    contents = tf.data.TFRecordDataset(str(file), buffer_size=_BUFFER_BYTES).as_numpy_iterator()
    for record in records:
        try:
            content = next(contents)
        except tf.errors.DataLossError:
            raise InputError(
                f"load: {record}: must be undamaged. Received: a wrong checksum. Write it again."
            ) from None
        kind, values = _feature(record, content, options.y_feature)
        if kind != "int64" or len(values) != 1 or values[0] < 0:
            raise InputError(
                f"load: {record}: the feature {options.y_feature!r} must be the class, one int64 from 0. Received: "
                f"{kind} {list(values[:3])}. Pass y_feature='label' or another name."
            )
        yield int(values[0])


def _check_classes(records: Sequence[_Record], y: np.ndarray, part: np.ndarray) -> None:
    """Raises for a record whose class is none of those of the training records, or leaves classes without records."""
    known = np.unique(y[part == "train"]) if (part == "train").any() else np.unique(y)
    unknown = np.flatnonzero(~np.isin(y, known))
    gaps = np.flatnonzero(known != np.arange(len(known)))
    row = int(unknown[0]) if len(unknown) else int((y == known[gaps[0]]).argmax()) if len(gaps) else None
    if row is not None:
        raise InputError(
            f"load: {records[row]}: the class must be one of those of the training records, which are 0, 1, 2 and so "
            f"on without gaps. Received: {y[row]}, beside {len(known)} classes from {known[0]} to {known[-1]}. Correct "
            "it, or renumber the classes."
        )


def _feature(record: _Record, content: bytes, name: str) -> tuple[str, Sequence[Any]]:
    """The type, `bytes`, `float` or `int64`, and the values of a feature."""
    import tensorflow as tf

    try:
        features = tf.train.Example.FromString(content).features.feature
    except Exception as error:  # protobuf's DecodeError
        raise InputError(f"load: {record}: must be a tf.train.Example. Received: {error}. Write it as one.") from None
    if name not in features:
        known = ", ".join(f"{key} ({_type(one)})" for key, one in sorted(features.items())) or "none"
        raise InputError(f"load: {record}: must have the feature {name!r}. Received: {known}. Name one of these.")
    kind = _type(features[name])
    return kind, getattr(features[name], f"{kind}_list").value


def _type(feature: tf.train.Feature) -> str:
    return (feature.WhichOneof("kind") or "bytes_list").removesuffix("_list")


class _Reader:
    """Decodes the samples of records when they are used.

    Args:
        records: The records.
        options: Feature and shape of the sample, and how encoded images are read.
    """

    def __init__(self, records: Sequence[_Record], options: ReadingOptions) -> None:
        self._records, self._options = records, options
        first = self._decode(records[0])
        self.sample_shape, self.dtype = first.shape, first.dtype

    def _decode(self, record: _Record) -> np.ndarray:
        """Numbers of the shape `x_shape`, float32, or uint8 of raw bytes; or an encoded image, uint8 [H, W, C]."""
        name, shape = self._options.x_feature, self._options.x_shape
        kind, values = _feature(record, record.content(), name)
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


def _accepts(request: Request) -> bool:
    path = request.path
    if path.is_dir():
        return any(is_tfrecord(one.name) for one in path.iterdir())
    return is_tfrecord(path.name) and path.is_file()


SOURCE = Source(accepts=_accepts, read=read, options=OPTIONS)
