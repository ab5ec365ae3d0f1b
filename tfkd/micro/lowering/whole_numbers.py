"""ADD, SUB, MUL, DIV, MAXIMUM and MINIMUM of int32 without scales: the numbers themselves, with broadcasting."""

from __future__ import annotations

from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.elementwise import broadcast
from tfkd.micro.lowering.layer import Layer, Unsupported, shape_text, typed

# The ops in the order of their numbers in kernels/whole_numbers.h.
_KINDS = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM")


def whole_numbers(graph: Graph, op: Op) -> list[Layer]:
    """Arithmetic of int32; quotients by 0 are TensorFlow Lite Micro's abort."""
    first, second, output = (typed(graph, i, "int32") for i in (*op.inputs[:2], op.outputs[0]))
    if any(tensor.scales for tensor in (first, second, output)):
        raise Unsupported("int32 with a scale is not supported. Convert with `tfkd convert --mode full_int8`")
    if op.options.get("FusedActivationFunction", "none") != "none":
        raise Unsupported("a fused activation of int32 is not supported. Put the activation into a layer of its own")
    if op.kind == "DIV" and second.data is not None and not second.data.all():
        raise Unsupported(f"{second.name!r} holds zeros, by which nothing can be divided")
    strides, reads, in_place = broadcast(output, first, second)
    return [
        Layer(
            op,
            "whole_numbers",
            "whole_numbers",
            "tfkd_whole_numbers_params",
            strides,
            reads,
            output.index,
            flags=_KINDS.index(op.kind),
            in_place=in_place,
            comment=f"int32 {shape_text(output)}",
        )
    ]
