"""Where data comes from: scikit-learn's digits, keras.datasets, .npz archives and folders of images."""

from __future__ import annotations

import importlib.metadata
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkd.errors import InputError

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion_mnist": ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
}
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SAVE = "Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."


class Arrays(NamedTuple):
    """What a source holds, unchecked. A source without a test part of its own has None there."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


def read_digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, scaled to 0..255: embedded, nothing is fetched."""
    # What its load_digits reads: to import scikit-learn for a file takes a second.
    file = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",", dtype=np.int64)
    x = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[..., None]  # stored as 0..16
    return Arrays(x, table[:, -1])


def read_keras(name: str) -> Arrays:
    """A data set of `keras.datasets`, from its cache or by download."""
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise RuntimeError(
            f"load: {name} is not in $TFKD_DATA nor in Keras's cache, and could not be downloaded: {error}. "
            f"Put {name}.npz, with {', '.join(_KEYS)}, into a folder and set TFKD_DATA to it."
        ) from error
    return Arrays(x_train, y_train, x_test, y_test)


def read_npz(path: Path) -> Arrays:
    """Reads an archive in the layout of keras.datasets."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"load: {path} must be a .npz archive. Received: {error}. {_SAVE}") from error
    if missing := [key for key in _KEYS if key not in sizes]:
        raise InputError(
            f"load: {path} must hold {', '.join(missing)}. Received: {', '.join(sizes) or 'none'}. {_SAVE}"
        )
    needed, memory = sum(sizes[key] for key in _KEYS), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise InputError(
            f"load: {path} must fit into memory ({memory:,} bytes). Received: {needed:,} bytes once decompressed. "
            f"Save fewer samples, or uint8 in place of floats."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Arrays(*(archive[key] for key in _KEYS))
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise InputError(
            f"load: {path} must hold plain, whole arrays. Received: {type(error).__name__}: {error}. {_SAVE}"
        ) from error


def read_folder(path: Path, image_size: tuple[int, int] | None) -> Arrays:
    """Reads a folder of class folders, or of train/ and test/ that hold these."""
    parts = {folder.name for folder in _visible(path) if folder.is_dir()}
    if not parts & {"train", "test"}:
        x, y, names = _read_classes(path, image_size)
        return Arrays(x, y, class_names=names)
    if parts != {"train", "test"}:
        raise InputError(
            f"load: {path} must hold train/ and test/ and no other folder, or class folders only. "
            f"Received: {', '.join(sorted(parts))}. Move validation images into train/: load carves its own."
        )
    x_train, y_train, names = _read_classes(path / "train", image_size)
    x_test, y_test, test_names = _read_classes(path / "test", image_size)
    if names != test_names:
        odd = ", ".join(sorted(set(names) ^ set(test_names)))
        raise InputError(f"load: {path}: train/ and test/ must have the same classes. Received: {odd} in one only.")
    return Arrays(x_train, y_train, x_test, y_test, names)


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))


def _read_classes(path: Path, image_size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    folders = [folder for folder in _visible(path) if folder.is_dir()]
    if not folders:
        raise InputError(f"load: {path} must hold one folder of images per class. Received: no folder.")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = list(_visible(folder))
        if not files:
            raise InputError(
                f"load: {folder}: each class needs images. Received: an empty folder. Add some or remove it."
            )
        for file in files:
            images.append(_read_image(file, image_size))
            labels.append(label)
            if images[-1].shape[:2] != images[0].shape[:2]:
                raise InputError(
                    f"load: {file} must be as large as the first image, {images[0].shape[:2]} (height, width). "
                    f"Received: {images[-1].shape[:2]}. Resize it, or pass image_size=(height, width) to load()."
                )
    if len({image.shape for image in images}) > 1:  # grayscale among colour images
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images), np.array(labels), tuple(folder.name for folder in folders)


def _read_image(file: Path, image_size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as source:
            if source.mode.startswith(("I", "F")):
                raise InputError(f"pixels of more than 8 bits (mode {source.mode})")
            image = ImageOps.exif_transpose(source).convert("L" if source.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"load: {file} must be a readable PNG or JPEG of 8 bits a channel. Received: {error}. Repair or remove it."
        ) from error
    if image_size is not None:
        image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
