"""Takes out of a graph what cannot change its outputs: channels that are constant whatever the input, or never read.

Exact to the last bit. A constant channel leaves with the weights that make it and those that read it; what it adds to
the next sums goes into their bias. Where a window reads it beside the padding of an image it stays, unless it equals
the zero point that padding reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.conversion import tflite
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.intervals import BINARY, PRODUCTS, Interval, channels_of, intervals, links, padded, sums
from tfkd.micro.lowering.layer import Layer


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """An op with weights that lost some.

    Args:
        layer: `KIND (name)`.
        channels: of its output, before and after; 0 where the op is gone.
        weight_bytes: of weights and bias, before and after.
    """

    layer: str
    channels: tuple[int, int]
    weight_bytes: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Elimination:
    """What was taken out.

    Args:
        layers: the ops that are smaller or gone.
        macs: multiply-accumulates of one inference, before and after.
        weight_bytes: of all weights and biases, before and after.
    """

    layers: tuple[Shrunk, ...]
    macs: tuple[int, int]
    weight_bytes: tuple[int, int]

    def __str__(self) -> str:
        if not self.layers:
            return "no dead channels"
        (macs, left), (weights, kept) = self.macs, self.weight_bytes
        return f"dead channels removed: {macs:,} -> {left:,} MACs, {weights:,} -> {kept:,} weight bytes"


def eliminate(graph: Graph, layers: Sequence[Layer]) -> tuple[Graph, Elimination]:
    """Removes constant and unread channels, and ops of which nothing is left.

    Args:
        graph: a model.
        layers: its ops, lowered.

    Returns:
        A smaller graph with the same inputs and outputs, and what was removed.
    """
    by_output = {layer.writes: layer for layer in layers}
    search = _Search(graph, by_output, intervals(graph, by_output))
    search.run()
    tensors = list(graph.tensors)
    for i, kept in search.kept.items():
        if kept.any() and not kept.all():
            tensors[i] = dataclasses.replace(tensors[i], shape=(*tensors[i].shape[:-1], int(kept.sum())))
    ops = {op.outputs[0]: _shrunk(op, search, tensors) for op in graph.ops if search.runs(op)}
    smaller = Graph(tuple(tensors), tuple(ops.values()), graph.inputs, graph.outputs)
    shrunk = []
    for op in graph.ops:
        out = op.outputs[0]
        if op.kind in PRODUCTS and (out not in ops or ops[out].inputs != op.inputs):
            left = (channels_of(tensors[out]), _weights(smaller, [ops[out]])) if out in ops else (0, 0)
            before = (channels_of(graph.tensors[out]), _weights(graph, [op]))
            if before == left:
                continue  # only a constant channel that stays lost its weights: they are zero now
            shrunk.append(Shrunk(graph.label(op), *zip(before, left, strict=True)))
    return smaller, Elimination(
        tuple(shrunk), (_macs(graph), _macs(smaller)), (_weights(graph, graph.ops), _weights(smaller, smaller.ops))
    )


def _macs(graph: Graph) -> int:
    shapes = [tensor.shape for tensor in graph.tensors]
    return sum(tflite.op_macs(op.kind, op.inputs, op.outputs, shapes) for op in graph.ops)


def _weights(graph: Graph, ops: Sequence[Op]) -> int:
    used = {i for op in ops if op.kind in PRODUCTS for i in op.inputs[1:] if i >= 0}
    return sum(graph.tensors[i].bytes for i in used)


@dataclasses.dataclass
class _Search:
    """Which channels must be kept, grown from the outputs until nothing more is asked for."""

    graph: Graph
    layers: Mapping[int, Layer]
    found: Mapping[int, Interval]
    kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed = {*self.graph.inputs, *self.graph.outputs}
        for tensor in self.graph.tensors:
            whole = tensor.index in fixed or tensor.variable or tensor.data is not None
            self.kept[tensor.index] = np.full(channels_of(tensor), whole)

    def run(self) -> None:
        before = -1
        while before != (before := sum(int(kept.sum()) for kept in self.kept.values())):
            for op in reversed(self.graph.ops):
                if self.runs(op):
                    self._ask(op)

    def runs(self, op: Op) -> bool:
        """Whether anything of an op's outputs is kept."""
        return any(self.kept[i].any() for i in op.outputs)

    def constant(self, index: int) -> np.ndarray:
        """Which channels of a tensor are constant."""
        low, high = self.found[index]
        return np.equal(low, high) & (self.graph.tensors[index].dtype == "int8")

    def shrinks(self, op: Op) -> bool:
        """Whether input channels can be taken out of an op with weights one by one."""
        if op.kind not in ("CONV_2D", "FULLY_CONNECTED") or op.outputs[0] not in self.layers:
            return False
        source, output = (self.graph.tensors[i] for i in (op.inputs[0], op.outputs[0]))
        weights = self.graph.tensors[op.inputs[1]]
        if source.dtype != "int8" or output.dtype != "int8" or channels_of(output) != weights.shape[0]:
            return False
        whole = weights.shape[-1] == channels_of(source)
        return whole or (op.kind == "FULLY_CONNECTED" and weights.shape[-1] % channels_of(source) == 0)

    def folds(self, op: Op) -> np.ndarray:
        """Which input channels of an op with weights are constant and add the same to all sums."""
        source = self.graph.tensors[op.inputs[0]]
        steady = self.constant(source.index)
        if padded(self.layers[op.outputs[0]]):
            steady &= self.found[source.index][0] == source.zero_point
        return steady

    def computed(self, op: Op) -> np.ndarray:
        """Which outputs of an op with weights depend on its input."""
        return self.kept[op.outputs[0]] & ~self.constant(op.outputs[0])

    def _ask(self, op: Op) -> None:
        """Keeps what an op needs to compute what is kept of its outputs."""
        sources = [i for i in op.inputs if i >= 0 and self.graph.tensors[i].data is None]
        if self.shrinks(op):
            weights = np.asarray(self.graph.tensors[op.inputs[1]].data)
            own = channels_of(self.graph.tensors[op.inputs[0]])
            used = weights[self.computed(op)].reshape(-1, own).any(axis=0)
            self.kept[op.inputs[0]] |= used & ~self.folds(op)
            kept = self.kept[op.outputs[0]]
            one_scale = len(self.graph.tensors[op.inputs[1]].scales) == 1
            if op.kind == "FULLY_CONNECTED" and kept.sum() == 1 and not one_scale:
                kept[np.flatnonzero(~kept)[0]] = True  # a single scale would be computed with in another precision
        elif (linked := links(self.graph, op)) is not None:
            for i, ours, its in linked:
                np.logical_or.at(self.kept[i], ours, self.kept[op.outputs[0]][its])
                np.logical_or.at(self.kept[op.outputs[0]], its, self.kept[i][ours])
        else:
            for i in (*sources, *op.outputs):
                self.kept[i][:] = True
        for i in sources:
            if not self.kept[i].any():
                self.kept[i][0] = True


def _shrunk(op: Op, search: _Search, tensors: list[Tensor]) -> Op:
    """An op on what is kept; its new constants are added to the tensors."""
    kept, graph = search.kept[op.outputs[0]], search.graph
    inputs = list(op.inputs)
    if op.kind in PRODUCTS and op.outputs[0] in search.layers and (search.shrinks(op) or not kept.all()):
        weights, bias = _folded(op, search)
        if search.shrinks(op):
            columns = np.resize(search.kept[op.inputs[0]], graph.tensors[op.inputs[1]].shape[-1])
            weights = weights[..., columns]
        axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
        weights, bias = weights.compress(kept, axis), bias[kept]
        if np.array_equal(weights, np.asarray(graph.tensors[op.inputs[1]].data)):
            return op
        inputs[1] = _sliced(tensors, graph.tensors[op.inputs[1]], weights, kept)
        old = graph.of(op, 2)
        if old is not None:
            inputs[2] = _sliced(tensors, old, bias, kept)
        else:
            inputs[2:] = [len(tensors)]
            tensors.append(Tensor(len(tensors), graph.label(op), bias.shape, "int32", data=bias))
    elif op.kind in BINARY and not kept.all():
        for n, i in enumerate(op.inputs):
            data = graph.tensors[i].data
            if data is not None and channels_of(graph.tensors[i]) == len(kept) > 1:
                inputs[n] = _sliced(tensors, graph.tensors[i], data[..., kept], kept)
    return dataclasses.replace(op, inputs=tuple(inputs)) if tuple(inputs) != op.inputs else op


def _folded(op: Op, search: _Search) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias with what is constant moved into the bias: of input channels, and of whole sums."""
    graph, layer = search.graph, search.layers[op.outputs[0]]
    source = graph.tensors[op.inputs[0]]
    weights = np.array(graph.tensors[op.inputs[1]].data)
    axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    old = graph.of(op, 2)
    bias = np.zeros(weights.shape[axis], "int64")
    if old is not None:
        bias = np.asarray(old.data, "int64").reshape(-1)
    if search.shrinks(op):
        gone = search.folds(op) & ~search.kept[source.index]
        values = np.where(gone, search.found[source.index][0] - source.zero_point, 0)
        taps = weights.reshape(len(weights), -1).astype("int64")
        bias = bias + taps @ np.resize(values, taps.shape[1])
        # A sum whose result is the same at both its bounds: any value between them will do, so no weight is needed.
        steady = search.constant(op.outputs[0])
        weights[steady] = 0
        bias[steady] = sums(graph, op, layer, search.found[source.index])[0][steady]
    return weights, bias.astype("int32" if old is None or old.data is None else old.data.dtype)


def _sliced(tensors: list[Tensor], of: Tensor, data: np.ndarray, kept: np.ndarray) -> int:
    """Adds a constant with the values of another's kept channels; its number."""
    new = dataclasses.replace(of, index=len(tensors), shape=data.shape, data=data)
    if len(of.scales) > 1:
        new = dataclasses.replace(
            new,
            scales=tuple(np.compress(kept, of.scales).tolist()),
            zero_points=tuple(np.compress(kept, of.zero_points).tolist()),
        )
    tensors.append(new)
    return new.index
