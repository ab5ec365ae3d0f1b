"""How logits lie in a store: all of them, or the largest with the log-sum-exp of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def index_dtype(classes: int) -> str:
    """The smallest unsigned type that numbers the classes."""
    return "uint8" if classes <= 1 << 8 else "uint16" if classes <= 1 << 16 else "uint32"


def pack(logits: np.ndarray, top_k: int | None, dtype: str) -> dict[str, np.ndarray]:
    """Logits [N, C] as the arrays that are stored.

    Args:
        logits: float32.
        top_k: how many of the largest are kept; None for all.
        dtype: of the kept logits.

    Returns:
        `logits` [N, K]; with `top_k` also `indices` [N, K] and `rest` [N], the log-sum-exp of what is left out.
    """
    with np.errstate(over="ignore"):  # infinity: `divergence` tells
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
    """Logits [N, C] float32 of stored arrays; what was left out shares its log-sum-exp equally."""
    values = packed["logits"].astype("float32")
    if "rest" not in packed:
        return values
    share = (packed["rest"] - np.log(classes - values.shape[1])).astype("float32")
    full = np.repeat(share[:, None], classes, axis=1)
    np.put_along_axis(full, packed["indices"].astype("int64"), values, axis=1)
    return full


def unpack_in_graph(packed: Mapping[str, Any], classes: int) -> Any:
    """`unpack`, of tf ops."""
    import tensorflow as tf

    values = tf.cast(packed["logits"], tf.float32)
    if "rest" not in packed:
        return values
    kept = values.shape[1]
    full = tf.repeat((packed["rest"] - np.float32(np.log(classes - kept)))[:, None], classes, axis=1)
    rows = tf.repeat(tf.range(tf.shape(values)[0])[:, None], kept, axis=1)
    places = tf.stack([rows, tf.cast(packed["indices"], tf.int32)], axis=-1)
    return tf.tensor_scatter_nd_update(full, places, values)


def divergence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """KL(softmax(a) || softmax(b)) of logits [N, C], [N] float64; infinity where b is not finite."""

    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z.astype("float64")
        return z - np.logaddexp.reduce(z, axis=1, keepdims=True)

    finite = np.isfinite(b).all(axis=1)
    log_p, log_q = log_softmax(a), log_softmax(np.where(finite[:, None], b, 0))
    return np.where(finite, (np.exp(log_p) * (log_p - log_q)).sum(axis=1), np.inf)
