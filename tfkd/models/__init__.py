"""Builders of teachers and students.

All end in logits: where a published model ends in softmax, it is left off. Image models take 0..255 and scale inside.
Only built-in Keras layers are used, so that a saved model loads without tfkd.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
from keras import layers

from tfkd._internal import keras_compat
from tfkd.errors import InputError

# Keras's own 0.99 averages over more steps than a short schedule has.
_MOMENTUM = 0.9


def digits_teacher(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A plain CNN for small images: 65,834 parameters for 8x8x1 and 10 classes.

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: >= 2.
    """
    image, x = _image_input("digits_teacher", input_shape, num_classes)
    x = _conv(x, 32, 3, "conv1", use_bias=False)
    x = _conv(x, 64, 3, "conv2", strides=2, use_bias=False)
    x = _conv(x, 64, 3, "conv3", use_bias=False)
    x = layers.Dropout(0.2, name="dropout")(_pool(x))
    x = layers.Dense(128, activation="relu", name="dense")(x)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(x), name="digits_teacher")


def digits_student(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A depthwise-separable CNN for a microcontroller: 1,578 parameters for 8x8x1 and 10 classes.

    So small that it wants a large step: Adam from 0.01 with a cosine decay over 30 epochs does well on digits.

    Args:
        input_shape: (height, width, channels), at least 4x4.
        num_classes: >= 2.
    """
    image, x = _image_input("digits_student", input_shape, num_classes)
    x = _conv(x, 8, 3, "conv1", use_bias=False)
    x = _separable(x, 16, "block1", strides=2, use_bias=False)
    x = _separable(x, 32, "block2", use_bias=False)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(_pool(x)), name="digits_student")


def resnet8(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """The image classification model of MLPerf Tiny: 78,666 parameters for 32x32x3 and 10 classes.

    Two differences from the reference: the input is scaled to 0..1 inside, and its L2 of 1e-4 is left to the
    optimizer's `weight_decay`.

    Args:
        input_shape: (height, width, channels).
        num_classes: >= 2.

    >>> resnet8((32, 32, 3), 10).count_params()
    78666

    Reference: Banbury et al., arXiv 2106.07597; github.com/mlcommons/tiny, benchmark/training/image_classification.
    """
    image, x = _image_input("resnet8", input_shape, num_classes)
    x = _conv(x, 16, 3, "stem")
    for stage, filters in enumerate((16, 32, 64), 1):
        strides, name = (1 if stage == 1 else 2), f"stage{stage}"
        y = _conv(x, filters, 3, f"{name}_conv1", strides=strides)
        y = _conv(y, filters, 3, f"{name}_conv2", relu=False)
        if strides == 2:
            x = layers.Conv2D(filters, 1, strides=2, padding="same", name=f"{name}_shortcut", **_HE)(x)
        x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    return keras.Model(image, layers.Dense(num_classes, name="logits", **_HE)(_pool(x)), name="resnet8")


def resnet_cifar(input_shape: tuple[int, ...], num_classes: int, depth: int = 20) -> keras.Model:
    """The CIFAR ResNet with parameter-free shortcuts (option A): 269,722 trainable parameters at depth 20.

    Args:
        input_shape: (height, width, channels).
        num_classes: >= 2.
        depth: 6n + 2: 20, 32, 44, 56, ...

    Reference: He et al., arXiv 1512.03385, section 4.2.
    """
    image, x = _image_input("resnet_cifar", input_shape, num_classes)
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"resnet_cifar: depth must be 6n + 2, n >= 1. Received: depth={depth}. Use 20, 32, 44 or 56.")
    x = _conv(x, 16, 3, "stem", use_bias=False)
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, (depth - 2) // 6 + 1):
            strides, name = (2 if stage > 1 and block == 1 else 1), f"stage{stage}_block{block}"
            y = _conv(x, filters, 3, f"{name}_conv1", strides=strides, use_bias=False)
            y = _conv(y, filters, 3, f"{name}_conv2", relu=False, use_bias=False)
            if strides == 2:
                x = layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_every_second")(x)
                # Read as channels-first, the last axis is a width: so the built-in layer pads our channels.
                pad = ((0, 0), (filters // 4, filters // 4))
                x = layers.ZeroPadding2D(pad, data_format="channels_first", name=f"{name}_pad_channels")(x)
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
    return keras.Model(image, layers.Dense(num_classes, name="logits", **_HE)(_pool(x)), name=f"resnet{depth}")


def ds_cnn(input_shape: tuple[int, ...], num_classes: int, filters: int = 64, dropout: float = 0.2) -> keras.Model:
    """The keyword spotting model of MLPerf Tiny: 24,908 parameters for 49x10x1 and 12 classes.

    Takes features (MFCC) as they are: nothing is scaled inside. The reference's L2 of 1e-4 is left to the optimizer's
    `weight_decay`.

    Args:
        input_shape: (frames, coefficients, 1).
        num_classes: >= 2.
        filters: channels of each layer.
        dropout: rate after the first convolution; before the classifier it is twice that; 0 <= dropout < 0.5.

    Reference: Zhang et al., arXiv 1711.07128; github.com/mlcommons/tiny, benchmark/training/keyword_spotting.
    """
    _check("ds_cnn", input_shape, num_classes, ("frames", "coefficients", "channels"))
    _check_positive("ds_cnn", filters=filters)
    if not 0 <= dropout < 0.5:
        raise InputError(f"ds_cnn: dropout must be in [0, 0.5). Received: dropout={dropout}. Use 0.2.")
    features = keras.Input(input_shape, name="features")
    x = layers.Dropout(dropout, name="dropout1")(_conv(features, filters, (10, 4), "stem", strides=2))
    for block in range(1, 5):
        x = _separable(x, filters, f"block{block}")
    x = _pool(layers.Dropout(2 * dropout, name="dropout2")(x))
    return keras.Model(features, layers.Dense(num_classes, name="logits")(x), name="ds_cnn")


def mobilenet_v1(input_shape: tuple[int, ...], num_classes: int, alpha: float = 0.25) -> keras.Model:
    """The visual wake words model of MLPerf Tiny: 221,794 parameters for 96x96x3, 2 classes and alpha 0.25.

    As in the reference: ReLU in place of ReLU6, biases before BatchNorm, no dropout. Its L2 of 1e-4 is left to the
    optimizer's `weight_decay`.

    Args:
        input_shape: (height, width, channels).
        num_classes: >= 2.
        alpha: width, > 0; 1.0 has 32 channels after the first convolution.

    Reference: Howard et al., arXiv 1704.04861, table 1; github.com/mlcommons/tiny,
        benchmark/training/visual_wake_words.
    """
    image, x = _image_input("mobilenet_v1", input_shape, num_classes)
    _check_positive("mobilenet_v1", alpha=alpha)
    x = _conv(x, max(1, int(32 * alpha)), 3, "stem", strides=2)
    blocks = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for block, (filters, strides) in enumerate(blocks, 1):
        x = _separable(x, max(1, int(filters * alpha)), f"block{block}", strides=strides)
    return keras.Model(image, layers.Dense(num_classes, name="logits")(_pool(x)), name="mobilenet_v1")


def mobilenet_v2(
    input_shape: tuple[int, ...], num_classes: int, alpha: float = 1.0, weights: str | None = None
) -> keras.Model:
    """MobileNetV2 of keras.applications: 3,538,984 parameters for 224x224x3, 1000 classes and alpha 1.

    Args:
        input_shape: (height, width, 3), at least 32x32.
        num_classes: >= 2.
        alpha: width, > 0; with weights one of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4.
        weights: None, `"imagenet"` (downloaded by Keras) or a file of weights of keras.applications. They are those
            with the classifier where num_classes is 1000, else those without, and the classifier is new.

    Reference: Sandler et al., arXiv 1801.04381.
    """
    _check_positive("mobilenet_v2", alpha=alpha)
    image, x = _image_input("mobilenet_v2", input_shape, num_classes, scale=1 / 127.5, offset=-1.0)
    return _application(keras.applications.MobileNetV2, image, x, num_classes, weights, alpha=alpha)


def resnet50(input_shape: tuple[int, ...], num_classes: int, weights: str | None = None) -> keras.Model:
    """ResNet-50 of keras.applications: 25,636,712 parameters for 224x224x3 and 1000 classes.

    It takes RGB as all models here: published weights, made for BGR, are turned over when they are loaded.

    Args:
        input_shape: (height, width, 3), at least 32x32.
        num_classes: >= 2.
        weights: see `mobilenet_v2`.

    Reference: He et al., arXiv 1512.03385.
    """
    # The ImageNet mean that keras.applications subtracts for this model.
    mean = [-123.68, -116.779, -103.939]
    image, x = _image_input("resnet50", input_shape, num_classes, scale=1.0, offset=mean)
    model = _application(keras.applications.ResNet50, image, x, num_classes, weights)
    if weights is not None:
        stem = model.get_layer("conv1_conv")
        kernel, *bias = stem.get_weights()
        stem.set_weights([kernel[:, :, ::-1], *bias])
    return model


def autoencoder(
    input_shape: tuple[int, ...], num_classes: int | None = None, width: int = 128, code: int = 8
) -> keras.Model:
    """The anomaly detection model of MLPerf Tiny: 269,992 parameters (267,928 trainable) for 640 features.

    Gives the features back; the anomaly score is the mean squared error.

    Args:
        input_shape: (features,).
        num_classes: not used; here so that all builders are called alike.
        width: of the hidden layers.
        code: of the bottleneck.

    Reference: Koizumi et al., arXiv 1908.03299; github.com/mlcommons/tiny, benchmark/training/anomaly_detection.
    """
    _check("autoencoder", input_shape, 2, ("features",))
    _check_positive("autoencoder", width=width, code=code)
    x = features = keras.Input(input_shape, name="features")
    names = [f"encoder{n}" for n in range(1, 5)] + ["code"] + [f"decoder{n}" for n in range(1, 5)]
    for name in names:
        x = layers.Dense(code if name == "code" else width, name=f"{name}_dense")(x)
        x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(features, layers.Dense(input_shape[0], name="reconstruction")(x), name="autoencoder")


def gru(input_shape: tuple[int, ...], num_classes: int, units: int = 64, unroll: bool = False) -> keras.Model:
    """One GRU layer over a sequence of features, nothing scaled inside.

    Args:
        input_shape: (steps, features); the number of steps is fixed.
        num_classes: >= 2.
        units: of the layer.
        unroll: one copy of the step per time step: slower to build, but plain ops for the converter.

    Reference: Cho et al., arXiv 1406.1078.
    """
    return _recurrent(layers.GRU, "gru", input_shape, num_classes, units, unroll)


def lstm(input_shape: tuple[int, ...], num_classes: int, units: int = 64, unroll: bool = False) -> keras.Model:
    """One LSTM layer over a sequence of features, nothing scaled inside; arguments as those of `gru`.

    Reference: Hochreiter and Schmidhuber, Neural Computation 9(8), 1997.
    """
    return _recurrent(layers.LSTM, "lstm", input_shape, num_classes, units, unroll)


_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    builder.__name__: builder
    for builder in (
        digits_teacher,
        digits_student,
        resnet8,
        resnet_cifar,
        ds_cnn,
        mobilenet_v1,
        mobilenet_v2,
        resnet50,
        autoencoder,
        gru,
        lstm,
    )
}
NAMES = tuple(_BUILDERS)


def build(name: str, input_shape: tuple[int, ...], num_classes: int, **options: Any) -> keras.Model:
    """Builds a model by its name.

    Args:
        name: one of `NAMES`.
        input_shape: the shape of one sample.
        num_classes: >= 2.
        options: of the builder, such as `depth` or `alpha`.

    Raises:
        ValueError: an unknown name or option, or a value that the builder refuses.

    >>> build("resnet_cifar", (32, 32, 3), 10, depth=32).name
    'resnet32'
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Models: {', '.join(NAMES)}."
        raise InputError(f"build: no model is called {name!r}. {hint}")
    known = list(inspect.signature(_BUILDERS[name]).parameters)[2:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"build: {name} takes the options: {', '.join(known) or 'none'}. Received: {', '.join(unknown)}. "
            f"Leave out or rename the unknown."
        )
    return _BUILDERS[name](input_shape, num_classes, **options)


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a `.keras` file for inference or distillation; code in it (Lambda layers) is refused.

    Args:
        path: of the file.

    Raises:
        ValueError: there is no such file, or Keras cannot load it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"models.load: there is no file {path}. Give the path of a .keras file.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise InputError(
            f"models.load: {path} must be a .keras file of Keras 3. Received: another format. "
            f"Load it with the Keras that wrote it, then save it with model.save('model.keras')."
        )
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file made it stumble over
        raise InputError(
            f"models.load: Keras could not load {path}: {type(error).__name__}: {error} "
            f"Register custom classes (keras.saving.register_keras_serializable) and import their module first; "
            f"replace Lambda layers by built-in layers."
        ) from error
    if not isinstance(model, keras.Model):
        raise InputError(
            f"models.load: {path} must hold a model. Received: {type(model).__name__}. Save a keras.Model."
        )
    return model


def inherit(student: keras.Model, source: keras.Model, layers: Mapping[str, str]) -> list[str]:
    """Starts layers of a student from trained ones of another model, such as the first block of each teacher's stage.

    Args:
        student: built; its weights change.
        source: built; a layer of it gives the weights that the student's layer has too, by their names.
        layers: regular expressions of whole layer names of the student, and the name of the layer of `source` for each,
            in which `\\1` is the first group. The first that fits counts.

    Returns:
        The names of the student's layers that changed.

    Raises:
        ValueError: an expression is none or fits no layer, the source has no such layer, or shapes differ.

    Reference:
        Sanh et al.: DistilBERT, a distilled version of BERT (arXiv:1910.01108, section 2).
    """
    given = {layer.name: layer for layer in keras_compat.inner_layers(source)}
    changed: dict[str, str] = {}  # the expression by layer
    for layer in keras_compat.inner_layers(student):
        fits = ((pattern, name) for pattern in layers if (name := _counterpart(layer.name, pattern, layers[pattern])))
        pattern, name = next(fits, ("", ""))
        if not name or not layer.weights:
            continue
        if name not in given:
            near = difflib.get_close_matches(name, given, n=3)
            raise InputError(
                f"models.inherit: {layers[pattern]!r} must give a layer of {source.name!r}. Received: {name!r} for "
                f"{layer.name!r}. Near ones: {', '.join(near) or ', '.join(list(given)[-3:])}."
            )
        weights = {weight.name: weight for weight in given[name].weights}
        for weight in layer.weights:
            if weight.name in weights:
                if weight.shape != weights[weight.name].shape:
                    raise InputError(
                        f"models.inherit: layer {layer.name!r} must have the shapes of {name!r}. Received: "
                        f"{weight.name} {tuple(weight.shape)} and {tuple(weights[weight.name].shape)}. Leave it out."
                    )
                weight.assign(weights[weight.name])
        changed[layer.name] = pattern
    if idle := [pattern for pattern in layers if pattern not in changed.values()]:
        raise InputError(
            f"models.inherit: each expression must fit a layer of {student.name!r} that has weights, before another "
            f"does. Received: {idle[0]!r}. Layers: {', '.join(one.name for one in student.layers if one.weights)}."
        )
    return list(changed)


def _counterpart(name: str, pattern: str, template: str) -> str:
    try:
        match = re.fullmatch(pattern, name)
        return match.expand(template) if match else ""
    except re.error as error:
        raise InputError(
            f"models.inherit: layers must be regular expressions and names with their groups. Received: "
            f"{pattern!r}: {template!r}, {error}."
        ) from None


_HE = {"kernel_initializer": "he_normal"}


def _check(where: str, input_shape: tuple[int, ...], num_classes: int, axes: tuple[str, ...]) -> None:
    if len(input_shape) != len(axes) or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InputError(
            f"{where}: input_shape must be ({', '.join(axes)}), whole numbers > 0. Received: {tuple(input_shape)}. "
            f"Use a split's input_shape."
        )
    if num_classes < 2:
        raise InputError(f"{where}: num_classes must be >= 2. Received: {num_classes}. Use a split's num_classes.")


def _check_positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{where}: {name} must be > 0. Received: {name}={value}. Leave it out for the default.")


def _image_input(
    where: str, input_shape: tuple[int, ...], num_classes: int, scale: float = 1 / 255, offset: Any = 0.0
) -> tuple[Any, Any]:
    _check(where, input_shape, num_classes, ("height", "width", "channels"))
    image = keras.Input(input_shape, name="image")
    return image, layers.Rescaling(scale, offset, name="rescaling")(image)


def _conv(
    x: Any, filters: int, kernel: Any, name: str, *, strides: int = 1, relu: bool = True, use_bias: bool = True
) -> Any:
    """Convolution, BatchNorm and, on wish, ReLU."""
    conv = layers.Conv2D(
        filters, kernel, strides=strides, padding="same", use_bias=use_bias, name=f"{name}_conv", **_HE
    )
    x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(conv(x))
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _separable(x: Any, filters: int, name: str, *, strides: int = 1, use_bias: bool = True) -> Any:
    """A depthwise 3x3 and a pointwise convolution, each with BatchNorm and ReLU."""
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=use_bias, name=f"{name}_depthwise")(x)
    x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    return _conv(x, filters, 1, f"{name}_pointwise", use_bias=use_bias)


def _pool(x: Any) -> Any:
    # An AVERAGE_POOL_2D, as in the MLPerf references; GlobalAveragePooling2D would become a MEAN.
    return layers.Flatten(name="flatten")(layers.AveragePooling2D(x.shape[1:3], name="pool")(x))


def _application(
    builder: Callable[..., keras.Model], image: Any, x: Any, num_classes: int, weights: str | None, **options: Any
) -> keras.Model:
    top = weights is None or num_classes == 1000
    kind = {"classes": num_classes, "classifier_activation": None} if top else {"pooling": "avg"}
    model = builder(include_top=top, weights=weights, input_tensor=x, **kind, **options)
    if top:
        return model
    return keras.Model(image, layers.Dense(num_classes, name="logits")(model.output), name=model.name)


def _recurrent(
    layer: Callable[..., Any], name: str, input_shape: tuple[int, ...], num_classes: int, units: int, unroll: bool
) -> keras.Model:
    _check(name, input_shape, num_classes, ("steps", "features"))
    _check_positive(name, units=units)
    sequence = keras.Input(input_shape, name="sequence")
    x = layer(units, unroll=unroll, name=name)(sequence)
    return keras.Model(sequence, layers.Dense(num_classes, name="logits")(x), name=name)
