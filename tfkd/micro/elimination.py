"""Removes channels that cannot change a graph's outputs: channels that are constant for all inputs, or never read.

A tensor [..., C] becomes [..., C'] with C' <= C; inputs, outputs and states keep their shapes, and outputs keep every
bit. A constant channel is removed with the weights that compute it and the weights that read it; its contribution to
the next sums goes into their bias. Where a window also reads padding, the channel stays, unless it equals the zero
point that padding reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.conversion import tflite
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.intervals import BINARY, PRODUCTS, Interval, channels_of, intervals, links, padded, sums
from tfkd.micro.lowering.asymmetric import is_asymmetric
from tfkd.micro.lowering.layer import Layer


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """An op that has fewer weights than before.

    Args:
        layer: `KIND (tensor)`.
        channels: Output channels before and after; 0 after where the op was removed.
        weight_bytes: Bytes of weights and bias before and after.
    """

    layer: str
    channels: tuple[int, int]
    weight_bytes: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Elimination:
    """What was removed from a model.

    Args:
        layers: Ops that are smaller or were removed.
        macs: Multiply-accumulates of one inference before and after.
        weight_bytes: Bytes of all weights and biases before and after.
    """

    layers: tuple[Shrunk, ...]
    macs: tuple[int, int]
    weight_bytes: tuple[int, int]

    def __str__(self) -> str:
        if not self.layers:
            return "no dead channels"
        (macs, macs_after), (weights, weights_after) = self.macs, self.weight_bytes
        return f"dead channels removed: {macs:,} -> {macs_after:,} MACs, {weights:,} -> {weights_after:,} weight bytes"


def eliminate(graph: Graph, layers: Sequence[Layer], *, keep_dead: bool = False) -> tuple[Graph, Elimination]:
    """Removes constant and unread channels, and ops without any channel left.

    Args:
        graph: A model.
        layers: Layers that the model's ops were lowered to.
        keep_dead: Whether nothing is removed.

    Returns:
        A smaller graph with the same inputs and outputs, and what was removed.
    """
    if keep_dead:
        macs, weights = _macs(graph), _weight_bytes(graph, graph.ops)
        return graph, Elimination((), (macs, macs), (weights, weights))
    by_output = {layer.writes: layer for layer in layers}
    search = _Search(graph, by_output, intervals(graph, by_output))
    search.run()
    tensors = list(graph.tensors)
    for i, kept in search.kept.items():
        if kept.any() and not kept.all():
            tensors[i] = dataclasses.replace(tensors[i], shape=(*tensors[i].shape[:-1], int(kept.sum())))
    ops = {op.outputs[0]: _shrunk(op, search, tensors) for op in graph.ops if search.runs(op)}
    smaller = Graph(tuple(tensors), tuple(ops.values()), graph.inputs, graph.outputs)
    return smaller, Elimination(
        _differences(graph, smaller, ops),
        (_macs(graph), _macs(smaller)),
        (_weight_bytes(graph, graph.ops), _weight_bytes(smaller, smaller.ops)),
    )


def _differences(graph: Graph, smaller: Graph, ops: Mapping[int, Op]) -> tuple[Shrunk, ...]:
    """The ops with weights that are smaller or missing in a smaller graph, whose ops are given by their outputs."""
    shrunk = []
    for op in graph.ops:
        out = op.outputs[0]
        if op.kind not in PRODUCTS or (out in ops and ops[out].inputs == op.inputs):
            continue
        before, after = (channels_of(graph.tensors[out]), _weight_bytes(graph, [op])), (0, 0)
        if out in ops:
            after = (channels_of(smaller.tensors[out]), _weight_bytes(smaller, [ops[out]]))
        if before != after:  # equal where weights only became zeros: those of a constant channel that stays
            shrunk.append(Shrunk(graph.label(op), *zip(before, after, strict=True)))
    return tuple(shrunk)


def _macs(graph: Graph) -> int:
    shapes = [tensor.shape for tensor in graph.tensors]
    return sum(tflite.op_macs(op.kind, op.inputs, op.outputs, shapes) for op in graph.ops)


def _weight_bytes(graph: Graph, ops: Sequence[Op]) -> int:
    used = {i for op in ops if op.kind in PRODUCTS for i in op.inputs[1:] if i >= 0}
    return sum(graph.tensors[i].bytes for i in used)


@dataclasses.dataclass
class _Search:
    """Finds the channels that must be kept, from the outputs towards the inputs.

    Args:
        graph: A model.
        layers: Last layer that writes a tensor, by the tensor's index.
        found: Bounds of each tensor's channels.
        kept: For each tensor [channels] bool, the channels to keep; filled by `run`.
    """

    graph: Graph
    layers: Mapping[int, Layer]
    found: Mapping[int, Interval]
    kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed = {*self.graph.inputs, *self.graph.outputs}
        for tensor in self.graph.tensors:
            keeps_all = tensor.index in fixed or tensor.variable or tensor.data is not None
            self.kept[tensor.index] = np.full(channels_of(tensor), keeps_all)

    def run(self) -> None:
        """Adds channels until a pass over all ops adds none: links also keep channels of earlier visited outputs."""
        before = -1
        while before != self._kept_count():
            before = self._kept_count()
            for op in reversed(self.graph.ops):
                if self.runs(op):
                    self._keep_inputs(op)

    def _kept_count(self) -> int:
        return sum(int(kept.sum()) for kept in self.kept.values())

    def runs(self, op: Op) -> bool:
        """Whether any channel of an op's outputs is kept."""
        return any(self.kept[i].any() for i in op.outputs)

    def constant(self, index: int) -> np.ndarray:
        """Which channels of a tensor are constant."""
        low, high = self.found[index]
        return np.equal(low, high) & (self.graph.tensors[index].dtype == "int8")

    def shrinks(self, op: Op) -> bool:
        """Whether single input channels can be removed from an op with weights."""
        if op.kind not in ("CONV_2D", "FULLY_CONNECTED") or op.outputs[0] not in self.layers:
            return False
        if is_asymmetric(self.graph, op):
            return False
        source, output = (self.graph.tensors[i] for i in (op.inputs[0], op.outputs[0]))
        weights = self.graph.tensors[op.inputs[1]]
        if source.dtype != "int8" or output.dtype != "int8" or channels_of(output) != weights.shape[0]:
            return False
        same_axis = weights.shape[-1] == channels_of(source)
        return same_axis or (op.kind == "FULLY_CONNECTED" and weights.shape[-1] % channels_of(source) == 0)

    def folds(self, op: Op) -> np.ndarray:
        """Which input channels of an op with weights are constant and add the same value to all sums."""
        source = self.graph.tensors[op.inputs[0]]
        constant = self.constant(source.index)
        if padded(self.layers[op.outputs[0]]):
            constant &= self.found[source.index][0] == source.zero_point
        return constant

    def computed(self, op: Op) -> np.ndarray:
        """Which kept output channels of an op with weights depend on its input."""
        return self.kept[op.outputs[0]] & ~self.constant(op.outputs[0])

    def _keep_inputs(self, op: Op) -> None:
        """Keeps the input channels that an op needs to compute the kept channels of its outputs."""
        sources = [i for i in op.inputs if i >= 0 and self.graph.tensors[i].data is None]
        if self.shrinks(op):
            weights = np.asarray(self.graph.tensors[op.inputs[1]].data)
            own = channels_of(self.graph.tensors[op.inputs[0]])
            used = weights[self.computed(op)].reshape(-1, own).any(axis=0)
            self.kept[op.inputs[0]] |= used & ~self.folds(op)
            kept = self.kept[op.outputs[0]]
            one_scale = len(self.graph.tensors[op.inputs[1]].scales) == 1
            if op.kind == "FULLY_CONNECTED" and kept.sum() == 1 and not one_scale:
                # One channel would have one scale, whose multiplier the interpreter computes in another precision.
                kept[np.flatnonzero(~kept)[0]] = True
        elif (linked := links(self.graph, op)) is not None:
            for i, input_channels, output_channels in linked:
                np.logical_or.at(self.kept[i], input_channels, self.kept[op.outputs[0]][output_channels])
                np.logical_or.at(self.kept[op.outputs[0]], output_channels, self.kept[i][input_channels])
        else:
            for i in (*sources, *op.outputs):
                self.kept[i][:] = True
        for i in sources:  # a tensor has at least one channel
            if not self.kept[i].any():
                self.kept[i][0] = True


def _shrunk(op: Op, search: _Search, tensors: list[Tensor]) -> Op:
    """An op on the kept channels; its new constants are added to `tensors`."""
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
        old = graph.input_of(op, 2)
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
    """Weights and bias of an op, with the contributions of constant input channels and constant sums in the bias."""
    graph, layer = search.graph, search.layers[op.outputs[0]]
    source = graph.tensors[op.inputs[0]]
    weights = np.array(graph.tensors[op.inputs[1]].data)
    axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    old = graph.input_of(op, 2)
    bias = np.zeros(weights.shape[axis], "int64")
    if old is not None:
        bias = np.asarray(old.data, "int64").reshape(-1)
    if search.shrinks(op):
        removed = search.folds(op) & ~search.kept[source.index]
        values = np.where(removed, search.found[source.index][0] - source.zero_point, 0)
        taps = weights.reshape(len(weights), -1).astype("int64")
        bias = bias + taps @ np.resize(values, taps.shape[1])
        # All sums between these bounds have the same output: the lower bound replaces the sum, without weights.
        constant = search.constant(op.outputs[0])
        weights[constant] = 0
        bias[constant] = sums(graph, op, layer, search.found[source.index])[0][constant]
    return weights, bias.astype("int32" if old is None or old.data is None else old.data.dtype)


def _sliced(tensors: list[Tensor], original: Tensor, data: np.ndarray, kept: np.ndarray) -> int:
    """Adds a constant with some values and the quantization of another one's kept channels; returns its index."""
    new = dataclasses.replace(original, index=len(tensors), shape=data.shape, data=data)
    if len(original.scales) > 1:
        new = dataclasses.replace(
            new,
            scales=tuple(np.compress(kept, original.scales).tolist()),
            zero_points=tuple(np.compress(kept, original.zero_points).tolist()),
        )
    tensors.append(new)
    return new.index
