"""MEAN and SUM over any axes of a tensor of up to four dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    shape_text,
    strides_of,
    unsupported_scale,
    values,
)

_DIMENSIONS = 4


def reduction(graph: Graph, op: Op) -> list[Layer]:
    """The layer of a MEAN or a SUM; axes with and without `KeepDims` are the same, since values do not move."""
    source = values(graph, op.inputs[0])
    output = values(graph, op.outputs[0], source.dtype)
    rank = len(source.shape)
    axes = sorted({int(a) % rank for a in constant(graph, op, 1, "int32").reshape(-1)})
    others = [d for d in range(rank) if d not in axes]
    if rank > _DIMENSIONS or math.prod(source.shape[d] for d in others) != output.elements:
        raise Unsupported(f"{source.shape} over axes {axes} is not {output.shape}. Use at most 4 dimensions")
    count = math.prod(source.shape[a] for a in axes)
    if count * 2 ** (8 if source.dtype == "int8" else 16) >= 2**31:
        raise Unsupported(f"sums of {count} values do not fit 32 bits. Pool first")
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    if op.kind == "MEAN":  # the multiplier takes in 1 / count
        bits = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << bits) // count, shift - bits
    if shift > 30:
        raise unsupported_scale(output)
    kept, kept_stride = _four(source, others)
    summed, summed_stride = _four(source, axes)
    fields: Fields = {
        "kept": kept,
        "kept_stride": kept_stride,
        "summed": summed,
        "summed_stride": summed_stride,
        "multiplier": multiplier,
        "shift": shift,
        "offset": source.zero_point * count,
        "out_zero_point": output.zero_point,
    }
    return [
        Layer(
            op,
            "reduction",
            "reduction",
            "tfkd_reduction_params",
            fields,
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
            generic=True,
        )
    ]


def _four(tensor: Tensor, axes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of some axes, preceded by axes of size 1 to make four."""
    strides, missing = strides_of(tensor.shape), _DIMENSIONS - len(axes)
    sizes = (1,) * missing + tuple(tensor.shape[d] for d in axes)
    return sizes, (0,) * missing + tuple(strides[d] for d in axes)
