"""The calls of the layers of a Keras model on one sample, and the first that a .tflite does not repeat."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor

if TYPE_CHECKING:
    import keras

# Largest difference of values that are the same, as a share of their range and of their magnitude.
_SHARE, _RELATIVE = 1e-3, 1e-5


class Call(NamedTuple):
    """One call of a layer or operation.

    Args:
        path: Path of the layer, such as `backbone/conv`.
        outputs: Its outputs.
        sources: Indices of the earlier calls whose outputs it reads, all earlier ones where that is not known, and of
            those inside of it.
    """

    path: str
    outputs: list[np.ndarray]
    sources: list[int]


def record(model: keras.Model, compute: Callable[[], Nest], inputs: Sequence[Tensor]) -> list[Call]:
    """Records the calls of the layers of a model, in the order in which they end.

    Args:
        model: The model.
        compute: Calls it, without a graph.
        inputs: The tensors that it is called on.
    """
    ends: list[_End] = []
    with _observed(model, ends):
        compute()
    producers = {id(tensor): -1 for tensor in inputs}
    calls: list[Call] = []
    for index, end in enumerate(ends):
        known = [producers.get(id(tensor)) for tensor in end.read]
        found = {place for place in known if place is not None and place >= 0} | {*range(end.first_inside, index)}
        calls.append(
            Call(
                end.path,
                [np.asarray(tensor) for tensor in end.written],
                [*range(index)] if None in known else sorted(found),
            )
        )
        for tensor in end.written:
            producers.setdefault(id(tensor), index)
    return calls


def different(calls: Sequence[Call], values: Sequence[np.ndarray]) -> list[tuple[Call, float]]:
    """The calls whose outputs are not among the values of a .tflite, and neither are those of any call behind them.

    The outputs of some layers are not there although all is right, since the converter joins layers: a convolution with
    the normalization and the activation behind it.

    Args:
        calls: The calls.
        values: The tensors of a .tflite on the same sample.

    Returns:
        The calls in their order, and the least difference of one of its outputs from a tensor of the same size, as a
        share of the output's range; infinity where there is none.
    """
    by_size: dict[int, list[np.ndarray]] = {}
    for array in values:
        by_size.setdefault(array.size, []).append(array.astype(np.float64).ravel())
    differences = [
        max((_difference(output, by_size.get(output.size, [])) for output in call.outputs), default=0.0)
        for call in calls
    ]
    repeated = [difference <= 1 for difference in differences]
    for index in reversed(range(len(calls))):
        if repeated[index]:
            for source in calls[index].sources:
                repeated[source] = True
    return [
        (call, difference * _SHARE)
        for call, difference, right in zip(calls, differences, repeated, strict=True)
        if not right
    ]


def _difference(output: np.ndarray, candidates: Sequence[np.ndarray]) -> float:
    """The least difference from a tensor over the largest one of equal values."""
    expected = output.astype(np.float64).ravel()
    limit = _SHARE * float(np.ptp(expected)) + _RELATIVE * float(np.abs(expected).max()) if expected.size else 0.0
    return min(
        (float(np.abs(one - expected).max(initial=0.0)) / max(limit, 1e-30) for one in candidates), default=np.inf
    )


class _End(NamedTuple):
    """The end of a call: its path, the tensors that it read and wrote, and the number of ends when it began."""

    path: str
    read: list[Tensor]
    written: list[Tensor]
    first_inside: int


@contextlib.contextmanager
def _observed(model: keras.Model, ends: list[_End]) -> Iterator[None]:
    """Adds the end of each call of an operation inside a model to a list, but not the steps of recurrent layers."""
    import keras
    import tensorflow as tf

    opened: list[keras.Operation] = []
    original = keras.Operation.__call__

    def tensors(structure: Nest) -> list[Tensor]:
        return [one for one in keras.tree.flatten(structure) if isinstance(one, tf.Tensor)]

    def call(operation: keras.Operation, *args: Nest, **kwargs: Nest) -> Nest:
        if any(isinstance(one, keras.layers.RNN) for one in opened):
            return original(operation, *args, **kwargs)
        opened.append(operation)
        begin = len(ends)
        try:
            outputs = original(operation, *args, **kwargs)
            path = "/".join(keras_compat.scope_name(one) for one in opened if one is not model)
        finally:
            opened.pop()
        if path:
            ends.append(_End(path, tensors((args, kwargs)), tensors(outputs), begin))
        return outputs

    keras.Operation.__call__ = call
    try:
        yield
    finally:
        keras.Operation.__call__ = original
