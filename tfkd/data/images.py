"""Image files as arrays: decoded, turned upright, cropped and resized."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
OPTIONS = ("image_size", "color", "resize", "crop", "skip_broken")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# Files that a message lists.
_LISTED = 3

log = logging.getLogger("tfkd")


def is_image(name: str) -> bool:
    """Whether a file name has one of `SUFFIXES`."""
    return name.lower().endswith(SUFFIXES)


def listed(names: Sequence[object]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(map(str, names[:_LISTED])) + more


def decode(file: Path, options: ReadingOptions) -> np.ndarray:
    """One image as uint8 [H, W, C]; of a GIF the first frame. Transparency is dropped.

    Args:
        file: PNG, JPEG, WebP, BMP or GIF with up to 8 bits per channel. The orientation in its EXIF data is applied.
        options: Size, color, filter and crop.

    Raises:
        InputError: The file cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=_FORMATS) as source:
            if source.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of more than 8 bits (mode {source.mode})")
            gray = options.color == "gray" or (options.color is None and source.mode in ("1", "L", "LA"))
            image = ImageOps.exif_transpose(source).convert("L" if gray else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"load: {file} must be a readable PNG, JPEG, WebP, BMP or GIF of 8 bits per channel. Received: {error}. "
            "Repair or remove it, or pass skip_broken=True."
        ) from error
    array = np.asarray(_fitted(image, options))
    return array[..., None] if array.ndim == 2 else array


def _fitted(image: Image.Image, options: ReadingOptions) -> Image.Image:
    from PIL import Image, ImageOps

    if options.image_size is None:
        return image
    size, resampling = options.image_size[::-1], Image.Resampling[options.resize.upper()]
    if options.crop == "center":
        return ImageOps.fit(image, size, resampling)
    if options.crop == "pad":
        return ImageOps.pad(image, size, resampling)
    return image.resize(size, resampling)


def read(
    location: str, files: Sequence[Path], options: ReadingOptions, decoder: Callable[..., np.ndarray] = decode
) -> tuple[np.ndarray, np.ndarray]:
    """Reads images of one size, several at a time.

    Args:
        location: The data set, for messages.
        files: Files to read, at least one.
        options: Size, color, filter, crop, and whether broken images are left out.
        decoder: Function of a file and the options.

    Returns:
        The images, uint8 [N, H, W, C], and the positions of their files, int64 [N]: all, unless some are left out.

    Raises:
        InputError: An image cannot be read, or has another size than the first.
    """

    def one(file: Path) -> np.ndarray | InputError:
        try:
            return decoder(file, options)
        except InputError as error:
            if options.skip_broken:
                return error
            raise

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter's lock while it decodes
        found = list(pool.map(one, files))
    rows = np.array([row for row, image in enumerate(found) if isinstance(image, np.ndarray)], np.int64)
    if len(rows) < len(files):
        broken = [file for file, image in zip(files, found, strict=True) if isinstance(image, InputError)]
        log.warning("%s: %s images cannot be read and are left out: %s.", location, len(broken), listed(broken))
    if not len(rows):
        raise InputError(
            f"load: {location} must have readable images. Received: {len(files)} broken ones. Repair them."
        )
    return _stacked([files[row] for row in rows], [image for image in found if isinstance(image, np.ndarray)]), rows


def _stacked(files: Sequence[Path], images: list[np.ndarray]) -> np.ndarray:
    for file, image in zip(files, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise InputError(
                f"load: {file} must have the size of the first image, {images[0].shape[:2]} (height, width). "
                f"Received: {image.shape[:2]}. Pass image_size=(96, 96) or another size to resize all."
            )
    if len({image.shape for image in images}) > 1:  # some are gray, some in color
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images)
