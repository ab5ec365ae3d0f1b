"""Samples that are read when they are used: an array without its memory."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from tfkd._internal.types import Nest
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    import tensorflow as tf

# Data up to this size are read into memory, where batches are made fastest.
IN_MEMORY_BYTES = 256 << 20
# More files than this are not read at the start, however small they are.
IN_MEMORY_FILES = 100_000
# Batches that are read at a time have at most so many values: 256 MB of images in uint8.
_AT_A_TIME = 1 << 28
# Samples that are read at a time where all are needed one after the other.
_CHUNK = 256


class Reader(Protocol):
    """Reads samples of one shape and dtype by their number."""

    @property
    def sample_shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def read(self, rows: np.ndarray) -> np.ndarray:
        """The samples [len(rows), ...] with these numbers."""

    def fingerprint(self, rows: np.ndarray) -> Iterator[bytes]:
        """Bytes that change where one of the samples changes."""


class LazySamples:
    """Samples [N, ...] that are read when they are used; behaves like an array that cannot be changed.

    An index, a slice or an array of rows reads these samples as a NumPy array; `take` and `len` read nothing.

    Args:
        reader: Reads samples by their number.
        rows: Numbers of the samples, int64 [N].
    """

    def __init__(self, reader: Reader, rows: np.ndarray) -> None:
        self.reader, self.rows = reader, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [N, ...]."""
        return (len(self.rows), *self.reader.sample_shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.reader.dtype

    def __getitem__(self, key: int | np.integer | slice | np.ndarray | list[int]) -> np.ndarray:
        if not isinstance(key, slice) and np.ndim(key) == 0:
            return self.reader.read(self.rows[np.reshape(key, 1)])[0]
        return self.reader.read(self.rows[key])

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def astype(self, dtype: npt.DTypeLike, **options: Any) -> np.ndarray:
        """All samples as an array of a type."""
        return self[:].astype(dtype, **options)

    def take(self, rows: np.ndarray, axis: int = 0) -> LazySamples:
        """Some of the samples, not read yet."""
        return LazySamples(self.reader, self.rows[rows])

    @property
    def fingerprint(self) -> bytes:
        """Hash that changes where a sample changes."""
        digest = hashlib.sha256(f"{self.shape}{self.dtype.str}".encode())
        for part in self.reader.fingerprint(self.rows):
            digest.update(part)
        return digest.digest()


class MappedReader:
    """Reads the samples of an array in a file.

    Args:
        array: A memory-mapped array [N, ...].
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.sample_shape, self.dtype = array.shape[1:], array.dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The samples with these numbers, in memory."""
        return np.array(self._array[rows])

    def fingerprint(self, rows: np.ndarray) -> Iterator[bytes]:
        """The samples themselves."""
        for start in range(0, len(rows), _CHUNK):
            yield self.read(rows[start : start + _CHUNK]).tobytes()


def mapped(array: np.ndarray, where: str) -> LazySamples:
    """A large array in a file, of which samples are read when they are used.

    Args:
        array: A memory-mapped array [N, ...], uint8 or float32.
        where: Name of the array, for messages.

    Raises:
        InputError: It has another type or shape, or is not finite.
    """
    if array.ndim < 2 or array.dtype not in (np.uint8, np.float32):
        raise InputError(
            f"load: {where} must be uint8 or float32 of shape [N, ...], since it is too large to convert. Received: "
            f"{array.dtype} of shape {array.shape}. Save it with that type."
        )
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[..., None]  # grayscale images
    samples = LazySamples(MappedReader(array), np.arange(len(array)))
    if array.dtype == np.float32:
        for row, sample in enumerate(samples):
            if not np.isfinite(sample).all():
                raise InputError(f"load: {where} must be finite. Received: NaN or infinity in row {row}. Repair it.")
    return samples


def sample_size(x: np.ndarray | LazySamples | NamedArrays) -> int:
    """Number of values of one sample."""
    shapes = x.shapes.values() if isinstance(x, NamedArrays) else (x.shape[1:],)
    return sum(map(math.prod, shapes))


# A function of rows [B], as a tensor, that returns these samples [B, ...]; of several inputs by name.
Lookup: TypeAlias = "Callable[[tf.Tensor], Nest]"


def model_input_lookup(x: np.ndarray | LazySamples | NamedArrays) -> Lookup:
    """A function of rows [B], as a tensor, that returns these samples as models take them.

    Args:
        x: Samples.

    Returns:
        Samples [B, ...] as float32; of several inputs a dictionary by name, in their own types.
    """
    import tensorflow as tf

    functions = lookups(x)
    if len(functions) == 1:
        return lambda rows: as_model_input(functions[0](rows))
    return lambda rows: as_model_input(
        first_success(tf.data.Dataset.from_tensors(rows), functions).get_single_element()
    )


def as_model_input(samples: Nest) -> Nest:
    """Samples of a look-up as models take them: float32 [B, ...]; of several inputs in their own types."""
    import tensorflow as tf

    return samples if isinstance(samples, dict) else tf.cast(samples, tf.float32)


def first_success(dataset: tf.data.Dataset, functions: Sequence[Callable[..., Nest]]) -> tf.data.Dataset:
    """A data set of one element: what the first of the functions returns that raises no error.

    Args:
        dataset: The arguments of the functions, one element.
        functions: The functions; an error of the last one is raised.
    """
    *before, last = map(dataset.map, functions)
    for found in reversed(before):
        last = found.ignore_errors().concatenate(last)
    return last.take(1)


def first_tried(dataset: tf.data.Dataset, look_up: Lookup, values: int) -> tf.data.Dataset:
    """The samples of batches by a look-up that may raise, which is prepared once: `first_success` takes longer.

    Args:
        dataset: Batches (rows [B], epoch), and one without rows at the end.
        look_up: Function of rows.
        values: Number of values in a batch, > 0, which limits the number of batches that are read at a time.

    Returns:
        For each batch but the empty one (step, found_step, x, rows, epoch). Where the look-up raised, found_step, x and
        rows are those of the next batch at which it did not.
    """
    import tensorflow as tf

    plain = tf.autograph.experimental.do_not_convert

    def attempt(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[Nest, ...]:
        return step, look_up(batch[0]), *batch

    def with_expected(expected: tf.Tensor, found: tuple[Nest, ...]) -> tuple[tf.Tensor, tuple[Nest, ...]]:
        return found[0] + 1, (expected, *found)

    def with_missing(expected: tf.Tensor, *found: Nest) -> tf.data.Dataset:
        end = found[0] + tf.cast(tf.size(found[2]) > 0, tf.int64)
        repeated = (tf.data.Dataset.from_tensors(one).repeat() for one in found)
        return tf.data.Dataset.zip(tf.data.Dataset.range(expected, end), *repeated)

    # Not AUTOTUNE, which starts with one and takes more than a pass of a few thousand images to find the others.
    parallel = max(1, min(2 * (os.cpu_count() or 1), _AT_A_TIME // max(1, values)))
    tried = dataset.enumerate().map(plain(attempt), num_parallel_calls=parallel, deterministic=True)
    tried = tried.ignore_errors().scan(tf.constant(0, tf.int64), plain(with_expected))
    return tried.flat_map(plain(with_missing))


def lookups(x: np.ndarray | LazySamples | NamedArrays) -> tuple[Lookup, ...]:
    """Functions that return the same samples by their rows, the fastest first.

    All but the last raise where they cannot read a sample. The last one reads all, or its error names the file.

    Args:
        x: Samples [N, ...]: an array, which is copied into a constant if it is small, `LazySamples`, or `NamedArrays`.
    """
    import tensorflow as tf

    if isinstance(x, NamedArrays):
        return _by_name({name: lookups(array) for name, array in x.arrays.items()})
    if isinstance(x, np.ndarray) and x.nbytes <= IN_MEMORY_BYTES:
        constant = tf.constant(x)
        return (lambda rows: tf.gather(constant, rows),)
    shape, dtype = x.shape[1:], tf.as_dtype(x.dtype)

    def look_up(rows: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda found: x[found], [rows], dtype), (None, *shape))

    if not (isinstance(x, LazySamples) and hasattr(x.reader, "lookup")):
        return (look_up,)
    with tf.device("CPU:0"):
        numbers = tf.constant(x.rows)
    find = x.reader.lookup()  # without Python
    return lambda rows: find(tf.gather(numbers, rows)), look_up


def _by_name(functions: dict[str, tuple[Lookup, ...]]) -> tuple[Lookup, ...]:
    """The look-ups of several inputs, each with the fastest of its functions, and each with the last one."""

    def of(place: int) -> Lookup:
        return lambda rows: {name: each[place](rows) for name, each in functions.items()}

    return (of(0), of(-1)) if any(len(each) > 1 for each in functions.values()) else (of(0),)
