"""Training in mixed precision of a model whose weights stay in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from tfkd._internal import keras_compat


@contextlib.contextmanager
def layers_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the float32 layers of a model compute in mixed precision while the context is open.

    The layers that compute the outputs stay in float32, so that the logits do. Layers of another precision are left as
    they are.

    Args:
        model: A built model.
        precision: `float32`, for no change, `mixed_float16` or `mixed_bfloat16`.

    Reference:
        Micikevicius et al.: Mixed Precision Training (arXiv:1710.03740).
    """
    layers = [] if precision == "float32" else keras_compat.inner_layers(model)
    last = [keras_compat.producer(tensor) for tensor in model.outputs] if keras_compat.shows_layers(model) else []
    changed = [
        (layer, layer.dtype_policy)
        for layer in layers
        # A model only passes on what its layers compute.
        if layer not in last and not isinstance(layer, keras.Model) and layer.dtype_policy.name == "float32"
    ]
    try:
        for layer, _ in changed:
            layer.dtype_policy = precision
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy
