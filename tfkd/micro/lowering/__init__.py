"""From the ops of a graph to layers: one call of a C kernel each, with its constants."""

from __future__ import annotations

from collections.abc import Callable

from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.elementwise import addition, elementwise
from tfkd.micro.lowering.layer import Layer, Unsupported, int8, operand
from tfkd.micro.lowering.matrices import fully_connected
from tfkd.micro.lowering.moves import concatenation, pad, split, strided_slice, transpose
from tfkd.micro.lowering.reductions import reduction
from tfkd.micro.lowering.tables import UNARY, lookup, softmax
from tfkd.micro.lowering.windows import convolution, depthwise, pool

__all__ = ["lower"]


def lower(graph: Graph) -> tuple[tuple[Layer, ...], dict[int, int]]:
    """Lowers all ops.

    Returns:
        The layers, and for each tensor that is only another view of one (RESHAPE and the like) that one.

    Raises:
        ValueError: names every op, type or option that is not supported, with a remedy.
    """
    layers: list[Layer] = []
    aliases: dict[int, int] = {}
    problems = []
    for op in graph.ops:
        try:
            if op.kind in _VIEWS:
                int8(graph, op.outputs[0])
                aliases[op.outputs[0]] = operand(graph, op, 0).index
            elif op.kind in _LOWERINGS:
                layers.extend(_LOWERINGS[op.kind](graph, op))
            else:
                raise Unsupported(
                    "is not supported. Replace the layer, or use the model's TensorFlow Lite Micro form: "
                    "`tfkd export-c --format tflm`"
                )
        except Unsupported as problem:
            problems.append(f"{graph.label(op)}: {problem}")
        except KeyError as missing:
            problems.append(f"{graph.label(op)}: has no option {missing}. The file is damaged")
    if problems:
        raise ValueError("micro: the model must use supported ops only. Received:\n  " + "\n  ".join(problems))
    return tuple(layers), aliases


_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_LOWERINGS: dict[str, Callable[[Graph, Op], list[Layer]]] = {
    "CONV_2D": convolution, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected,
    "AVERAGE_POOL_2D": pool, "MAX_POOL_2D": pool, "ADD": addition, "SUB": addition, "MUL": elementwise,
    "MAXIMUM": elementwise, "MINIMUM": elementwise, "SOFTMAX": softmax, "CONCATENATION": concatenation,
    "SPLIT": split, "STRIDED_SLICE": strided_slice, "TRANSPOSE": transpose, "PAD": pad, "PADV2": pad,
    "MEAN": reduction, "SUM": reduction, **dict.fromkeys(UNARY, lookup),
}  # fmt: skip
