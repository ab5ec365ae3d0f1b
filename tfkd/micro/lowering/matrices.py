"""Ops that multiply matrices."""

from __future__ import annotations

import numpy as np

from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.layer import (
    WIDE,
    Layer,
    Unsupported,
    activation_range,
    folded_sums,
    int8,
    packed_pair,
    requantization,
    weights_of,
)


def fully_connected(graph: Graph, op: Op) -> list[Layer]:
    tensor, weights, bias, scales = weights_of(graph, op, 0)
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    channels, depth = weights.shape if weights.ndim == 2 else (0, 0)
    rows = source.elements // depth if depth else 0
    if not depth or rows * depth != source.elements or output.elements != rows * channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    if op.options.get("WeightsFormat", 0):
        raise Unsupported("shuffled weights are not supported. Convert the model again")
    folded, wide = folded_sums(tensor.name, weights, bias, source.zero_point)
    least, most = activation_range(op, output)
    if len(tensor.scales) > 1:
        factors = [source.scale * s / output.scale for s in scales]
    else:  # one product in float32, unlike the convolutions
        factors = [float(np.float32(source.scale) * np.float32(tensor.scale)) / output.scale]
    scaling, flags = requantization(factors, output, least, most)
    blocks = np.zeros((-(-channels // 8) * 8, -(-depth // 4) * 4), "int64")
    blocks[:channels, :depth] = weights
    # [blocks, pairs, 2 channels, depth / 4, 4 values]
    blocks = blocks.reshape(-1, 4, 2, blocks.shape[1] // 4, 4)[..., [0, 2, 1, 3]]
    packed = packed_pair(blocks[:, :, 0], blocks[:, :, 1]).transpose(0, 2, 1, 3)
    return [
        Layer(
            op, "fully_connected", "fully_connected", "tfkd_fully_connected_params",
            {"weights": packed, "bias": folded, **scaling, "rows": rows, "depth": depth, "channels": channels,
             "per_channel": int(len(tensor.scales) > 1), "out_zero_point": output.zero_point, "least": least,
             "most": most},
            (source.index,), output.index, flags | (WIDE if wide else 0),
            comment=f"{rows} x {depth} -> {rows} x {channels}",
        )
    ]  # fmt: skip
