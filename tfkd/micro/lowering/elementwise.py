"""Ops that take two tensors value by value, with broadcasting."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import Layer, Unsupported, activation_range, shape_text, values


def _tensors(graph: Graph, op: Op) -> tuple[Tensor, Tensor, Tensor]:
    output = values(graph, op.outputs[0])
    return values(graph, op.inputs[0], output.dtype), values(graph, op.inputs[1], output.dtype), output


def _operands(graph: Graph, op: Op) -> tuple[dict[str, tuple[int, ...]], tuple[int | np.ndarray, ...], tuple[int, ...]]:
    """Sizes and strides of two operands broadcast against each other; what is read; what may be overwritten."""
    first, second, output = _tensors(graph, op)
    shape = output.shape
    if len(shape) > 4:
        raise Unsupported(f"{len(shape)} dimensions are too many. Reshape to at most 4")
    fields: dict[str, tuple[int, ...]] = {}
    flat = first.shape == second.shape == shape
    size = (1, 1, 1, output.elements) if flat else (1,) * (4 - len(shape)) + shape
    fields["size"] = size
    for name, tensor in (("stride1", first), ("stride2", second)):
        own = (1, 1, 1, tensor.elements) if flat else (1,) * (4 - len(tensor.shape)) + tensor.shape
        if len(own) != 4 or any(a not in (1, b) for a, b in zip(own, size, strict=True)):
            raise Unsupported(f"{tensor.shape} does not broadcast to {shape}. The file is damaged")
        steps = [math.prod(own[i + 1 :]) for i in range(4)]
        fields[name] = tuple(0 if own[i] == 1 else steps[i] for i in range(4))
    reads = tuple(t.index if t.data is None else t.data.reshape(-1) for t in (first, second))
    in_place = tuple(t.index for t in (first, second) if t.data is None and t.shape == shape)
    return fields, reads, in_place


def addition(graph: Graph, op: Op) -> list[Layer]:
    first, second, output = _tensors(graph, op)
    fields, reads, in_place = _operands(graph, op)
    least, most = activation_range(op, output)
    twice = 2 * max(first.scale, second.scale)
    factors = [
        first.scale / twice,
        second.scale / twice,
        twice / (2 ** (20 if output.dtype == "int8" else 15) * output.scale),
    ]
    pairs = [arithmetic.quantize_multiplier(factor) for factor in factors]
    if factors[2] >= 1 or any(shift > 0 for _, shift in pairs):
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    sign = -1 if op.kind == "SUB" else 1
    return [
        Layer(
            op,
            "addition",
            "addition",
            "tfkd_addition_params",
            {
                "multiplier1": pairs[0][0],
                "multiplier2": pairs[1][0],
                "out_multiplier": pairs[2][0],
                "shift1": -pairs[0][1],
                "shift2": -pairs[1][1],
                "out_shift": -pairs[2][1],
                **fields,
                "zero_point1": first.zero_point,
                "zero_point2": second.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
                "sign": sign,
            },
            reads,
            output.index,
            in_place=in_place,
            comment=shape_text(output),
            flags=sum(1 << i for i in (0, 1) if pairs[i] == (2**30, 0)),
        )
    ]


def elementwise(graph: Graph, op: Op) -> list[Layer]:
    first, second, output = _tensors(graph, op)
    fields, reads, in_place = _operands(graph, op)
    least, most = activation_range(op, output) if op.kind == "MUL" else (0, 0)
    multiplier, shift = arithmetic.quantize_multiplier(first.scale * second.scale / output.scale)
    if op.kind == "MUL" and shift > 14:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    kernel = {"MUL": "multiplication", "MAXIMUM": "maximum", "MINIMUM": "minimum"}[op.kind]
    return [
        Layer(
            op,
            kernel,
            "elementwise",
            "tfkd_elementwise_params",
            {
                "multiplier": multiplier,
                "shift": shift if op.kind == "MUL" else 0,
                **fields,
                "zero_point1": first.zero_point,
                "zero_point2": second.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            reads,
            output.index,
            in_place=in_place,
            comment=shape_text(output),
        )
    ]
