"""Gradients of 1×1 convolutions with a stride against sums in float64, and which trainings compute them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import tfkd
from tfkd._internal import convolution_gradients
from tfkd.distillation import teachers, training
from tfkd.distillation.training_config import TrainingConfig

NAMES = ("Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative")


def conv1d(x, kernel, stride):
    return tf.nn.conv1d(x[:, 0], kernel[0], stride, "SAME")[:, None]


def conv2d_valid(x, kernel, stride):
    return tf.nn.conv2d(x, kernel, stride, "VALID")


def conv2d_same(x, kernel, stride):
    return tf.nn.conv2d(x, kernel, [1, 1, stride, 1], "SAME")


def depthwise(x, kernel, stride):
    return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")


@pytest.fixture
def corrected():
    convolution_gradients.correct()


@pytest.fixture
def uncorrected():
    """TensorFlow's own gradients in the place of corrected ones; afterwards the next caller corrects them again."""
    entries = [ops.gradient_registry._registry[name] for name in NAMES]
    for entry in entries:
        if is_corrected(entry["type"]):
            entry["type"] = entry["type"].args[1]
    convolution_gradients.correct.cache_clear()
    return entries


def is_corrected(gradients):
    return getattr(gradients, "func", None) is convolution_gradients._gradients


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
@pytest.mark.parametrize(
    ("convolution", "shape", "channels", "strides"),
    [
        (conv1d, (1, 64), 8, (1, 2)),
        (conv2d_valid, (33, 32), 15, (2, 2)),
        (conv2d_same, (8, 64), 3, (1, 3)),
        (depthwise, (32, 32), 1, (2, 2)),
    ],
    ids=["conv1d", "conv2d_valid", "conv2d_same", "depthwise"],
)
def test_gradients_equal_the_sums_of_their_definition(corrected, convolution, shape, channels, strides, eager):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(1, 1, channels, 16)).astype("float32")

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            loss = tf.reduce_sum(convolution(x, weights, strides[1]) ** 2)
        return tape.gradient(loss, [x, weights])

    weights = tf.constant(kernel)
    computed = gradients if eager else tf.function(gradients, reduce_retracing=True)
    for batch in (1, 49):
        x = rng.normal(size=(batch, *shape, channels)).astype("float32")
        read = (slice(None), *(slice(None, None, stride) for stride in strides))
        of_output = 2 * np.einsum("nhwi,io->nhwo", x[read].astype("float64"), kernel[0, 0])
        of_x = np.zeros(x.shape)
        of_x[read] = np.einsum("nhwo,io->nhwi", of_output, kernel[0, 0])
        of_kernel = np.einsum("nhwi,nhwo->io", x[read], of_output)
        first, second = computed(tf.constant(x))
        np.testing.assert_allclose(first, of_x, rtol=1e-4, atol=1e-5 * np.abs(of_x).max())
        np.testing.assert_allclose(second[0, 0], of_kernel, rtol=1e-4, atol=1e-5 * np.abs(of_kernel).max())


def test_gradient_of_a_transposed_convolution_equals_the_sum_of_its_definition(corrected):
    rng = np.random.default_rng(0)
    kernel, target = rng.normal(size=(1, 1, 8, 24)).astype("float32"), rng.normal(size=(1, 32, 32, 8))
    x = rng.normal(size=(1, 16, 16, 24)).astype("float32")
    x_, kernel_ = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([x_, kernel_])
        loss = tf.reduce_sum(tf.nn.conv2d_transpose(x_, kernel_, (1, 32, 32, 8), 2) * target.astype("float32"))
    of_x, of_kernel = tape.gradient(loss, [x_, kernel_])
    read = target[:, ::2, ::2]
    np.testing.assert_allclose(of_x, np.einsum("nhwi,io->nhwo", read, kernel[0, 0]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_kernel[0, 0], np.einsum("nhwi,nhwo->io", read, x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "stride", "channels", "groups"), [(3, 2, 8, 1), (1, 1, 8, 1), (1, 2, 16, 1), (1, 2, 8, 2)]
)
def test_other_convolutions_keep_the_gradient_of_tensorflow(corrected, size, stride, channels, groups):
    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, channels))])
    def gradient(x):
        kernel = tf.ones((size, size, channels // groups, 16))
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(tf.nn.conv2d(x, kernel, stride, "SAME"))
        return tape.gradient(loss, kernel)

    graph = gradient.get_concrete_function().graph
    (op,) = [op for op in graph.get_operations() if op.type == "Conv2DBackpropFilter"]
    assert op.get_attr("strides") == [1, stride, stride, 1]
    assert op.inputs[0] is graph.inputs[0]


def _distiller(model):
    tfkd.Distiller(model, model)


def _mutual_learning(model):
    teachers.MutualLearning([model, model])


def _training(model):
    training.fit(model, tfkd.data.load("digits"), TrainingConfig(epochs=1, batch_size=1024))


@pytest.mark.parametrize("train", [_distiller, _mutual_learning, _training], ids=["distill", "mutual", "train"])
def test_each_way_of_training_corrects_the_gradients(uncorrected, train):
    assert not any(is_corrected(entry["type"]) for entry in uncorrected)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    train(keras.Sequential([keras.Input((8, 8, 1)), *layers]))
    assert all(is_corrected(entry["type"]) for entry in uncorrected)
