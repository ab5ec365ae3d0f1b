"""Export of UpSampling1D, UpSampling2D, RepeatVector and Embedding in a form that all engines have ops for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@contextlib.contextmanager
def exportable(model: keras.Model) -> Iterator[None]:
    """Replaces the computation of layers by an equivalent one while the context is open.

    Layers that repeat values become RESIZE_NEAREST_NEIGHBOR instead of TILE. Embedding becomes GATHER alone: Keras also
    lets negative ids count from the end, with SELECT. TensorFlow Lite Micro has neither TILE nor SELECT.

    Args:
        model: Any Keras model; it is unchanged afterwards.
    """
    replaced = [(layer, call) for layer in keras_compat.inner_layers(model) if (call := _call(layer)) is not None]
    try:
        for layer, call in replaced:
            # Written to the instance's dictionary directly, since Keras tracks attributes that are assigned.
            layer.__dict__["call"] = call
        yield
    finally:
        for layer, _ in replaced:
            layer.__dict__.pop("call", None)


def _call(layer: keras.Layer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """A `call` for a layer of Keras itself, not of a subclass; None for a layer that stays as it is."""
    import keras
    import tensorflow as tf

    def resize(images: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
        return tf.image.resize(images, (images.shape[1] * rows, images.shape[2] * columns), method="nearest")

    def channels_first(images: tf.Tensor) -> tf.Tensor:
        return tf.transpose(resize(tf.transpose(images, (0, 2, 3, 1)), *layer.size), (0, 3, 1, 2))

    if type(layer) is keras.layers.Embedding:
        return lambda ids: tf.gather(tf.convert_to_tensor(layer.embeddings), tf.cast(ids, "int32"))
    if type(layer) is keras.layers.UpSampling1D:
        return lambda sequences: tf.squeeze(resize(tf.expand_dims(sequences, 2), layer.size, 1), 2)
    if type(layer) is keras.layers.RepeatVector:
        return lambda vectors: tf.squeeze(resize(tf.expand_dims(tf.expand_dims(vectors, 1), 1), layer.n, 1), 2)
    if type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest":
        last = layer.data_format == "channels_last"
        return (lambda images: resize(images, *layer.size)) if last else channels_first
    return None
