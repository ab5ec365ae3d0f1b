"""Builders of teacher and student models.

All classifiers return logits: where the published model ends in softmax, it is left out. Image models take pixels in
0..255 and scale them inside the model. Only built-in Keras layers are used, so that a saved model loads without tfkd.
Shapes below leave out the batch axis.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.models.blocks import HE, conv, image_input, pool, separable
from tfkd.models.builder_arguments import check, check_positive
from tfkd.models.detection import grid_detector, ssdlite
from tfkd.models.keypoints import heatmap_net
from tfkd.models.pretrained import MOMENTUM, application
from tfkd.models.segmentation import unet
from tfkd.models.sequences import frame_cnn, frame_gru, gru, lstm, sensor_cnn
from tfkd.models.tables import mlp
from tfkd.models.text import text_encoder

# The registry: one line per builder, in the order in which help texts list them.
__all__ = [
    "digits_teacher",
    "digits_student",
    "resnet8",
    "resnet_cifar",
    "ds_cnn",
    "mlp",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet50",
    "autoencoder",
    "gru",
    "lstm",
    "unet",
    "grid_detector",
    "heatmap_net",
    "ssdlite",
    "frame_cnn",
    "frame_gru",
    "sensor_cnn",
    "text_encoder",
]


def digits_teacher(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A plain CNN for small images.

    Input: [height, width, channels] pixels in 0..255. Output: [num_classes] logits. 65,834 parameters for an 8x8x1
    input and 10 classes (own design, counted by Keras).

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: Number of classes or of other outputs, >= 1.

    Raises:
        InputError: An argument is out of range.
    """
    image, x = image_input("digits_teacher", input_shape, num_classes)
    x = conv(x, 32, 3, "conv1", use_bias=False)
    x = conv(x, 64, 3, "conv2", strides=2, use_bias=False)
    x = conv(x, 64, 3, "conv3", use_bias=False)
    x = layers.Dropout(0.2, name="dropout")(pool(x))
    x = layers.Dense(128, activation="relu", name="dense")(x)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(x), name="digits_teacher")


def digits_student(
    input_shape: tuple[int, ...], num_classes: int, width: int = 8, blocks: int = 2, kernel: int = 3
) -> keras.Model:
    """A depthwise-separable CNN for small images on a microcontroller.

    Input: [height, width, channels] pixels in 0..255. Output: [num_classes] logits. 1,578 parameters for an 8x8x1
    input and 10 classes (own design, counted by Keras). It needs a high learning rate: the default of a recipe, or Adam
    with a cosine decay from 0.01.

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: Number of classes or of other outputs, >= 1.
        width: Channels of the first convolution, > 0. Each block has twice those of the layer before it.
        blocks: Number of depthwise-separable blocks, > 0; the first halves height and width.
        kernel: Height and width of the first convolution and of the depthwise ones, > 0.

    Raises:
        InputError: An argument is out of range.
    """
    image, x = image_input("digits_student", input_shape, num_classes)
    check_positive("digits_student", width=width, blocks=blocks, kernel=kernel)
    x = conv(x, width, kernel, "conv1", use_bias=False)
    for block in range(1, blocks + 1):
        strides = 2 if block == 1 else 1
        x = separable(x, width * 2**block, f"block{block}", strides=strides, kernel=kernel, use_bias=False)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(pool(x)), name="digits_student")


def resnet8(input_shape: tuple[int, ...], num_classes: int, width: int = 16) -> keras.Model:
    """The image classification model of MLPerf Tiny.

    Input: [height, width, channels] pixels in 0..255. Output: [num_classes] logits. 78,666 parameters for a 32x32x3
    input and 10 classes, as the reference implementation has. Two differences from the reference: the input is scaled
    to 0..1 inside the model, and the L2 regularization of 1e-4 is left to the optimizer's `weight_decay`.

    Args:
        input_shape: (height, width, channels).
        num_classes: Number of classes or of other outputs, >= 1.
        width: Channels of the first stage, > 0; the next two have twice and four times as many.

    Raises:
        InputError: An argument is out of range.

    >>> resnet8((32, 32, 3), 10).count_params()
    78666

    Reference:
        Banbury et al.: MLPerf Tiny Benchmark (arXiv:2106.07597); github.com/mlcommons/tiny,
        benchmark/training/image_classification.
    """
    image, x = image_input("resnet8", input_shape, num_classes)
    check_positive("resnet8", width=width)
    x = conv(x, width, 3, "stem")
    for stage, filters in enumerate((width, 2 * width, 4 * width), 1):
        strides, name = (1 if stage == 1 else 2), f"stage{stage}"
        y = conv(x, filters, 3, f"{name}_conv1", strides=strides)
        y = conv(y, filters, 3, f"{name}_conv2", relu=False)
        if strides == 2:
            x = layers.Conv2D(filters, 1, strides=2, padding="same", name=f"{name}_shortcut", **HE)(x)
        x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    return keras.Model(image, layers.Dense(num_classes, name="logits", **HE)(pool(x)), name="resnet8")


def resnet_cifar(input_shape: tuple[int, ...], num_classes: int, depth: int = 20, width: int = 16) -> keras.Model:
    """The CIFAR ResNet with parameter-free shortcuts (option A of the paper).

    Input: [height, width, channels] pixels in 0..255. Output: [num_classes] logits. 269,722 trainable parameters for a
    32x32x3 input, 10 classes and depth 20; table 6 of the paper gives 0.27 million.

    Args:
        input_shape: (height, width, channels).
        num_classes: Number of classes or of other outputs, >= 1.
        depth: Number of layers with weights, 6n + 2 with n >= 1: 20, 32, 44, 56, ...
        width: Channels of the first stage, even and > 0; the next two have twice and four times as many.

    Raises:
        InputError: An argument is out of range.

    Reference:
        He et al.: Deep Residual Learning for Image Recognition (arXiv:1512.03385), section 4.2.
    """
    image, x = image_input("resnet_cifar", input_shape, num_classes)
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"resnet_cifar: depth must be 6n + 2, n >= 1. Received: depth={depth}. Use 20, 32, 44 or 56.")
    if width < 2 or width % 2:  # half of the channels that a shortcut adds lie on each side
        raise InputError(f"resnet_cifar: width must be even and > 0. Received: width={width}. Use 16.")
    x = conv(x, width, 3, "stem", use_bias=False)
    for stage, filters in enumerate((width, 2 * width, 4 * width), 1):
        for block in range(1, (depth - 2) // 6 + 1):
            strides, name = (2 if stage > 1 and block == 1 else 1), f"stage{stage}_block{block}"
            y = conv(x, filters, 3, f"{name}_conv1", strides=strides, use_bias=False)
            y = conv(y, filters, 3, f"{name}_conv2", relu=False, use_bias=False)
            if strides == 2:
                x = _option_a_shortcut(x, filters, name)
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    return keras.Model(image, layers.Dense(num_classes, name="logits", **HE)(pool(x)), name=f"resnet{depth}")


def ds_cnn(input_shape: tuple[int, ...], num_classes: int, filters: int = 64, dropout: float = 0.2) -> keras.Model:
    """The keyword spotting model of MLPerf Tiny.

    Input: [frames, coefficients, 1] features (MFCC), which are not scaled inside. Output: [num_classes] logits. 24,908
    parameters for a 49x10x1 input and 12 classes, as the reference implementation has. Its L2 regularization of 1e-4
    is left to the optimizer's `weight_decay`.

    Args:
        input_shape: (frames, coefficients, 1).
        num_classes: Number of classes or of other outputs, >= 1.
        filters: Number of channels of each convolution, > 0.
        dropout: Dropout rate after the first convolution, 0 <= dropout < 0.5; before the classifier it is twice that.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Zhang et al.: Hello Edge: Keyword Spotting on Microcontrollers (arXiv:1711.07128); github.com/mlcommons/tiny,
        benchmark/training/keyword_spotting.
    """
    check("ds_cnn", input_shape, num_classes, ("frames", "coefficients", "channels"))
    check_positive("ds_cnn", filters=filters)
    if not 0 <= dropout < 0.5:
        raise InputError(f"ds_cnn: dropout must be in [0, 0.5). Received: dropout={dropout}. Use 0.2.")
    features = keras.Input(input_shape, name="features")
    x = layers.Dropout(dropout, name="dropout1")(conv(features, filters, (10, 4), "stem", strides=2))
    for block in range(1, 5):
        x = separable(x, filters, f"block{block}")
    x = pool(layers.Dropout(2 * dropout, name="dropout2")(x))
    return keras.Model(features, layers.Dense(num_classes, name="logits")(x), name="ds_cnn")


def mobilenet_v1(input_shape: tuple[int, ...], num_classes: int, alpha: float = 0.25) -> keras.Model:
    """The visual wake words model of MLPerf Tiny.

    Input: [height, width, channels] pixels in 0..255. Output: [num_classes] logits. 221,794 parameters for a 96x96x3
    input, 2 classes and alpha 0.25, as the reference implementation has. As there, ReLU replaces ReLU6, convolutions
    before BatchNorm have biases, and there is no dropout. The reference's L2 regularization of 1e-4 is left to the
    optimizer's `weight_decay`.

    Args:
        input_shape: (height, width, channels).
        num_classes: Number of classes or of other outputs, >= 1.
        alpha: Width multiplier, > 0; at 1.0 the first convolution has 32 channels.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications
        (arXiv:1704.04861), table 1; github.com/mlcommons/tiny, benchmark/training/visual_wake_words.
    """
    image, x = image_input("mobilenet_v1", input_shape, num_classes)
    check_positive("mobilenet_v1", alpha=alpha)
    x = conv(x, max(1, int(32 * alpha)), 3, "stem", strides=2)
    blocks = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for block, (filters, strides) in enumerate(blocks, 1):
        x = separable(x, max(1, int(filters * alpha)), f"block{block}", strides=strides)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(pool(x)), name="mobilenet_v1")


def mobilenet_v2(
    input_shape: tuple[int, ...], num_classes: int, alpha: float = 1.0, weights: str | None = None
) -> keras.Model:
    """MobileNetV2 of keras.applications.

    Input: [height, width, 3] RGB pixels in 0..255. Output: [num_classes] logits. 3,538,984 parameters for a 224x224x3
    input, 1000 classes and alpha 1; keras.io/api/applications gives 3.5 million.

    Args:
        input_shape: (height, width, 3), at least 32x32.
        num_classes: Number of classes or of other outputs, >= 1.
        alpha: Width multiplier, > 0; with `weights` one of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4.
        weights: None for random weights, `"imagenet"` (downloaded by Keras) or the path of a weights file of
            keras.applications. With 1000 classes it must include the classifier; with another number of classes it
            must not, and the classifier is initialized randomly.

    Raises:
        InputError: An argument is out of range, or the weights are those of another model.
        ToolMissingError: The published weights could not be downloaded.

    Reference:
        Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks (arXiv:1801.04381).
    """
    check_positive("mobilenet_v2", alpha=alpha)
    image, x = image_input("mobilenet_v2", input_shape, num_classes, scale=1 / 127.5, offset=-1.0)
    return application(keras.applications.MobileNetV2, image, x, num_classes, weights, alpha=alpha)


def resnet50(input_shape: tuple[int, ...], num_classes: int, weights: str | None = None) -> keras.Model:
    """ResNet-50 of keras.applications.

    Input: [height, width, 3] RGB pixels in 0..255. Output: [num_classes] logits. 25,636,712 parameters for a 224x224x3
    input and 1000 classes; keras.io/api/applications gives 25.6 million. The published weights were trained on BGR
    images; the channels of the first convolution are reversed when they are loaded.

    Args:
        input_shape: (height, width, 3), at least 32x32.
        num_classes: Number of classes or of other outputs, >= 1.
        weights: Source of the weights; see `mobilenet_v2`.

    Raises:
        InputError: An argument is out of range, or the weights are those of another model.
        ToolMissingError: The published weights could not be downloaded.

    Reference:
        He et al.: Deep Residual Learning for Image Recognition (arXiv:1512.03385).
    """
    # The ImageNet mean that keras.applications subtracts for this model.
    mean = [-123.68, -116.779, -103.939]
    image, x = image_input("resnet50", input_shape, num_classes, scale=1.0, offset=mean)
    model = application(keras.applications.ResNet50, image, x, num_classes, weights)
    if weights is not None:
        stem = model.get_layer("conv1_conv")
        kernel, *bias = stem.get_weights()
        stem.set_weights([kernel[:, :, ::-1], *bias])
    return model


def autoencoder(
    input_shape: tuple[int, ...], num_classes: int | None = None, width: int = 128, code: int = 8
) -> keras.Model:
    """The anomaly detection model of MLPerf Tiny.

    Input: [features]. Output: [features], their reconstruction; the anomaly score is the mean squared error between
    the two. 269,992 parameters (267,928 trainable) for 640 features, as the reference implementation has.

    Args:
        input_shape: (features,).
        num_classes: Not used; it gives all builders the same signature.
        width: Units of each hidden layer, > 0.
        code: Units of the bottleneck, > 0.

    Raises:
        InputError: An argument is out of range.

    Reference:
        Koizumi et al.: ToyADMOS (arXiv:1908.03299); github.com/mlcommons/tiny, benchmark/training/anomaly_detection.
    """
    check("autoencoder", input_shape, 2, ("features",))
    check_positive("autoencoder", width=width, code=code)
    x = features = keras.Input(input_shape, name="features")
    names = [f"encoder{n}" for n in range(1, 5)] + ["code"] + [f"decoder{n}" for n in range(1, 5)]
    for name in names:
        x = layers.Dense(code if name == "code" else width, name=f"{name}_dense")(x)
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(features, layers.Dense(input_shape[0], name="reconstruction")(x), name="autoencoder")


BUILDERS: dict[str, Callable[..., keras.Model]] = {name: globals()[name] for name in __all__}


def _option_a_shortcut(x: Tensor, filters: int, name: str) -> Tensor:
    """Every second pixel of [H, W, filters / 2], padded with zero channels to [H / 2, W / 2, filters]."""
    x = layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_every_second")(x)
    # ZeroPadding2D pads the last two axes of channels-first images. Applied to our channels-last tensors, they are
    # the width (padded by 0) and the channels.
    pad = ((0, 0), (filters // 4, filters // 4))
    return layers.ZeroPadding2D(pad, data_format="channels_first", name=f"{name}_pad_channels")(x)
