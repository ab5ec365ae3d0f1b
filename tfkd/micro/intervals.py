"""Integer bounds of each channel of each int8 tensor over all possible inputs, op by op in their order.

A channel is an index of the last axis; a tensor of shape [..., C] has C intervals. A channel whose two bounds are equal
is constant. The bounds are computed with the arithmetic of the kernels, so that a constant is exactly the value that
they compute.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import VIEWS, Graph, Op, Tensor
from tfkd.micro.lowering.asymmetric import is_asymmetric
from tfkd.micro.lowering.channel_pairs import scaling_of
from tfkd.micro.lowering.layer import Layer
from tfkd.micro.lowering.tables import UNARY

# The smallest and the largest value of each channel of a tensor, both [channels] int64.
Interval = tuple[np.ndarray, np.ndarray]
BINARY = ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# An input tensor, channels of it, and the channels of the output that are computed from these alone, pair by pair.
Link = tuple[int, np.ndarray, np.ndarray]


def channels_of(tensor: Tensor) -> int:
    """Length of the last axis."""
    return tensor.shape[-1] if tensor.shape else 1


def intervals(graph: Graph, layers: Mapping[int, Layer]) -> dict[int, Interval]:
    """Bounds of each tensor; those of other types than int8 are not used.

    Args:
        graph: A model whose ops can all be lowered.
        layers: Last layer that writes a tensor, by the tensor's index.
    """
    found: dict[int, Interval] = {}
    for tensor in graph.tensors:
        if tensor.data is not None and tensor.dtype == "int8":
            rows = tensor.data.astype("int64").reshape(-1, channels_of(tensor))
            found[tensor.index] = (rows.min(axis=0), rows.max(axis=0))
        else:
            found[tensor.index] = (np.full(channels_of(tensor), -128), np.full(channels_of(tensor), 127))
    for op in graph.ops:
        if all(graph.tensors[i].dtype == "int8" for i in (*op.inputs[:1], *op.outputs)):
            bounds = _bounds(graph, op, layers.get(op.outputs[0]), found)
            if bounds is not None:
                found[op.outputs[0]] = bounds
    return found


def links(graph: Graph, op: Op) -> list[Link] | None:
    """Which channels of the output an op computes from which channels of its inputs alone.

    Where linked channels are removed from the inputs and the output together, the op computes the other channels as
    before.

    Returns:
        One link for each computed input; None for an op whose output channels depend on several input channels.
    """
    output, source = graph.tensors[op.outputs[0]], graph.tensors[op.inputs[0]]
    if {source.dtype, output.dtype} != {"int8"}:
        return None
    count, own = channels_of(output), channels_of(source)
    every = np.arange(count)
    if op.kind in VIEWS:
        places = np.arange(math.lcm(own, count))
        return [(source.index, places % own, places % count)]
    if op.kind == "DEPTHWISE_CONV_2D" and not is_asymmetric(graph, op):
        return [(source.index, every // (count // own), every)]
    if op.kind == "CONCATENATION":
        sizes = [channels_of(graph.tensors[i]) for i in op.inputs]
        if any(graph.tensors[i].data is not None for i in op.inputs):
            return None
        last = int(op.options["Axis"]) % len(output.shape) == len(output.shape) - 1
        starts = [0, *itertools.accumulate(sizes if last else [0] * len(sizes))]
        return [
            (i, np.arange(size), np.arange(start, start + size))
            for i, size, start in zip(op.inputs, sizes, starts, strict=False)
        ]
    if op.kind in BINARY:
        tensors = [graph.tensors[i] for i in op.inputs[:2]]
        if any(channels_of(t) not in (count, 1 if t.data is not None else count) for t in tensors):
            return None
        return [(t.index, every, every) for t in tensors if t.data is None]
    if op.kind in ("MEAN", "SUM", "PAD", "PADV2"):
        changed = graph.tensors[op.inputs[1]].data
        rank = len(source.shape)
        if changed is None or (op.kind in ("MEAN", "SUM") and rank - 1 in {int(a) % rank for a in changed.reshape(-1)}):
            return None
        return [(source.index, every, every)] if own == count else None
    if op.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D") or (own == count and op.kind in UNARY):
        return [(source.index, every, every)]
    return None


def numbers(layer: Layer) -> dict[str, int]:
    """The fields of a layer that are single numbers."""
    return {name: value for name, value in layer.fields.items() if isinstance(value, int)}


def padded(layer: Layer) -> bool:
    """Whether windows of a layer reach beyond the image, where they read the zero point."""
    f = numbers(layer)
    for name, before in (("height", "pad_top"), ("width", "pad_left")):
        if before in f:
            end = (f[f"out_{name}"] - 1) * f[f"stride_{name}"] + (f[f"kernel_{name}"] - 1) * f[f"dilation_{name}"]
            if f[before] or end >= f[name]:
                return True
    return False


def sums(graph: Graph, op: Op, layer: Layer, source: Interval) -> Interval:
    """Bounds of the accumulators of a convolution or matrix product, bias included.

    Args:
        graph: A model.
        op: An op of `PRODUCTS`.
        layer: The op's layer.
        source: Bounds of the op's input.

    Returns:
        Bounds for each output channel.
    """
    tensor = graph.tensors[op.inputs[0]]
    weights = graph.tensors[op.inputs[1]].data
    if weights is None:
        raise TypeError("weights are computed")
    low, high = (bound - tensor.zero_point for bound in source)
    if op.kind == "DEPTHWISE_CONV_2D":  # [1, h, w, out] to [out, h * w]
        taps = weights.reshape(-1, weights.shape[-1]).T.astype("int64")
        low, high = (np.repeat(b, len(taps) // len(b))[:, None] for b in (low, high))
    elif op.kind == "CONV_2D":  # [out, h * w, in], of which groups see a part
        taps = weights.reshape(len(weights), -1).astype("int64")
        part = weights.shape[-1]
        group = np.arange(len(weights)) // (len(weights) // (len(low) // part))
        low, high = (np.tile(b.reshape(-1, part)[group], taps.shape[1] // part) for b in (low, high))
    else:
        taps = weights.astype("int64")
        low, high = (
            np.resize(b, taps.shape[1])[None] if taps.shape[1] % len(b) == 0 else np.full((1, 1), f(b))
            for b, f in ((low, np.min), (high, np.max))
        )
    least, most = np.minimum(taps * low, taps * high), np.maximum(taps * low, taps * high)
    if padded(layer):
        least, most = np.minimum(least, 0), np.maximum(most, 0)
    bias = np.zeros(len(taps), "int64")
    if graph.input_of(op, 2) is not None:
        bias = np.asarray(graph.tensors[op.inputs[2]].data, "int64").reshape(-1)
    return bias + least.sum(axis=1), bias + most.sum(axis=1)


def requantized(layer: Layer, channel: int, value: int) -> int | None:
    """The output that the kernel computes from an accumulator; None where its left shift would overflow."""
    multipliers, shifts = scaling_of(layer)
    at = channel if len(shifts) > 1 else 0
    shift = int(shifts[at])
    if shift > 0 and abs(value) << shift >= 2**31:
        return None
    f = numbers(layer)
    result = arithmetic.multiply(value, int(multipliers[at]), shift) + f["out_zero_point"]
    return max(f["least"], min(f["most"], result))


def _bounds(graph: Graph, op: Op, layer: Layer | None, found: Mapping[int, Interval]) -> Interval | None:
    """Bounds of an op's output; None where nothing is known."""
    output = graph.tensors[op.outputs[0]]
    if op.kind in PRODUCTS and is_asymmetric(graph, op):
        return None
    if op.kind in PRODUCTS and layer is not None:
        return _product(layer, *sums(graph, op, layer, found[op.inputs[0]]), channels_of(output))
    linked = links(graph, op)
    if linked is None:
        return None
    if op.kind in BINARY and layer is not None:
        first, second = (found[i] for i in op.inputs[:2])
        return _corners(_binary(op, layer), np.broadcast_arrays(*first, *second))
    low, high = np.full(channels_of(output), 127), np.full(channels_of(output), -128)
    for i, input_channels, output_channels in linked:
        np.minimum.at(low, output_channels, found[i][0][input_channels])
        np.maximum.at(high, output_channels, found[i][1][input_channels])
    if layer is None or op.kind in ("CONCATENATION", *VIEWS):
        return low, high
    if op.kind in ("PAD", "PADV2"):
        value = output.zero_point if op.kind == "PAD" else int(np.asarray(graph.tensors[op.inputs[2]].data).flat[0])
        return np.minimum(low, value), np.maximum(high, value)
    if layer.kernel == "lookup":
        table = np.asarray(layer.fields["table"], "int64")
        parts = [table[a + 128 : b + 129] for a, b in zip(low, high, strict=True)]
        return np.array([part.min() for part in parts]), np.array([part.max() for part in parts])
    if layer.kernel == "reduction":
        return _corners(_reduced(layer), [low, high]) if numbers(layer)["shift"] <= 0 else None
    if layer.kernel in ("average_pool", "max_pool"):
        least, most = numbers(layer)["least"], numbers(layer)["most"]
        return low.clip(least, most), high.clip(least, most)
    return None


def _product(layer: Layer, low: np.ndarray, high: np.ndarray, channels: int) -> Interval | None:
    """Bounds of a product's outputs from those of its accumulators."""
    if len(low) != channels:
        return None
    outputs = [[requantized(layer, c, int(b)) for c, b in enumerate(bound)] for bound in (low, high)]
    if any(output is None for row in outputs for output in row):
        return None
    return np.array(outputs[0], "int64"), np.array(outputs[1], "int64")


def _corners(function: Callable[..., int], bounds: Sequence[np.ndarray]) -> Interval:
    """Bounds of a function that is monotone in each operand, from its values where all operands are at a bound.

    Args:
        function: Function of one or two integers.
        bounds: Low and high of each operand in turn, each [channels].
    """
    operands = list(zip(bounds[::2], bounds[1::2], strict=True))
    values = np.array(
        [
            [
                function(*map(int, corner))
                for corner in itertools.product(*((low[c], high[c]) for low, high in operands))
            ]
            for c in range(len(bounds[0]))
        ]
    )
    return values.min(axis=1), values.max(axis=1)


def _reduced(layer: Layer) -> Callable[[int], int]:
    """The output of a reduction whose inputs all have one value, which bounds it for any inputs."""
    f, count = numbers(layer), math.prod(np.asarray(layer.fields["summed"]).tolist())

    def reduced(x: int) -> int:
        result = arithmetic.multiply(x * count - f["offset"], f["multiplier"], f["shift"]) + f["out_zero_point"]
        return max(-128, min(127, result))

    return reduced


def _binary(op: Op, layer: Layer) -> Callable[[int, int], int]:
    """The function of two int8 values that an op of `BINARY` computes."""
    f = numbers(layer)

    def added(x: int, y: int) -> int:
        first = arithmetic.multiply((x - f["zero_point1"]) * 2**20, f["multiplier1"], -f["shift1"])
        second = arithmetic.multiply((y - f["zero_point2"]) * 2**20, f["multiplier2"], -f["shift2"])
        total = arithmetic.multiply(first + f["sign"] * second, f["out_multiplier"], -f["out_shift"])
        return max(f["least"], min(f["most"], total + f["out_zero_point"]))

    def multiplied(x: int, y: int) -> int:
        product = arithmetic.multiply((x - f["zero_point1"]) * (y - f["zero_point2"]), f["multiplier"], f["shift"])
        return max(f["least"], min(f["most"], product + f["out_zero_point"]))

    chosen: dict[str, Callable[[int, int], int]] = {"MAXIMUM": max, "MINIMUM": min, "MUL": multiplied}
    return chosen.get(op.kind, added)
