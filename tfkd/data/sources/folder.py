"""Folders of PNG and JPEG images with one sub-folder per class, or with `train/` and `test/` of that form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError


def read(request: Request) -> Arrays:
    """Reads the images of a folder as uint8 [N, H, W, C]; the names of the sub-folders are the class names.

    Raises:
        InputError: The folder has another structure, or an image is unreadable or has another size.
    """
    path, image_size = request.path, request.image_size
    name, location = path.resolve().name, str(path)
    parts = {folder.name for folder in _visible(path) if folder.is_dir()}
    if not parts & {"train", "test"}:
        x, y, names = _read_classes(path, image_size)
        return Arrays(x, y, class_names=names, name=name, location=location)
    if parts != {"train", "test"}:
        raise InputError(
            f"load: {path} must hold either train/ and test/ and no other folder, or class folders only. "
            f"Received: {', '.join(sorted(parts))}. Move validation images into train/: load splits them off itself."
        )
    x_train, y_train, names = _read_classes(path / "train", image_size)
    x_test, y_test, test_names = _read_classes(path / "test", image_size)
    if names != test_names:
        unpaired = ", ".join(sorted(set(names) ^ set(test_names)))
        raise InputError(
            f"load: {path}: train/ and test/ must have the same classes. Received: {unpaired} in one of them only."
        )
    return Arrays(x_train, y_train, x_test, y_test, names, name, location)


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
                f"load: {folder}: each class needs images. Received: an empty folder. Add images or remove the folder."
            )
        for file in files:
            images.append(_read_image(file, image_size))
            labels.append(label)
            if images[-1].shape[:2] != images[0].shape[:2]:
                raise InputError(
                    f"load: {file} must have the size of the first image, {images[0].shape[:2]} (height, width). "
                    f"Received: {images[-1].shape[:2]}. Resize the files, or in Python load them with "
                    f"tfkd.data.load(folder, image_size=(height, width))."
                )
    if len({image.shape for image in images}) > 1:  # some are grayscale, some in colour
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images), np.array(labels), tuple(folder.name for folder in folders)


def _read_image(file: Path, image_size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as source:
            if source.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of more than 8 bits (mode {source.mode})")
            image = ImageOps.exif_transpose(source).convert("L" if source.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"load: {file} must be a readable PNG or JPEG of 8 bits per channel. Received: {error}. Repair or remove "
            "it."
        ) from error
    if image_size is not None:
        image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


SOURCE = Source(accepts=lambda request: request.path.is_dir(), read=read, resizes=True)
