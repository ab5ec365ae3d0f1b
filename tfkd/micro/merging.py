"""Gives the layers of a kernel the same compile-time flags, so that one copy of its code serves them all.

This is for size: the code is smaller and a little slower. Layers that the kernel's fast form does not take share a copy
of their own, so that they do not slow down the others. Shapes and results do not change; constants are packed again
where their form depends on the flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfkd.micro.lowering.channel_pairs import ChannelPairs
from tfkd.micro.lowering.layer import ANY_SHIFT, BY_PLANE, BY_ROWS, CLAMP, SIGNED, WIDE, Layer

# Flags of layers that the fast form does not take.
_SLOW = ANY_SHIFT | CLAMP | WIDE
# Flags that add cases are correct for any layer: they are set if any layer of the copy has them.
_ADDING = {
    "convolution": _SLOW | SIGNED,
    "depthwise": _SLOW | SIGNED | BY_ROWS | BY_PLANE,
    "fully_connected": _SLOW | SIGNED,
}
# Flags that leave cases out are set only if all layers of the copy have them. For the addition, bits 0 to 2.
_OMITTING = {"addition": 7}


def merge(layers: Sequence[Layer]) -> list[Layer]:
    """Layers with equal flags for each copy of a kernel.

    Args:
        layers: All layers of a program.
    """
    flags: dict[tuple[str, bool], int] = {}
    for layer in layers:
        old = flags.setdefault(_copy(layer), layer.flags)
        adding, omitting = _ADDING.get(layer.kernel, 0), _OMITTING.get(layer.kernel, 0)
        flags[_copy(layer)] = ((old | layer.flags) & adding) | (old & layer.flags & omitting)
    known = _ADDING.keys() | _OMITTING.keys()
    return [_with_flags(layer, flags[_copy(layer)]) if layer.kernel in known else layer for layer in layers]


def _copy(layer: Layer) -> tuple[str, bool]:
    """The copy of a kernel that serves a layer."""
    return layer.kernel, layer.kernel in _ADDING and bool(layer.flags & _SLOW)


def _with_flags(layer: Layer, flags: int) -> Layer:
    fields, changed = dict(layer.fields), layer.flags ^ flags
    if layer.kernel == "convolution" and changed:
        pairs = ChannelPairs.unpack(np.asarray(fields["pairs"]), layer.flags)
        if changed & ANY_SHIFT:
            pairs = dataclasses.replace(pairs, shifts=_exponents(pairs.shifts))
        odd, zero_point = layer.number("group_out_channels") % 2, layer.number("out_zero_point")
        fields["pairs"] = pairs.pack(flags, odd=odd, zero_point=zero_point)
    elif layer.kernel in _ADDING and changed & ANY_SHIFT:
        fields["shift"] = _exponents(np.asarray(fields["shift"]))
    return dataclasses.replace(layer, fields=fields, flags=flags)


def _exponents(shifts: np.ndarray) -> np.ndarray:
    """Exponents of two from right shifts minus one."""
    return -shifts - 1
