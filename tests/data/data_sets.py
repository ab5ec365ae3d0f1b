"""Small data sets on disk for the tests of `tfkd.data`."""

import numpy as np
from PIL import Image


def arrays(rows=40, shape=(6, 5, 3), classes=4, seed=0):
    """Distinct random images in the layout of keras.datasets."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return {
        "x_train": rng.integers(0, 256, (rows, *shape), np.uint8),
        "y_train": y,
        "x_test": rng.integers(0, 256, (rows // 2, *shape), np.uint8),
        "y_test": y[: rows // 2],
    }


def saved(tmp_path, **changes):
    """Path of a .npz file with those arrays; an array given as None is left out."""
    parts = {**arrays(), **changes}
    np.savez(tmp_path / "set.npz", **{key: part for key, part in parts.items() if part is not None})
    return tmp_path / "set.npz"


def folder(path, sizes=(4, 4, 4), size=(7, 9), mode="RGB", suffix="png"):
    """A folder with one sub-folder per entry of `sizes`, with that many images of (width, height) `size`."""
    rng = np.random.default_rng(len(str(path)))
    for label, count in enumerate(sizes):
        (path / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(path / f"class{label}" / f"{number}.{suffix}")
    return path
