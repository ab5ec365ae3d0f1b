"""Color JPEG files decoded by TensorFlow, in parallel and without Python; all other images by Pillow.

Both use libjpeg-turbo. With the accurate transform they give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# Images of a batch that are decoded at the same time.
_PARALLEL = 16
# What only Pillow reads as it should: EXIF data of either byte order with an orientation of 2 to 8 (0x0112, type SHORT,
# one value), of another type, or of several values, of which Pillow takes the first; EXIF data in several parts, or
# with places of 64 bits; an orientation in XMP data; a frame of four components, which are CMYK.
_OTHERS = (
    rb"\x12\x01(\x03\x00(\x01\x00\x00\x00[\x02-\x08]|[\x02-\x7f]\x00\x00\x00)|[\x00-\x02\x04-\x1f]\x00\C\x00\x00\x00)",
    rb"\x01\x12\x00(\x03\x00\x00\x00(\x01\x00[\x02-\x08]|[\x02-\x7f])|[\x00-\x02\x04-\x1f]\x00\x00\x00)",
    rb"Exif\x00\x00(II\+|MM\x00\+|\C*Exif\x00\x00)",
    rb"tiff:Orientation",
    rb"\x00\x14\x08\C\C\C\C\x04",
)


def lookup(
    file_of: Callable[[tf.Tensor], tf.Tensor],
    shape: tuple[int, ...],
    read: Callable[[np.ndarray], np.ndarray],
    resize: Callable[[tf.Tensor], tf.Tensor] | None,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of the numbers of images, int64 [B], that returns them, uint8 [B, H, W, 3].

    It raises where TensorFlow cannot decode a file that looks like a plain JPEG.

    Args:
        file_of: Function of the number of an image, int64 [], that returns its path, string [].
        shape: (H, W, 3) of all images.
        read: Reads images by their numbers with Pillow, and raises an error that names a broken one.
        resize: Brings the pixels of one image, uint8 [h, w, 3], to `shape`; None where another size is an error.
    """
    import tensorflow as tf

    def one(row: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(file_of(row))

        def by_pillow() -> tf.Tensor:
            return tf.numpy_function(lambda number: read(number[None])[0], [row], tf.uint8)

        def decoded() -> tf.Tensor:
            pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
            has_shape = tf.reduce_all(tf.shape(pixels) == tf.constant(shape))
            return tf.cond(has_shape, lambda: pixels, by_pillow if resize is None else lambda: resize(pixels))

        return tf.ensure_shape(tf.cond(_is_plain(content), decoded, by_pillow), shape)

    def look_up(rows: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec(shape, tf.uint8)
        images = tf.map_fn(one, rows, fn_output_signature=spec, parallel_iterations=_PARALLEL)
        return tf.ensure_shape(images, (None, *shape))

    return look_up


def _is_plain(content: tf.Tensor) -> tf.Tensor:
    """Whether the bytes of an image are a whole JPEG of which TensorFlow decodes the pixels of Pillow."""
    import tensorflow as tf

    begins = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    ends = tf.strings.substr(content, -2, 2) == b"\xff\xd9"
    return begins & ends & ~tf.strings.regex_full_match(content, rb"\C*(" + rb"|".join(_OTHERS) + rb")\C*")
