"""FULLY_CONNECTED and BATCH_MATMUL: products of matrices."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.channel_pairs import packed_weights
from tfkd.micro.lowering.layer import (
    WIDE,
    Layer,
    Unsupported,
    int8,
    shape_text,
    strides_of,
    unsupported_scale,
    values,
    weights_of,
)
from tfkd.micro.lowering.requantization import activation_range, folded_sums, long_requantization, requantization


def fully_connected(graph: Graph, op: Op) -> list[Layer]:
    """FULLY_CONNECTED: input of rows x depth values in any shape, weights [channels, depth], output rows x channels."""
    tensor, weights, bias, scales = weights_of(graph, op, 0)
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    channels, depth = weights.shape if weights.ndim == 2 else (0, 0)
    rows = source.elements // depth if depth else 0
    if not depth or rows * depth != source.elements or output.elements != rows * channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    if op.options.get("WeightsFormat", 0):
        raise Unsupported("shuffled weights are not supported. Convert the model again")
    least, most = activation_range(op, output)
    if len(tensor.scales) > 1:
        factors = [source.scale * s / output.scale for s in scales]
    else:  # TensorFlow Lite Micro multiplies the scales in float32 here, unlike for convolutions
        factors = [float(np.float32(source.scale) * np.float32(tensor.scale)) / output.scale]
    scaling, flags = requantization(factors, output, least, most)
    folded, wide = folded_sums(tensor.name, weights, bias, source.zero_point, scaling["multiplier"])
    return [
        Layer(
            op,
            "fully_connected",
            "fully_connected",
            "tfkd_fully_connected_params",
            {
                "weights": _packed(weights),
                "bias": folded,
                **scaling,
                "rows": rows,
                "depth": depth,
                "channels": channels,
                "per_channel": int(len(tensor.scales) > 1),
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            flags | (WIDE if wide else 0),
            comment=f"{rows} x {depth} -> {rows} x {channels}",
        )
    ]


def _packed(weights: np.ndarray) -> np.ndarray:
    """Weights [channels, depth] for kernels/fully_connected.h: [blocks, depth / 4, 4 pairs, 4 values] int16.

    A block has eight output channels, as four pairs that share 16 bits; channels and depth are padded with zeros.
    """
    channels, depth = weights.shape
    blocks = np.zeros((-(-channels // 8) * 8, -(-depth // 4) * 4), "int64")
    blocks[:channels, :depth] = weights
    # [blocks, 4 pairs, 2 channels, depth / 4, 4 values], the values in the order in which SXTB16 widens a word
    blocks = blocks.reshape(-1, 4, 2, blocks.shape[1] // 4, 4)[..., [0, 2, 1, 3]]
    return packed_weights(blocks[:, :, 0], blocks[:, :, 1]).transpose(0, 2, 1, 3)


def batch_matmul(graph: Graph, op: Op) -> list[Layer]:
    """BATCH_MATMUL: [..., rows, depth] times [..., depth, columns], either transposed, batch axes broadcast."""
    first = values(graph, op.inputs[0])
    second, output = values(graph, op.inputs[1], first.dtype), values(graph, op.outputs[0], first.dtype)
    if not all(2 <= len(tensor.shape) <= 5 for tensor in (first, second, output)):
        raise Unsupported(f"{first.shape} times {second.shape} must have 2 to 5 dimensions. Reshape them first")
    shapes = [(1,) * (5 - len(tensor.shape)) + tensor.shape for tensor in (first, second, output)]
    strides = [strides_of(shape) for shape in shapes]
    # Axes in the five dimensions: of rows and depth in the first operand, of depth and columns in the second.
    rows, depth1 = (4, 3) if op.options["AdjX"] else (3, 4)
    depth2, columns = (4, 3) if op.options["AdjY"] else (3, 4)
    depth, batch = shapes[0][depth1], tuple(max(a, b) for a, b in zip(shapes[0][:3], shapes[1][:3], strict=True))
    if (
        shapes[1][depth2] != depth
        or shapes[2] != (*batch, shapes[0][rows], shapes[1][columns])
        or any(size not in (1, b) for shape in shapes[:2] for size, b in zip(shape, batch, strict=False))
    ):
        raise Unsupported(f"{first.shape} times {second.shape} is not {output.shape}. The file is damaged")
    wide = first.dtype == "int16"
    if depth * (2**30 if wide else 255 * 255) >= 2 ** (47 if wide else 31):
        raise Unsupported(f"sums of {depth} products do not fit {47 if wide else 31} bits. Use a smaller matrix")
    # TensorFlow Lite Micro multiplies the scales in float32, as for FULLY_CONNECTED.
    factor = float(np.float32(first.scale) * np.float32(second.scale)) / output.scale
    multiplier, shift = arithmetic.quantize_multiplier(factor)
    if shift > 30:
        raise unsupported_scale(output)
    if wide:
        multiplier, shift = (int(one[0]) for one in long_requantization([factor], output).values())
    moved = [
        tuple(0 if shape[i] == 1 else step[i] for i in range(3))
        for shape, step in zip(shapes[:2], strides[:2], strict=True)
    ]
    return [
        Layer(
            op,
            "batch_matmul",
            "sums_int8 batch_matmul",
            "tfkd_batch_matmul_params",
            {
                "batch": batch,
                "stride1": moved[0],
                "stride2": moved[1],
                "rows": shapes[0][rows],
                "columns": shapes[1][columns],
                "depth": depth,
                "row1": strides[0][rows],
                "depth1": strides[0][depth1],
                "depth2": strides[1][depth2],
                "column2": strides[1][columns],
                "multiplier": multiplier,
                "shift": shift,
                "zero_point1": first.zero_point,
                "zero_point2": second.zero_point,
                "out_zero_point": output.zero_point,
            },
            tuple(t.index if t.data is None else t.data.reshape(-1) for t in (first, second)),
            output.index,
            comment=f"{math.prod(batch)} x {shape_text(first)} times {shape_text(second)}",
            generic=True,
        )
    ]
