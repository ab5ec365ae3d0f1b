"""Builders of detectors: images to logits of grid cells, or to offsets and logits of anchors."""

from __future__ import annotations

import keras
from keras import layers

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.models.blocks import conv, image_input, inverted_residual, separable
from tfkd.models.builder_arguments import check_positive

# Filters and strides of the first blocks of MobileNetV1, up to a stride of 16.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
_STRIDES = (4, 8, 16)


def grid_detector(
    input_shape: tuple[int, ...], num_classes: int, alpha: float = 0.25, stride: int = 8, head: int = 32
) -> keras.Model:
    """The first blocks of MobileNetV1 and a logit for each cell and class: the form that Edge Impulse calls FOMO.

    Input: [height, width, channels] pixels in 0..255. Output: [height / stride, width / stride, num_classes] logits,
    of which the first is the background. 13,172 parameters for 4 outputs as it is (own design, counted by Keras).

    Args:
        input_shape: (height, width, channels); height and width are multiples of `stride`.
        num_classes: Number of classes and one for the background.
        alpha: Width multiplier, > 0; at 1.0 the first convolution has 32 channels.
        stride: Side of a cell in pixels: 4, 8 or 16.
        head: Channels of the convolution before the logits, > 0.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications
        (arXiv:1704.04861), table 1.
    """
    image, x = image_input("grid_detector", input_shape, num_classes)
    check_positive("grid_detector", alpha=alpha, head=head)
    if stride not in _STRIDES or input_shape[0] % stride or input_shape[1] % stride:
        raise InputError(
            f"grid_detector: stride must be {', '.join(map(str, _STRIDES))} and divide height and width. Received: "
            f"stride={stride} for {input_shape[:2]}. Resize the images, or use another stride."
        )
    x = conv(x, max(1, int(32 * alpha)), 3, "stem", strides=2, use_bias=False)
    reached = 2
    for block, (filters, strides) in enumerate(_BLOCKS, 1):
        if reached * strides > stride:
            break
        reached *= strides
        x = separable(x, max(1, int(filters * alpha)), f"block{block}", strides=strides, use_bias=False)
    x = conv(x, head, 1, "head", use_bias=False)
    return keras.Model(image, layers.Conv2D(num_classes, 1, name="logits")(x), name="grid_detector")


def ssdlite(
    input_shape: tuple[int, ...], num_classes: int, alpha: float = 0.35, levels: int = 2, head: int = 48, bins: int = 1
) -> keras.Model:
    """An SSDLite-like detector on inverted residuals of MobileNetV2, with the anchors of `tfkd.tasks.anchors`.

    Input: [height, width, channels] pixels in 0..255. Output: [anchors, num_classes] values: four offsets of a box and
    one logit for each class. 17,935 parameters for 3 classes (num_classes 7) as it is (own design, counted by Keras).

    Args:
        input_shape: (height, width, channels), at least 32x32.
        num_classes: 4 and the number of classes.
        alpha: Width multiplier of the blocks, > 0; at 1.0 they have 16, 24, 32, 64 and 96 channels.
        levels: Number of resolutions with anchors, 2 or 3: strides 8 and 16, and 32.
        head: Channels before the outputs, > 0.
        bins: 1 for offsets as they are. With more, an offset is the mean of a distribution over that many values in
            -6..6, whose logits are the layer `distributions`, [anchors, 4, bins], for localization distillation.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks (arXiv:1801.04381), sections 3.2 and 6.2;
        distributions: Li et al.: Generalized Focal Loss (arXiv:2006.04388), section 3.2.
    """
    image, x = image_input("ssdlite", input_shape, num_classes)
    check_positive("ssdlite", alpha=alpha, head=head, bins=bins)
    if levels not in (2, 3) or num_classes < 5 or min(input_shape[:2]) < 32:
        raise InputError(
            "ssdlite: levels must be 2 or 3, num_classes 4 and the number of classes, and images at least 32x32. "
            f"Received: levels={levels}, num_classes={num_classes} and {input_shape[:2]}. Correct them."
        )
    counts = [max(8, int(filters * alpha)) for filters in (16, 24, 32, 64, 96)]
    x = conv(x, max(8, int(32 * alpha)), 3, "stem", strides=2, use_bias=False)
    x = separable(x, counts[0], "block1", use_bias=False)
    x = inverted_residual(x, counts[1], "block2", strides=2)
    x = inverted_residual(x, counts[1], "block3")
    found = []
    for level in range(levels):
        x = inverted_residual(x, counts[2 + level], f"block{4 + 2 * level}", strides=2)
        x = inverted_residual(x, counts[2 + level], f"block{5 + 2 * level}")
        found.append(_predictions(x, num_classes - 4, head, bins, f"level{level}"))
    if bins == 1:
        rows = [layers.Concatenate(axis=-1, name=f"level{level}_rows")(one) for level, one in enumerate(found)]
        return keras.Model(image, layers.Concatenate(axis=1, name="outputs")(rows), name="ssdlite")
    rows, logits = (
        layers.Concatenate(axis=1, name=name)(list(one))
        for name, one in zip(("offset_rows", "logits"), zip(*found, strict=True), strict=True)
    )
    distributions = layers.Reshape((-1, 4, bins), name="distributions")(rows)
    values = [[_REACH * (2 * place / (bins - 1) - 1)] for place in range(bins)]
    mean = layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(values), name="mean_offsets")
    mean.trainable = False
    offsets = layers.Reshape((-1, 4), name="offsets")(mean(layers.Softmax(name="shares")(distributions)))
    outputs = layers.Concatenate(axis=-1, name="outputs")([offsets, logits])
    return keras.Model(image, outputs, name="ssdlite")


# Anchors in each cell, see `tfkd.tasks.anchors`.
_ANCHORS = 3
# Logit of a probability of 5 %, that most anchors start with: few have an object.
_RARE = -3.0
# Largest offset that a distribution can say: 0.6 of the width of an anchor, or a size 3.3 times its own.
_REACH = 6.0


def _predictions(x: Tensor, classes: int, head: int, bins: int, name: str) -> tuple[Tensor, Tensor]:
    """Offsets or the logits of their distributions, [anchors, 4 · bins], and logits [anchors, classes]; one level."""
    x = separable(x, head, f"{name}_head", use_bias=False)
    offsets = layers.Conv2D(4 * bins * _ANCHORS, 1, name=f"{name}_offsets")(x)
    rare = keras.initializers.Constant(_RARE)
    logits = layers.Conv2D(classes * _ANCHORS, 1, bias_initializer=rare, name=f"{name}_logits")(x)
    rows = [
        layers.Reshape((-1, count), name=f"{name}_{kind}_rows")(values)
        for kind, count, values in (("offsets", 4 * bins, offsets), ("logits", classes, logits))
    ]
    return rows[0], rows[1]
