"""Ops in which two .tflite files differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfkd.conversion import layer_names
from tfkd.conversion.tflite import TensorInfo, TFLiteModel


class OpChange(NamedTuple):
    """An op that was added, removed or changed.

    Args:
        op: Kind of the op, such as `CONV_2D`.
        a: Layer that it comes from in the first model, or its output tensor; None if the op was added.
        b: The same in the second model; None if the op was removed.
        change: `added`, `removed`, or what is different.
    """

    op: str
    a: str | None
    b: str | None
    change: str


class _Operator(NamedTuple):
    name: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    weights: str

    @property
    def label(self) -> str | None:
        name = next((tensor.name for tensor in [*self.outputs, *self.inputs]), None)
        return None if name is None else layer_names.path_of(name, self.weights)

    @property
    def signature(self) -> tuple[str, tuple[int, ...] | None]:
        return self.name, self.outputs[0].shape if self.outputs else None


def _operators(model: TFLiteModel) -> list[_Operator]:
    graph = model.graph
    operators = []
    for op in graph.ops:
        inputs = [i for i in op.inputs if i >= 0]
        weights = next((graph.tensors[i].name for i in inputs if graph.constants[i]), "")
        outputs = [graph.tensors[i] for i in op.outputs]
        operators.append(_Operator(op.name, [graph.tensors[i] for i in inputs], outputs, weights))
    return operators


def changes(first: TFLiteModel, second: TFLiteModel) -> Iterator[OpChange]:
    """Ops that were added, removed, or compute with other types, shapes or step sizes.

    Args:
        first: The first model.
        second: The second model.
    """
    a, b = _operators(first), _operators(second)
    matcher = difflib.SequenceMatcher(None, [op.signature for op in a], [op.signature for op in b], autojunk=False)
    for tag, start, stop, other, end in matcher.get_opcodes():
        if tag == "equal":
            for old, new in zip(a[start:stop], b[other:end], strict=True):
                if change := _tensor_changes(old, new):
                    yield OpChange(old.name, old.label, new.label, change)
            continue
        for op in a[start:stop]:
            yield OpChange(op.name, op.label, None, "removed")
        for op in b[other:end]:
            yield OpChange(op.name, None, op.label, "added")


def _tensor_changes(old: _Operator, new: _Operator) -> str:
    found = []
    sides = [(before, after, "output") for before, after in zip(old.outputs[:1], new.outputs[:1], strict=True)]
    # The second input of an op with weights is its weights.
    sides += [(before, after, "second input") for before, after in zip(old.inputs[1:2], new.inputs[1:2], strict=False)]
    for before, after, what in sides:
        if before.dtype != after.dtype:
            found.append(f"{what} {before.dtype} -> {after.dtype}")
        elif before.shape != after.shape:
            found.append(f"{what} {before.shape} -> {after.shape}")
        elif len(before.scales) != len(after.scales):
            found.append(f"{what} has {len(after.scales)} scales instead of {len(before.scales)}")
        elif before.scales and not np.allclose(before.scales, after.scales, rtol=0.01):
            with np.errstate(divide="ignore"):  # a tensor that is always 0 may have a scale of 0
                ratio = np.divide(after.scales, before.scales)
            found.append(f"{what} step size x {ratio.min():.3g}" + (f"..{ratio.max():.3g}" if len(ratio) > 1 else ""))
    return ", ".join(found)
