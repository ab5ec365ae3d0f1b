"""Builders of segmentation models: images to one logit per pixel and class."""

from __future__ import annotations

import keras
from keras import layers

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.models.blocks import conv, image_input, separable
from tfkd.models.builder_arguments import check_positive


def unet(
    input_shape: tuple[int, ...], num_classes: int, filters: int = 16, depth: int = 3, light: bool = False
) -> keras.Model:
    """A small U-Net: an encoder, a decoder, and connections between equal resolutions.

    Input: [height, width, channels] pixels in 0..255. Output: [height, width, num_classes] logits. 489,460 parameters
    for 4 classes as it is; with `filters=8, light=True`, for a microcontroller, 11,196 (own design, counted by Keras).
    Differences from the paper: convolutions keep the resolution by padding, have BatchNorm, and the decoder repeats
    pixels instead of computing transposed convolutions.

    Args:
        input_shape: (height, width, channels); height and width are multiples of 2 ** depth.
        num_classes: Number of classes, >= 1.
        filters: Channels at full resolution, > 0; each lower resolution has twice as many.
        depth: Number of lower resolutions, > 0.
        light: Whether blocks are one depthwise-separable convolution instead of two convolutions.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Ronneberger et al.: U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597).
    """
    image, x = image_input("unet", input_shape, num_classes)
    check_positive("unet", filters=filters, depth=depth)
    step = 2**depth
    if input_shape[0] % step or input_shape[1] % step:
        raise InputError(
            f"unet: height and width must be multiples of {step}, 2 ** depth. Received: {input_shape[:2]}. Resize the "
            "images, or use a smaller depth."
        )
    skips = []
    for level in range(depth):
        x = _block(x, filters * 2**level, f"encoder{level}", light and level > 0)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
    x = _block(x, filters * 2**depth, "middle", light)
    for level in reversed(range(depth)):
        x = layers.UpSampling2D(2, name=f"decoder{level}_upsample")(x)
        x = layers.Concatenate(name=f"decoder{level}_concatenate")([x, skips[level]])
        x = _block(x, filters * 2**level, f"decoder{level}", light)
    return keras.Model(image, layers.Conv2D(num_classes, 1, name="logits")(x), name="unet")


def _block(x: Tensor, filters: int, name: str, light: bool) -> Tensor:
    if light:
        return separable(x, filters, name, use_bias=False)
    x = conv(x, filters, 3, f"{name}_1", use_bias=False)
    return conv(x, filters, 3, f"{name}_2", use_bias=False)
