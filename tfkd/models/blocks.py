"""Blocks that several builders use; names of layers begin with the name of their block."""

from __future__ import annotations

import keras
from keras import layers

from tfkd._internal.types import Tensor
from tfkd.models.builder_arguments import check
from tfkd.models.pretrained import MOMENTUM

HE = {"kernel_initializer": "he_normal"}


def image_input(
    where: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    scale: float = 1 / 255,
    offset: float | list[float] = 0.0,
) -> tuple[Tensor, Tensor]:
    """An image input, and the image scaled inside the model."""
    check(where, input_shape, num_classes, ("height", "width", "channels"))
    image = keras.Input(input_shape, name="image")
    return image, layers.Rescaling(scale, offset, name="rescaling")(image)


def conv(
    x: Tensor,
    filters: int,
    kernel: int | tuple[int, int],
    name: str,
    *,
    strides: int = 1,
    relu: bool = True,
    use_bias: bool = True,
) -> Tensor:
    """A convolution with BatchNorm and optional ReLU."""
    conv = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=use_bias, name=f"{name}_conv", **HE)
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(conv(x))
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def separable(
    x: Tensor, filters: int, name: str, *, strides: int = 1, kernel: int = 3, use_bias: bool = True
) -> Tensor:
    """A depthwise and a pointwise convolution, each with BatchNorm and ReLU."""
    x = layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=use_bias, name=f"{name}_depthwise")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    return conv(x, filters, 1, f"{name}_pointwise", use_bias=use_bias)


def pool(x: Tensor) -> Tensor:
    """The mean over all positions, as an AVERAGE_POOL_2D like in MLPerf Tiny; GlobalAveragePooling2D becomes a MEAN."""
    return layers.Flatten(name="flatten")(layers.AveragePooling2D(x.shape[1:3], name="pool")(x))


def inverted_residual(x: Tensor, filters: int, name: str, *, strides: int = 1, expansion: int = 4) -> Tensor:
    """An expanding, a depthwise and a linear pointwise convolution, with a shortcut where the shape stays.

    Reference:
        Sandler et al.: MobileNetV2 (arXiv:1801.04381), section 3.3.
    """
    y = conv(x, expansion * x.shape[-1], 1, f"{name}_expand", use_bias=False)
    y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise")(y)
    y = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_depthwise_bn")(y)
    y = layers.ReLU(name=f"{name}_depthwise_relu")(y)
    y = conv(y, filters, 1, f"{name}_project", relu=False, use_bias=False)
    same = strides == 1 and x.shape[-1] == filters
    return layers.Add(name=f"{name}_add")([x, y]) if same else y
