"""For size: all layers of a kernel make its compile-time choices alike, so that one copy of its code serves all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfkd.micro.lowering.layer import ANY_SHIFT, CLAMP, SIGNED, SWAPPED, WIDE, Layer

# Flags that only add cases: right for any layer. Those that leave cases out must hold for all layers of the kernel.
_ADD = {"convolution": ANY_SHIFT | SIGNED | CLAMP | WIDE, "depthwise": ANY_SHIFT | SIGNED | CLAMP | WIDE,
        "fully_connected": ANY_SHIFT | SIGNED | CLAMP | WIDE}  # fmt: skip
_LEAVE_OUT = {"convolution": SWAPPED, "addition": 3}


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
    if layer.kernel in _ADD and changed & ANY_SHIFT:
        fields["shift"] = -np.asarray(fields["shift"]) - 1  # from a right shift less one to an exponent
    if layer.kernel == "convolution" and changed & SWAPPED:
        # [groups, blocks, depth / 4, 2, pairs, 2]: each four values in their own order again
        weights = np.asarray(fields["weights"])
        groups, blocks, depth, pairs, _ = weights.shape
        fields["weights"] = weights.reshape(groups, blocks, depth // 2, 2, pairs, 2).swapaxes(3, 5)
    return dataclasses.replace(layer, fields=fields, flags=flags)
