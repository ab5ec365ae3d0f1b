"""The zarr group of a store, in a folder or behind a URL: created atomically, read and checked chunk by chunk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from tfkd._internal.types import JsonRecord
from tfkd.distillation.labels import codec
from tfkd.errors import InputError, ToolMissingError

# A zarr.Group of arrays. The types of zarr do not tell its arrays from groups inside of it.
Group: TypeAlias = Any
# Aimed size of a chunk of logits.
_CHUNK_BYTES = 1 << 20


def create(path: str, ids: np.ndarray, meta: JsonRecord) -> None:
    """Creates an empty store unless there is one.

    In a folder it is written under a temporary name and renamed, so that no other process sees an incomplete store.

    Args:
        path: Folder or URL.
        ids: Ids of the samples, int64 [N].
        meta: Metadata of the store, with `views`, `classes`, `top_k` and `dtype`.

    Raises:
        InputError: At a URL, the creation of another store was interrupted.
        ToolMissingError: The driver of the URL is not installed.
    """
    remote = "://" in path
    if _is_store(path) if remote else Path(path).exists():
        return
    partial = path if remote else f"{path}.{os.getpid()}.partial"
    if not remote:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    group: Group = open_group(partial, "a" if remote else "w")
    _create_arrays(group, path, len(ids), meta)
    group["ids"][:] = ids
    group.attrs.update(meta)  # last, since a group with a schema is a complete store
    if not remote:
        try:
            os.rename(partial, path)
        except OSError as error:
            shutil.rmtree(partial)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process has created it meanwhile
                raise


def _create_arrays(group: Group, path: str, samples: int, meta: JsonRecord) -> None:
    """Creates `logits`, `indices` and `rest` of shape [views, N, ...], one chunk for some rows of one view, and `ids`.

    Nothing at a URL can be renamed atomically: processes that create a store at the same time share its arrays, and
    none deletes those of another.
    """
    from zarr.codecs import Crc32cCodec

    width = meta["top_k"] or meta["classes"]
    shape = (meta["views"], samples)
    rows = _rows_per_chunk(samples, width, meta["dtype"])
    arrays: dict[str, tuple[tuple[int, ...], str, float]] = {"logits": ((*shape, width), meta["dtype"], np.nan)}
    if meta["top_k"] is not None:
        arrays |= {
            "indices": ((*shape, width), codec.index_dtype(meta["classes"]), 0),
            "rest": (shape, "float32", np.nan),
        }
    arrays["ids"] = ((samples,), "int64", 0)
    for name, (full, dtype, fill) in arrays.items():
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
            raise InputError(
                f"{path}: must be empty or an equal store. Received: another store whose creation was interrupted. "
                "Delete it, or use another path."
            )


def _rows_per_chunk(samples: int, width: int, dtype: str) -> int:
    """Rows of a chunk: about `_CHUNK_BYTES`, less for a large store; at least 64 and at most 4096 or all samples."""
    rows = _CHUNK_BYTES // (width * np.dtype(dtype).itemsize) // max(1, samples * width // (1 << 21))
    return min(samples, max(64, min(max(1, rows), 4096)))


def _is_store(url: str) -> bool:
    try:
        return "schema" in open_group(url, "r").attrs
    except FileNotFoundError:
        return False


def open_group(path: str, mode: Literal["r", "r+", "a", "w"]) -> Group:
    """The zarr group at a folder or URL.

    Args:
        path: Folder or URL.
        mode: Mode of `zarr.open_group`.

    Raises:
        ToolMissingError: The driver of the URL, such as s3fs or gcsfs, is not installed.
    """
    import zarr

    try:
        return zarr.open_group(path, mode=mode)
    except ImportError as error:
        raise ToolMissingError(
            f"{path}: the driver of this URL is not installed: {error}. Install it with pip."
        ) from None


def chunks(group: Group, samples: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields view and rows of each chunk of logits.

    Args:
        group: Group of a store.
        samples: Number of samples.
    """
    views, size = group["logits"].shape[0], group["logits"].chunks[1]
    for view in range(views):
        for start in range(0, samples, size):
            yield view, np.arange(start, min(start + size, samples))


def unwritten(group: Group, names: tuple[str, ...], samples: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields view and rows of each chunk that is not written or is damaged.

    Args:
        group: Group of a store.
        names: Names of its arrays of logits.
        samples: Number of samples.
    """
    return ((view, rows) for view, rows in chunks(group, samples) if not is_written(group, names, view, rows))


def is_written(group: Group, names: tuple[str, ...], view: int, rows: np.ndarray) -> bool:
    """Whether a chunk is complete and undamaged in all arrays.

    Args:
        group: Group of a store.
        names: Names of its arrays of logits.
        view: View of the chunk.
        rows: Consecutive rows of the chunk.
    """
    try:
        return all(
            not np.isnan(group[name][view, rows[0] : rows[-1] + 1].astype("float32")).any() for name in reversed(names)
        )
    except ValueError:  # zarr raises this for a wrong checksum
        return False


def read_view(group: Group, path: str, name: str, view: int) -> np.ndarray:
    """All rows of one view of an array.

    Args:
        group: Group of a store.
        path: Folder or URL of the store, for the error message.
        name: Name of the array.
        view: View to read.

    Raises:
        InputError: A chunk is damaged; the message names it.
    """
    array, size = group[name], group[name].chunks[1]
    try:
        return array[view]
    except ValueError:
        for number, start in enumerate(range(0, array.shape[1], size)):
            try:
                array[view, start : start + size]
            except ValueError as error:
                raise InputError(
                    f"{path}: chunk {name}/c/{view}/{number} must be undamaged. Received: {error} "
                    "Run `tfkd label` again: it rewrites this chunk only."
                ) from None
        raise


@contextlib.contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Adds the store and the remedy to the message of an OSError, such as a full disk.

    Args:
        path: Folder or URL of the store.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: the store must be writable. Received: {error.strerror or error}. Free disk space or grant write "
            "permission, and run the same command again: it resumes where it stopped",
        ) from None
