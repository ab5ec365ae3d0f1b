"""Files of TFRecords: which files hold them, where each record is, and the features of a `tf.train.Example`.

Reference:
    tensorflow.org/tutorials/load_data/tfrecord (the format of the files).
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfkd.data.manifest import PARTS
from tfkd.data.splits import Role
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# flowers.tfrecord, train-00000-of-01024, coco_val.record-00000-of-00010, data.tfrecord.gz, ...; no checkpoints.
_NAME = re.compile(
    r".*(\.(tfrecords?|tfrec|records?)|(?<!\.data)-\d{5}-of-\d{5}|tfrecords?[_-][^.]*)(-\d{5}-of-\d{5})?(\.gz)?",
    re.IGNORECASE,
)
# Words that name a part in file names of others, and that may mean validation or test.
_UNCLEAR = frozenset({"dev", "eval", "evaluation"})
_GZIP = b"\x1f\x8b"
# A record: its length (uint64), a checksum (uint32), its bytes, and a checksum of them.
_HEADER, _FOOTER = 12, 4
# The default of TensorFlow, which prints a line where none is given.
_BUFFER_BYTES = 262_144


class Record(NamedTuple):
    """Where a record is.

    Args:
        file: The file.
        number: Number of the record in the file, from 0.
        start: Position of its bytes.
        length: Their number.
        kept: Its bytes where the file is compressed; None to read them when they are used.
    """

    file: Path
    number: int
    start: int
    length: int
    kept: bytes | None = None

    def __str__(self) -> str:
        return f"{self.file}, record {self.number}"

    def content(self) -> bytes:
        """The bytes of the record."""
        if self.kept is not None:
            return self.kept
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


def are_at(path: Path) -> bool:
    """Whether a path is a file of records by its name, or a folder that holds some, directly or in folders of parts."""
    if path.is_file():
        return is_named(path.name)
    return path.is_dir() and any(True for _ in _found(path))


def is_named(name: str) -> bool:
    """Whether the name of a file is that of TFRecords, such as a.tfrecord, train-00000-of-00010 or a.tfrecord.gz.

    >>> [is_named(name) for name in ("a.tfrec", "train-00000-of-00010", "variables.data-00000-of-00001", "a.py")]
    [True, True, False, False]
    """
    return _NAME.fullmatch(name) is not None


def _found(folder: Path) -> Iterator[Path]:
    for one in sorted(folder.iterdir()):
        if one.is_dir() and _words(one.name) & {*PARTS, *_UNCLEAR}:
            yield from (file for file in sorted(one.iterdir()) if is_named(file.name) and file.is_file())
        elif is_named(one.name) and one.is_file():
            yield one


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def files_of(path: Path) -> dict[Path, Role]:
    """The files of records at a path, with the part that each belongs to.

    A part is a word in the name of the file or its folder: train, val, valid, validation or test. A single file, and
    files without such words, are for training.

    Raises:
        InputError: Some files of a folder have such a word and others do not, or one has two of them.
    """
    if path.is_file():
        return {path: "train"}
    files = list(_found(path))
    words = {file: _words(file.relative_to(path).as_posix()) for file in files}
    roles = {file: {PARTS[word] for word in found if word in PARTS} for file, found in words.items()}
    has_parts = any(roles.values())
    for file, found in roles.items():
        if len(found) > 1 or (has_parts and not found) or words[file] & _UNCLEAR:
            raise InputError(
                f"load: {path}: the name of each file must have one of the words train, validation and test, or none "
                f"of the names. Received: {file.relative_to(path)}, beside {len(files) - 1} others. Rename or move it."
            )
    return {file: next(iter(found), "train") for file, found in roles.items()}


def read(file: Path) -> Iterator[tuple[Record, bytes]]:
    """The records of a file with their bytes; TensorFlow compares the checksums.

    Raises:
        InputError: The file is damaged.
    """
    import tensorflow as tf

    packed = _is_packed(file)
    contents = tf.data.TFRecordDataset(
        str(file), compression_type="GZIP" if packed else "", buffer_size=_BUFFER_BYTES
    ).as_numpy_iterator()
    for record in _index(file, packed=packed):
        try:
            yield record, next(contents)
        except tf.errors.DataLossError:
            raise InputError(
                f"load: {record}: must be undamaged. Received: a wrong checksum. Write it again."
            ) from None


def _is_packed(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == _GZIP


def _index(file: Path, *, packed: bool) -> Iterator[Record]:
    """The records of a file, found by their headers."""
    start, number = 0, 0
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            while header := stream.read(_HEADER):
                length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else 0
                end = start + _HEADER + length
                kept = stream.read(length) if packed else None
                stream.seek(end)
                if len(stream.read(_FOOTER)) < _FOOTER:
                    raise EOFError
                yield Record(file, number, start + _HEADER, length, kept)
                start, number = end + _FOOTER, number + 1
    except (EOFError, MemoryError, OverflowError, OSError, zlib.error):
        raise InputError(
            f"load: {file}, record {number}: must be complete. Received: a file that ends within it, or no TFRecord. "
            "Write it again."
        ) from None


def features(record: Record, content: bytes) -> Mapping[str, tf.train.Feature]:
    """The features of a record by name.

    Raises:
        InputError: The record is no `tf.train.Example`.
    """
    import tensorflow as tf

    try:
        return dict(tf.train.Example.FromString(content).features.feature)
    except Exception as error:  # protobuf's DecodeError
        raise InputError(f"load: {record}: must be a tf.train.Example. Received: {error}. Write it as one.") from None


def feature(record: Record, found: Mapping[str, tf.train.Feature], name: str) -> tuple[str, Sequence[Any]]:
    """The type, `bytes`, `float` or `int64`, and the values of a feature.

    Raises:
        InputError: There is no such feature.
    """
    if name not in found:
        known = ", ".join(f"{key} ({_type(one)})" for key, one in sorted(found.items()))
        raise InputError(
            f"load: {record}: must have the feature {name!r}. Received: {known}. Name one of these."
            if known
            else f"load: {record}: must be a tf.train.Example with the feature {name!r}. Received: no features, as of "
            "an empty one or of a tf.train.SequenceExample. Write each sample as an Example."
        )
    kind = _type(found[name])
    return kind, getattr(found[name], f"{kind}_list").value


def _type(one: tf.train.Feature) -> str:
    return (one.WhichOneof("kind") or "bytes_list").removesuffix("_list")
