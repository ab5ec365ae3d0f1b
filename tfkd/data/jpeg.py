"""Color JPEG files decoded by TensorFlow, in parallel and without Python; all other images by Pillow.

Both use libjpeg-turbo. With the accurate transform they give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# Images that are decoded at the same time.
_PARALLEL = 16


def lookup(
    files: Sequence[str], shape: tuple[int, ...], read: Callable[[np.ndarray], np.ndarray]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of the numbers of images, int64 [B], that returns them, uint8 [B, H, W, 3].

    Args:
        files: Path of each image.
        shape: (H, W, 3) of all images.
        read: Reads images by their numbers in another way, and raises an error that names a broken one.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):
        paths = tf.constant(files)
    spec = tf.TensorSpec(shape, tf.uint8)

    def by_pillow(rows: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [rows], tf.uint8), (None, *shape))

    def decode(content: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"), shape)

    def one(row: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(tf.gather(paths, row))
        return tf.cond(_is_plain(content, shape), lambda: decode(content), lambda: by_pillow(row[None])[0])

    def batch(rows: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(one, rows, fn_output_signature=spec, parallel_iterations=_PARALLEL)

    def look_up(rows: tf.Tensor) -> tf.Tensor:
        # Where TensorFlow cannot decode an image, Pillow reads the batch again: its error names the file.
        found = tf.data.Dataset.from_tensors(rows)
        tried = found.map(batch).ignore_errors().concatenate(found.map(by_pillow))
        return tf.ensure_shape(tried.take(1).get_single_element(), (None, *shape))

    return look_up


def _is_plain(content: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Whether the bytes of a file are a whole JPEG of this shape without EXIF data, which may turn the image."""
    import tensorflow as tf

    is_jpeg = tf.strings.substr(content, 0, 2) == b"\xff\xd8"
    is_whole = tf.strings.substr(content, -2, 2) == b"\xff\xd9"
    has_exif = tf.strings.regex_full_match(content, rb"\C*Exif\x00\x00\C*")
    return tf.cond(
        is_jpeg & is_whole & ~has_exif,
        lambda: tf.reduce_all(tf.image.extract_jpeg_shape(content) == tf.constant(shape)),
        lambda: False,
    )
