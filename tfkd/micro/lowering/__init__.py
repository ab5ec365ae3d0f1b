"""From the ops of a graph to layers: one call of a C kernel each, with its constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfkd.errors import InputError
from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.elementwise import addition, elementwise
from tfkd.micro.lowering.images import resize_bilinear, resize_nearest, transpose_convolution
from tfkd.micro.lowering.layer import Layer, Unsupported
from tfkd.micro.lowering.matrices import batch_matmul, fully_connected
from tfkd.micro.lowering.moves import (
    concatenation,
    pack,
    pad,
    reverse,
    split,
    strided_slice,
    tile,
    transpose,
    unpack,
    view,
)
from tfkd.micro.lowering.reductions import reduction
from tfkd.micro.lowering.sequences import lstm, svdf
from tfkd.micro.lowering.tables import UNARY, lookup, softmax
from tfkd.micro.lowering.wide import curve, products, rescale, wide_softmax
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
            _check_integers(graph, op)
            if op.kind in _VIEWS:
                aliases[op.outputs[0]] = view(graph, op)
            elif op.kind in _LOWERINGS:
                wide = "int16" in (graph.tensors[i].dtype for i in (*op.inputs[:1], *op.outputs) if i >= 0)
                lowered = (_WIDE if wide else {}).get(op.kind, _LOWERINGS[op.kind])(graph, op)
                layers.extend(_typed(graph, layer) for layer in lowered)
            else:
                raise Unsupported(
                    "is not supported. Replace the layer, or use the model's TensorFlow Lite Micro form: "
                    "`tfkd export-c --format tflm`"
                )
        except Unsupported as problem:
            problems.append(f"{graph.label(op)}: {problem}")
        except KeyError as missing:
            problems.append(f"{graph.label(op)}: has no option {missing}. The file is damaged")
        except IndexError:
            problems.append(f"{graph.label(op)}: has fewer inputs or dimensions than it needs. The file is damaged")
    if problems:
        raise InputError("micro: the model must use supported ops only. Received:\n  " + "\n  ".join(problems))
    return tuple(layers), aliases


def _check_integers(graph: Graph, op: Op) -> None:
    """Refuses a conversion from or to floats; those at the model's ends are not in the graph any more."""
    ends = [graph.tensors[i].dtype for i in (*op.inputs[:1], *op.outputs) if i >= 0]
    if op.kind in ("QUANTIZE", "DEQUANTIZE") and any(dtype.startswith("float") for dtype in ends):
        raise Unsupported(
            f"converts {ends[0]} to {ends[-1]} within the model, where a layer computes in floats. Replace that "
            "layer, and convert without --allow-float, so that only the model's inputs and outputs are floats"
        )


def _typed(graph: Graph, layer: Layer) -> Layer:
    """A layer with the kernel for its values, where one text serves several types."""
    dtype = graph.tensors[layer.writes].dtype
    if dtype == "int8" or layer.source.split()[-1] not in _TEMPLATES:
        return layer
    return dataclasses.replace(
        layer,
        kernel=f"{layer.kernel}_{dtype}",
        struct=f"{layer.struct}_{dtype}",
        source=f"{layer.source.replace('int8', dtype)}@{dtype}",
    )


_TEMPLATES = (
    "addition",
    "batch_matmul",
    "elementwise",
    "fill",
    "move",
    "pool",
    "reduction",
    "resize",
    "transpose_convolution",
)
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_LOWERINGS: dict[str, Callable[[Graph, Op], list[Layer]]] = {
    "CONV_2D": convolution, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": fully_connected,
    "AVERAGE_POOL_2D": pool, "MAX_POOL_2D": pool, "ADD": addition, "SUB": addition, "MUL": elementwise,
    "MAXIMUM": elementwise, "MINIMUM": elementwise, "SOFTMAX": softmax, "CONCATENATION": concatenation,
    "SPLIT": split, "STRIDED_SLICE": strided_slice, "UNPACK": unpack, "PACK": pack, "TILE": tile, "REVERSE_V2": reverse,
    "TRANSPOSE": transpose, "PAD": pad, "PADV2": pad,
    "TRANSPOSE_CONV": transpose_convolution, "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "RESIZE_BILINEAR": resize_bilinear, "BATCH_MATMUL": batch_matmul, "SVDF": svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm, "MEAN": reduction, "SUM": reduction, **dict.fromkeys(UNARY, lookup),
}  # fmt: skip
# Where int16 activations need another kernel.
_WIDE: dict[str, Callable[[Graph, Op], list[Layer]]] = {
    "CONV_2D": products, "DEPTHWISE_CONV_2D": products, "FULLY_CONNECTED": products, "SOFTMAX": wide_softmax,
    "LOGISTIC": curve, "TANH": curve, "QUANTIZE": rescale, "RELU": rescale, "RELU6": rescale,
    "LEAKY_RELU": rescale,
}  # fmt: skip
