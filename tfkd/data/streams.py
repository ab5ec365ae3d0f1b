"""Data in the forms that Keras and TensorFlow Lite take in Python, as a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tfkd._internal.types import Nest, SampleData
from tfkd.data import label_kinds
from tfkd.data.splits import Role, Split
from tfkd.errors import InputError

_FORMS = (
    "a split of tfkd.data, arrays (x, y), a tf.data.Dataset, a keras.utils.PyDataset, a tfkd.data.Stream, or a "
    "function like TensorFlow Lite's representative_dataset"
)
# The class of samples without labels.
_UNLABELLED = ("unlabelled",)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A generator function and the number of samples that it yields.

    Args:
        function: Function without arguments that returns a new iterator at each call, over batches (x [B, ...], y [B])
            or single samples (x, y) with a scalar y.
        samples: Number of samples, > 0.

    Raises:
        InputError: samples is not > 0.
    """

    function: Callable[[], Iterable[Nest]]
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"Stream: samples must be > 0. Received: samples={self.samples}. Pass their number.")


def as_split(
    data: SampleData,
    role: Role,
    *,
    num_classes: int | None = None,
    draw: int | None = None,
    labelled: bool = True,
    labels: str | None = None,
) -> Split:
    """Reads data once and keeps the samples in memory.

    Args:
        data: A split, which is returned; arrays (x, y); a `tf.data.Dataset` or `keras.utils.PyDataset` of (x, y), in
            batches, or single samples with a scalar y; a `Stream`; a function without arguments that yields such pairs,
            or lists of one input with a batch axis, like TensorFlow Lite's `representative_dataset`. Labels are class
            numbers [B] or [B, 1], or one-hot [B, C]; values of a regression, [B] or [B, K]; or multi-hot rows of 0 and
            1, [B, C]. Weights are ignored.
        role: What the samples are used for: `train`, `val` or `test`.
        num_classes: Number of classes; by default the largest label + 1. Not used for other labels.
        draw: Number of samples that are drawn at random from all and kept, always the same ones; None to keep all. Of
            a `tf.data.Dataset` that repeats forever, they are drawn from the first 20 times as many samples.
        labelled: Whether labels are required.
        labels: Kind of the labels, see `tfkd.data.label_kinds`; by default that of the first batch.

    Returns:
        A split in the order of the data; the ids are the numbers of the samples. Without labels all samples have one
        class.

    Raises:
        InputError: The data have another form, are empty or infinite, end early, or labels are missing or out of range.
    """
    if isinstance(data, Split):
        return data
    most = 20 * draw if draw and _repeats(data) else None
    if most is None and _repeats(data):
        raise InputError("tf.data.Dataset: the data must end. Received: one that repeats forever. Use take().")
    name, kept, count, shape = form_of(data), _Kept(draw), 0, None
    for number, (x, y) in enumerate(_batches(data)):
        where = f"{name}, batch {number}"
        x = _checked_x(x, where, shape)
        if y is not None:
            labels = labels or label_kinds.detect(np.asarray(y))
            y = _checked_y(y, len(x), where, num_classes, labels)
        if (y is None) and (labelled or kept.labelled) or (y is not None and kept.labelled is False):
            raise InputError(f"{where}: each sample needs a label. Received: none. Yield (x, y).")
        kept.add(x, y)
        shape, count = x.shape[1:], count + len(x)
        if most is not None and count >= most:
            break
    if not count:
        raise InputError(f"{name}: the data must have samples. Received: none.")
    if isinstance(data, Stream) and count != data.samples:
        raise InputError(
            f"{name}: the function must yield {data.samples:,} samples. Received: {count:,}. Pass samples={count}, or "
            "correct the function."
        )
    x, y, ids = kept.arrays()
    if y.ndim == 2:
        return Split(x, y, ids, role, name, tuple(map(str, range(y.shape[1]))))
    classes = num_classes or int(y.max()) + 1
    return Split(x, y, ids, role, name, tuple(map(str, range(classes))) if kept.labelled else _UNLABELLED)


def form_of(data: object) -> str:
    """What data are, for messages: the public name of their type, and the name of a function.

    >>> form_of((0, 1)), form_of(print), form_of(1.5)
    ('arrays', 'the function print', 'float')
    """
    if isinstance(data, Stream):
        return f"Stream of {form_of(data.function)}"
    if hasattr(data, "element_spec"):  # the types of tf.data have private names
        return "tf.data.Dataset"
    if isinstance(data, tuple):
        return "arrays"
    if callable(data):
        return f"the function {getattr(data, '__qualname__', type(data).__name__)}"
    return type(data).__name__


class _Kept:
    """Samples that are kept: all, or some that are drawn at random.

    Each sample gets a random key, and those with the smallest keys are kept: a uniform draw in one pass, with no more
    than about twice as many samples in memory.

    Args:
        draw: Number of samples to draw; None for all.
    """

    def __init__(self, draw: int | None) -> None:
        self._draw, self._rng = draw, np.random.default_rng(0)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = self._size = 0
        self.labelled: bool | None = None

    def add(self, x: np.ndarray, y: np.ndarray | None) -> None:
        """Adds a batch."""
        self.labelled = y is not None
        y = np.zeros(len(x), np.int64) if y is None else y
        self._parts.append((x, y, self._count + np.arange(len(x)), self._rng.random(len(x))))
        self._count, self._size = self._count + len(x), self._size + len(x)
        if self._draw is not None and self._size > 2 * self._draw:
            self._prune(self._draw)

    def _prune(self, draw: int) -> None:
        columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        rows = np.sort(np.argsort(columns[3], kind="stable")[:draw])
        self._parts = [(columns[0][rows], columns[1][rows], columns[2][rows], columns[3][rows])]
        self._size = len(rows)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples, labels and numbers of the samples that are kept."""
        if self._draw is not None:
            self._prune(self._draw)
        x, y, ids, _ = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return x, y, ids


def _repeats(data: SampleData) -> bool:
    """Whether data are a `tf.data.Dataset` without an end."""
    return hasattr(data, "element_spec") and int(data.cardinality()) == -1


def _batches(data: SampleData) -> Iterator[tuple[Nest, np.ndarray | None]]:
    """Pairs of inputs [B, ...] and labels, which are None where there are none."""
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "shape") for part in data):
        yield data
    elif hasattr(data, "element_spec"):
        yield from map(_pair, data.as_numpy_iterator())
    elif hasattr(data, "__getitem__") and hasattr(data, "num_batches"):
        yield from (_pair(data[index]) for index in range(data.num_batches))
    elif isinstance(data, Stream) or callable(data):
        yield from map(_pair, data.function() if isinstance(data, Stream) else data())
    else:
        raise InputError(f"The data must be {_FORMS}. Received: {form_of(data)}.")


def _pair(element: Nest) -> tuple[Nest, np.ndarray | None]:
    if isinstance(element, dict) and len(element) == 1:
        element = next(iter(element.values()))
    if not isinstance(element, list | tuple):
        return element, None
    if not 1 <= len(element) <= 3:
        raise InputError(f"The data must yield (x, y). Received: {len(element)} values. Use models with one input.")
    x, y = element[0], element[1] if len(element) > 1 else None
    if y is not None and np.ndim(y) == 0:  # a single sample with a scalar label
        return np.asarray(x)[None], np.asarray(y)[None]
    return x, y


def _checked_x(x: Nest, where: str, shape: tuple[int, ...] | None) -> np.ndarray:
    if isinstance(x, dict | list | tuple):
        raise InputError(f"{where}: a sample must be one array. Received: {type(x).__name__}. Use one input.")
    x = np.asarray(x)
    if x.ndim < 2 or x.dtype.kind not in "buif" or (shape is not None and x.shape[1:] != shape):
        expected = f"[B, {', '.join(map(str, shape))}]" if shape is not None else "[B, ...]"
        raise InputError(f"{where}: inputs must be numbers {expected}. Received: {x.dtype} of shape {x.shape}.")
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(x).all():
        raise InputError(f"{where}: inputs must be finite. Received: NaN or infinity. Repair or remove them.")
    return x


def _checked_y(y: np.ndarray | None, rows: int, where: str, num_classes: int | None, kind: str) -> np.ndarray:
    """Labels as a split has them, see `tfkd.data.label_kinds`."""
    if kind == "values":
        return label_kinds.check_values(np.asarray(y), "labels", rows, where)
    if kind == "multi_hot":
        return label_kinds.check_multi_hot(np.asarray(y), "labels", rows, where)
    return _class_numbers(y, rows, where, num_classes)


def _class_numbers(y: np.ndarray | None, rows: int, where: str, num_classes: int | None) -> np.ndarray:
    """Labels as int64 [N], from class numbers [N] or [N, 1], or one-hot rows [N, C]."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (rows,) or y.dtype.kind not in "buif" or (y != np.floor(y)).any():
        raise InputError(
            f"{where}: labels must be class numbers [{rows}] or one-hot rows. Received: {y.dtype} of shape {y.shape}."
        )
    if len(y) and (y.min() < 0 or (num_classes is not None and y.max() >= num_classes)):
        bad = y.min() if y.min() < 0 else y.max()
        allowed = "0 or more" if num_classes is None else f"in 0..{num_classes - 1}"
        raise InputError(f"{where}: labels must be {allowed}. Received: {bad:g}. Renumber the classes from 0.")
    return y.astype(np.int64)
