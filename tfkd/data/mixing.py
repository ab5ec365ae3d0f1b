"""Augmentation that mixes samples of a batch, and their labels: mixup and CutMix."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat
from tfkd.data.image_augmentation import check_range
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

NAMES = ("mixup", "cutmix")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixes each sample of a batch with another one of it; labels become mixtures of classes.

    Teacher and student get the same mixed batch. A store of the teacher's logits cannot hold mixtures, since they
    depend on the batch.

    Args:
        mixup: Parameter of the beta distribution from which the weights of mixup are drawn, > 0; None for no mixup.
        cutmix: The same for the area that CutMix takes from the other image, in 0..1; None for no CutMix. With both,
            one of them is chosen for each batch.

    Reference:
        Zhang et al.: mixup (arXiv:1710.09412). Yun et al.: CutMix (arXiv:1905.04899).
    """

    mixup: float | None = None
    cutmix: float | None = None

    def __post_init__(self) -> None:
        if self.mixup is not None:
            check_range("mixup", "alpha", self.mixup, 1e-3, 100)
        if self.cutmix is not None:
            check_range("cutmix", "alpha", self.cutmix, 1e-3, 1)

    def __call__(self, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes a batch.

        Args:
            x: Samples, float32 [B, ...].
            y: Labels, float32 [B, C], each row with the sum 1.
            seed: Seed of the batch, int32 [2].

        Returns:
            Mixed samples and labels, of the same shapes.

        Raises:
            InputError: CutMix of samples that are no images.
        """
        import tensorflow as tf

        if self.cutmix is not None and x.shape.rank != 4:
            raise InputError(
                f"augment: cutmix needs images [H, W, C]. Received: shape {tuple(x.shape[1:])}. Use mixup, which mixes "
                "any samples."
            )
        ways = []
        if self.mixup is not None:
            ways.append(functools.partial(_mix, _layer("MixUp", self.mixup), x, y, seed))
        if self.cutmix is not None:
            ways.append(functools.partial(_mix, _layer("CutMix", self.cutmix), x, y, seed))
        if len(ways) == 1:
            return ways[0]()
        chosen = tf.random.stateless_uniform((), tf.random.fold_in(seed, 0)) < 0.5
        return tf.cond(chosen, *ways)


@functools.cache
def _layer(name: str, alpha: float) -> keras.Layer:
    """A layer of Keras; its variables cannot be created inside of `tf.data`."""
    import keras
    import tensorflow as tf

    # CutMix draws the parameter of the distribution from a range.
    options = {"alpha": alpha} if name == "MixUp" else {"factor": (alpha, alpha)}
    with tf.init_scope():
        return getattr(keras.layers, name)(**options, dtype="float32")


def _mix(layer: keras.Layer, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    import tensorflow as tf

    images = x if x.shape.rank == 4 else tf.reshape(x, [tf.shape(x)[0], -1, 1, 1])
    with keras_compat.random_numbers_of(layer, seed):
        found = layer.get_random_transformation(images, training=True)
        mixed, labels = layer.transform_images(images, found), layer.transform_labels(y, found)
    return tf.ensure_shape(tf.reshape(mixed, tf.shape(x)), x.shape), tf.ensure_shape(labels, y.shape)
