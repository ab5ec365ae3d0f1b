"""For size: all layers of a kernel make its compile-time choices alike, so that one copy of its code serves all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfkd.micro.lowering.layer import (
    ANY_SHIFT,
    BY_PLANE,
    BY_ROWS,
    CLAMP,
    ONE_SHIFT,
    SIGNED,
    WIDE,
    Layer,
    pair_numbers,
    pair_words,
)

# Flags that only add cases: right for any layer. Those that leave cases out must hold for all layers of the kernel.
_ANY = ANY_SHIFT | SIGNED | CLAMP | WIDE
_ADD = {"convolution": _ANY, "depthwise": _ANY | BY_ROWS | BY_PLANE, "fully_connected": _ANY}
_LEAVE_OUT = {"convolution": ONE_SHIFT, "depthwise": ONE_SHIFT, "addition": 3}


def merge(layers: Sequence[Layer]) -> list[Layer]:
    """Layers with equal flags for each kernel, and constants that fit them; the results are the same."""
    flags: dict[str, int] = {}
    for layer in layers:
        old = flags.setdefault(layer.kernel, layer.flags)
        added, left_out = _ADD.get(layer.kernel, 0), _LEAVE_OUT.get(layer.kernel, 0)
        flags[layer.kernel] = ((old | layer.flags) & added) | (old & layer.flags & left_out)
    known = {kernel for kernel in flags if kernel in _ADD or kernel in _LEAVE_OUT}
    return [_with_flags(layer, flags[layer.kernel]) if layer.kernel in known else layer for layer in layers]


def _with_flags(layer: Layer, flags: int) -> Layer:
    fields, changed = dict(layer.fields), layer.flags ^ flags
    if layer.kernel == "convolution" and changed:
        biases, multipliers, shifts = pair_numbers(np.asarray(fields["pairs"]), layer.flags)
        shifts = -shifts - 1 if changed & ANY_SHIFT else shifts
        odd, zero_point = layer.number("group_out_channels") % 2, layer.number("out_zero_point")
        fields["pairs"] = pair_words(biases, multipliers, shifts, odd, zero_point, flags)
    elif layer.kernel in _ADD and changed & ANY_SHIFT:
        fields["shift"] = -np.asarray(fields["shift"]) - 1  # from a right shift less one to an exponent
    return dataclasses.replace(layer, fields=fields, flags=flags)
