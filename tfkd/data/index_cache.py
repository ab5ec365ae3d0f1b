"""Indexes of large data sets, kept in the user's cache by a hash of all that they are made from.

An index is what a data source makes of the names below a folder, or of the bytes of a manifest: paths, labels, parts.
Since its key is a hash of these names or bytes, which are read each time, an index is never stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import platformdirs

from tfkd._internal import atomic

# Number of samples from which on an index is kept. Smaller ones are made as fast as they are read.
MINIMUM = 20_000
# Indexes that are kept; the one that was not used for the longest time is deleted.
_KEPT = 10
# Size in bytes up to which an index is kept; one of a table of numbers has the samples, too.
_LARGEST = 512 << 20
# Texts that are packed at a time.
_PACKED = 20_000
# End of the names of arrays of texts in an archive.
_TEXT = "@text"

Index = dict[str, np.ndarray]


def folder() -> Path:
    """The folder of the indexes: in `TFKD_CACHE`, or else in the user's cache."""
    chosen = os.environ.get("TFKD_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("tfkd")) / "indexes"


def reuse(key: str, make: Callable[[], Index]) -> Index:
    """The index that `make` returns, from the cache if it is there.

    Args:
        key: Text that determines the index, such as a hash.
        make: Makes it: arrays of numbers, or of texts without NUL (dtype object), with one entry per sample in the
            array `y`.
    """
    version = importlib.metadata.version("tfkd")  # another one may make it in another way
    file = folder() / f"{hashlib.sha256(f'{version} {key}'.encode()).hexdigest()[:40]}.npz"
    found = _read(file)
    if found is None:
        found = make()
        if len(found["y"]) >= MINIMUM and sum(array.nbytes for array in found.values()) <= _LARGEST:
            with contextlib.suppress(OSError):  # a full or read-only cache makes the next start slower, no more
                _write(file, found)
    return found


def _read(file: Path) -> Index | None:
    """An index of the cache; None where it is missing or damaged."""
    try:
        # NumPy does not close the file of a damaged archive. An archive has checksums.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = dict(archive)
        os.utime(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return {
        name.removesuffix(_TEXT): _unpacked(array) if name.endswith(_TEXT) else array for name, array in found.items()
    }


def _write(file: Path, index: Mapping[str, np.ndarray]) -> None:
    packed = {name: array for name, array in index.items() if array.dtype != object}
    packed |= {f"{name}{_TEXT}": _packed(array) for name, array in index.items() if array.dtype == object}
    with atomic.replacing(file) as part:
        np.savez(part, **packed)  # type: ignore[arg-type]  # the stub takes one of them for allow_pickle
    kept = sorted(file.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime_ns)
    for old in kept[:-_KEPT]:
        old.unlink(missing_ok=True)


def _packed(texts: np.ndarray) -> np.ndarray:
    """Texts as bytes with a NUL after each, made in parts: a copy of each of a million texts takes much memory."""
    packed = bytearray()
    for start in range(0, len(texts), _PACKED):
        packed += "".join(f"{text}\0" for text in texts[start : start + _PACKED]).encode("utf-8", "surrogatepass")
    return np.frombuffer(packed, np.uint8)


def _unpacked(content: np.ndarray) -> np.ndarray:
    texts = content.tobytes().decode("utf-8", "surrogatepass").split("\0")
    return np.array(texts[:-1], object)
