"""ADD, SUB, MUL, MAXIMUM, MINIMUM: two tensors of up to four dimensions, value by value, with NumPy's broadcasting."""

from __future__ import annotations

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    read_by_kernel,
    shape_text,
    strides_of,
    unsupported_scale,
    values,
)
from tfkd.micro.lowering.requantization import activation_range

_DIMENSIONS = 4
# The kernels scale both operands by 2^20 (int8) or 2^15 (int16) before they add them.
_LEFT_SHIFTS = {"int8": 20, "int16": 15}


def _tensors(graph: Graph, op: Op) -> tuple[Tensor, Tensor, Tensor]:
    output = values(graph, op.outputs[0])
    return values(graph, op.inputs[0], output.dtype), values(graph, op.inputs[1], output.dtype), output


def broadcast(
    output: Tensor, *sources: Tensor
) -> tuple[dict[str, tuple[int, ...]], tuple[int | np.ndarray, ...], tuple[int, ...]]:
    """How operands are broadcast against each other.

    Returns:
        The fields `size`, `stride1`, `stride2` and so on (a stride of 0 repeats a value along an axis), what the kernel
        reads, and the inputs that the output may overwrite.
    """
    shape = output.shape
    if len(shape) > _DIMENSIONS:
        raise Unsupported(f"{len(shape)} dimensions are too many. Reshape to at most {_DIMENSIONS}")
    flat = all(tensor.shape == shape for tensor in sources)
    size = (1, 1, 1, output.elements) if flat else (1,) * (_DIMENSIONS - len(shape)) + shape
    fields: dict[str, tuple[int, ...]] = {"size": size}
    for number, tensor in enumerate(sources, 1):
        own = (1, 1, 1, tensor.elements) if flat else (1,) * (_DIMENSIONS - len(tensor.shape)) + tensor.shape
        if len(own) != _DIMENSIONS or any(a not in (1, b) for a, b in zip(own, size, strict=True)):
            raise Unsupported(f"{tensor.shape} does not broadcast to {shape}. The file is damaged")
        fields[f"stride{number}"] = tuple(0 if n == 1 else step for n, step in zip(own, strides_of(own), strict=True))
    reads = tuple(read_by_kernel(tensor) for tensor in sources)
    return fields, reads, tuple(t.index for t in sources if t.data is None and t.shape == shape)


def addition(graph: Graph, op: Op) -> list[Layer]:
    """ADD and SUB: both operands are rescaled to twice the larger scale, then added."""
    first, second, output = _tensors(graph, op)
    strides, reads, in_place = broadcast(output, first, second)
    least, most = activation_range(op, output)
    common = 2 * max(first.scale, second.scale)
    factors = [
        first.scale / common,
        second.scale / common,
        common / (2 ** _LEFT_SHIFTS[output.dtype] * output.scale),
    ]
    pairs = [arithmetic.quantize_multiplier(factor) for factor in factors]
    if factors[2] >= 1 or any(shift > 0 for _, shift in pairs):
        raise unsupported_scale(output)
    fields: Fields = {
        "multiplier1": pairs[0][0],
        "multiplier2": pairs[1][0],
        "out_multiplier": pairs[2][0],
        "shift1": -pairs[0][1],
        "shift2": -pairs[1][1],
        "out_shift": -pairs[2][1],
        **strides,
        "zero_point1": first.zero_point,
        "zero_point2": second.zero_point,
        "out_zero_point": output.zero_point,
        "least": least,
        "most": most,
        "sign": -1 if op.kind == "SUB" else 1,
    }
    # Bits 0 and 1: the factor of an operand is exactly 1/2, so that a shift replaces the multiplication.
    flags = sum(1 << i for i in (0, 1) if pairs[i] == (2**30, 0))
    flags |= 4 if least == output.zero_point else 0  # sums below the zero point are clamped
    return [
        Layer(
            op,
            "addition",
            "addition",
            "tfkd_addition_params",
            fields,
            reads,
            output.index,
            in_place=in_place,
            comment=shape_text(output),
            flags=flags,
            generic=True,
        )
    ]


def elementwise(graph: Graph, op: Op) -> list[Layer]:
    """MUL, MAXIMUM and MINIMUM."""
    first, second, output = _tensors(graph, op)
    strides, reads, in_place = broadcast(output, first, second)
    least, most = activation_range(op, output) if op.kind == "MUL" else (0, 0)
    multiplier, shift = arithmetic.quantize_multiplier(first.scale * second.scale / output.scale)
    if op.kind == "MUL" and shift > 14:
        raise unsupported_scale(output)
    fields: Fields = {
        "multiplier": multiplier,
        "shift": shift if op.kind == "MUL" else 0,
        **strides,
        "zero_point1": first.zero_point,
        "zero_point2": second.zero_point,
        "out_zero_point": output.zero_point,
        "least": least,
        "most": most,
    }
    return [
        Layer(
            op,
            {"MUL": "multiplication", "MAXIMUM": "maximum", "MINIMUM": "minimum"}[op.kind],
            "elementwise",
            "tfkd_elementwise_params",
            fields,
            reads,
            output.index,
            in_place=in_place,
            comment=shape_text(output),
            generic=True,
        )
    ]
