"""Ops whose int16 form has kernels of its own: products with int8 weights, SOFTMAX, LOGISTIC, TANH and rescaling.

Zero points are 0. Sums take 32 bits where no input can exceed them, else 64. TensorFlow Lite Micro rescales a sum with
a bias of 64 bits by the upper 16 bits of the multiplier, in one rounding; with a bias of 32 bits in two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import Fields, Layer, Unsupported, shape_text, unsupported_scale, values, weights_of
from tfkd.micro.lowering.requantization import activation_range, long_requantization
from tfkd.micro.lowering.windows import window

# Flags of kernels/products_int16.h.
_LONG = 1  # sums take 64 bits
_TWO_ROUNDINGS = 2  # the bias has 32 bits
_FOURS = 4  # input channels are read four at a time


def convolution_int16(graph: Graph, op: Op) -> list[Layer]:
    """CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED as convolutions; a matrix product is one of 1 x 1 over a row."""
    source, output = values(graph, op.inputs[0], "int16"), values(graph, op.outputs[0], "int16")
    kind = op.kind
    # TensorFlow Lite Micro reads the bias of a depthwise convolution as 64 bits, whatever its type.
    axis, biases = (3, ("int64",)) if kind == "DEPTHWISE_CONV_2D" else (0, ("int32", "int64"))
    tensor, weights, bias, scales = weights_of(graph, op, axis, biases=biases)
    fields = (
        matrix_fields(source, output, weights)
        if kind == "FULLY_CONNECTED"
        else image_fields(source, output, op, weights)
    )
    if kind == "DEPTHWISE_CONV_2D":
        weights = weights[0].transpose(2, 0, 1)
    channels, inputs, part = len(bias), fields["channels"], 1 if kind == "DEPTHWISE_CONV_2D" else weights.shape[-1]
    groups = inputs // part
    if groups * part != inputs or groups < 1 or channels % groups or fields["out_channels"] != channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    largest = (np.abs(weights.reshape(channels, -1)).sum(axis=1) * 2.0**15 + np.abs(bias.astype("float64"))).max()
    if largest >= 2**47:
        raise Unsupported(f"sums of {tensor.name!r} do not fit 48 bits: a damaged bias. Convert the model again")
    small = graph.input_of(op, 2) is not None and graph.tensors[op.inputs[2]].dtype == "int32"
    least, most = activation_range(op, output)
    factors = [source.scale * s / output.scale for s in scales]
    if kind == "FULLY_CONNECTED" and len(tensor.scales) == 1:  # TensorFlow Lite Micro multiplies the scales in float32
        factors = [float(np.float32(source.scale) * np.float32(tensor.scale)) / output.scale] * channels
    scaling = long_requantization(factors, output)
    if small and largest >= 2**31:
        raise Unsupported(f"sums of {tensor.name!r} do not fit 32 bits: a damaged bias. Convert the model again")
    if small:
        scaling["multiplier"] = np.array([arithmetic.quantize_multiplier(factor)[0] for factor in factors], "int32")
    flags = (_LONG if largest >= 2**31 else _FOURS if part % 4 == 0 else 0) | (_TWO_ROUNDINGS if small else 0)
    if flags & _FOURS:
        weights = weights.reshape(*weights.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return [
        Layer(
            op,
            "products",
            "sums_int16 products_int16",
            "tfkd_products_params",
            {
                "weights": np.ascontiguousarray(weights).astype("int8"),
                "bias": bias,
                **scaling,
                **fields,
                "group_channels": part,
                "group_out_channels": channels // groups,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            flags,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
        )
    ]


def image_fields(source: Tensor, output: Tensor, op: Op, weights: np.ndarray) -> dict[str, int]:
    """Fields of a convolution: input [1, H, W, I], output [1, H', W', O]."""
    if weights.ndim != 4 or (op.kind == "DEPTHWISE_CONV_2D" and weights.shape[0] != 1):
        raise Unsupported(f"weights of shape {weights.shape} must have 4 dimensions. The file is damaged")
    return {**window(source, output, op, weights.shape[1:3]), "out_channels": output.shape[3]}


def matrix_fields(source: Tensor, output: Tensor, weights: np.ndarray) -> dict[str, int]:
    """Fields of a matrix product: rows x depth values times [channels, depth] weights, as an image of one row."""
    channels, depth = weights.shape if weights.ndim == 2 else (0, 0)
    rows = source.elements // depth if depth else 0
    if not rows or rows * depth != source.elements or output.elements != rows * channels:
        raise Unsupported(f"weights {weights.shape} do not fit input {source.shape}. The file is damaged")
    ones = (
        "height",
        "out_height",
        "kernel_height",
        "kernel_width",
        "stride_height",
        "stride_width",
        "dilation_height",
        "dilation_width",
    )
    return {
        **dict.fromkeys(ones, 1),
        "pad_top": 0,
        "pad_left": 0,
        "width": rows,
        "out_width": rows,
        "channels": depth,
        "out_channels": channels,
    }


def softmax_int16(graph: Graph, op: Op) -> list[Layer]:
    """SOFTMAX over the last axis, with tables of exp(x) and 1 / (1 + x) that the kernel interpolates."""
    source, output = values(graph, op.inputs[0], "int16"), values(graph, op.outputs[0], "int16")
    depth = source.shape[-1] if source.shape else 1
    if abs(output.scale * 32768 - 1) > 1e-3 or source.shape != output.shape or depth >= 2**15:
        raise Unsupported("the output must have scale 1/32768 and fewer than 32768 classes. Convert the model again")
    multiplier, shift = arithmetic.quantize_multiplier(source.scale * float(op.options["Beta"]) / (10 / 65535))
    if shift > 14:
        raise unsupported_scale(source)
    fields: Fields = {
        "exponential": _interpolation_table(np.exp, 10 / 65535, 32767), "inverse": _interpolation_table(lambda x: 1 / (1
        + x), 1 / 65535, -32768), "multiplier": multiplier, "shift": shift, "rows": source.elements // depth, "depth":
          depth,
    }  # fmt: skip
    return [
        Layer(
            op,
            "softmax_int16",
            "softmax_int16",
            "tfkd_softmax_int16_params",
            fields,
            (source.index,),
            output.index,
            comment=shape_text(output),
        )
    ]


def _interpolation_table(function: Callable[[np.ndarray], np.ndarray], scale: float, zero_point: int) -> np.ndarray:
    """The interpreter's table of a function at 513 points, computed in float32.

    Each point is moved by half the error at the middle of its interval, so that linear interpolation errs less.

    Args:
        function: Function of an array of real numbers.
        scale: Scale of the function's input.
        zero_point: Zero point of the function's input.

    Returns:
        [513] int16.
    """

    def f(x: np.ndarray) -> np.ndarray:
        return function(x.astype("float64")).astype("float32")

    def rounded(x: np.ndarray) -> np.ndarray:
        return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)

    low, high = (np.float32(scale) * np.float32(limit - zero_point) for limit in (-32768, 32767))
    step = (high - low) / np.float32(512)
    factor = np.float32(65536) / (
        np.float32(2 / 65535) * np.float32(32767) - np.float32(2 / 65535) * np.float32(-32768)
    )
    x = low + np.arange(513, dtype="float32") * step
    y = f(x) * factor
    interpolated = rounded((y[1:] + rounded(y[:-1])) / np.float32(2))
    error = interpolated - rounded(f(x[:-1] + step / np.float32(2)) * factor)
    table = np.append(rounded(y[:-1]) - rounded(error / np.float32(2)), rounded(f(np.array([high])) * factor))
    return np.clip(table, -32768, 32767).astype("int16")


def logistic_tanh_int16(graph: Graph, op: Op) -> list[Layer]:
    """LOGISTIC and TANH, with the interpreter's table of 256 values of the sigmoid."""
    source, output = values(graph, op.inputs[0], "int16"), values(graph, op.outputs[0], "int16")
    power = math.log2(source.scale * 4096)  # of the input's scale to 12 fraction bits
    if source.elements != output.elements:
        raise Unsupported(f"{source.shape} and {output.shape} differ in size. The file is damaged")
    if power == int(power) and 0 <= power <= 3:
        multiplier, shift = 3 << int(power), 0
    else:  # the largest multiplier that fits 16 bits
        real, shift = source.scale * 4096 * 3, 0
        while real <= 32767 / 2 and shift <= 30:
            real, shift = real * 2, shift + 1
        multiplier = int(real)
    if not 0 < multiplier < 2**15 or shift > 29:
        raise unsupported_scale(source)
    kernel = f"{op.kind.lower()}_int16"
    return [
        Layer(
            op,
            kernel,
            "sigmoid",
            "tfkd_curve_params",
            {"table": arithmetic.sigmoid_table(), "multiplier": multiplier, "shift": shift, "count": source.elements},
            (source.index,),
            output.index,
            in_place=(source.index,),
            comment=shape_text(output),
        )
    ]


# Kernels by the types of input and output; the largest left shift with which no difference to the zero point overflows.
_RESCALES = {
    ("int16", "int16"): "rescale", ("int16", "int8"): "narrow", ("int8", "int16"): "widened",
    ("int16", "int32"): "widened_int32", ("int8", "int32"): "widened_int8_int32",
    ("int32", "int16"): "narrow_int32", ("int32", "int8"): "narrow_int32_int8",
}  # fmt: skip
_MOST_SHIFT = {"int8": 22, "int16": 14, "int32": 0}


def rescale(graph: Graph, op: Op) -> list[Layer]:
    """QUANTIZE between int8, int16 and int32; RELU, RELU6, LEAKY_RELU and ABS of int16."""
    dtypes = ("int8", "int16", "int32") if op.kind == "QUANTIZE" else ("int8", "int16")
    source, output = (values(graph, i, *dtypes) for i in (op.inputs[0], op.outputs[0]))
    kernel = _RESCALES.get((source.dtype, output.dtype))
    if kernel is None:
        raise Unsupported(f"from {source.dtype} to {output.dtype} is not supported. Convert the model again")
    if source.elements != output.elements or (op.kind != "QUANTIZE" and source.dtype != output.dtype):
        raise Unsupported(f"sizes or types of {source.name!r} and {output.name!r} do not fit. The file is damaged")
    factor = 1.0 if op.kind == "RELU6" else source.scale / output.scale
    negative = source.scale * op.options["Alpha"] / output.scale if op.kind == "LEAKY_RELU" else factor
    pairs = [arithmetic.quantize_multiplier(real) for real in (factor, max(0.0, negative))]
    if negative < 0 or max(shift for _, shift in pairs) > _MOST_SHIFT[source.dtype]:
        raise unsupported_scale(output)
    limits = np.iinfo(output.dtype)
    least, most = int(limits.min), int(limits.max)
    if op.kind in ("RELU", "RELU6"):
        least = max(least, output.zero_point)
    if op.kind == "RELU6":
        most = min(most, source.zero_point + math.floor(float(np.float32(6) / np.float32(source.scale)) + 0.5))
    return [
        Layer(
            op,
            kernel,
            "rescale",
            "tfkd_rescale_params",
            {
                "multiplier": pairs[0][0],
                "shift": pairs[0][1],
                "negative_multiplier": pairs[1][0],
                "negative_shift": pairs[1][1],
                "count": source.elements,
                "zero_point": source.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            flags=int(op.kind == "ABS"),
            in_place=(source.index,) if kernel == "rescale" else (),
            comment=shape_text(output),
        )
    ]
