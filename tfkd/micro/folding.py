"""Computes the ops whose result is the same for all inputs: arithmetic on shapes.

A model with an open batch reads the batch size by SHAPE and STRIDED_SLICE and packs it into the new shape of a RESHAPE.
All shapes are fixed here, so that these ops become constants. TensorFlow Lite Micro computes them in each run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor

_TYPES = ("int32", "int64")
# Shapes have few values; a damaged file may demand an array that fills the memory.
_MOST_VALUES = 1024


def fold_shapes(graph: Graph) -> Graph:
    """Replaces integer ops of constants, and SHAPE of any tensor, by constants.

    Args:
        graph: A model.

    Returns:
        The graph without these ops. An op whose result has another shape than its output in the file stays.
    """
    tensors, ops = list(graph.tensors), []
    for op in graph.ops:
        values = _folded(tensors, op)
        if values is None or any(i in graph.outputs for i in op.outputs):
            ops.append(op)
        else:
            tensors[op.outputs[0]] = dataclasses.replace(tensors[op.outputs[0]], data=values)
    return dataclasses.replace(graph, tensors=tuple(tensors), ops=tuple(ops))


def _folded(tensors: Sequence[Tensor], op: Op) -> np.ndarray | None:
    """The constant that an op computes; None where it depends on the model's inputs."""
    if len(op.outputs) != 1 or op.kind not in (*_FOLDED, "SHAPE") or not op.inputs or min(op.inputs) < 0:
        return None
    output, sources = tensors[op.outputs[0]], [tensors[i] for i in op.inputs]
    if output.dtype not in _TYPES or output.elements > _MOST_VALUES:
        return None
    if op.kind == "SHAPE":
        values = np.array(sources[0].shape)
    else:
        operands = [source.data for source in sources if source.data is not None and source.dtype in _TYPES]
        if len(operands) < len(sources) or any(x.size > _MOST_VALUES for x in operands):
            return None
        try:
            values = _FOLDED[op.kind](op, *operands)
        except (ValueError, IndexError, TypeError, ZeroDivisionError):  # operands that do not fit, from a damaged file
            return None
    values = np.asarray(values, output.dtype)
    return values if values.shape == output.shape else None


def _strided_slice(op: Op, x: np.ndarray, begin: np.ndarray, end: np.ndarray, steps: np.ndarray) -> np.ndarray:
    if op.options.get("EllipsisMask") or op.options.get("NewAxisMask") or op.options.get("Offset"):
        raise ValueError("not a plain slice")
    picked: list[slice | int] = []
    for d, (lo, hi, step) in enumerate(zip(begin.tolist(), end.tolist(), steps.tolist(), strict=True)):
        if op.options["ShrinkAxisMask"] >> d & 1:
            picked.append(lo)
        else:
            low = None if op.options["BeginMask"] >> d & 1 else lo
            picked.append(slice(low, None if op.options["EndMask"] >> d & 1 else hi, step))
    return np.asarray(x[tuple(picked)])


def _slice(op: Op, x: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    bounds = zip(begin.tolist(), size.tolist(), strict=True)
    return x[tuple(slice(at, None if n == -1 else at + n) for at, n in bounds)]


def _reshape(op: Op, x: np.ndarray, *shape: np.ndarray) -> np.ndarray:
    return x.reshape(shape[0].reshape(-1).tolist())


def _floor_div(op: Op, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not np.all(y):
        raise ZeroDivisionError
    return np.asarray(x // y)


def _product(op: Op, x: np.ndarray, axes: np.ndarray) -> np.ndarray:
    product = x.prod(axis=tuple(axes.reshape(-1).tolist()), dtype=x.dtype, keepdims=bool(op.options["KeepDims"]))
    return np.asarray(product)


# For each op a function of the op and its constant inputs.
_FOLDED: dict[str, Callable[..., np.ndarray]] = {
    "ADD": lambda op, x, y: x + y,
    "CAST": lambda op, x: x,
    "CONCATENATION": lambda op, *xs: np.concatenate(xs, axis=op.options["Axis"]),
    "EXPAND_DIMS": lambda op, x, axis: np.expand_dims(x, int(axis.reshape(-1)[0])),
    "FLOOR_DIV": _floor_div,
    "GATHER": lambda op, x, at: np.take(x, at, axis=op.options["Axis"]),
    "MAXIMUM": lambda op, x, y: np.maximum(x, y),
    "MINIMUM": lambda op, x, y: np.minimum(x, y),
    "MUL": lambda op, x, y: x * y,
    "PACK": lambda op, *xs: np.stack(xs, axis=op.options["Axis"]),
    "REDUCE_PROD": _product,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SQUEEZE": lambda op, x: x.reshape([n for n in x.shape if n != 1]),
    "STRIDED_SLICE": _strided_slice,
    "SUB": lambda op, x, y: x - y,
}
