"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN and REDUCE_ALL over any axes."""

from __future__ import annotations

import math

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    read_by_kernel,
    same_quantization,
    shape_text,
    strides_of,
    typed,
    unsupported_scale,
    values,
)

_DIMENSIONS = 4


def reduction(graph: Graph, op: Op) -> list[Layer]:
    """The layer of a MEAN or a SUM."""
    source = values(graph, op.inputs[0])
    output = values(graph, op.outputs[0], source.dtype)
    axes, count = axes_of(graph, op, source, output)
    if count * 2 ** (8 if source.dtype == "int8" else 16) >= 2**31:
        raise Unsupported(f"sums of {count} values do not fit 32 bits. Pool first")
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    if op.kind == "MEAN":  # the multiplier takes in 1 / count
        bits = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << bits) // count, shift - bits
    if shift > 30:
        raise unsupported_scale(output)
    fields: Fields = {
        **axes,
        "multiplier": multiplier,
        "shift": shift,
        "offset": source.zero_point * count,
        "out_zero_point": output.zero_point,
    }
    return [_layer(op, source, output, fields)]


def extreme(graph: Graph, op: Op) -> list[Layer]:
    """REDUCE_MAX and REDUCE_MIN; REDUCE_ALL of bool, which is the smallest of 0 and 1."""
    if op.kind == "REDUCE_ALL":
        source, output = typed(graph, op.inputs[0], "bool"), typed(graph, op.outputs[0], "bool")
    else:
        source = values(graph, op.inputs[0])
        output = values(graph, op.outputs[0], source.dtype)
        same_quantization(source, output)
    axes, _ = axes_of(graph, op, source, output)
    rest = dict.fromkeys(("multiplier", "shift", "offset", "out_zero_point"), 0)
    return [_layer(op, source, output, {**axes, **rest}, 1 if op.kind == "REDUCE_MAX" else 2)]


def _layer(op: Op, source: Tensor, output: Tensor, fields: Fields, flags: int = 0) -> Layer:
    return Layer(
        op,
        "reduction",
        "reduction",
        "tfkd_reduction_params",
        fields,
        (read_by_kernel(source),),
        output.index,
        flags=flags,
        comment=f"{shape_text(source)} -> {shape_text(output)}",
        generic=True,
    )


def axes_of(graph: Graph, op: Op, source: Tensor, output: Tensor) -> tuple[dict[str, tuple[int, ...]], int]:
    """How a reduction reads its input; axes with and without `KeepDims` are the same, since values do not move.

    Returns:
        The fields `kept`, `summed` and their strides, and the number of values that make one output.
    """
    rank, shape = len(source.shape), source.shape
    axes = constant(graph, op, 1, "int32").reshape(-1).tolist()
    reduced = {axis % rank for axis in axes if -rank <= axis < rank}
    if math.prod(n for d, n in enumerate(shape) if d not in reduced) != output.elements:
        raise Unsupported(f"{shape} over axes {axes} is not {output.shape}. The file is damaged")
    # Neighbours of one kind are one axis.
    groups: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    last = None
    for d, (size, stride) in enumerate(zip(shape, strides_of(shape), strict=True)):
        if size > 1:
            found = groups[d in reduced]
            if last == (d in reduced):
                size *= found.pop()[0]
            found.append((size, stride))
            last = d in reduced
    if max(map(len, groups.values())) > _DIMENSIONS:
        raise Unsupported(f"{shape} over axes {axes} alternates too often. Reshape to at most 8 dimensions")
    fields: dict[str, tuple[int, ...]] = {}
    for name, found in (("kept", groups[False]), ("summed", groups[True])):
        padded = [(1, 0)] * (_DIMENSIONS - len(found)) + found
        fields |= {name: tuple(n for n, _ in padded), f"{name}_stride": tuple(step for _, step in padded)}
    return fields, math.prod(n for n, _ in groups[True])
