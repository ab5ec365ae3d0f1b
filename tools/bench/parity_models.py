"""Models for `parity.py`: one layer or operation each, blocks, recurrent networks, and whole architectures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfkd import models

# Keras has no types: tensors and models are Any.
Tensor = Any
Step = Callable[[Tensor], Tensor]

IMAGE, VECTOR, SEQUENCE = (8, 8, 4), (12,), (12, 6)

# Networks with more normalizations than this are deep.
_DEEP = 10

ACTIVATIONS = [
    name
    for name in dir(keras.activations)
    if name[0] != "_" and name not in ("deserialize", "get", "glu", "linear", "serialize", "threshold")
]

CONSTANT = np.random.default_rng(1).normal(size=(8, 8, 6)).astype("float32")
CHANNELS = np.linspace(-1.0, 2.0, 6, dtype="float32")

# Operations on the output of a convolution, [batch, 8, 8, 6].
IMAGE_STEPS: dict[str, Step] = {
    "MaxPooling2D": lambda x: layers.MaxPooling2D()(x),
    "MaxPooling2D same": lambda x: layers.MaxPooling2D(3, 2, padding="same")(x),
    "AveragePooling2D": lambda x: layers.AveragePooling2D(2)(x),
    "AveragePooling2D same": lambda x: layers.AveragePooling2D(3, 2, padding="same")(x),
    "GlobalMaxPooling2D": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "GlobalAveragePooling2D": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "Conv2D strides": lambda x: layers.Conv2D(7, 3, strides=2, padding="same")(x),
    "Conv2D dilation": lambda x: layers.Conv2D(7, 3, dilation_rate=2)(x),
    "Conv2D groups": lambda x: layers.Conv2D(6, 3, groups=3)(x),
    "Conv2D 1x5": lambda x: layers.Conv2D(5, (1, 5), activation="relu")(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(x),
    "DepthwiseConv2D dilation": lambda x: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(8, 3, activation="relu")(x),
    "Conv2DTranspose same": lambda x: layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x),
    "Conv2DTranspose valid": lambda x: layers.Conv2DTranspose(5, 2, strides=2)(x),
    "BatchNormalization": lambda x: layers.ReLU()(layers.BatchNormalization()(x)),
    "LayerNormalization": lambda x: layers.LayerNormalization()(x),
    "GroupNormalization": lambda x: layers.GroupNormalization(3)(x),
    "RMSNormalization": lambda x: layers.RMSNormalization()(x),
    "UnitNormalization": lambda x: layers.UnitNormalization()(x),
    "PReLU": lambda x: layers.PReLU(shared_axes=[1, 2], alpha_initializer=keras.initializers.Constant(0.2))(x),
    "Reshape": lambda x: layers.Reshape((4, 16, 6))(x),
    "Permute": lambda x: layers.Permute((3, 1, 2))(x),
    "ZeroPadding2D": lambda x: layers.ZeroPadding2D(((1, 2), (0, 1)))(x),
    "Cropping2D": lambda x: layers.Cropping2D(1)(x),
    "UpSampling2D nearest": lambda x: layers.UpSampling2D()(x),
    "UpSampling2D bilinear": lambda x: layers.UpSampling2D(interpolation="bilinear")(x),
    "Resizing": lambda x: layers.Resizing(5, 5)(x),
    "Add": lambda x: layers.Add()([x, layers.Conv2D(6, 1)(x)]),
    "Subtract": lambda x: layers.Subtract()([x, layers.Conv2D(6, 1)(x)]),
    "Multiply": lambda x: layers.Multiply()([x, layers.Conv2D(6, 1)(x)]),
    "Average": lambda x: layers.Average()([x, layers.Conv2D(6, 1)(x)]),
    "Maximum": lambda x: layers.Maximum()([x, layers.Conv2D(6, 1)(x)]),
    "Minimum": lambda x: layers.Minimum()([x, layers.Conv2D(6, 1)(x)]),
    "Concatenate": lambda x: layers.Concatenate()([x, 30.0 * layers.Conv2D(6, 1)(x)]),
    "Maximum beside its input": lambda x: ops.maximum(x, 0.3) + 0.5 * x,
    "Minimum beside its input": lambda x: ops.relu(x) + ops.minimum(x, 0.0),
    "clip beside its input": lambda x: x * ops.clip(x, -0.2, 0.2),
    "relu6 beside its input": lambda x: layers.Concatenate()([ops.relu6(4 * x), 4 * x]),
    "scalar product": lambda x: 3.0 * x,
    "scalar difference": lambda x: 0.5 - x,
    "product with a channel constant": lambda x: x * CHANNELS,
    "product with a constant on the left": lambda x: ops.multiply(CHANNELS, x),
    "product with a 3-dimensional constant": lambda x: x * CONSTANT,
    "product with a 4-dimensional constant": lambda x: ops.multiply(CONSTANT[None], x),
    "sum with a 3-dimensional constant": lambda x: x + CONSTANT,
    "quotient": lambda x: x / (1.5 + ops.square(x)),
    "abs": lambda x: ops.abs(x),
    "square": lambda x: ops.square(x),
    "sqrt": lambda x: ops.sqrt(ops.abs(x) + 0.1),
    "rsqrt": lambda x: ops.rsqrt(ops.abs(x) + 0.5),
    "exp": lambda x: ops.exp(x),
    "log": lambda x: ops.log(1.0 + ops.square(x)),
    "power": lambda x: ops.power(ops.abs(x) + 0.1, 1.5),
    "sin": lambda x: ops.sin(x),
    "cos": lambda x: ops.cos(x),
    "sum of axes": lambda x: ops.sum(x, axis=(1, 2), keepdims=True),
    "sum of channels": lambda x: ops.sum(x, axis=-1, keepdims=True),
    "mean of an axis": lambda x: ops.mean(x, axis=1, keepdims=True),
    "maximum of an axis": lambda x: ops.max(x, axis=-1, keepdims=True),
    "minimum of an axis": lambda x: ops.min(x, axis=2, keepdims=True),
    "variance": lambda x: ops.var(x, axis=(1, 2), keepdims=True),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1, keepdims=True),
    "where": lambda x: ops.where(x > 0.1, x, 0.2 * x),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "split and concatenate": lambda x: ops.concatenate(ops.split(x, 2, axis=-1)[::-1], axis=-1),
    "stack": lambda x: ops.max(ops.stack([x, -x], axis=1), axis=1),
    "strided slice": lambda x: x[:, ::2, 1:7:2, :],
    "tile": lambda x: ops.tile(x, (1, 1, 1, 2)),
    "gated linear unit": lambda x: x[..., :3] * ops.sigmoid(x[..., 3:]),
    "flip": lambda x: ops.flip(x, axis=2),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "pad with a value": lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0),
    "reflect padding": lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
    "matrix product of two activations": lambda x: ops.matmul(ops.reshape(x, (-1, 8, 48)), ops.reshape(x, (-1, 48, 8))),
    "einsum": lambda x: ops.einsum("bijc,bijd->bcd", x, x) / 64,
}

# Operations on [batch, 12, 6].
SEQUENCE_STEPS: dict[str, Step] = {
    "Conv1D causal": lambda x: layers.Conv1D(5, 3, padding="causal", dilation_rate=2)(x),
    "Conv1D strides": lambda x: layers.Conv1D(5, 3, strides=2, padding="same")(x),
    "SeparableConv1D": lambda x: layers.SeparableConv1D(5, 3)(x),
    "DepthwiseConv1D": lambda x: layers.DepthwiseConv1D(3, padding="same")(x),
    "Conv1DTranspose": lambda x: layers.Conv1DTranspose(5, 3, strides=2)(x),
    "MaxPooling1D": lambda x: layers.MaxPooling1D()(x),
    "AveragePooling1D": lambda x: layers.AveragePooling1D(2)(x),
    "UpSampling1D": lambda x: layers.UpSampling1D()(x),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(5, activation="relu"))(x),
    "RepeatVector": lambda x: layers.RepeatVector(3)(x[:, 0]),
    "Dot": lambda x: layers.Dot(axes=2)([x, layers.Dense(6)(x)]),
    "Attention": lambda x: layers.Attention()([x, layers.Dense(6)(x)]),
    "AdditiveAttention": lambda x: layers.AdditiveAttention()([x, layers.Dense(6)(x)]),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 4)(x, x),
    "GroupQueryAttention": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x),
    "attention pooling": lambda x: ops.sum(x * ops.softmax(layers.Dense(1)(x), axis=1), axis=1, keepdims=True),
    "transformer block": lambda x: transformer(x),
    "mixer block": lambda x: mixer(x),
    "gated convolution": lambda x: (
        layers.Conv1D(6, 3, padding="same", activation="tanh")(x)
        * layers.Conv1D(6, 3, padding="same", activation="sigmoid")(x)
    ),
    "temporal convolutional block": lambda x: temporal(x),
    "LSTM": lambda x: layers.LSTM(7)(x),
    "LSTM sequences": lambda x: layers.LSTM(7, return_sequences=True)(x),
    "LSTM stacked": lambda x: layers.LSTM(5)(layers.LSTM(7, return_sequences=True)(x)),
    "LSTM backwards": lambda x: layers.LSTM(7, go_backwards=True)(x),
    "LSTM unrolled": lambda x: layers.LSTM(7, unroll=True)(x),
    "LSTM states": lambda x: layers.Concatenate()(layers.LSTM(7, return_state=True)(x)),
    "LSTM initial state": lambda x: layers.LSTM(7)(
        x, initial_state=[layers.Dense(7)(x[:, 0]), layers.Dense(7)(x[:, 1])]
    ),
    "LSTM small cell": lambda x: layers.LSTM(7)(0.05 * x),
    "LSTM beside a feature": lambda x: layers.Concatenate()([layers.LSTM(7)(x), 20.0 * x[:, -1]]),
    "LSTM masked": lambda x: layers.LSTM(7)(layers.Masking(0.0)(x)),
    "GRU": lambda x: layers.GRU(7)(x),
    "GRU reset before": lambda x: layers.GRU(7, reset_after=False)(x),
    "GRU unrolled": lambda x: layers.GRU(7, unroll=True)(x),
    "GRU sequences": lambda x: layers.GRU(7, return_sequences=True)(x),
    "GRU backwards": lambda x: layers.GRU(7, go_backwards=True)(x),
    "SimpleRNN": lambda x: layers.SimpleRNN(7)(x),
    "SimpleRNN unrolled": lambda x: layers.SimpleRNN(7, unroll=True)(x),
    "Bidirectional LSTM": lambda x: layers.Bidirectional(layers.LSTM(5))(x),
    "Bidirectional LSTM sequences": lambda x: layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x),
    "Bidirectional GRU": lambda x: layers.Bidirectional(layers.GRU(5))(x),
    "Bidirectional sum": lambda x: layers.Bidirectional(layers.LSTM(5), merge_mode="sum")(x),
    "RNN of cells": lambda x: layers.RNN([layers.LSTMCell(5), layers.LSTMCell(4)])(x),
    "RNN of a GRU cell": lambda x: layers.RNN(layers.GRUCell(5), unroll=True)(x),
    "ConvLSTM1D": lambda x: layers.ConvLSTM1D(3, 3)(ops.reshape(x, (-1, 3, 4, 6))),
    "ConvLSTM1D unrolled": lambda x: layers.ConvLSTM1D(3, 3, unroll=True)(ops.reshape(x, (-1, 3, 4, 6))),
    "convolution and LSTM": lambda x: layers.LSTM(7)(layers.Conv1D(6, 3, activation="relu")(x)),
}

# Operations on [batch, 16].
VECTOR_STEPS: dict[str, Step] = {
    "Dense": lambda x: layers.Dense(8, activation="relu")(x),
    "Dense without bias": lambda x: layers.Dense(8, use_bias=False)(x),
    "Dense of zeros": lambda x: layers.Dense(8, kernel_initializer="zeros", name="zero_kernel")(x) + x[:, :8],
    "Dense of tiny weights": lambda x: layers.Dense(8, name="tiny_kernel")(x) + 0.01 * x[:, :8],
    "EinsumDense": lambda x: layers.EinsumDense("ab,bc->ac", output_shape=8, bias_axes="c")(x),
    "residual": lambda x: x + layers.Dense(16, activation="relu")(x),
    "gated dense layer": lambda x: layers.Dense(8)(x) * ops.sigmoid(layers.Dense(8)(x)),
    "mixture of experts": lambda x: experts(x),
    "saturating sum": lambda x: x + 5.0 * ops.flip(x, axis=1),
    "cosine similarity": lambda x: layers.Dot(axes=1, normalize=True)([x, layers.Dense(16)(x)]),
}

# Blocks of image networks, on [batch, 8, 8, 6].
BLOCK_STEPS: dict[str, Step] = {
    "residual block": lambda x: layers.ReLU()(x + conv(conv(x, 6, 3), 6, 3, activation=None)),
    "bottleneck block": lambda x: layers.ReLU()(x + conv(conv(conv(x, 3, 1), 3, 3), 6, 1, activation=None)),
    "pre-activation block": lambda x: (
        x + layers.Conv2D(6, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    ),
    "inverted residual": lambda x: x + inverted(x, 6),
    "squeeze and excite": lambda x: x * excite(x, "sigmoid"),
    "squeeze and excite, hard": lambda x: x * excite(x, "hard_sigmoid"),
    "inverted residual with squeeze": lambda x: x + inverted(x * excite(x, "sigmoid"), 6),
    "CBAM": lambda x: cbam(x),
    "efficient channel attention": lambda x: channel_attention(x),
    "ghost module": lambda x: layers.Concatenate()([y := conv(x, 3, 1), layers.DepthwiseConv2D(3, padding="same")(y)]),
    "channel shuffle": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 8, 8, 2, 3)), (0, 1, 2, 4, 3)), (-1, 8, 8, 6)
    ),
    "inception block": lambda x: layers.Concatenate()(
        [conv(x, 3, 1), conv(x, 3, 3), conv(x, 2, 5), conv(layers.MaxPooling2D(3, 1, "same")(x), 2, 1)]
    ),
    "dense block": lambda x: layers.Concatenate()([x, y := conv(x, 4, 3), conv(layers.Concatenate()([x, y]), 4, 3)]),
    "ConvNeXt block": lambda x: convnext(x),
    "RepVGG block": lambda x: layers.ReLU()(conv(x, 6, 3, None) + conv(x, 6, 1, None) + layers.BatchNormalization()(x)),
    "fire module": lambda x: layers.Concatenate()([conv(y := conv(x, 3, 1), 5, 1), conv(y, 5, 3)]),
    "atrous spatial pyramid": lambda x: layers.Concatenate()(
        [conv(x, 3, 1), *(layers.Conv2D(3, 3, dilation_rate=d, padding="same")(x) for d in (2, 3))]
    ),
    "U-Net": lambda x: layers.Concatenate()([x, layers.UpSampling2D()(conv(layers.MaxPooling2D()(x), 8, 3))]),
    "feature pyramid": lambda x: x + layers.UpSampling2D()(layers.Conv2D(6, 1)(conv(x, 8, 3, strides=2))),
    "hard swish network": lambda x: conv(conv(x, 8, 3, "hard_silu"), 6, 3, "hard_silu"),
    "swish network": lambda x: conv(conv(x, 8, 3, "silu"), 6, 3, "silu"),
    "depth to space": lambda x: ops.reshape(
        ops.transpose(ops.reshape(layers.Conv2D(8, 1)(x), (-1, 8, 8, 2, 2, 2)), (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 2)
    ),
    "vision transformer": lambda x: transformer(ops.reshape(layers.Conv2D(8, 2, strides=2)(x), (-1, 16, 8))),
}


def conv(x: Tensor, filters: int, size: int, activation: str | None = "relu", strides: int = 1) -> Tensor:
    """A convolution, batch normalization and an activation."""
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def inverted(x: Tensor, filters: int) -> Tensor:
    """The branch of MobileNetV2's block."""
    x = conv(x, 3 * filters, 1, "relu6")
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    return conv(x, filters, 1, None)


def excite(x: Tensor, gate: str) -> Tensor:
    """Factors of squeeze-and-excite, [batch, 1, 1, channels]."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Conv2D(x.shape[-1], 1, activation=gate)(layers.Conv2D(4, 1, activation="relu")(y))


def cbam(x: Tensor) -> Tensor:
    """Channel attention, then spatial attention (arXiv:1807.06521)."""
    hidden, out = layers.Dense(4, activation="relu"), layers.Dense(x.shape[-1])
    pooled = (layers.GlobalAveragePooling2D(keepdims=True)(x), layers.GlobalMaxPooling2D(keepdims=True)(x))
    x = x * ops.sigmoid(out(hidden(pooled[0])) + out(hidden(pooled[1])))
    maps = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)])
    return x * layers.Conv2D(1, 3, padding="same", activation="sigmoid")(maps)


def channel_attention(x: Tensor) -> Tensor:
    """A convolution over the channel means (arXiv:1910.03151)."""
    y = ops.expand_dims(layers.GlobalAveragePooling2D()(x), -1)
    y = layers.Conv1D(1, 3, padding="same", activation="sigmoid")(y)
    return x * ops.reshape(y, (-1, 1, 1, x.shape[-1]))


def convnext(x: Tensor) -> Tensor:
    """The block of ConvNeXt (arXiv:2201.03545)."""
    y = layers.LayerNormalization()(layers.DepthwiseConv2D(5, padding="same")(x))
    return x + layers.Dense(x.shape[-1])(layers.Dense(4 * x.shape[-1], activation="gelu")(y))


def transformer(x: Tensor) -> Tensor:
    """An encoder block with the normalization first."""
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4)(y, y)
    y = layers.Dense(12, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(x.shape[-1])(y)


def mixer(x: Tensor) -> Tensor:
    """Dense layers over steps and over features (arXiv:2105.01601)."""
    y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
    x = x + layers.Permute((2, 1))(layers.Dense(x.shape[1])(layers.Dense(10, activation="relu")(y)))
    return x + layers.Dense(x.shape[2])(layers.Dense(10, activation="relu")(layers.LayerNormalization()(x)))


def temporal(x: Tensor) -> Tensor:
    """Two dilated causal convolutions and a shortcut (arXiv:1803.01271)."""
    y = layers.Conv1D(6, 3, padding="causal", activation="relu")(x)
    return layers.ReLU()(x + layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu")(y))


def experts(x: Tensor) -> Tensor:
    """A softmax gate over three layers."""
    outputs = ops.stack([layers.Dense(8, activation="relu")(x) for _ in range(3)], axis=1)
    return ops.sum(outputs * ops.expand_dims(layers.Dense(3, activation="softmax")(x), -1), axis=1)


def image_model(step: Step) -> keras.Model:
    """A small image classifier around a step."""
    image = keras.Input(IMAGE)
    x = step(layers.Conv2D(6, 3, padding="same")(image))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))


def sequence_model(step: Step) -> keras.Model:
    """A small sequence classifier around a step."""
    sequence = keras.Input(SEQUENCE)
    return keras.Model(sequence, layers.Dense(5)(layers.Flatten()(step(sequence))))


def vector_model(step: Step) -> keras.Model:
    """A small classifier of vectors around a step."""
    vector = keras.Input(VECTOR)
    return keras.Model(vector, layers.Dense(5)(step(layers.Dense(16, activation="relu")(vector))))


def application(name: str, size: int, **options: Any) -> Callable[[], keras.Model]:
    """A builder of a model of keras.applications."""
    build = getattr(keras.applications, name)
    return lambda: build(input_shape=(size, size, 3), classes=5, weights=None, classifier_activation=None, **options)


def detector() -> keras.Model:
    """Boxes and scores at two scales."""
    image = keras.Input((16, 16, 3), name="image")
    fine = conv(conv(image, 8, 3, strides=2), 8, 3)
    coarse = conv(fine, 8, 3, strides=2)
    heads = {}
    for index, x in enumerate((fine, coarse)):
        heads[f"boxes_{index}"] = layers.Reshape((-1, 4))(layers.Conv2D(8, 3, padding="same")(x))
        heads[f"scores_{index}"] = layers.Reshape((-1, 3))(layers.Conv2D(6, 3, padding="same")(x))
    return keras.Model(image, heads)


def center_detector() -> keras.Model:
    """A heat map by a sigmoid, sizes and offsets."""
    image = keras.Input((16, 16, 3))
    x = conv(conv(image, 8, 3, strides=2), 8, 3)
    heat = layers.Conv2D(2, 1, activation="sigmoid", name="heat")(x)
    return keras.Model(image, [heat, layers.Conv2D(2, 1, name="size")(x), layers.Conv2D(2, 1, name="offset")(x)])


def segmenter() -> keras.Model:
    """A U-Net with one class map per class."""
    image = keras.Input((16, 16, 3))
    fine = conv(image, 6, 3)
    x = layers.Conv2DTranspose(6, 2, strides=2)(conv(layers.MaxPooling2D()(fine), 8, 3))
    return keras.Model(image, layers.Conv2D(3, 1)(layers.Concatenate()([fine, x])))


def two_inputs() -> keras.Model:
    """An image and a vector, in a dictionary with numbers in its names."""
    inputs = {"2_image": keras.Input((8, 8, 3), name="2_image"), "10_vector": keras.Input((6,), name="10_vector")}
    x = layers.GlobalAveragePooling2D()(conv(inputs["2_image"], 6, 3))
    x = layers.Concatenate()([x, layers.Dense(6, activation="relu")(inputs["10_vector"])])
    return keras.Model(inputs, {"10_first": layers.Dense(4)(x), "2_second": layers.Dense(3)(x)})


def siamese() -> keras.Model:
    """Two images through one network, compared by the distance of their embeddings."""
    embed = keras.Sequential([layers.Conv2D(6, 3, activation="relu"), layers.Flatten(), layers.Dense(8)])
    first, second = keras.Input(IMAGE), keras.Input(IMAGE)
    return keras.Model([first, second], layers.Dense(2)(ops.abs(embed(first) - embed(second))))


def nested() -> keras.Model:
    """A model in a model, with the scaling inside."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 4), layers.Conv2D(6, 3), layers.ReLU()])
    image = keras.Input((8, 8, 3))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(inner(image))))


def autoencoder() -> keras.Model:
    """The dense autoencoder of MLPerf Tiny, smaller."""
    vector = keras.Input((32,))
    x = vector
    for units in (16, 16, 4, 16, 16):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return keras.Model(vector, layers.Dense(32)(x))


def tokens(step: Step) -> Callable[[], keras.Model]:
    """A builder of a classifier of token ids around a step on their embeddings."""

    def build() -> keras.Model:
        ids = keras.Input((10,), dtype="int32")
        return keras.Model(ids, layers.Dense(4)(step(layers.Embedding(20, 8)(ids))))

    return build


ARCHITECTURES: dict[str, Callable[[], keras.Model]] = {
    "digits_student": lambda: models.digits_student((8, 8, 1), 10),
    "digits_teacher": lambda: models.build("digits_teacher", (8, 8, 1), 10),
    "resnet8": lambda: models.resnet8((16, 16, 3), 10),
    "ds_cnn": lambda: models.ds_cnn((49, 10, 1), 12, filters=16),
    "mobilenet_v1": lambda: models.mobilenet_v1((32, 32, 3), 2),
    "mobilenet_v2": lambda: models.mobilenet_v2((32, 32, 3), 5),
    "lstm": lambda: models.lstm((16, 13), 10),
    "gru": lambda: models.gru((16, 13), 10),
    "autoencoder": autoencoder,
    "detector": detector,
    "center detector": center_detector,
    "segmenter": segmenter,
    "two inputs and outputs": two_inputs,
    "siamese": siamese,
    "nested": nested,
    "tokens, mean": tokens(lambda x: layers.GlobalAveragePooling1D()(x)),
    "tokens, convolution": tokens(lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(6, 3, activation="relu")(x))),
    "tokens, LSTM": tokens(lambda x: layers.LSTM(6)(x)),
    "tokens, transformer": tokens(lambda x: layers.GlobalAveragePooling1D()(transformer(x))),
    "MobileNet": application("MobileNet", 32, alpha=0.25),
    "MobileNetV2": application("MobileNetV2", 32, alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small", 32),
    "EfficientNetB0": application("EfficientNetB0", 32),
    "EfficientNetV2B0": application("EfficientNetV2B0", 32),
    "ResNet50": application("ResNet50", 32),
    "DenseNet121": application("DenseNet121", 32),
    "NASNetMobile": application("NASNetMobile", 32),
    "Xception": application("Xception", 71),
    "VGG16": application("VGG16", 32),
    "ConvNeXtTiny": application("ConvNeXtTiny", 32),
}


def all_models() -> Iterator[tuple[str, str, Callable[[], keras.Model]]]:
    """Family, name and builder of each model."""
    steps: dict[str, Step] = {name: functools.partial(activated, name) for name in ACTIVATIONS}
    families = (
        ("activation", steps, image_model),
        ("layer", IMAGE_STEPS, image_model),
        ("sequence", SEQUENCE_STEPS, sequence_model),
        ("vector", VECTOR_STEPS, vector_model),
        ("block", BLOCK_STEPS, image_model),
    )
    for family, steps, build in families:
        for name, step in steps.items():
            yield family, name, functools.partial(build, step)
    for name, builder in ARCHITECTURES.items():
        yield "architecture", name, builder


def activated(name: str, x: Tensor) -> Tensor:
    """An activation of `keras.activations` on values that reach beyond its bends."""
    return layers.Activation(name)(2.0 * x)


def settle(model: keras.Model, x: Any) -> None:
    """Makes random weights resemble trained ones: with biases, and the statistics of the data in BatchNormalization.

    A deep network of random weights amplifies each error from layer to layer, which a trained one does not. With
    offsets around 2, in units of the deviation, most activations pass ReLU and errors do not grow.

    Args:
        model: The model; changed in place.
        x: Input samples.
    """
    rng = np.random.default_rng(0)
    normalizations = [one for one in flat(model) if isinstance(one, layers.BatchNormalization)]
    offset, deviation = (2.0, 0.5) if len(normalizations) > _DEEP else (0.0, 0.1)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        if variable.name == "bias":
            variable.assign(variable + 0.1 * rng.normal(size=shape))
        elif variable.name == "beta":
            variable.assign(variable + offset + deviation * rng.normal(size=shape))
        elif variable.name == "gamma":
            variable.assign(1.0 + 0.2 * rng.normal(size=shape))
        elif "tiny_kernel" in variable.path:
            variable.assign(1e-6 * variable)
    for one in normalizations:
        one.momentum = 0.0
    if normalizations:
        model(x, training=True)
    for one in normalizations:
        one.momentum = 0.99


def flat(model: keras.Model) -> list[Any]:
    """The layers of a model and of the models in it."""
    return [one for layer in model.layers for one in (flat(layer) if isinstance(layer, keras.Model) else [layer])]
