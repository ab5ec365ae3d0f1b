"""Builders of keypoint models: images to one heatmap for each point."""

from __future__ import annotations

import keras
from keras import layers

from tfkd.errors import InputError
from tfkd.models.blocks import conv, image_input, separable
from tfkd.models.builder_arguments import check_positive

# Stride of the coarsest features.
_COARSEST = 16


def heatmap_net(input_shape: tuple[int, ...], num_classes: int, filters: int = 16) -> keras.Model:
    """Depthwise-separable features at strides 4, 8 and 16, joined from the coarsest to the finest, and heatmaps.

    The form of MoveNet without its offsets: a light backbone, a feature pyramid, and a heatmap of each point at a
    quarter of the resolution. Input: [height, width, channels] pixels in 0..255. Output: [height / 4, width / 4,
    num_classes] logits. 14,435 parameters for 3 points as it is (own design, counted by Keras).

    Args:
        input_shape: (height, width, channels); height and width are multiples of 16.
        num_classes: Number of points, >= 1.
        filters: Channels at stride 4, > 0; twice and four times as many at strides 8 and 16.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Votel, Li: Next-Generation Pose Detection with MoveNet and TensorFlow.js, 2021; Lin et al.: Feature Pyramid
        Networks for Object Detection (arXiv:1612.03144), section 3.
    """
    image, x = image_input("heatmap_net", input_shape, num_classes)
    check_positive("heatmap_net", filters=filters)
    if input_shape[0] % _COARSEST or input_shape[1] % _COARSEST:
        raise InputError(
            f"heatmap_net: height and width must be multiples of {_COARSEST}. Received: {input_shape[:2]}. Resize the "
            "images."
        )
    x = conv(x, filters, 3, "stem", strides=2, use_bias=False)
    levels = []
    for level, count in enumerate((filters, 2 * filters, 4 * filters)):
        x = separable(x, count, f"stage{level}_1", strides=2, use_bias=False)
        x = separable(x, count, f"stage{level}_2", use_bias=False)
        levels.append(x)
    x = conv(levels[2], filters, 1, "lateral2", use_bias=False)
    for level in (1, 0):
        upsampled = layers.UpSampling2D(2, name=f"upsample{level}")(x)
        lateral = conv(levels[level], filters, 1, f"lateral{level}", use_bias=False)
        x = layers.Add(name=f"add{level}")([lateral, upsampled])
    x = separable(x, filters, "head", use_bias=False)
    return keras.Model(image, layers.Conv2D(num_classes, 1, name="logits")(x), name="heatmap_net")
