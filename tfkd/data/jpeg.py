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


def lookup(
    file_of: Callable[[tf.Tensor], tf.Tensor],
    shape: tuple[int, ...],
    read: Callable[[np.ndarray], np.ndarray],
    resize: Callable[[np.ndarray], np.ndarray] | None,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of the numbers of images, int64 [B], that returns them, uint8 [B, H, W, 3].

    Args:
        file_of: Function of the number of an image, int64 [], that returns its path, string [].
        shape: (H, W, 3) of all images.
        read: Reads images by their numbers in another way, and raises an error that names a broken one.
        resize: Brings the pixels of one image, uint8 [h, w, 3], to `shape`; None where another size is an error.
    """
    import tensorflow as tf

    def by_pillow(rows: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [rows], tf.uint8), (None, *shape))

    def fitted(pixels: tf.Tensor, has_shape: tf.Tensor) -> tf.Tensor:
        if resize is not None:
            pixels = tf.cond(has_shape, lambda: pixels, lambda: tf.numpy_function(resize, [pixels], tf.uint8))
        return tf.ensure_shape(pixels, shape)

    def one(row: tf.Tensor) -> tf.Tensor:
        """Decodes a plain image; any other raises, and `look_up` reads the batch again. A branch would cost more."""
        content = tf.io.read_file(file_of(row))
        size = tf.image.extract_jpeg_shape(content)
        has_shape = tf.reduce_all(size == tf.constant(shape))
        is_expected = has_shape if resize is None else tf.equal(size[2], 3)
        checked = tf.raw_ops.Assert(condition=_is_plain(content) & is_expected, data=[row])
        with tf.control_dependencies([checked]):
            return fitted(tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"), has_shape)

    def batch(rows: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(one, rows, fn_output_signature=spec, parallel_iterations=_PARALLEL)

    def look_up(rows: tf.Tensor) -> tf.Tensor:
        # Where TensorFlow cannot decode an image, Pillow reads the batch, and its error names a broken file.
        found = tf.data.Dataset.from_tensors(rows)
        tried = found.map(batch).ignore_errors().concatenate(found.map(by_pillow))
        return tf.ensure_shape(tried.take(1).get_single_element(), (None, *shape))

    return look_up


def _is_plain(content: tf.Tensor) -> tf.Tensor:
    """Whether the bytes of a JPEG are whole and without EXIF data, which may turn the image."""
    import tensorflow as tf

    is_whole = tf.strings.substr(content, -2, 2) == b"\xff\xd9"
    return is_whole & ~tf.strings.regex_full_match(content, rb"\C*Exif\x00\x00\C*")
