"""Folders of `.npy` files in the layout of keras.datasets; large ones are mapped into memory, not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfkd.data import lazy
from tfkd.data.lazy import mapped
from tfkd.data.reading import Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError


def read(request: Request) -> Arrays:
    """Reads `x_train.npy` and `y_train.npy`, and `x_test.npy` and `y_test.npy` if the folder has them.

    Raises:
        InputError: A file is missing or damaged, or large samples are neither uint8 nor finite float32.
    """
    path = request.path
    keys = ["x_train", "y_train", *(key for key in ("x_test", "y_test") if (path / "x_test.npy").is_file())]
    arrays = {key: _open(path / f"{key}.npy") for key in keys}
    is_large = sum(array.nbytes for array in arrays.values()) > lazy.IN_MEMORY_BYTES
    found = {
        key: mapped(array, str(path / f"{key}.npy")) if is_large and key.startswith("x") else np.array(array)
        for key, array in arrays.items()
    }
    return Arrays(
        found["x_train"],
        np.asarray(found["y_train"]),
        found.get("x_test"),
        np.asarray(found["y_test"]) if "y_test" in found else None,
        name=path.resolve().name,
        location=str(path),
    )


def _open(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"load: {file} must be an array of numbers. Received: {error}. Write it with numpy.save."
        ) from error


SOURCE = Source(accepts=lambda request: (request.path / "x_train.npy").is_file(), read=read)
