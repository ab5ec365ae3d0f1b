"""Whether a quantized input has room for the values that pixels or bytes of a sensor stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfkd.conversion.tflite import TFLiteModel
from tfkd.conversion.tflite_reader import TensorInfo
from tfkd.errors import InputError

# Share of the range that may be clipped: calibration samples seldom have the darkest and the brightest pixel.
_MOST_CLIPPED = 1 / 8
# A range of fewer quantization steps is that of another scale of the pixels.
_FEWEST_STEPS = 32


def held(dtype: str, scale: float, zero_point: int) -> tuple[float, float]:
    """The least and the largest real value of a quantized tensor.

    >>> held("int8", 1.0, -128)
    (0.0, 255.0)
    """
    limits = np.iinfo(dtype)
    return float((limits.min - zero_point) * scale), float((limits.max - zero_point) * scale)


def check(ends: Sequence[float], dtype: str, scale: float, zero_point: int, where: str) -> None:
    """Refuses values of the bytes 0 and 255 that a quantized input does not keep apart.

    Args:
        ends: What the bytes 0 and 255 stand for, two different numbers.
        dtype: Integer type of the input.
        scale: Its scale, > 0.
        zero_point: Its zero point.
        where: Start of the message: the command.

    Raises:
        InputError: More than an eighth of the range would be clipped, or the whole range has fewer than 32 steps.
    """
    least, most = held(dtype, scale, zero_point)
    span = max(ends) - min(ends)
    clipped = (max(0.0, least - min(ends)) + max(0.0, max(ends) - most)) / span
    if clipped > _MOST_CLIPPED:
        fault = f"{min(clipped, 1.0):.0%} of the range would be clipped"
    elif span / scale < _FEWEST_STEPS:
        fault = f"all bytes would become at most {round(span / scale) + 1} values"
    else:
        return
    raise InputError(
        f"{where}: the bytes 0 and 255 must stand for values that the quantized input holds, {least:.4g} to "
        f"{most:.4g}. Received: {ends[0]:g} and {ends[1]:g}; {fault}. Give the range of the training with "
        "--input-range, or calibrate with samples of the whole range."
    )


def quantized_input(model: TFLiteModel) -> TensorInfo | None:
    """The integer tensor of the first input, or that which a float input becomes at once; None where there is none."""
    index = model.graph.inputs[0]
    users = [op for op in model.graph.ops if index in op.inputs]
    if len(users) == 1 and users[0].name == "QUANTIZE":
        index = users[0].outputs[0]
    tensor = model.graph.tensors[index]
    is_integer = tensor.dtype in ("int8", "uint8", "int16")
    return tensor if is_integer and len(tensor.scales) == 1 and tensor.scales[0] > 0 else None
