"""CUMSUM, L2_NORMALIZATION, ARG_MAX and ARG_MIN, which work along one axis; CAST and ADD_N, value by value."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    int8,
    read_by_kernel,
    shape_text,
    typed,
    unsupported_scale,
)

_BYTES = {"bool": 1, "int8": 1, "int16": 2, "int32": 4, "uint32": 4}
_MOST_ADDED = 4


def _along(graph: Graph, op: Op, source: Tensor) -> Fields:
    """The fields `outer`, `depth` and `inner`: a tensor as three axes, of which the second is the op's axis."""
    axis = int(constant(graph, op, 1, "int32").reshape(-1)[0])
    if not -len(source.shape) <= axis < len(source.shape):
        raise Unsupported(f"{source.shape} has no axis {axis}. The file is damaged")
    axis %= len(source.shape)
    shape = source.shape
    return {"outer": math.prod(shape[:axis]), "depth": shape[axis], "inner": math.prod(shape[axis + 1 :])}


def _sum_scaling(source: Tensor, output: Tensor) -> Fields:
    """Factor of sums of int8 values that are multiplied by 2^19."""
    factor = 2 * source.scale / (2**20 * output.scale)
    if factor >= 1:
        raise unsupported_scale(output)
    multiplier, shift = arithmetic.quantize_multiplier(factor)
    return {
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": source.zero_point,
        "out_zero_point": output.zero_point,
    }


def cumulative_sum(graph: Graph, op: Op) -> list[Layer]:
    """CUMSUM along one axis, forwards or backwards."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    along = _along(graph, op, source)
    if source.shape != output.shape:
        raise Unsupported(f"{source.shape} and {output.shape} differ. The file is damaged")
    most = (2**12 - 1 - abs(source.zero_point)) // max(127 - source.zero_point, source.zero_point + 128)
    if int(np.asarray(along["depth"])) > most:
        raise Unsupported(
            f"sums of {along['depth']} values may overflow 32 bits in TensorFlow Lite Micro's kernel, which adds at "
            f"most {most} with this zero point. Use a SUM or a matrix product"
        )
    fields: Fields = {
        **along,
        **_sum_scaling(source, output),
        "exclusive": int(op.options["Exclusive"]),
        "reverse": int(op.options["Reverse"]),
    }
    return [
        Layer(
            op,
            "cumulative_sum",
            "cumulative_sum",
            "tfkd_cumulative_sum_params",
            fields,
            (read_by_kernel(source),),
            output.index,
            in_place=(source.index,),
            comment=shape_text(output),
        )
    ]


def add_n(graph: Graph, op: Op) -> list[Layer]:
    """ADD_N of two to four tensors of one shape and quantization."""
    output = int8(graph, op.outputs[0])
    sources = [int8(graph, i) for i in op.inputs]
    first = sources[0]
    if not 2 <= len(sources) <= _MOST_ADDED:
        raise Unsupported(f"{len(sources)} tensors, not 2 to {_MOST_ADDED}. Add them in several steps")
    if any((t.shape, t.scales, t.zero_points) != (output.shape, first.scales, first.zero_points) for t in sources):
        raise Unsupported("the tensors differ in shape, scale or zero point. Convert the model again")
    fields: Fields = {**_sum_scaling(first, output), "count": output.elements, "tensors": len(sources)}
    reads = [read_by_kernel(tensor) for tensor in (*sources, *[first] * (_MOST_ADDED - len(sources)))]
    return [
        Layer(
            op,
            "add_n",
            "add_n",
            "tfkd_add_n_params",
            fields,
            tuple(reads),
            output.index,
            in_place=tuple(tensor.index for tensor in sources if tensor.data is None),
            comment=f"{len(sources)} x {shape_text(output)}",
        )
    ]


def l2_normalization(graph: Graph, op: Op) -> list[Layer]:
    """L2_NORMALIZATION over the last axis; the output has scale 1/128 and zero point 0."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    depth = source.shape[-1] if source.shape else 1
    if source.shape != output.shape or output.scale != 1 / 128 or output.zero_point or depth > 2**15:
        raise Unsupported("the output must have scale 1/128 and zero point 0. Convert the model again")
    if op.options.get("FusedActivationFunction", "none") != "none":
        raise Unsupported("a fused activation is not supported. Put the activation into a layer of its own")
    fields: Fields = {"rows": source.elements // depth, "depth": depth, "zero_point": source.zero_point}
    return [
        Layer(
            op,
            "l2_normalization",
            "l2_normalization",
            "tfkd_l2_normalization_params",
            fields,
            (read_by_kernel(source),),
            output.index,
            in_place=(source.index,),
            comment=shape_text(output),
        )
    ]


def extreme_index(graph: Graph, op: Op) -> list[Layer]:
    """ARG_MAX and ARG_MIN of int8 along one axis; the output is int32."""
    source, output = int8(graph, op.inputs[0]), typed(graph, op.outputs[0], "int32")
    along = _along(graph, op, source)
    if output.elements * int(np.asarray(along["depth"])) != source.elements:
        raise Unsupported(f"{op.kind} of {source.shape} is not {output.shape}. The file is damaged")
    return [
        Layer(
            op,
            "extreme_index",
            "extreme_index",
            "tfkd_extreme_index_params",
            along,
            (read_by_kernel(source),),
            output.index,
            flags=int(op.kind == "ARG_MIN"),
            comment=f"{shape_text(source)} -> {shape_text(output)}",
        )
    ]


def cast(graph: Graph, op: Op) -> list[Layer]:
    """CAST between integers; the numbers stay, whatever the tensors' scales are."""
    source = typed(graph, op.inputs[0], *_BYTES)
    output = typed(graph, op.outputs[0], "int8", "int16", "int32", "uint32")
    unsigned = 64 * (source.dtype == "uint32") + 128 * (output.dtype == "uint32")
    if source.shape != output.shape or source.data is not None:
        raise Unsupported(f"{source.name!r} of {source.shape} is not {output.shape}. The file is damaged")
    return [
        Layer(
            op,
            "cast",
            "cast",
            "tfkd_cast_params",
            {"count": output.elements},
            (source.index,),
            output.index,
            flags=_BYTES[source.dtype] + 8 * _BYTES[output.dtype] + unsigned,
            comment=f"{source.dtype} -> {output.dtype} {shape_text(output)}",
        )
    ]
