"""What a store holds.

| kind | outputs | divergence of two rows |
|---|---|---|
| classes | logits of classes that exclude each other | Kullback-Leibler of the softmax |
| labels | logits of independent decisions, or a single one | sum of the Kullback-Leibler divergences of the sigmoids |
| values | real numbers | largest difference, as a share of the spread of that output |
"""

from __future__ import annotations

import numpy as np

from tfkd.distillation.labels import codec

CLASSES = "classes"
KINDS = (CLASSES, "labels", "values")


def default_dtype(kind: str) -> str:
    """The type in which outputs are stored: float16 is not precise enough for all values."""
    return "float32" if kind == "values" else "float16"


def divergence(kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far stored outputs are from others, at temperature 1.

    Args:
        kind: One of `KINDS`.
        a: Outputs [N, C].
        b: Outputs [N, C].

    Returns:
        float64 [N], >= 0; infinity where a value of b is not finite.
    """
    if kind == CLASSES:
        return codec.divergence(a, b)
    finite = np.isfinite(b).all(axis=1)
    a, b = a.astype("float64"), np.where(finite[:, None], b, 0).astype("float64")
    if kind == "values":
        spread = np.maximum(a.std(axis=0), 1e-6 * np.maximum(np.abs(a).max(axis=0), 1e-30))
        found = (np.abs(a - b) / spread).max(axis=1)
    else:
        found = sum(_sigmoid(s * a) * (_log_sigmoid(s * a) - _log_sigmoid(s * b)) for s in (1.0, -1.0)).sum(axis=1)
    return np.where(finite, np.maximum(found, 0), np.inf)


def _log_sigmoid(z: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -z)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(_log_sigmoid(z))
