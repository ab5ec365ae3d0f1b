"""Ops of floats inside a quantized model, between DEQUANTIZE and QUANTIZE, such as those of a LayerNormalization."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.elementwise import broadcast
from tfkd.micro.lowering.layer import (
    Alias,
    Fields,
    Layer,
    Unsupported,
    constant,
    quantized,
    read_by_kernel,
    shape_text,
    typed,
)
from tfkd.micro.lowering.moves import concatenation, copy, pack, split, strided_slice, transpose, unpack, view
from tfkd.micro.lowering.reductions import axes_of

# The ops in the order of their numbers in kernels/float_elementwise.h and float_rows.h.
_VALUES = ("ABS", "EXP", "LOGISTIC", "NEG", "RELU", "RELU6", "RSQRT", "SQRT", "SQUARE")
_PAIRS = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB")
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
_ACTIVATIONS = ("none", "relu", "relu_n1_to_1", "relu6")


def lower_floats(graph: Graph, op: Op) -> list[Layer] | Alias:
    """An op that reads or writes floats."""
    if op.kind not in FLOATS:
        raise Unsupported(
            f"computes in floats, for which C is generated for {', '.join(FLOATS)} only. Replace that layer, or "
            "convert without --allow-float, so that only the model's inputs and outputs are floats"
        )
    return FLOATS[op.kind](graph, op)


def _floats(graph: Graph, index: int) -> Tensor:
    tensor = typed(graph, index, "float32")
    if tensor.data is not None and not np.isfinite(tensor.data).all():
        raise Unsupported(f"{tensor.name!r} holds values that are not finite. Convert the model again")
    return tensor


def _layer(
    op: Op, source: str, name: str, fields: Fields, reads: tuple[Tensor, ...], output: Tensor, flags: int
) -> Layer:
    return Layer(
        op,
        f"float_{name}",
        source,
        f"tfkd_float_{name}_params",
        fields,
        tuple(map(read_by_kernel, reads)),
        output.index,
        flags=flags,
        comment=f"float {shape_text(output)}",
    )


def _activation(op: Op) -> int:
    name = op.options.get("FusedActivationFunction", "none")
    if name not in _ACTIVATIONS:
        raise Unsupported(f"the fused activation {name} is not supported for floats. Make it a layer of its own")
    return _ACTIVATIONS.index(name)


def _values(graph: Graph, op: Op) -> list[Layer]:
    source, output = _floats(graph, op.inputs[0]), _floats(graph, op.outputs[0])
    if source.shape != output.shape:
        raise Unsupported(f"{source.shape} and {output.shape} differ. The file is damaged")
    fields: Fields = {"count": output.elements}
    return [_layer(op, "float_elementwise", "values", fields, (source,), output, _VALUES.index(op.kind))]


def _pairs(graph: Graph, op: Op) -> list[Layer]:
    first, second, output = (_floats(graph, i) for i in (*op.inputs[:2], op.outputs[0]))
    strides, _, _ = broadcast(output, first, second)
    fields: Fields = {**strides, "activation": _activation(op)}
    return [_layer(op, "float_elementwise", "pairs", fields, (first, second), output, _PAIRS.index(op.kind))]


def _reduction(graph: Graph, op: Op) -> list[Layer]:
    source, output = _floats(graph, op.inputs[0]), _floats(graph, op.outputs[0])
    axes, count = axes_of(graph, op, source, output)
    fields: Fields = {**axes, "count": count}
    return [_layer(op, "float_rows", "reduction", fields, (source,), output, _REDUCTIONS.index(op.kind))]


def _softmax(graph: Graph, op: Op) -> list[Layer]:
    source, output = _floats(graph, op.inputs[0]), _floats(graph, op.outputs[0])
    if source.shape != output.shape or not source.shape:
        raise Unsupported(f"{source.shape} and {output.shape} differ. The file is damaged")
    depth, beta = source.shape[-1], float(op.options.get("Beta", 1.0))
    if not math.isfinite(beta):
        raise Unsupported(f"beta is {beta}. The file is damaged")
    fields: Fields = {"rows": source.elements // depth, "depth": depth, "beta": np.float32(beta)}
    return [_layer(op, "float_rows", "softmax", fields, (source,), output, 0)]


def _dense(graph: Graph, op: Op) -> list[Layer]:
    source, output, weights = (
        _floats(graph, op.inputs[0]),
        _floats(graph, op.outputs[0]),
        constant(graph, op, 1, "float32"),
    )
    channels, depth = weights.shape if weights.ndim == 2 else (0, 0)
    rows = source.elements // depth if depth else 0
    if not rows or rows * depth != source.elements or output.elements != rows * channels:
        raise Unsupported(f"weights {weights.shape} do not fit input {source.shape}. The file is damaged")
    bias = np.zeros(channels, "float32")
    if graph.input_of(op, 2) is not None:
        bias = constant(graph, op, 2, "float32").reshape(-1)
    if len(bias) != channels or op.options.get("WeightsFormat", 0):
        raise Unsupported(f"{len(bias)} biases for {channels} channels, or shuffled weights. Convert the model again")
    fields: Fields = {"rows": rows, "depth": depth, "channels": channels, "activation": _activation(op)}
    return [
        _layer(op, "float_rows", "dense", {**fields, "weights": weights, "bias": bias}, (source,), output, 0),
    ]


def _quantize(graph: Graph, op: Op) -> list[Layer]:
    """QUANTIZE of floats, or DEQUANTIZE."""
    to_steps = op.kind == "QUANTIZE"
    real, steps = (op.inputs[0], op.outputs[0]) if to_steps else (op.outputs[0], op.inputs[0])
    floats, stepped = _floats(graph, real), quantized(graph, steps, "int8", "int16")
    if floats.elements != stepped.elements:
        raise Unsupported(f"{floats.shape} and {stepped.shape} differ. The file is damaged")
    suffix = "" if stepped.dtype == "int8" else "_int16"
    source, output = (floats, stepped) if to_steps else (stepped, floats)
    return [
        Layer(
            op,
            f"float_{'quantize' if to_steps else 'dequantize'}{suffix}",
            "float_steps" if not suffix else "float_steps@int16",
            "tfkd_float_steps_params",
            {"count": output.elements, "scale": np.float32(stepped.scale), "zero_point": stepped.zero_point},
            (read_by_kernel(source),),
            output.index,
            comment=f"{source.dtype} -> {output.dtype} {shape_text(output)}",
        )
    ]


# The ops of floats that C is generated for.
FLOATS: dict[str, Callable[[Graph, Op], list[Layer] | Alias]] = {
    **dict.fromkeys(_VALUES, _values),
    **dict.fromkeys(_PAIRS, _pairs),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), _quantize),
    "SOFTMAX": _softmax,
    "FULLY_CONNECTED": _dense,
    "ASSIGN_VARIABLE": copy,
    "CONCATENATION": concatenation,
    "EXPAND_DIMS": view,
    "PACK": pack,
    "READ_VARIABLE": copy,
    "RESHAPE": view,
    "SPLIT": split,
    "SQUEEZE": view,
    "STRIDED_SLICE": strided_slice,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
