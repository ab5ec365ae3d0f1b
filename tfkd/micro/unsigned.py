"""Models that compute in uint8, as TensorFlow 1 quantized them: int8 with the same steps takes its place.

A value q with zero point z becomes q - 128 with zero point z - 128, so that all differences stay. Inputs and outputs
stay uint8, with a QUANTIZE beside each. Weights keep a zero point of their own, which needs a kernel of its own
(kernels/asymmetric.h), and an average rounds halves up. TensorFlow Lite Micro has no kernels for uint8: the results are
those of LiteRT's reference kernels, but for FULLY_CONNECTED, which is rounded as in TensorFlow Lite Micro.

Reference: Jacob et al., arXiv 1712.05877, section 2.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfkd.errors import ModelError
from tfkd.micro.graph import Graph, Op, Options, Tensor

# Ops whose uint8 form computes otherwise than the int8 form with the same steps; their lowering reads `Unsigned`.
_OWN = ("AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Ops whose uint8 form computes the same.
_SAME = (
    "ADD", "CONCATENATION", "EXPAND_DIMS", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN",
    "MINIMUM", "MUL", "PACK", "PAD", "PADV2", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2", "SLICE", "SOFTMAX", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "UNPACK",
)  # fmt: skip
_CONVERTERS = ("QUANTIZE", "DEQUANTIZE", "RESHAPE")


def to_int8(graph: Graph) -> Graph:
    """Replaces uint8 by int8 in a model that computes in uint8.

    Args:
        graph: A model; one that only converts uint8 at its ends is returned as it is.

    Returns:
        The same model in int8, with the option `Unsigned` in ops whose uint8 form computes otherwise.

    Raises:
        ModelError: An op of uint8 is not supported; the message names all of them.
    """
    inside = [op for op in graph.ops if _is_uint8(graph, op.outputs[0])]
    if all(op.kind in _CONVERTERS for op in inside):
        return graph
    problems = [f"{graph.label(op)}" for op in inside if op.kind not in (*_OWN, *_SAME)]
    if problems:
        raise ModelError(
            f"micro: ops of uint8 must be {', '.join((*_OWN, *_SAME))}. Received: {', '.join(problems)}. Convert the "
            "model again with int8, or run it on the target host."
        )
    tensors = [_signed(tensor) if _is_uint8(graph, tensor.index) else tensor for tensor in graph.tensors]
    ops = [
        dataclasses.replace(op, options=Options({**op.options, "Unsigned": True}))
        if op.kind in _OWN and tensors[op.outputs[0]] is not graph.tensors[op.outputs[0]]
        else op
        for op in graph.ops
    ]
    ends: list[list[int]] = []
    for side in (graph.inputs, graph.outputs):
        ends.append(list(side))
        for place, i in enumerate(side):
            if tensors[i] is not graph.tensors[i]:
                ends[-1][place] = len(tensors)
                tensors.append(dataclasses.replace(graph.tensors[i], index=len(tensors)))
    first = [Op("QUANTIZE", (a,), (i,), Options()) for a, i in zip(ends[0], graph.inputs, strict=True) if a != i]
    last = [Op("QUANTIZE", (i,), (b,), Options()) for b, i in zip(ends[1], graph.outputs, strict=True) if b != i]
    return Graph(tuple(tensors), (*first, *ops, *last), tuple(ends[0]), tuple(ends[1]))


def _is_uint8(graph: Graph, index: int) -> bool:
    return graph.tensors[index].dtype == "uint8" and bool(graph.tensors[index].scales)


def _signed(tensor: Tensor) -> Tensor:
    """A tensor of uint8 as one of int8 with the same steps."""
    data = None if tensor.data is None else (tensor.data ^ np.uint8(128)).view("int8")
    zero_points = tuple(point - 128 for point in tensor.zero_points)
    return dataclasses.replace(tensor, dtype="int8", zero_points=zero_points, data=data)
