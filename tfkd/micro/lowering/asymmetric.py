"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED whose weights have a zero point of their own."""

from __future__ import annotations

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.int16 import image_fields, matrix_fields
from tfkd.micro.lowering.layer import Layer, Unsupported, constant, int8, operand, shape_text, unsupported_scale
from tfkd.micro.lowering.requantization import activation_range

_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def is_asymmetric(graph: Graph, op: Op) -> bool:
    """Whether an op takes `product`: one of a uint8 model, or an int8 FULLY_CONNECTED whose weights have a zero point.

    TensorFlow Lite Micro ignores the zero point of an int8 convolution's weights.
    """
    if op.kind not in _KINDS or len(op.inputs) < 2 or op.inputs[1] < 0:
        return False
    weights = graph.tensors[op.inputs[1]]
    own = op.kind == "FULLY_CONNECTED" and weights.dtype == "int8" and len(weights.scales) == 1
    return bool(op.options.get("Unsigned")) or (own and weights.zero_point != 0)


def product(graph: Graph, op: Op) -> list[Layer]:
    """The layer of an op for which `is_asymmetric` holds; a matrix product is a convolution of 1 x 1 over a row."""
    source, output, tensor = int8(graph, op.inputs[0]), int8(graph, op.outputs[0]), operand(graph, op, 1)
    weights = constant(graph, op, 1, "int8")
    if len(tensor.scales) != 1:
        raise Unsupported(f"weights {tensor.name!r} must have one scale, have {len(tensor.scales)}. Convert again")
    matrix, depthwise = op.kind == "FULLY_CONNECTED", op.kind == "DEPTHWISE_CONV_2D"
    fields = matrix_fields(source, output, weights) if matrix else image_fields(source, output, op, weights)
    if depthwise:
        weights = weights[0].transpose(2, 0, 1)
    channels, part = len(weights), 1 if depthwise else weights.shape[-1]
    groups = fields["channels"] // part
    if groups * part != fields["channels"] or groups < 1 or channels % groups or fields["out_channels"] != channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    bias = np.zeros(channels, "int32")
    if graph.input_of(op, 2) is not None:
        bias = constant(graph, op, 2, "int32").reshape(-1)
    steps = np.abs(weights.astype("int64") - tensor.zero_point).reshape(channels, -1).sum(axis=1)
    if len(bias) != channels or (steps * 255 + np.abs(bias.astype("int64"))).max() >= 2**31:
        raise Unsupported(f"sums of {tensor.name!r} do not fit 32 bits: a damaged bias. Convert the model again")
    # The interpreters multiply the scales in float32 where the weights have one scale.
    factor = float(np.float32(source.scale) * np.float32(tensor.scale)) / output.scale
    multiplier, shift = arithmetic.quantize_multiplier(factor)
    if shift > 30:
        raise unsupported_scale(output)
    least, most = activation_range(op, output)
    return [
        Layer(
            op,
            "asymmetric",
            "asymmetric",
            "tfkd_asymmetric_params",
            {
                "weights": np.ascontiguousarray(weights),
                "bias": bias,
                **fields,
                "group_channels": part,
                "group_out_channels": channels // groups,
                "multiplier": multiplier,
                "shift": shift,
                "zero_point": source.zero_point,
                "weight_zero_point": tensor.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}, asymmetric",
        )
    ]
