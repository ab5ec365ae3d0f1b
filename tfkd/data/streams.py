"""Data in the forms that Keras and TensorFlow Lite take in Python, as a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from tfkd._internal.types import Nest, SampleData
from tfkd.data import abnormal_labels, dense_labels, frame_labels, identity_labels, label_kinds
from tfkd.data.drawing import Drawn
from tfkd.data.named_arrays import NamedArrays, named_arrays
from tfkd.data.splits import Role, Split
from tfkd.errors import InputError

_FORMS = (
    "a split of tfkd.data, arrays (x, y), a tf.data.Dataset, a keras.utils.PyDataset, a tfkd.data.Stream, or a "
    "function like TensorFlow Lite's representative_dataset; of several inputs x is a dict by their names"
)
# Shape of the samples in the batches before, of several inputs by name; None before the first.
_Shape: TypeAlias = "tuple[int, ...] | dict[str, tuple[int, ...]] | None"
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
            or lists of one input with a batch axis, like TensorFlow Lite's `representative_dataset`. Of models with
            several inputs x is a dict by the names of the inputs. Labels are class numbers [B] or [B, 1], or one-hot
            [B, C]; values of a regression, [B] or [B, K]; or multi-hot rows of 0 and 1, [B, C]. Weights are ignored.
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
    most = 20 * draw if draw and repeats(data) else None
    if most is None and repeats(data):
        raise InputError("tf.data.Dataset: the data must end. Received: one that repeats forever. Use take().")
    name, kept, count, has_labels = form_of(data), Drawn(draw), 0, None
    shape: _Shape = None
    for number, (x, y) in enumerate(_batches(data)):
        where = f"{name}, batch {number}"
        x = _checked_x(x, where, shape)
        if y is not None:
            labels = labels or label_kinds.detect(np.asarray(y))
            y = _checked_y(y, len(x), where, num_classes, labels)
        if (y is None) and (labelled or has_labels) or (y is not None and has_labels is False):
            raise InputError(f"{where}: each sample needs a label. Received: none. Yield (x, y).")
        has_labels = y is not None
        shape, columns = (x.shapes, x.arrays.values()) if isinstance(x, NamedArrays) else (x.shape[1:], (x,))
        kept.add(*columns, np.zeros(len(x), np.int64) if y is None else y, count + np.arange(len(x)))
        count += len(x)
        if (most is not None and count >= most) or (isinstance(data, Stream) and count > data.samples):
            break
    if not count:
        raise InputError(f"{name}: the data must have samples. Received: none.")
    if isinstance(data, Stream) and count != data.samples:
        given, advice = (
            (f"{count:,}", f"Pass samples={count}") if count < data.samples else ("more", "Pass their number")
        )
        raise InputError(
            f"{name}: the function must yield {data.samples:,} samples. Received: {given}. {advice}, or correct the "
            "function."
        )
    *found, y, ids = kept.columns()
    x = NamedArrays(dict(zip(shape, found, strict=True))) if isinstance(shape, dict) else found[0]
    if labels == abnormal_labels.KIND:
        return Split(x, y, ids, role, name, abnormal_labels.CLASS_NAMES, labels=labels)
    if labels == frame_labels.KIND:
        count = num_classes or int(y.max()) + 1
        return Split(x, y, ids, role, name, tuple(map(str, range(count))), labels=labels)
    if labels in ("boxes", "masks"):
        count = max(dense_labels.classes_of(y, labels), default=0) + 1
        return Split(x, y, ids, role, name, tuple(map(str, range(count))), labels=labels)
    if y.ndim > 1:
        return Split(x, y, ids, role, name, tuple(map(str, range(y.shape[1]))), labels=labels)
    classes = num_classes or int(y.max()) + 1
    kind = labels if labels == identity_labels.KIND else None
    classes = int(y.max()) + 1 if kind else classes
    names = tuple(map(str, range(classes))) if has_labels else _UNLABELLED
    return Split(x, y, ids, role, name, names, labels=kind)


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
    if isinstance(data, np.ndarray):
        return "an array without labels"
    if callable(data):
        return f"the function {getattr(data, '__qualname__', type(data).__name__)}"
    return type(data).__name__


def repeats(data: SampleData) -> bool:
    """Whether data are a `tf.data.Dataset` without an end."""
    return hasattr(data, "element_spec") and int(data.cardinality()) == -1


def _batches(data: SampleData) -> Iterator[tuple[Nest, np.ndarray | None]]:
    """Pairs of inputs [B, ...] and labels, which are None where there are none."""
    if isinstance(data, np.ndarray):
        return iter([(data, None)])
    if are_arrays(data):
        return iter([_pair(data)])
    found = elements(data)
    if found is None:
        raise InputError(f"The data must be {_FORMS}. Received: {form_of(data)}.")
    return map(_pair, found)


def are_arrays(data: SampleData) -> bool:
    """Whether data are arrays (x, y), where x is a dict of arrays for several inputs."""
    if not isinstance(data, tuple) or len(data) != 2 or not hasattr(data[1], "shape"):
        return False
    parts = data[0].values() if isinstance(data[0], Mapping) else data[0] if isinstance(data[0], list) else data[:1]
    return all(hasattr(part, "shape") for part in parts)


def elements(data: SampleData) -> Iterator[Nest] | None:
    """What a data set, a `Stream` or a function yields; None for data of another form."""
    if hasattr(data, "element_spec"):
        return iter(data.as_numpy_iterator())
    if hasattr(data, "__getitem__") and hasattr(data, "num_batches"):
        return (data[index] for index in range(data.num_batches))
    if isinstance(data, Stream) or callable(data):
        return iter(data.function() if isinstance(data, Stream) else data())
    return None


def _pair(element: Nest) -> tuple[Nest, np.ndarray | None]:
    if isinstance(element, dict) and len(element) == 1:
        element = next(iter(element.values()))
    if not isinstance(element, list | tuple):
        return element, None
    if not 1 <= len(element) <= 3:
        raise InputError(
            f"The data must yield (x, y). Received: {len(element)} values. Yield one input and its labels."
        )
    x, y = element[0], element[1] if len(element) > 1 else None
    if isinstance(x, Mapping) and len(x) == 1:
        x = next(iter(x.values()))
    if isinstance(y, Mapping) or (isinstance(y, list | tuple) and any(len(getattr(one, "shape", ())) for one in y)):
        raise InputError(
            f"The labels must be one array, those of one output. Received: a {type(y).__name__} of {len(y)}. Yield "
            "the labels of one output, and name it."
        )
    if y is not None and np.ndim(y) == 0:  # a single sample with a scalar label
        single = {name: np.asarray(value)[None] for name, value in x.items()} if isinstance(x, Mapping) else None
        return np.asarray(x)[None] if single is None else single, np.asarray(y)[None]
    return x, y


def _checked_x(x: Nest, where: str, shape: _Shape) -> np.ndarray | NamedArrays:
    if isinstance(x, Mapping) and not isinstance(shape, tuple):
        return named_arrays(x, where, shape)
    if isinstance(x, Mapping | list | tuple) or isinstance(shape, dict):
        raise InputError(
            f"{where}: samples must be one array, or of several inputs a dict of arrays by their names. Received: "
            f"{type(x).__name__}{' after another form' if shape is not None else ''}. Name the arrays like the inputs "
            "of the model."
        )
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
    if kind in dense_labels.KINDS:
        return dense_labels.CHECKS[kind](np.asarray(y), "labels", rows, where)
    if kind == abnormal_labels.KIND:
        return abnormal_labels.check(np.asarray(y), "labels", rows, where)
    if kind == frame_labels.KIND:
        return frame_labels.check(np.asarray(y), "labels", rows, where)
    return _class_numbers(y, rows, where, None if kind == identity_labels.KIND else num_classes)


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
