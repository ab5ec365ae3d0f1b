"""How logits lie in a store: all, or the largest with the log-sum-exp of the rest, in chunks of a zarr group."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.errors import InputError

_CHUNK_BYTES = 1 << 20


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


def create(path: str, ids: np.ndarray, meta: Mapping[str, Any]) -> None:
    """Makes an empty store where there is none, under another name first: it is there whole or not at all.

    Args:
        path: a folder or URL.
        ids: [N] int64.
        meta: what the store says of itself, with `views`, `classes`, `top_k` and `dtype`.

    Raises:
        ValueError: at a URL, another store was begun there.
    """
    from zarr.codecs import Crc32cCodec

    remote = "://" in path
    if _is_store(path) if remote else Path(path).exists():
        return
    partial = path if remote else f"{path}.{os.getpid()}.partial"
    if not remote:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    group = open_group(partial, "a" if remote else "w")
    width = meta["top_k"] or meta["classes"]
    rows = max(1, _CHUNK_BYTES // (width * np.dtype(meta["dtype"]).itemsize) // max(1, len(ids) * width // (1 << 21)))
    rows = min(len(ids), max(64, min(rows, 4096)))
    shape = (meta["views"], len(ids))
    arrays: dict[str, tuple[Any, Any, Any]] = {"logits": ((*shape, width), meta["dtype"], np.nan)}
    if meta["top_k"] is not None:
        arrays |= {
            "indices": ((*shape, width), index_dtype(meta["classes"]), 0),
            "rest": (shape, "float32", np.nan),
        }
    arrays["ids"] = (ids.shape, "int64", 0)
    for name, (full, dtype, fill) in arrays.items():
        # No rename makes a remote store whole: machines that begin at once share arrays, and none wipes another's.
        if name not in group:
            group.create_array(
                name,
                shape=full,
                chunks="auto" if name == "ids" else (1, rows, *full[2:]),
                dtype=dtype,
                fill_value=fill,
                compressors=[Crc32cCodec()],
            )
        if group[name].shape != full or group[name].dtype != dtype:
            raise InputError(f"{path}: must be empty. Received: another store, half made. Delete it, or use another.")
    group["ids"][:] = ids
    group.attrs.update(meta)  # last: only now is it a store
    if not remote:
        try:
            os.rename(partial, path)
        except OSError as error:
            shutil.rmtree(partial)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another machine was first
                raise


def _is_store(url: str) -> bool:
    try:
        return "schema" in open_group(url, "r").attrs
    except FileNotFoundError:
        return False


def open_group(path: str, mode: Any) -> Any:
    """The zarr group at a folder or URL, in a mode of zarr's.

    Raises:
        RuntimeError: a driver for the URL is missing.
    """
    import zarr

    try:
        return zarr.open_group(path, mode=mode)
    except ImportError as error:
        raise RuntimeError(f"{path}: needs the storage's driver. Received: {error}.") from None


@contextlib.contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Adds to errors of the disk which store they hit and that nothing is lost."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: the store must be writable. Received: {error.strerror or error}. Make room or give rights, "
            "and run the same command again: it goes on where it stopped",
        ) from None
