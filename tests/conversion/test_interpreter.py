"""Op-by-op execution: all tensors are readable, and no state passes from one sample to the next."""

import keras
import numpy as np
import pytest

from tfkd.conversion.converter import convert
from tfkd.conversion.interpreter import TensorRecorder

STEPS, FEATURES = 4, 3


def lstm():
    """A stateless LSTM: one op, whose states are variable tensors."""
    return keras.Sequential([keras.Input((STEPS, FEATURES)), keras.layers.LSTM(5), keras.layers.Dense(2)])


def stateful_gru():
    """A layer that keeps its state between calls, in resource variables."""
    inputs = keras.Input((STEPS, FEATURES), batch_size=1)
    return keras.Model(inputs, keras.layers.GRU(5, stateful=True, unroll=True)(inputs))


@pytest.mark.parametrize("build", [lstm, stateful_gru])
def test_state_is_reset_before_each_sample(build, tmp_path):
    model = convert(build(), tmp_path / "m.tflite", mode="float32")
    first, second = np.random.default_rng(0).normal(size=(2, 1, STEPS, FEATURES)).astype("float32")
    recorder, output = TensorRecorder(model.content), model.graph.outputs[0]
    expected = recorder.run([first])(output)
    other = recorder.run([second])(output)
    assert not np.allclose(other, expected)
    np.testing.assert_array_equal(recorder.run([first])(output), expected)


def test_intermediate_tensors_keep_their_values(tmp_path):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(4, activation="tanh")(hidden)))
    converted = convert(model, tmp_path / "m.tflite", mode="float32")
    x = np.array([[1, -2, 3]], np.float32)
    read = TensorRecorder(converted.content).run([x])
    tensor = next(
        op.outputs[0] for op in converted.graph.ops if "hidden" in converted.graph.tensors[op.outputs[0]].name
    )
    np.testing.assert_allclose(read(tensor), keras.Model(inputs, hidden)(x), rtol=1e-5)
