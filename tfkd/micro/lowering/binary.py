"""PRELU, SQUARED_DIFFERENCE, DIV, comparisons, logical ops, SELECT_V2: with NumPy's broadcasting in four dimensions."""

from __future__ import annotations

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.elementwise import broadcast
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    int8,
    moved,
    operand,
    shape_text,
    typed,
    unsupported_scale,
    values,
)
from tfkd.micro.lowering.requantization import activation_range

# The ops in the order of their numbers in kernels/binary.h.
_KINDS = (
    "PRELU", "SQUARED_DIFFERENCE", "DIV", "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL",
)  # fmt: skip
# The same in kernels/condition.h, which continues them.
_CONDITIONS = (*_KINDS, "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")


def _layer(op: Op, first: Tensor, second: Tensor, output: Tensor, factors: dict[str, float], left: int = 0) -> Layer:
    """A layer of kernels/binary.h.

    Args:
        op: The op.
        first: First operand.
        second: Second operand.
        output: Output.
        factors: Real factors `1`, `2` and `out_`, as the op has them.
        left: Bits by which both operands are first shifted to the left.
    """
    least, most = activation_range(op, output) if output.scales else (0, 1)
    fields: Fields = {
        "left": left,
        "zero_point1": first.zero_point,
        "zero_point2": second.zero_point,
        "out_zero_point": output.zero_point if output.scales else 0,
        "least": least,
        "most": most,
    }
    for name, field in (("1", "{}1"), ("2", "{}2"), ("out", "out_{}")):
        multiplier, shift = arithmetic.quantize_multiplier(factors.get(name, 0.0))
        if shift > 14:
            raise unsupported_scale(output if output.scales else first)
        fields |= {field.format("multiplier"): multiplier, field.format("shift"): shift}
    strides, reads, in_place = broadcast(output, first, second)
    return Layer(
        op,
        "binary",
        "binary",
        "tfkd_binary_params",
        {**fields, **strides},
        reads,
        output.index,
        flags=_KINDS.index(op.kind),
        in_place=in_place,
        comment=shape_text(output),
        generic=True,
    )


def prelu(graph: Graph, op: Op) -> list[Layer]:
    """PRELU, whose second operand holds the slopes: int8, and constants where activations are int16."""
    output = values(graph, op.outputs[0])
    source, slope = values(graph, op.inputs[0], output.dtype), int8(graph, op.inputs[1])
    if output.dtype == "int16":
        slopes = constant(graph, op, 1, "int8").astype("int16")
        slope = Tensor(slope.index, slope.name, slope.shape, "int16", slope.scales, slope.zero_points, data=slopes)
    if source.shape != output.shape:
        raise Unsupported(f"{source.shape} and {output.shape} differ. The file is damaged")
    factors = {"1": source.scale / output.scale, "2": source.scale * slope.scale / output.scale}
    return [_layer(op, source, slope, output, factors)]


def squared_difference(graph: Graph, op: Op) -> list[Layer]:
    """SQUARED_DIFFERENCE: both operands are rescaled to twice the larger scale."""
    output = values(graph, op.outputs[0])
    first, second = (values(graph, i, output.dtype) for i in op.inputs[:2])
    left, common = 7 if output.dtype == "int8" else 0, 2 * max(first.scale, second.scale)
    out = common**2 / float(np.float32(4**left) * np.float32(output.scale))
    return [
        _layer(op, first, second, output, {"1": first.scale / common, "2": second.scale / common, "out": out}, left)
    ]


def division(graph: Graph, op: Op) -> list[Layer]:
    """DIV of int8. TensorFlow Lite Micro divides the scales in float32; quotients by 0 are its abort."""
    first, second, output = int8(graph, op.inputs[0]), int8(graph, op.inputs[1]), int8(graph, op.outputs[0])
    if second.data is not None and (second.data == second.zero_point).any():
        raise Unsupported(f"{second.name!r} holds zeros, by which nothing can be divided")
    a, b, c = (np.float32(tensor.scale) for tensor in (first, second, output))
    return [_layer(op, first, second, output, {"out": float(a / (b * c))})]


def comparison(graph: Graph, op: Op) -> list[Layer]:
    """EQUAL, NOT_EQUAL, GREATER, GREATER_EQUAL, LESS and LESS_EQUAL of int8 or int32; the output is bool."""
    output = typed(graph, op.outputs[0], "bool")
    if operand(graph, op, 0).dtype == "int32":  # such as token ids, which a mask compares with 0
        ids = [typed(graph, index, "int32") for index in op.inputs[:2]]
        return [_condition(op, output, *ids)]
    first, second = int8(graph, op.inputs[0]), int8(graph, op.inputs[1])
    for tensor in (first, second):
        if tensor.scale >= 1:  # TensorFlow Lite Micro aborts
            raise unsupported_scale(tensor)
    return [_layer(op, first, second, output, {"1": first.scale, "2": second.scale}, 8)]


def logical(graph: Graph, op: Op) -> list[Layer]:
    """LOGICAL_AND, LOGICAL_OR and LOGICAL_NOT."""
    output = typed(graph, op.outputs[0], "bool")
    first, second = (typed(graph, index, "bool") for index in (op.inputs[0], op.inputs[-1]))
    return [_condition(op, output, first, second)]


def _condition(op: Op, output: Tensor, *operands: Tensor) -> Layer:
    """A layer of kernels/condition.h."""
    strides, reads, _ = broadcast(output, *operands)
    return Layer(
        op,
        "condition",
        "condition",
        "tfkd_condition_params",
        strides,
        reads,
        output.index,
        flags=_CONDITIONS.index(op.kind),
        comment=shape_text(output),
    )


def select(graph: Graph, op: Op) -> list[Layer]:
    """SELECT_V2: where the condition holds the first value, else the second."""
    condition, output = typed(graph, operand(graph, op, 0).index, "bool"), moved(graph, op.outputs[0])
    first, second = (moved(graph, i, output.dtype) for i in op.inputs[1:3])
    if condition.data is not None:
        raise Unsupported("the condition is a constant. Use one of the two tensors instead")
    strides, reads, in_place = broadcast(output, condition, first, second)
    return [
        Layer(
            op,
            "select",
            "select",
            "tfkd_select_params",
            strides,
            reads,
            output.index,
            in_place=in_place,
            comment=shape_text(output),
            generic=True,
        )
    ]
