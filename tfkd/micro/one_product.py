"""Gives convolutions whose outputs start at -128 numbers that take one product for each output, with the same bits.

TensorFlow Lite Micro rounds twice on the way from a sum to an output, see `arithmetic.multiply`. The outputs of a
channel form steps: output `k` begins at the sum `starts[k]`. Any other function with the same starts gives the same
bits, as this one does, where `times` is 1 or 256 and `right` is 3 or 11:

    output = saturate(((x * multiplier >> 32) + offset) >> right),    x = times * sum + extra

`x * multiplier + (offset << 32)` rises by `times * multiplier` from one sum to the next, and must reach
`k << (32 + right)` at `starts[k]` and not before. That bounds `extra * multiplier + (offset << 32)` from both sides.
Of the multipliers next to the exact factor, the one with the widest bounds is taken. `extra` is the number nearest to 0
that brings `extra * multiplier`, modulo 2^32, between the bounds; the offset is the rest. The bounds are exact, so that
numbers within them give equal outputs for all sums; a layer for which none are found stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfkd.micro.lowering.channel_pairs import ChannelPairs, Word, by_pairs, unpacked_weights
from tfkd.micro.lowering.layer import ANY_SHIFT, BY_PLANE, BY_ROWS, ONE_PRODUCT, WIDE, Fields, Layer

# Right shifts, minus one, of the multipliers of TensorFlow Lite Micro that are taken.
_SHIFTS = (3, 20)
# `right` where `times` is 1; each doubling of `times` adds one.
_RIGHT = 3
# Sums times 256 must fit 32 bits, with room for `extra`, which is nearer to 0.
_MOST_SUM = 2**23 - 2**12
_MOST_EXTRA = 2**20


class Scaling(NamedTuple):
    """The numbers of the module's formula for some channels, all int64 of one shape."""

    multiplier: np.ndarray
    extra: np.ndarray
    offset: np.ndarray


def choose(layers: Sequence[Layer], *, alike: bool = False) -> list[Layer]:
    """Layers with the numbers of the formula, where they were found.

    Args:
        layers: All layers of a program.
        alike: Whether layers with equal flags share one copy of their kernel, so that all or none of them change.
    """
    changed = [_changed(layer) for layer in layers]
    if alike:
        kept = {(old.kernel, old.flags) for old, new in zip(layers, changed, strict=True) if new is None}
        changed = [None if (old.kernel, old.flags) in kept else new for old, new in zip(layers, changed, strict=True)]
    return [old if new is None else new for old, new in zip(layers, changed, strict=True)]


def _changed(layer: Layer) -> Layer | None:
    if layer.kernel not in ("convolution", "depthwise") or layer.flags & (ANY_SHIFT | WIDE):
        return None
    if (layer.fields["out_zero_point"], layer.fields["least"], layer.fields["most"]) != (-128, -128, 127):
        return None
    fields = (_convolution if layer.kernel == "convolution" else _depthwise)(layer)
    if fields is None:
        return None
    flags = layer.flags & (BY_ROWS | BY_PLANE) | ONE_PRODUCT
    return dataclasses.replace(layer, fields={**layer.fields, **fields}, flags=flags)


def _convolution(layer: Layer) -> Fields | None:
    pairs = ChannelPairs.unpack(np.asarray(layer.fields["pairs"]), layer.flags)
    weights = unpacked_weights(np.asarray(layer.fields["weights"]))  # [groups, pairs, 2, depth]
    count = layer.number("group_out_channels")
    used = np.broadcast_to(np.arange(2 * pairs.shifts.shape[1]).reshape(-1, 2) < count, pairs.shifts.shape)
    times = np.broadcast_to([1, 256], pairs.shifts.shape)
    low, high = _bounds(weights, pairs.biases)
    found = scaling(pairs.multipliers[used], pairs.shifts[used], low[used], high[used], times[used])
    if found is None:
        return None
    groups = len(pairs.shifts)
    multiplier, extra, offset = (by_pairs(numbers, groups) for numbers in found)
    bias = times * pairs.biases + extra
    records = np.zeros((*pairs.shifts.shape[:2], len(Word)), "int64")
    records[..., Word.FIRST_BIAS], records[..., Word.SECOND_BIAS] = bias[..., 0], bias.sum(axis=-1)
    records[..., [Word.FIRST_MULTIPLIER, Word.SECOND_MULTIPLIER]] = multiplier
    records[..., [Word.FIRST_OFFSET, Word.SECOND_OFFSET]] = offset
    records[:, : count // 2][:, -1:, Word.SHIFTS] = -(2**31)
    return {"pairs": records.astype("uint32").view("int32")}


def _depthwise(layer: Layer) -> Fields | None:
    names = ("bias", "multiplier", "shift")
    bias, multiplier, shift = (np.asarray(layer.fields[name]).astype("int64") for name in names)
    weights = np.asarray(layer.fields["weights"]).astype("int64").reshape(len(bias), -1)
    times = np.full(len(bias), 256)
    found = scaling(multiplier, shift, *_bounds(weights, bias), times)
    if found is None:
        return None
    offset = found.offset - (2 * -128 + 1) * 2**10
    if abs(offset).max() > 127:
        return None
    return {
        "bias": (times * bias + found.extra).astype("int32"),
        "multiplier": found.multiplier.astype("int32"),
        "shift": offset.astype("int8"),
    }


def _bounds(weights: np.ndarray, biases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the sums of channels, biases included, whatever the inputs are.

    Args:
        weights: [..., depth] int64.
        biases: [...] int64.
    """
    low, high = np.minimum(weights * 127, weights * -128), np.maximum(weights * 127, weights * -128)
    return biases + low.sum(axis=-1), biases + high.sum(axis=-1)


def scaling(
    multipliers: np.ndarray, shifts: np.ndarray, low: np.ndarray, high: np.ndarray, times: np.ndarray
) -> Scaling | None:
    """The numbers of the module's formula for channels whose outputs have the zero point and least value -128.

    Args:
        multipliers: [channels] int64, multipliers of TensorFlow Lite Micro.
        shifts: [channels] int64, their right shifts minus one.
        low: [channels] int64, least sum, bias included.
        high: [channels] int64, largest sum.
        times: [channels] int64, 1 or 256.

    Returns:
        The numbers, or None if they were not found for each channel.
    """
    if shifts.min() < _SHIFTS[0] or shifts.max() > _SHIFTS[1] or multipliers.min() < 1:
        return None
    if low.min() < -_MOST_SUM or high.max() > _MOST_SUM:
        return None
    levels = np.arange(1, 256)  # outputs above -128
    # The product rounded to p = (sum * multiplier + 2^30) >> 31 gives -128 + level from p = level * 2^n - 2^n / 2 on.
    n = shifts[:, None] + 1
    products = (levels << n) - (1 << (n - 1))
    starts = -((2**30 - (products << 31)) // multipliers[:, None])
    starts = starts.clip(low[:, None], high[:, None] + 1)  # high + 1: never
    right = np.where(times == 256, _RIGHT + 8, _RIGHT)
    goals = (levels - 128) << (32 + right[:, None])
    usual = (2 * -128 + 1) * 2 ** (right - 1)  # offset without a correction: the zero point and one half
    found = []
    for near in (0, 1, -1, 2):
        multiplier = (multipliers >> (shifts - _RIGHT)) + near
        step = (times * multiplier)[:, None]
        lower = np.where(starts <= high[:, None], goals - starts * step, -(2**62)).max(axis=1)
        upper = np.where(starts > low[:, None], goals - (starts - 1) * step, 2**62).min(axis=1)
        lower, upper = np.maximum(lower, (usual - 127) << 32), np.minimum(upper, (usual + 128) << 32)
        found.append((np.where(multiplier < 2**31, upper - lower, 0), multiplier, lower))
    width, multiplier, lower = (np.array(numbers) for numbers in zip(*found, strict=True))
    best = width.argmax(axis=0), np.arange(len(shifts))
    chosen = zip(*(numbers[best].tolist() for numbers in (multiplier, lower, width)), strict=True)
    extra = [_extra(*numbers) for numbers in chosen]
    if any(number is None for number in extra):
        return None
    added = np.array(extra, "int64")
    return Scaling(multiplier[best], added, -((added * multiplier[best] - lower[best]) >> 32))


def _extra(multiplier: int, lower: int, width: int) -> int | None:
    """The number nearest to 0 whose product with a multiplier is from `lower` on, modulo 2^32, within `width`; or None.

    >>> _extra(2**30 + 1, 2, 3)  # 2 * (2^30 + 1) and so on are far from 2; 4 * (2^30 + 1) = 2^32 + 4
    4
    """
    if width < 1:
        return None
    low, high = lower % 2**32, (lower + width - 1) % 2**32
    if width >= 2**32 or low > high:
        return 0
    up, down = _first(multiplier, 2**32, low, high), _first(-multiplier % 2**32, 2**32, low, high)
    numbers = [number for number in (up, None if down is None else -down) if number is not None]
    nearest = min(numbers, key=abs, default=None)
    return None if nearest is None or abs(nearest) >= _MOST_EXTRA else nearest


def _first(step: int, modulus: int, low: int, high: int) -> int | None:
    """The smallest count >= 0 for which `count * step % modulus` is from `low` to `high`, by Euclid's algorithm.

    >>> _first(5, 17, 3, 4)  # 5, 10, 15, 3
    4
    """
    if low == 0:
        return 0
    if 2 * step > modulus:
        step, low, high = modulus - step, modulus - high, modulus - low
    if step == 0:
        return None
    count = -(-low // step)
    if count * step <= high:
        return count
    turns = _first(modulus % step, step, -high % step, -low % step)
    return None if turns is None else -(-(low + modulus * turns) // step)
