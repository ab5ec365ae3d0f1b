"""Models that the tests of several targets share."""

import os

import keras
import numpy as np
import pytest
from filelock import FileLock

from tfkd.conversion.converter import convert
from tfkd.conversion.tflite import TFLiteModel


class Gain(keras.layers.Layer):
    """Multiplies by a variable whose initial value is not 0, and halves the variable."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(), initializer=keras.initializers.Constant(3.0), trainable=False)

    def call(self, x):
        gain = self.gain + 0.0
        self.gain.assign(gain / 2)
        return x * gain


@pytest.fixture(scope="session")
def resource_states(tmp_path_factory):
    """A model with states in resource variables, samples, and the outputs of Keras from the initial state.

    The state of the GRU, which Keras converts to a loop, was left by earlier samples: it is not the initial state.
    """
    inputs = keras.Input((3, 2), batch_size=1)
    gru = keras.layers.GRU(4, stateful=True)
    gain, outputs = Gain(), keras.layers.Dense(2)
    model = keras.Model(inputs, outputs(gain(gru(inputs))))
    gru.cell.set_weights([np.linspace(-1, 1, weight.size).reshape(weight.shape) for weight in gru.cell.get_weights()])
    outputs.set_weights([np.linspace(-1, 1, 8).reshape(4, 2), np.zeros(2)])
    x = np.random.default_rng(0).normal(size=(6, 3, 2)).astype("float32")
    expected = []
    for sample in x:
        gru.reset_state()
        gain.gain.assign(3.0)
        expected.append(model(sample[None])[0])
    gain.gain.assign(3.0)
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one file for all worker processes
    path = base / "resource_states.tflite"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            convert(model, path, mode="float32")
    return TFLiteModel.load(path), x, np.stack(expected)


@pytest.fixture(scope="session")
def several_ends():
    """A model with an input each of int64 and float32 and an output each of float32, int64 and bool, and its inputs."""
    import tensorflow as tf

    signature = [tf.TensorSpec([1, 3], tf.int64), tf.TensorSpec([1, 3], tf.float32)]
    graph = tf.function(lambda b, a: (2 * a + tf.cast(b, tf.float32), b + 1, a > 0.5), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph)
    model, rng = TFLiteModel.load(converter.convert()), np.random.default_rng(0)
    values = {"int64": rng.integers(-9, 9, (6, 3)), "float32": rng.random((6, 3), "float32")}
    return model, [values[tensor.dtype] for tensor in model.inputs]
