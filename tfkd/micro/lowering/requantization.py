"""How sums are rescaled to output values: multipliers, shifts, output ranges and the kernels' flags.

Quantization parameters are computed as TensorFlow Lite Micro's kernels compute them when they prepare, in the same
precision (float32 where they use float), so that the integers are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Op, Tensor
from tfkd.micro.lowering.layer import ANY_SHIFT, CLAMP, SIGNED, WIDE, Unsupported, unsupported_scale


def activation_range(op: Op, output: Tensor) -> tuple[int, int]:
    """The quantized output range under the fused activation (kernel_util's CalculateActivationRangeQuantized)."""
    kind = op.options.get("FusedActivationFunction", "none")
    scale = np.float32(output.scale)

    def quantize(value: float) -> int:
        quotient = np.float32(value) / scale
        return output.zero_point + int(math.copysign(math.floor(abs(float(quotient)) + 0.5), quotient))

    low, high = int(np.iinfo(output.dtype).min), int(np.iinfo(output.dtype).max)
    limits = {
        "none": (low, high),
        "relu": (quantize(0), high),
        "relu6": (quantize(0), quantize(6)),
        "relu_n1_to_1": (quantize(-1), quantize(1)),
    }
    if kind not in limits:
        raise Unsupported(f"fused {kind} is not supported. Put the activation into a layer of its own")
    least, most = limits[kind]
    return max(low, least), min(high, most)


def folded_sums(
    name: str, weights: np.ndarray, bias: np.ndarray, zero_point: int, multipliers: np.ndarray | None = None
) -> tuple[np.ndarray, bool]:
    """Folds the input's zero point into the bias: sum(w * (x - z)) + b = sum(w * x) + (b - z * sum(w)).

    A channel whose multiplier is 0 ignores its sums: weights that are nearly 0 have such a scale, and converters clip
    their bias to the ends of 32 bits, so that it would overflow. Its bias becomes 0.

    Args:
        name: Name of the weights, for errors.
        weights: [channels, depth] int64.
        bias: [channels] int64.
        zero_point: Zero point of the input.
        multipliers: [channels] or [1], by which sums are multiplied; None where none of them is 0.

    Returns:
        The new bias [channels] int32, and whether sums may exceed the bounds of the kernels' fast forms.
    """
    bias = bias if multipliers is None else np.where(multipliers == 0, 0, bias)
    folded = bias - zero_point * weights.sum(axis=1)
    largest = np.abs(weights).sum(axis=1) * 128
    if (np.abs(folded) + largest).max(initial=0) >= 2**31 or np.abs(folded).max(initial=0) >= 2**31:
        raise Unsupported(f"sums of {name!r} do not fit 32 bits: a damaged bias. Convert the model again")
    # Two channels share a product of 16 bits: 256 * sum of the second + sum of the first must fit 32 bits.
    pairs = 256 * largest + np.roll(largest, 1)
    wide = (np.abs(folded) + largest).max(initial=0) >= 2**30 or pairs.max(initial=0) >= 2**31 or weights.min() <= -128
    return folded.astype("int32"), bool(wide)


def requantization(scales: Sequence[float], output: Tensor, least: int, most: int) -> tuple[dict[str, np.ndarray], int]:
    """Multipliers and shifts for real factors.

    Args:
        scales: Factor from sums to quantized outputs, one for each channel.
        output: The output tensor.
        least: Smallest quantized output.
        most: Largest quantized output.

    Returns:
        The fields `multiplier` and `shift`, both [channels], and the flags for the kernel.
    """
    pairs = [arithmetic.quantize_multiplier(scale) for scale in scales]
    flags = SIGNED if least < output.zero_point else 0
    flags |= CLAMP if (least, most) != (-128, 127) else 0
    shifts = np.array([shift for _, shift in pairs])
    if (shifts > 30).any():
        raise unsupported_scale(output)
    if (shifts >= 0).any():
        flags |= ANY_SHIFT
    else:
        shifts = -shifts - 1
    return {"multiplier": np.array([m for m, _ in pairs], "int32"), "shift": shifts.astype("int8")}, flags


def long_requantization(scales: Sequence[float], output: Tensor) -> dict[str, np.ndarray]:
    """Multipliers and shifts for sums of 64 bits, which TensorFlow Lite Micro multiplies by 16 bits of a multiplier."""
    pairs = [arithmetic.quantize_multiplier(scale) for scale in scales]
    if max(shift for _, shift in pairs) > 7:
        raise unsupported_scale(output)
    multipliers = [0x7FFF if m >= 0x7FFF0000 else (m + 2**15) >> 16 for m, _ in pairs]
    return {"multiplier": np.array(multipliers, "int32"), "shift": np.array([s for _, s in pairs], "int8")}


def fast_form(
    weights: np.ndarray, folded: np.ndarray, shifts: np.ndarray, flags: int, wide: bool, *, signed_doubles: bool
) -> int:
    """Adds flags for the kernels whose fast form multiplies up to 256 times a sum and saturates.

    Args:
        weights: [channels, depth] int64.
        folded: [channels] biases, with the input's zero point folded in.
        shifts: [channels] as the kernels take them.
        flags: Flags from `requantization`.
        wide: Result of `folded_sums`.
        signed_doubles: Whether the form for signed results multiplies twice a sum only, so that it takes larger values.

    Returns:
        `flags` with WIDE, and with CLAMP where values exceed the bounds of the fast form (SIGNED where that form takes
        them).
    """
    flags |= WIDE if wide else 0
    most = folded + np.maximum(weights * 127, weights * -128).sum(axis=1)
    least = folded + np.minimum(weights * 127, weights * -128).sum(axis=1)
    if most.max(initial=0) >= 2**23 or least.min(initial=0) < -(2**23) or np.max(shifts, initial=0) > 14:
        flags |= SIGNED if signed_doubles and np.max(shifts) <= 20 else CLAMP
    return flags
