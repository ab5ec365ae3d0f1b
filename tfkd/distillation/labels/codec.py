"""The stored form of logits: all of them, or the largest with the log-sum-exp of the others.

    all logits (top_k None)    logits [N, C]
    top_k = K                  logits [N, K], indices [N, K] of their classes, rest [N] = log Σ exp of the C − K others

With `rest` the probability of each kept class is exact at temperature 1; the other classes share theirs equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def index_dtype(classes: int) -> str:
    """The smallest unsigned integer type that can hold a class number."""
    return "uint8" if classes <= 1 << 8 else "uint16" if classes <= 1 << 16 else "uint32"


def pack(logits: np.ndarray, top_k: int | None, dtype: str) -> dict[str, np.ndarray]:
    """The arrays to store for some logits.

    Args:
        logits: Logits, float32 [N, C].
        top_k: Number K of largest logits that are kept, 1..C-1; None for all.
        dtype: `float16` or `float32`, the type of the kept logits.

    Returns:
        Arrays by name: `logits` [N, K]; with `top_k` also `indices` [N, K] and `rest` [N] float32.
    """
    with np.errstate(over="ignore"):  # a logit that exceeds float16 becomes infinite, and `divergence` infinite too
        if top_k is None:
            return {"logits": logits.astype(dtype)}
        best = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        rest = logits.astype("float64")
        np.put_along_axis(rest, best, -np.inf, axis=1)
        return {
            "logits": np.take_along_axis(logits, best, axis=1).astype(dtype),
            "indices": best.astype(index_dtype(logits.shape[1])),
            "rest": np.logaddexp.reduce(rest, axis=1).astype("float32"),
        }


def unpack(packed: Mapping[str, np.ndarray], classes: int) -> np.ndarray:
    """The logits of stored arrays.

    Args:
        packed: Arrays of `pack`.
        classes: Number C of classes.

    Returns:
        float32 [N, C]; classes that were not kept get equal logits with the stored log-sum-exp.
    """
    values = packed["logits"].astype("float32")
    if "rest" not in packed:
        return values
    share = (packed["rest"] - np.log(classes - values.shape[1])).astype("float32")
    full = np.repeat(share[:, None], classes, axis=1)
    np.put_along_axis(full, packed["indices"].astype("int64"), values, axis=1)
    return full


def unpack_in_graph(packed: Mapping[str, tf.Tensor], classes: int) -> tf.Tensor:
    """`unpack` made of TensorFlow ops."""
    import tensorflow as tf

    values = tf.cast(packed["logits"], tf.float32)
    if "rest" not in packed:
        return values
    kept = values.shape[1]
    full = tf.repeat((packed["rest"] - np.float32(np.log(classes - kept)))[:, None], classes, axis=1)
    rows = tf.repeat(tf.range(tf.shape(values)[0])[:, None], kept, axis=1)
    positions = tf.stack([rows, tf.cast(packed["indices"], tf.int32)], axis=-1)
    return tf.tensor_scatter_nd_update(full, positions, values)


def divergence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Kullback-Leibler divergence KL(softmax(a) || softmax(b)) of each row.

    Args:
        a: Logits [N, C].
        b: Logits [N, C].

    Returns:
        float64 [N]; infinity where a logit of b is not finite.
    """

    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z.astype("float64")
        return z - np.logaddexp.reduce(z, axis=1, keepdims=True)

    finite = np.isfinite(b).all(axis=1)
    log_p, log_q = log_softmax(a), log_softmax(np.where(finite[:, None], b, 0))
    return np.where(finite, (np.exp(log_p) * (log_p - log_q)).sum(axis=1), np.inf)
