"""Functions of one int8 value by a table of 256 outputs, and SOFTMAX and LOG_SOFTMAX by a table of exponentials.

Shapes do not change. The tables are computed here with the formulas of TensorFlow Lite Micro's kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import Fields, Layer, Unsupported, int8, quantized, shape_text, unsupported_scale


def lookup(graph: Graph, op: Op) -> list[Layer]:
    """An op of `UNARY`; QUANTIZE also from uint8 to int8 and back."""
    dtypes = ("int8", "uint8") if op.kind == "QUANTIZE" else ("int8",)
    source, output = (quantized(graph, i, *dtypes) for i in (op.inputs[0], op.outputs[0]))
    if source.dtype == output.dtype == "uint8":
        raise Unsupported("QUANTIZE from uint8 to uint8 is not supported. Convert the model again")
    if source.elements != output.elements:
        raise Unsupported(f"{source.shape} and {output.shape} differ in size. The file is damaged")
    function = UNARY[op.kind](op, source, output)
    kernel, first = "lookup", -128
    if source.dtype != output.dtype:
        kernel, first = ("lookup_signed", 0) if source.dtype == "uint8" else ("lookup_unsigned", -128)
    table = arithmetic.table(function, first, output.dtype)
    return [
        Layer(
            op,
            kernel,
            "lookup",
            "tfkd_lookup_params",
            {"table": table.view("int8"), "count": output.elements},
            (source.index,),
            output.index,
            in_place=(source.index,),
            comment=shape_text(output),
        )
    ]


def _relu(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    least = max(-128, output.zero_point)

    def relu(x: int) -> int:
        return max(least, output.zero_point + arithmetic.multiply(x - source.zero_point, multiplier, shift))

    return relu


def _relu6(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    six = source.zero_point + math.floor(float(np.float32(6) / np.float32(source.scale)) + 0.5)
    return lambda x: min(max(x, source.zero_point), six)


def _leaky_relu(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    alpha = source.scale * op.options["Alpha"] / output.scale
    if alpha < 0:
        raise Unsupported(f"alpha must be >= 0, is {op.options['Alpha']:g}. Use another activation")
    slope = arithmetic.quantize_multiplier(alpha)
    identity = arithmetic.quantize_multiplier(source.scale / output.scale)

    def leaky_relu(x: int) -> int:
        x -= source.zero_point
        return output.zero_point + arithmetic.multiply(x, *(identity if x >= 0 else slope))

    return leaky_relu


def _hard_swish(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    fine = np.float32(1 / 128) * np.float32(source.scale)
    out_multiplier, out_shift = _short(float(fine / np.float32(output.scale)))
    relu_multiplier, relu_shift = _short(float(fine / (np.float32(3) / np.float32(32768))))
    if out_shift > 0:
        raise unsupported_scale(output)

    def short(x: int) -> int:
        return max(-(2**15), min(2**15 - 1, x))

    def hard_swish(x: int) -> int:
        wide = (x - source.zero_point) * 128
        scaled = short((wide * out_multiplier + 2**14) >> 15)
        gate = short(wide << (relu_shift - 1)) if relu_shift > 0 else wide
        gate = short((gate * relu_multiplier + 2**14) >> 15)
        gate = short(gate << 1) if relu_shift > 0 else arithmetic.divide_by_power(gate, -relu_shift)
        gate = (gate + 2**15) >> 1
        product = int(math.copysign(abs(gate * scaled) // 2**15, gate * scaled))
        return arithmetic.divide_by_power(product, -out_shift) + output.zero_point

    return hard_swish


def _short(real: float) -> tuple[int, int]:
    """A real factor as a multiplier of 16 bits and a shift."""
    multiplier, shift = arithmetic.quantize_multiplier(real)
    return (2**15 - 1 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16), shift


def _sigmoid(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    fraction, shift = math.frexp(source.scale * 2**27)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    radius = arithmetic.input_radius(4, shift)
    kind, bits = (arithmetic.logistic, 23) if op.kind == "LOGISTIC" else (arithmetic.tanh, 24)
    offset = -128 if op.kind == "LOGISTIC" else 0
    if output.zero_point != offset:
        raise Unsupported(f"the output's zero point must be {offset}, is {output.zero_point}. Convert the model again")

    def sigmoid(x: int) -> int:
        x -= source.zero_point
        if abs(x) >= radius:
            return 127 if x > 0 else -128
        return arithmetic.divide_by_power(kind(arithmetic.multiply(x, multiplier, shift), 4), bits) + offset

    return sigmoid


def _requantize(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    return lambda x: arithmetic.multiply(x - source.zero_point, multiplier, shift) + output.zero_point


def _absolute(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    if source.scale == output.scale:
        return lambda x: abs(x - source.zero_point) + output.zero_point
    return lambda x: arithmetic.multiply(abs(x - source.zero_point), multiplier, shift) + output.zero_point


def _elu(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    scale, inverse = np.float32(source.scale), np.float32(1) / np.float32(output.scale)

    def elu(x: int) -> int:
        real = scale * np.float32(x - source.zero_point)
        if real < 0:
            real = np.float32(math.exp(real)) - np.float32(1)
        steps = min(max(float(real * inverse), -1e6), 1e6)
        return int(math.copysign(math.floor(abs(steps) + 0.5), steps) + output.zero_point)

    return elu


def _inverse_sqrt(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    if source.zero_point != -128:
        raise Unsupported(
            f"the input's zero point must be -128, so that no value is negative, is {source.zero_point}. "
            "Put a ReLU before it"
        )
    scale = np.sqrt(np.float32(source.scale)) * np.float32(output.scale)
    multiplier, shift = arithmetic.quantize_multiplier(1.0 / float(scale))

    def inverse_sqrt(x: int) -> int:
        if x == source.zero_point:
            return 127
        inverse, right = arithmetic.inverse_sqrt(x - source.zero_point)
        data = arithmetic.multiply(1, inverse, 20 - right)
        return arithmetic.multiply(data, multiplier, shift - 20) + output.zero_point

    return inverse_sqrt


# For each op a function of (op, input, output) that returns the function of one int8 value.
UNARY: dict[str, Callable[[Op, Tensor, Tensor], Callable[[int], int]]] = {
    "RELU": _relu, "RELU6": _relu6, "LEAKY_RELU": _leaky_relu, "HARD_SWISH": _hard_swish, "LOGISTIC": _sigmoid,
    "TANH": _sigmoid, "QUANTIZE": _requantize, "ABS": _absolute, "ELU": _elu, "RSQRT": _inverse_sqrt,
}  # fmt: skip


def softmax(graph: Graph, op: Op) -> list[Layer]:
    """SOFTMAX over the last axis."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    depth = source.shape[-1] if source.shape else 1
    if output.zero_point != -128 or output.scale != 1 / 256 or source.shape != output.shape or depth >= 4096:
        raise Unsupported(
            "the output must have scale 1/256, zero point -128 and at most 4095 classes. Convert the model again"
        )
    fields, *_ = _exponentials(source, float(op.options["Beta"]))
    return [
        Layer(
            op,
            "softmax",
            "softmax",
            "tfkd_softmax_params",
            fields,
            (source.index,),
            output.index,
            comment=shape_text(output),
        )
    ]


def log_softmax(graph: Graph, op: Op) -> list[Layer]:
    """LOG_SOFTMAX over the last axis."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    depth = source.shape[-1] if source.shape else 1
    if output.zero_point != 127 or output.scale != 1 / 16 or source.shape != output.shape or depth >= 4096:
        raise Unsupported("the output must have scale 1/16, zero point 127 and at most 4095 classes. Convert it again")
    fields, multiplier, shift = _exponentials(source, 1.0)
    inverse = 2.0 ** (31 - shift) / multiplier
    if not 1 <= shift <= 30 or inverse >= 1:
        raise unsupported_scale(source)
    inverse_multiplier, inverse_shift = arithmetic.quantize_multiplier(inverse)
    fields |= {
        "multiplier": multiplier,
        "shift": shift,
        "inverse_multiplier": inverse_multiplier,
        "inverse_shift": inverse_shift,
    }
    return [
        Layer(
            op,
            "log_softmax",
            "log_softmax",
            "tfkd_log_softmax_params",
            fields,
            (source.index,),
            output.index,
            comment=shape_text(output),
        )
    ]


def _exponentials(source: Tensor, beta: float) -> tuple[Fields, int, int]:
    """How SOFTMAX and LOG_SOFTMAX read a tensor [..., depth].

    Returns:
        The fields `exponential` (a table of exp of the difference to the largest value of a row), `differences`, `rows`
        and `depth`; multiplier and shift of a difference to 26 fraction bits.
    """
    real = min(beta * source.scale * 2**26, 2.0**31 - 1)
    if real <= 1:
        raise unsupported_scale(source)
    multiplier, shift = arithmetic.quantize_multiplier(real)
    count = min(255, arithmetic.input_radius(5, shift)) + 1
    values = [arithmetic.exponential(arithmetic.high_mul(-d * 2**shift, multiplier), 5) for d in range(count)]
    depth = source.shape[-1] if source.shape else 1
    fields: Fields = {
        "exponential": np.array(values, "int32"),
        "differences": count,
        "rows": source.elements // depth,
        "depth": depth,
    }
    return fields, multiplier, shift
