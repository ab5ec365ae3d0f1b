"""Ops that sum over axes."""

from __future__ import annotations

import math

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.layer import Layer, Unsupported, constant, shape_text, strides_of, values


def reduction(graph: Graph, op: Op) -> list[Layer]:
    source = values(graph, op.inputs[0])
    output = values(graph, op.outputs[0], source.dtype)
    rank = len(source.shape)
    axes = {int(a) % rank for a in constant(graph, op, 1, "int32").reshape(-1)}
    if rank > 4 or math.prod(s for d, s in enumerate(source.shape) if d not in axes) != output.elements:
        raise Unsupported(f"{source.shape} over axes {sorted(axes)} is not {output.shape}. Use at most 4 dimensions")
    count = math.prod(source.shape[a] for a in axes)
    if count * 2 ** (8 if source.dtype == "int8" else 16) >= 2**31:
        raise Unsupported(f"sums of {count} values do not fit 32 bits. Pool first")
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    if op.kind == "MEAN":  # 1 / count goes into the multiplier
        bits = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << bits) // count, shift - bits
    if shift > 30:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    strides = strides_of(source.shape)

    def four(dims: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        fill = 4 - len(dims)
        return (1,) * fill + tuple(source.shape[d] for d in dims), (0,) * fill + tuple(strides[d] for d in dims)

    kept, kept_stride = four([d for d in range(rank) if d not in axes])
    summed, summed_stride = four(sorted(axes))
    return [
        Layer(
            op,
            "reduction",
            "reduction",
            "tfkd_reduction_params",
            {
                "kept": kept,
                "kept_stride": kept_stride,
                "summed": summed,
                "summed_stride": summed_stride,
                "multiplier": multiplier,
                "shift": shift,
                "offset": source.zero_point * count,
                "out_zero_point": output.zero_point,
            },
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
        )
    ]
