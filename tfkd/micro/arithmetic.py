"""The fixed-point arithmetic of TensorFlow Lite Micro's reference kernels, in Python integers.

Formulas: gemmlowp's fixedpoint.h and TensorFlow Lite's quantization_util (double rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

INT32_MAX = 2**31 - 1
_INT32_MIN = -(2**31)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A positive real number as (multiplier, shift): multiplier * 2^(shift - 31), multiplier in [2^30, 2^31)."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def high_mul(a: int, b: int) -> int:
    """The saturating rounding doubling high multiply."""
    return min((a * b + 2**30) >> 31, INT32_MAX)


def divide_by_power(x: int, exponent: int) -> int:
    """X / 2^exponent, halves away from zero."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def multiply(x: int, multiplier: int, shift: int) -> int:
    """X * multiplier * 2^(shift - 31), rounded twice."""
    if shift > 0:
        return high_mul((x * 2**shift + 2**31) % 2**32 - 2**31, multiplier)  # wraps like an int32
    return divide_by_power(high_mul(x, multiplier), -shift)


def _saturate(x: int) -> int:
    return max(_INT32_MIN, min(INT32_MAX, x))


def input_radius(integer_bits: int, left_shift: int, bits: int = 31) -> int:
    """How far an input may lie from 0 for `integer_bits` bits before the point to hold it after its shift."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (bits - integer_bits) / 2.0**left_shift)


def exponential(x: int, integer_bits: int) -> int:
    """exp(x) of a fixed-point x <= 0 with so many integer bits, as 31 fraction bits."""
    if x == 0:
        return INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (x & (quarter - 1)) - quarter
    y = (rest << integer_bits) + (1 << 28)  # in [-1/8, 1/8), around exp(-1/8)
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
    """2 / (1 + x) with 29 fraction bits, of x in [0, 1) with 31, by three Newton steps."""
    half = (x + INT32_MAX + 1) // 2
    guess = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        guess += _saturate(high_mul(guess, (1 << 29) - high_mul(half, guess)) << 2)
    return guess


def logistic(x: int, integer_bits: int) -> int:
    """1 / (1 + exp(-x)), 31 fraction bits."""
    if x == 0:
        return 1 << 30
    positive = _saturate(_inverse(exponential(-abs(x), integer_bits)) << 1)
    return positive if x > 0 else INT32_MAX - positive


def tanh(x: int, integer_bits: int) -> int:
    """tanh(x), 31 fraction bits."""
    if x == 0:
        return 0
    magnitude = _saturate((_inverse(exponential(-abs(x), integer_bits + 1)) - (1 << 29)) << 2)
    return magnitude if x > 0 else -magnitude


def table(function: Callable[[int], int]) -> np.ndarray:
    """The 256 values of a function of an int8, saturated."""
    return np.array([max(-128, min(127, function(x))) for x in range(-128, 128)], "int8")


def sigmoid_table() -> np.ndarray:
    """The interpreter's 256 values of sigmoid(i / 24) with 16 fraction bits, for sigmoid and tanh of 16 bits.

    Each is raised by a sixteenth of the second difference, so that the lines between them err to both sides alike.
    """
    x = np.arange(256) / 24
    y = 1 / (1 + np.exp(-x))
    values = np.round(65536 * (y + y * (1 - y) * (2 * y - 1) / 24**2 / 16)).astype("uint16")
    values[255] = 65535
    return values
