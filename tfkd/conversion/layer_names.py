"""Which layer of a Keras model an op of its .tflite comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat

if TYPE_CHECKING:
    import keras


def layers(model: keras.Model) -> dict[str, bool]:
    """The names of all layers, nested ones too, and whether each has a kernel."""
    return {layer.name: hasattr(layer, "kernel") for layer in keras_compat.inner_layers(model)}


def layer_of(tensor: str, weights: str, known: Mapping[str, bool]) -> str:
    """The layer of an op: of several that were fused into it the one with a kernel.

    Args:
        tensor: the name of what the op computes.
        weights: the name of its constant, or empty.
        known: what `layers` gives.

    Returns:
        The layer's name, or the tensor's where none is known.

    >>> layer_of("m/relu_1/Relu;m/conv_1/convolution", "", {"relu": False, "conv": True})
    'conv'
    """
    # Tensors are called model/layer_1/op;model/layer_2/op, with a number that the export puts behind each name.
    parts = re.split(r"[/;:]", f"{tensor};{weights}")
    fits = [next((name for name in (part, re.sub(r"_\d+$", "", part)) if name in known), None) for part in parts]
    found = [name for name in fits if name is not None]
    return next((name for name in found if known[name]), found[0] if found else tensor)
