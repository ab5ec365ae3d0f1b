"""Random inputs for latency measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Most token models have more tokens, so that random token ids index no row outside of the embedding.
_TOKENS = 128


def random_input(shape: Sequence[int], dtype: str, *, quantized: bool, seed: int = 0) -> np.ndarray:
    """Random values that a model accepts as an input.

    Args:
        shape: Shape of the input with its batch dimension.
        dtype: Name of the data type.
        quantized: Whether the input is quantized. It then takes all values of its data type; other integers are
            token ids, 0..127, or less where the data type ends before. Floats are in [0, 1).
        seed: Random seed, >= 0.

    >>> bool(random_input((2, 3), "int32", quantized=False).max() < 128)
    True
    """
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        low, high = (limits.min, limits.max + 1) if quantized else (0, min(limits.max + 1, _TOKENS))
        return rng.integers(low, high, tuple(shape), dtype)
    if np.issubdtype(dtype, np.bool_):
        return rng.random(tuple(shape)) < 0.5
    return rng.random(tuple(shape)).astype(dtype)
