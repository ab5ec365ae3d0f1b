"""Augmentation of images, by layers of Keras whose random numbers come from the seed of each sample."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, ClassVar

from tfkd._internal import keras_compat
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_RANGE = (0, 255)


def check_range(name: str, option: str, value: float, low: float, high: float) -> None:
    """Raises unless an option of an augmentation is in low..high.

    Args:
        name: Name of the augmentation.
        option: Name of the option.
        value: Its value.
        low: Smallest permitted value.
        high: Largest permitted value.

    Raises:
        InputError: It is not.
    """
    if not low <= value <= high:
        raise InputError(f"augment: {option} of {name} must be in {low:g}..{high:g}. Received: {value}. Correct it.")


def check_image(name: str, x: tf.Tensor) -> None:
    """Raises unless a sample is an image.

    Args:
        name: Name of the augmentation.
        x: Sample.

    Raises:
        InputError: It does not have the shape [H, W, C].
    """
    if x.shape.rank != 3:
        raise InputError(f"augment: {name} needs images [H, W, C]. Received: shape {tuple(x.shape)}. Leave it out.")


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors half of the images left to right. Not for digits and letters."""

    name: ClassVar[str] = "flip"
    moves: ClassVar[bool] = True

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        check_image(self.name, x)
        return tf.where(self.mirrors(seed), tf.reverse(x, [1]), x)

    def mirrors(self, seed: tf.Tensor) -> tf.Tensor:
        """Whether the image of a seed is mirrored, bool []."""
        import tensorflow as tf

        return tf.random.stateless_uniform((), seed) < 0.5


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """A random part of the image, resized to its size.

    Args:
        smallest: Smallest share of the area, 0.01..1.
        stretch: Largest factor between width and height of the part, 1..4.

    Reference:
        Szegedy et al.: Going Deeper with Convolutions (arXiv:1409.4842), section 6.
    """

    name: ClassVar[str] = "resized_crop"
    moves: ClassVar[bool] = True
    smallest: float = 0.25
    stretch: float = 4 / 3

    def __post_init__(self) -> None:
        check_range(self.name, "smallest", self.smallest, 0.01, 1)
        check_range(self.name, "stretch", self.stretch, 1, 4)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        check_image(self.name, x)
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(x),
            tf.zeros((1, 0, 4)),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=(1 / self.stretch, self.stretch),
            area_range=(self.smallest, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.ensure_shape(tf.image.resize(tf.slice(x, begin, size), tf.shape(x)[:2], antialias=True), x.shape)


@dataclasses.dataclass(frozen=True)
class Rotation:
    """A rotation about the centre; what comes in from outside of the image is black.

    Args:
        degrees: Largest angle to either side, 0..180.
    """

    name: ClassVar[str] = "rotation"
    moves: ClassVar[bool] = True
    degrees: float = 15.0

    def __post_init__(self) -> None:
        check_range(self.name, "degrees", self.degrees, 0, 180)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return _apply(self.name, _layer("RandomRotation", factor=self.degrees / 360, fill_mode="constant"), x, seed)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and, of color images, saturation and hue.

    Args:
        brightness: Largest change as a share of 255, 0..1.
        contrast: Largest change of the contrast as a share, 0..1.
        saturation: Largest change of the saturation as a share, 0..1.
        hue: Largest shift of the hue as a share of the color circle, 0..0.5.
    """

    name: ClassVar[str] = "color_jitter"
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05

    def __post_init__(self) -> None:
        for option, high in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            check_range(self.name, option, getattr(self, option), 0, high)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        color = {}
        if x.shape[-1] == 3:
            # RandomSaturation multiplies by f / (1 - f), and RandomHue shifts by f / 2.
            factors = (1 - self.saturation, 1 + self.saturation)
            color = {"saturation_factor": tuple(one / (1 + one) for one in factors), "hue_factor": 2 * self.hue}
        layer = _layer(
            "RandomColorJitter",
            value_range=_RANGE,
            brightness_factor=self.brightness,
            contrast_factor=(self.contrast, self.contrast),  # down and up
            **color,
        )
        return _apply(self.name, layer, x, seed)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Some operations at random: shear, shift, rotation, brightness, color, contrast, sharpness, and others.

    Args:
        operations: Number of operations in a row, 1..8.
        magnitude: Their strength, 0..1.

    Reference:
        Cubuk et al.: RandAugment (arXiv:1909.13719).
    """

    name: ClassVar[str] = "rand_augment"
    moves: ClassVar[bool] = True
    operations: int = 2
    magnitude: float = 0.5

    def __post_init__(self) -> None:
        check_range(self.name, "operations", self.operations, 1, 8)
        check_range(self.name, "magnitude", self.magnitude, 0, 1)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        # Keras computes all operations for each image and keeps some. Here the chosen ones are computed.
        operations = keras_compat.inner_layers(_layer("RandAugment", value_range=_RANGE, factor=self.magnitude))

        @tf.function(reduce_retracing=True)  # traced once, whatever their number
        def apply_one(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            index = tf.random.stateless_uniform((), seed, 0, len(operations), tf.int32)
            apply = [functools.partial(_apply, self.name, layer, x, seed) for layer in operations]
            return tf.ensure_shape(tf.switch_case(index, apply), x.shape)

        for number in range(self.operations):
            x = apply_one(x, tf.random.fold_in(seed, number))
        return x


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A random rectangle of the image becomes black.

    Args:
        largest: Largest share of the area, 0..1.

    Reference:
        DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout (arXiv:1708.04552). Zhong
        et al.: Random Erasing Data Augmentation (arXiv:1708.04896).
    """

    name: ClassVar[str] = "cutout"
    largest: float = 0.25

    def __post_init__(self) -> None:
        check_range(self.name, "largest", self.largest, 0, 1)

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return _apply(
            self.name, _layer("RandomErasing", factor=(1.0, 1.0), scale=(0.0, self.largest), fill_value=0.0), x, seed
        )


@functools.cache
def _layer(name: str, **options: object) -> keras.Layer:
    """A layer of Keras; its variables cannot be created inside of `tf.data`."""
    import keras
    import tensorflow as tf

    with tf.init_scope():
        return getattr(keras.layers, name)(**options, dtype="float32")


def _apply(name: str, layer: keras.Layer, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """What a layer makes of an image with the random numbers of a seed."""
    import tensorflow as tf

    check_image(name, x)
    images = x[None]
    with keras_compat.random_numbers_of(layer, seed):
        found = layer.transform_images(images, layer.get_random_transformation(images, training=True), training=True)
    return tf.ensure_shape(tf.clip_by_value(found[0], *map(float, _RANGE)), x.shape)
