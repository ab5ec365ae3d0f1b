"""The fixed-point arithmetic of TensorFlow Lite Micro's reference kernels, in Python integers.

Reference: gemmlowp's fixedpoint.h, and TensorFlow Lite's quantization_util.cc (double rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

INT32_MAX = 2**31 - 1
_INT32_MIN = -(2**31)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A real number >= 0 as (multiplier, shift): multiplier * 2^(shift - 31), multiplier in [2^30, 2^31).

    Infinity, the quotient of scales that float32 cannot hold, has a shift beyond that of all finite numbers.

    >>> quantize_multiplier(0.75)
    (1610612736, 0)
    """
    if real == 0:
        return 0, 0
    if math.isinf(real):
        return 2**30, 1025
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def high_mul(a: int, b: int) -> int:
    """2 * a * b / 2^32, rounded and saturated (gemmlowp's SaturatingRoundingDoublingHighMul)."""
    return min((a * b + 2**30) >> 31, INT32_MAX)


def divide_by_power(x: int, exponent: int) -> int:
    """The quotient x / 2^exponent, halves away from zero (gemmlowp's RoundingDivideByPOT).

    >>> divide_by_power(-3, 1)
    -2
    """
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def multiply(x: int, multiplier: int, shift: int) -> int:
    """The product x * multiplier * 2^(shift - 31), rounded twice (MultiplyByQuantizedMultiplier)."""
    if shift > 0:
        return high_mul((x * 2**shift + 2**31) % 2**32 - 2**31, multiplier)  # wraps like an int32
    return divide_by_power(high_mul(x, multiplier), -shift)


def _saturate(x: int) -> int:
    return max(_INT32_MIN, min(INT32_MAX, x))


def input_radius(integer_bits: int, left_shift: int, bits: int = 31) -> int:
    """The largest magnitude of an input that fits `integer_bits` integer bits after a shift (CalculateInputRadius).

    Args:
        integer_bits: Bits before the binary point.
        left_shift: Left shift of the input.
        bits: Bits of the fixed-point number without its sign.
    """
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (bits - integer_bits) / 2.0**left_shift)


def exponential(x: int, integer_bits: int) -> int:
    """exp(x) with 31 fraction bits, for a fixed-point x <= 0 with some integer bits."""
    if x == 0:
        return INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (x & (quarter - 1)) - quarter  # x modulo 1/4, in [-1/4, 0)
    y = (rest << integer_bits) + (1 << 28)  # in [-1/8, 1/8): a polynomial of exp around -1/8
    y2 = high_mul(y, y)
    y3, y4 = high_mul(y2, y), high_mul(y2, y2)
    polynomial = divide_by_power(high_mul(divide_by_power(y4, 2) + y3, 715827883) + y2, 1)
    result = 1895147668 + high_mul(1895147668, y + polynomial)
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-2^i), i from -2
    for exponent, factor in enumerate(factors, -2):
        if integer_bits > exponent and (rest - x) & (1 << (fraction_bits + exponent)):
            result = high_mul(result, factor)
    return result


def _inverse(x: int) -> int:
    """2 / (1 + x) with 29 fraction bits for x in [0, 1) with 31 fraction bits, by three Newton-Raphson steps."""
    half = (x + INT32_MAX + 1) // 2
    guess = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        guess += _saturate(high_mul(guess, (1 << 29) - high_mul(half, guess)) << 2)
    return guess


def inverse_sqrt(x: int) -> tuple[int, int]:
    """The inverse square root of x >= 1 as (multiplier, right): multiplier * 2^(-31 - right), by five Newton steps.

    >>> multiplier, right = inverse_sqrt(16)
    >>> round(multiplier * 2.0 ** (-31 - right), 6)
    0.25
    """
    if x <= 1:
        return INT32_MAX, 0
    right = 11
    while x >= 1 << 29:
        x, right = x // 4, right + 1
    pairs = (31 - x.bit_length()) // 2 - 1
    x, right = (x << 2 * pairs) >> 1, right - pairs
    y, half = 1 << 28, divide_by_power(x, 1)
    for _ in range(5):  # y = 3/2 * y - x/2 * y^3, with 28 fraction bits
        cube = _saturate(high_mul(high_mul(y, y), y) << 6)
        y = _saturate((high_mul((1 << 28) + (1 << 27), y) - high_mul(half, cube)) << 3)
    y = high_mul(y, 1518500250)  # times sqrt(1/2)
    return (y << -right, 0) if right < 0 else (y, right)


def logistic(x: int, integer_bits: int) -> int:
    """1 / (1 + exp(-x)) with 31 fraction bits, for a fixed-point x with some integer bits."""
    if x == 0:
        return 1 << 30
    positive = _saturate(_inverse(exponential(-abs(x), integer_bits)) << 1)
    return positive if x > 0 else INT32_MAX - positive


def tanh(x: int, integer_bits: int) -> int:
    """tanh(x) with 31 fraction bits, for a fixed-point x with some integer bits."""
    if x == 0:
        return 0
    magnitude = _saturate((_inverse(exponential(-abs(x), integer_bits + 1)) - (1 << 29)) << 2)
    return magnitude if x > 0 else -magnitude


def table(function: Callable[[int], int], first: int = -128, dtype: str = "int8") -> np.ndarray:
    """The values of a function of 256 integers, saturated.

    Args:
        function: The function.
        first: First integer: -128 for int8, 0 for uint8.
        dtype: Type of the values: `int8` or `uint8`.
    """
    limits = np.iinfo(dtype)
    values = [max(int(limits.min), min(int(limits.max), function(x))) for x in range(first, first + 256)]
    return np.array(values, dtype)


def sigmoid_table() -> np.ndarray:
    """The interpreter's table for LOGISTIC and TANH of int16: sigmoid(i / 24) with 16 fraction bits, [256] uint16.

    Each value is lowered by a sixteenth of the second difference, so that linear interpolation errs equally to both
    sides.
    """
    x = np.arange(256) / 24
    y = 1 / (1 + np.exp(-x))
    values = np.round(65536 * (y + y * (1 - y) * (2 * y - 1) / 24**2 / 16)).astype("uint16")
    values[255] = 65535
    return values
