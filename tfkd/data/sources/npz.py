"""Archives of NumPy arrays in the layout of keras.datasets: x_train, y_train, x_test, y_test.

Samples of several inputs are an array for each, such as `x_train/image` and `x_train/age` in place of `x_train`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.data.named_arrays import check_same_inputs, samples_of
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")
# Optional: the name of each class, or of each column of the labels, str [C].
NAMES_KEY = "class_names"
# Optional: the time from one frame of a sequence to the next in seconds, a number.
SECONDS_KEY = "frame_seconds"
_ADVICE = (
    "Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...); of several inputs "
    "numpy.savez(path, **{'x_train/image': ..., 'x_train/age': ..., 'y_train': ..., ...})."
)


def read(path: Path, name: str) -> Arrays:
    """Reads an archive.

    Args:
        path: File to read; objects that need pickle are refused.
        name: Name of the data set.

    Raises:
        InputError: The file is no .npz archive, is damaged, lacks an array or does not fit into memory.
    """
    sizes = _sizes(path)
    inputs = {key: [name for name in sizes if name.startswith(f"{key}/")] for key in ("x_train", "x_test")}
    missing = [key for key in KEYS if key not in sizes and not inputs.get(key)]
    if missing or any(names and key in sizes for key, names in inputs.items()):
        what = ", ".join(missing) or "samples either as x_train, or as an array for each input"
        raise InputError(f"load: {path} must hold {what}. Received: {', '.join(sizes) or 'no arrays'}. {_ADVICE}")
    check_same_inputs(({name.partition("/")[2] for name in names} for names in inputs.values()), str(path), _ADVICE)
    needed = [*KEYS, NAMES_KEY, SECONDS_KEY, *inputs["x_train"], *inputs["x_test"]]
    found: dict[str, Any] = _arrays(path, {key: sizes[key] for key in needed if key in sizes}, _ADVICE)
    for key, names_of_inputs in inputs.items():
        if names_of_inputs:
            by_name = {name.partition("/")[2]: found[name] for name in names_of_inputs}
            found[key] = samples_of(by_name, f"load: {path}: {key}")
    names = found.pop(NAMES_KEY, np.zeros(0, str))
    if names.ndim != 1 or names.dtype.kind != "U" and names.size:
        raise InputError(
            f"load: {path}: {NAMES_KEY} must be texts [C]. Received: {names.dtype} of shape {names.shape}. Save "
            f"{NAMES_KEY}=numpy.array(['cat', 'dog'])."
        )
    seconds = found.pop(SECONDS_KEY, None)
    if seconds is not None and not (seconds.size == 1 and seconds.dtype.kind in "uif" and seconds.item() > 0):
        raise InputError(f"load: {path}: {SECONDS_KEY} must be a number > 0. Received: {seconds}. Save 0.02 for 20 ms.")
    return Arrays(
        found["x_train"],
        found["y_train"],
        found["x_test"],
        found["y_test"],
        class_names=tuple(names.tolist()),
        name=name,
        location=str(path),
        frame_seconds=None if seconds is None else float(seconds.item()),
    )


def read_inputs(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an archive with one array for each input of a model; None for one with the parts of a data set.

    Args:
        path: File to read; objects that need pickle are refused.

    Raises:
        InputError: The file is no .npz archive, is damaged or does not fit into memory.
    """
    sizes = _sizes(path)
    if not sizes or not set(KEYS).isdisjoint(name.partition("/")[0] for name in sizes):
        return None
    return _arrays(path, sizes, "Save it with numpy.savez(path, name=...) with the names of the model's inputs.")


def _arrays(path: Path, sizes: Mapping[str, int], advice: str) -> dict[str, np.ndarray]:
    """The arrays with these names and sizes in bytes."""
    needed, memory = sum(sizes.values()), _memory_bytes()
    if memory is not None and needed > memory:
        raise InputError(
            f"load: {path} must fit into memory ({memory:,} bytes). Received: {needed:,} bytes uncompressed. "
            f"Save fewer samples, or uint8 instead of floats."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in sizes}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise InputError(
            f"load: {path} must hold undamaged arrays of numbers. Received: {type(error).__name__}: {error}. {advice}"
        ) from error


def _sizes(path: Path) -> dict[str, int]:
    """The uncompressed size in bytes of each array, without reading it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"load: {path} must be a .npz archive. Received: {error}. {_ADVICE}") from error


def _memory_bytes() -> int | None:
    """The size of the main memory; None on systems without `sysconf`, such as Windows."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _named_file(request: Request) -> Path:
    return Path(os.environ["TFKD_DATA"]) / f"{request.reference}.npz"


def _is_named(request: Request) -> bool:
    is_name = request.path.name == request.reference
    return is_name and bool(os.environ.get("TFKD_DATA")) and _named_file(request).is_file()


# `$TFKD_DATA/NAME.npz` for a bare name.
NAMED = Source(accepts=_is_named, read=lambda request: read(_named_file(request), request.reference))
# The path of a file.
SOURCE = Source(
    accepts=lambda request: request.path.exists(), read=lambda request: read(request.path, request.path.stem)
)
