"""Folds an explicit PAD into the convolution after it, whose kernel pads by itself and needs no larger copy."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import numpy as np

from tfkd.micro.graph import Graph, Op

_WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fold_padding(graph: Graph) -> Graph:
    """Turns PAD with the zero point, along height and width, before convolutions into an option of these.

    The option `Pads` holds the values before and after along height and width; `Padding` adds to it as ever.
    """
    amounts = {op.outputs[0]: (op.inputs[0], found) for op in graph.ops if (found := _amounts(graph, op)) is not None}
    for i in graph.outputs:
        amounts.pop(i, None)
    for op in graph.ops:
        for n, i in enumerate(op.inputs):
            if i in amounts and (n > 0 or op.kind not in _WINDOWS):
                del amounts[i]
    ops = []
    for op in graph.ops:
        if op.outputs[0] in amounts:
            continue
        if op.inputs[0] in amounts:
            source, pads = amounts[op.inputs[0]]
            op = dataclasses.replace(
                op, inputs=(source, *op.inputs[1:]), options=MappingProxyType({**op.options, "Pads": pads})
            )
        ops.append(op)
    return dataclasses.replace(graph, ops=tuple(ops))


def _amounts(graph: Graph, op: Op) -> tuple[tuple[int, int], ...] | None:
    """Values before and after along height and width, where a convolution would pad the same."""
    if op.kind not in ("PAD", "PADV2") or len(op.inputs) < 2 or min(op.inputs) < 0:
        return None
    source, output, amounts = (graph.tensors[i] for i in (op.inputs[0], op.outputs[0], op.inputs[1]))
    if amounts.data is None or source.data is not None or source.dtype != "int8" or len(source.scales) != 1:
        return None
    if (source.dtype, source.scales, source.zero_points) != (output.dtype, output.scales, output.zero_points):
        return None
    if op.kind == "PADV2":
        value = graph.tensors[op.inputs[2]].data if len(op.inputs) > 2 else None
        if value is None or value.dtype != np.int8 or value.reshape(-1).tolist() != [output.zero_point]:
            return None
    pads = amounts.data.reshape(-1).tolist()
    if len(source.shape) != 4 or len(pads) != 8 or min(pads) < 0 or any(pads[:2] + pads[6:]):
        return None
    _, rows, columns, _ = zip(pads[::2], pads[1::2], strict=True)
    padded = (source.shape[0], source.shape[1] + sum(rows), source.shape[2] + sum(columns), source.shape[3])
    return (rows, columns) if padded == output.shape else None
