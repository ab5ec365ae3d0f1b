"""Models of mixed precision, which are converted as they compute in float32 with the same weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat

if TYPE_CHECKING:
    import keras

_HALF = ("float16", "bfloat16")


@contextlib.contextmanager
def in_float32(model: keras.Model | Path) -> Iterator[keras.Model | Path]:
    """Yields a model whose layers of mixed precision compute in float32 while the context is open.

    Layers of `mixed_float16` and `mixed_bfloat16` have weights in float32 and round them in each step; without the
    rounding the outputs are more exact. Layers whose weights are in half precision are left as they are.

    Args:
        model: A Keras model, or the folder of a SavedModel, which is left as it is.
    """
    layers = [] if isinstance(model, Path) else [model, *keras_compat.inner_layers(model)]
    mixed = [
        (layer, layer.dtype_policy)
        for layer in layers
        if layer.compute_dtype in _HALF and layer.variable_dtype == "float32"
    ]
    # Nested models cast what they get to the types of their symbolic inputs and input layers.
    nested = [keras_compat.functional(layer) for layer in layers if keras_compat.shows_layers(layer)]
    ends = [end for one in nested for end in (*one.inputs, *map(keras_compat.producer, one.inputs))]
    inputs = [(end, end.dtype) for end in ends if end.dtype in _HALF]
    try:
        for layer, _ in mixed:
            layer.dtype_policy = "float32"
        for end, _ in inputs:
            keras_compat.set_dtype(end, "float32")
        yield model
    finally:
        for layer, policy in mixed:
            layer.dtype_policy = policy
        for end, dtype in inputs:
            keras_compat.set_dtype(end, dtype)
