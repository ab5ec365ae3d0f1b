"""Folds an explicit PAD into the convolution after it, whose kernel pads by itself and so needs no padded copy.

A PAD [1, H, W, C] -> [1, top + H + bottom, left + W + right, C] and a convolution of its output become a convolution of
[1, H, W, C] with the option `Pads` = ((top, bottom), (left, right)), in addition to its option `Padding`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfkd.micro.graph import Graph, Op, Options

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fold_padding(graph: Graph) -> Graph:
    """Folds each PAD along height and width with the zero point whose readers are all convolutions.

    Args:
        graph: A model.

    Returns:
        The graph with the option `Pads` in these convolutions, and without these PAD ops.
    """
    pads = {op.outputs[0]: (op.inputs[0], found) for op in graph.ops if (found := _pads(graph, op)) is not None}
    for i in graph.outputs:
        pads.pop(i, None)
    for op in graph.ops:
        for n, i in enumerate(op.inputs):
            if i in pads and (n > 0 or op.kind not in _CONVOLUTIONS):
                del pads[i]
    ops = []
    for op in graph.ops:
        if op.outputs[0] in pads:
            continue
        if op.inputs and op.inputs[0] in pads:
            source, amounts = pads[op.inputs[0]]
            op = dataclasses.replace(
                op, inputs=(source, *op.inputs[1:]), options=Options({**op.options, "Pads": amounts})
            )
        ops.append(op)
    return dataclasses.replace(graph, ops=tuple(ops))


def _pads(graph: Graph, op: Op) -> tuple[tuple[int, int], ...] | None:
    """Values before and after along height and width, or None where a convolution would pad otherwise."""
    if op.kind not in ("PAD", "PADV2") or len(op.inputs) < 2 or min(op.inputs) < 0:
        return None
    source, output, amounts = (graph.tensors[i] for i in (op.inputs[0], op.outputs[0], op.inputs[1]))
    if amounts.data is None or source.data is not None or source.dtype != "int8" or len(source.scales) != 1:
        return None
    if source.variable:  # it may change before the convolution runs
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
