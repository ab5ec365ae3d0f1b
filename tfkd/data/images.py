"""Image files as arrays: decoded, turned upright, cropped and resized."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfkd.data import interpolation, jpeg, lazy
from tfkd.data.lazy import LazySamples
from tfkd.data.reading import ALIASED, ReadingOptions
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
OPTIONS = ("image_size", "color", "resize", "crop", "skip_broken")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# Images of a large data set whose color is examined.
_EXAMINED = 1000
# Number of the EXIF tag for the orientation, and its values that exchange width and height.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
# Files that a message lists.
_LISTED = 3
# Calls that wait for a thread.
_WAITING = 1024
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

log = logging.getLogger("tfkd")


def is_image(name: str) -> bool:
    """Whether a file name has one of `SUFFIXES`."""
    return name.lower().endswith(SUFFIXES)


def listed(names: Sequence[object]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(map(str, names[:_LISTED])) + more


def decode(file: object, options: ReadingOptions, content: bytes | None = None) -> np.ndarray:
    """One image as uint8 [H, W, C]; of a GIF the first frame. Transparency is dropped.

    Args:
        file: PNG, JPEG, WebP, BMP or GIF with up to 8 bits per channel. The orientation in its EXIF data is applied.
        options: Size, color, filter and crop.
        content: The bytes of the image where it is no file; `file` is then its name in messages.

    Raises:
        InputError: The file cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened: Any = file if content is None else io.BytesIO(content)
        with Image.open(opened, formats=_FORMATS) as source:
            if source.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of more than 8 bits (mode {source.mode})")
            gray = options.color == "gray" or (options.color is None and source.mode in ("1", "L", "LA"))
            source.load()
            upright = ImageOps.exif_transpose(source) if source.getexif().get(_ORIENTATION, 1) != 1 else source
            mode = "L" if gray else "RGB"
            if upright.mode == "P" and isinstance(upright.info.get("transparency"), bytes):
                upright = upright.convert("RGBA")  # Pillow warns on the terminal where this step is left out
            image = upright if upright.mode == mode else upright.convert(mode)
            array = np.asarray(_fitted(image, options))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow names the object that it read.
        fault = "bytes of another format" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(
            f"load: {file} must be a readable PNG, JPEG, WebP, BMP or GIF of 8 bits per channel. Received: {fault}. "
            f"Repair or remove it{', or pass skip_broken=True' if content is None else ''}."
        ) from error
    return array[..., None] if array.ndim == 2 else array


def size_of(file: object, content: bytes | None = None) -> tuple[int, int]:
    """Width and height in pixels that an image file declares, in the orientation of `decode`.

    Args:
        file: Image file.
        content: The bytes of the image where it is no file; `file` is then its name in messages.

    Raises:
        InputError: The file cannot be read.
    """
    from PIL import Image

    try:
        opened: Any = file if content is None else io.BytesIO(content)
        with Image.open(opened, formats=_FORMATS) as source:
            width, height = source.size
            turned = source.getexif().get(_ORIENTATION, 1) in _TURNED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"load: {file} must be a readable image. Received: {error}. Repair or remove it.") from error
    return (height, width) if turned else (width, height)


def fitted(pixels: np.ndarray, options: ReadingOptions) -> np.ndarray:
    """Pixels in memory, uint8 [H, W, C], with color, size and crop of the options applied, as `decode` does."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    gray = options.color == "gray" or (options.color is None and image.mode == "L")
    mode = "L" if gray else "RGB"
    array = np.asarray(_fitted(image if image.mode == mode else image.convert(mode), options))
    return array[..., None] if array.ndim == 2 else array


def _fitted(image: Image.Image, options: ReadingOptions) -> Image.Image:
    from PIL import Image, ImageOps

    if options.image_size is None:
        return image
    size = options.image_size[::-1]
    if image.size == size:
        return image
    if options.resize == ALIASED:
        return Image.fromarray(interpolation.fitted(np.asarray(image), size, options.crop))
    resampling = Image.Resampling[options.resize.upper()]
    if options.crop == "center":
        return ImageOps.fit(image, size, resampling)
    if options.crop == "pad":
        return ImageOps.pad(image, size, resampling)
    return image.resize(size, resampling)


def read(
    location: str, root: Path, paths: np.ndarray, options: ReadingOptions
) -> tuple[np.ndarray | LazySamples, np.ndarray]:
    """Reads images of one size, several at a time; those of a large data set when they are used.

    Args:
        location: The data set, for messages.
        root: Folder that the paths are relative to.
        paths: Files to read, at least one, str [N].
        options: Size, color, filter, crop, and whether broken images are left out, for which all are read once.

    Returns:
        The images, uint8 [N, H, W, C], and the positions of their files, int64 [N]: all, unless some are left out.

    Raises:
        InputError: An image cannot be read, or has another size than the first.
    """
    first = next((one for path in paths if isinstance(one := _try(root / path, options), np.ndarray)), None)
    if first is None:
        raise InputError(
            f"load: {location} must have readable images. Received: {len(paths)} broken ones. Repair them."
        )
    is_large = first.size * len(paths) > lazy.IN_MEMORY_BYTES or len(paths) > lazy.IN_MEMORY_FILES
    rows, found = np.arange(len(paths)), list[np.ndarray | InputError | None]()
    if not is_large or options.skip_broken:
        found = list(in_parallel(lambda path: _try(root / path, options, keep=not is_large), paths))
        rows = np.array([row for row, one in enumerate(found) if not isinstance(one, InputError)], np.int64)
    if len(rows) < len(paths):
        broken = [path for path, one in zip(paths, found, strict=True) if isinstance(one, InputError)]
        log.warning("%s: images that cannot be read are left out (%s): %s.", location, len(broken), listed(broken))
    if not is_large:
        images = [one for one in found if isinstance(one, np.ndarray)]
        return _stacked([root / paths[row] for row in rows], images), rows
    if options.color is None and not _look_gray(root, paths[rows]):
        options = dataclasses.replace(options, color="rgb")
        first = decode(root / paths[rows[0]], options)
    kind = ColorReader if first.shape[2] == 3 else ImageReader
    return LazySamples(kind(root, paths, options, first.shape), rows), rows


def _try(file: Path, options: ReadingOptions, *, keep: bool = True) -> np.ndarray | InputError | None:
    """An image if it is kept, or the error of one that is broken and may be left out."""
    try:
        image = decode(file, options)
    except InputError as error:
        if options.skip_broken:
            return error
        raise
    return image if keep else None


def _look_gray(root: Path, paths: np.ndarray) -> bool:
    """Whether up to 1,000 images of a large data set, which are spread over it, are gray."""
    from PIL import Image

    for path in paths[:: max(1, len(paths) // _EXAMINED)]:
        # Only the beginning of the file is read. A broken image is an error where it is used.
        with contextlib.suppress(OSError, SyntaxError), Image.open(root / path, formats=_FORMATS) as image:
            if image.mode not in ("1", "L", "LA"):
                return False
    return True


@functools.cache
def pool() -> ThreadPoolExecutor:
    """Threads that decode files: Pillow and libsndfile release the interpreter's lock while they decode."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tfkd-images")


def in_parallel(function: Callable[[_Item], _Result], items: Sequence[_Item] | np.ndarray) -> Iterator[_Result]:
    """What a function returns for each item, in their order; several are computed at a time, and only some wait.

    Args:
        function: Function of one item.
        items: The items; a call that waits needs more memory than an item.
    """
    for start in range(0, len(items), _WAITING):
        yield from pool().map(function, items[start : start + _WAITING])


class ImageReader:
    """Decodes image files when they are used.

    Args:
        root: Folder that the paths are relative to.
        paths: The files, str [N].
        options: Size, color, filter and crop.
        shape: (height, width, channels) of all images.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: Path, paths: np.ndarray, options: ReadingOptions, shape: tuple[int, ...]) -> None:
        self._root, self._paths, self._options, self.sample_shape = root, paths, options, shape

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images with these numbers, uint8 [len(rows), H, W, C].

        Raises:
            InputError: An image cannot be read, or has another size or color than the first.
        """
        images = np.empty((len(rows), *self.sample_shape), np.uint8)

        def one(place: int) -> None:
            file = self._root / self._paths[rows[place]]
            image = decode(file, self._options)
            if image.shape[2] != self.sample_shape[2]:
                raise InputError(
                    f"load: {file} must be gray, as the first images are. Received: colors. Pass color='rgb' or "
                    "color='gray' for all."
                )
            if image.shape != self.sample_shape:
                raise _other_size(file, image, self.sample_shape)
            images[place] = image

        list(pool().map(one, range(len(rows))))
        return images

    def fingerprint(self, rows: np.ndarray) -> Iterator[bytes]:
        """The options, and a hash of each file."""
        yield repr(self._options).encode()

        def one(row: int) -> bytes:
            with (self._root / self._paths[row]).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()

        yield from in_parallel(one, rows)


class ColorReader(ImageReader):
    """Decodes color images; those whose pixels `tf.data` computes as Pillow does inside of `tf.data`."""

    def lookup(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function of the numbers of images, int64 [B], that returns them, uint8 [B, H, W, 3]."""
        import tensorflow as tf

        options, (prefix, files) = self._options, self._files

        def resize(pixels: tf.Tensor) -> tf.Tensor:
            if options.resize == ALIASED and options.crop == "none":
                return tf.cast(tf.round(tf.image.resize(pixels, options.image_size)), tf.uint8)
            return tf.numpy_function(lambda image: fitted(image, options), [pixels], tf.uint8)

        return jpeg.lookup(
            lambda row: prefix + tf.gather(files, row),
            self.sample_shape,
            self.read,
            None if options.image_size is None else resize,
        )

    @functools.cached_property
    def _files(self) -> tuple[bytes, tf.Tensor]:
        """The path of each file: a common beginning, and the rest as a string [N]."""
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            if os.sep == "/" and all(path.isascii() and not path.startswith("/") for path in self._paths):
                # TensorFlow keeps texts of up to 22 bytes without memory of their own.
                common = os.path.commonprefix([self._paths.min(), self._paths.max()])
                rests = np.array([path[len(common) :] for path in self._paths], object)
                return os.path.join(os.fsencode(self._root), os.fsencode(common)), tf.constant(rests)
            return b"", tf.constant([os.fsencode(self._root / path) for path in self._paths])


def _stacked(files: Sequence[Path], images: list[np.ndarray]) -> np.ndarray:
    for file, image in zip(files, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise _other_size(file, image, images[0].shape)
    if len({image.shape for image in images}) > 1:  # some are gray, some in color
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images)


def _other_size(file: Path, image: np.ndarray, shape: tuple[int, ...]) -> InputError:
    return InputError(
        f"load: {file} must have the size of the first image, {shape[:2]} (height, width). Received: "
        f"{image.shape[:2]}. Pass image_size=(96, 96) or another size to resize all."
    )
