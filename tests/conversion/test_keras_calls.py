"""Tests of the calls of a Keras model's layers, and of the first one that a .tflite does not repeat."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfkd.conversion import reference
from tfkd.conversion.export import input_specs
from tfkd.conversion.keras_calls import different


class Scaled(layers.Layer):
    """A layer of one's own, with a layer inside and operations outside of it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(4, name="inner")

    def call(self, x):
        return 2.0 * self.inner(x) + 1.0


def branched():
    """A nested model, a layer of one's own, operations, and two branches."""
    inputs = keras.Input((4,))
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU(name="b")], name="nested")
    x = Scaled(name="scaled")(nested(inputs))
    left, right = layers.Dense(4, name="left")(x), layers.Dense(3, name="right")(x)
    return keras.Model(inputs, layers.Concatenate(name="joined")([left * 3.0, ops.tanh(right)]))


@pytest.fixture(scope="module")
def calls():
    keras.utils.set_random_seed(0)
    model = branched()
    return reference.calls_of(
        model, input_specs(model), [np.random.default_rng(0).normal(size=(1, 4)).astype("float32")]
    )


def test_calls_have_paths_and_sources(calls):
    paths = [call.path for call in calls]
    for path in ("nested/a", "nested/b", "nested", "scaled/inner", "scaled", "left", "right", "joined"):
        assert paths.count(path) == 1
    by_path = {call.path: call for call in calls}
    assert [paths[index] for index in by_path["left"].sources] == ["scaled"]
    assert {paths[index] for index in by_path["nested/b"].sources} == {"nested/a"}


@pytest.mark.parametrize("wrong", ["nested/a", "scaled/inner", "scaled", "left", "right", "joined"])
def test_first_difference_is_the_layer_at_fault(calls, wrong):
    """All values from the wrong layer on differ; those of branches beside it and before it are there."""
    spoilt = {index for index, call in enumerate(calls) if call.path == wrong}
    for index, call in enumerate(calls):
        if spoilt & {*call.sources}:
            spoilt.add(index)
    values = [output * (1.5 if index in spoilt else 1) for index, call in enumerate(calls) for output in call.outputs]
    call, share = different(calls, values)[0]
    assert call.path == wrong
    assert share > 1e-3


def test_joined_layers_are_no_difference(calls):
    kept = ("nested/b", "scaled", "joined")
    values = [output for call in calls if call.path in kept for output in call.outputs]
    assert different(calls, values) == []


def test_recurrent_layers_are_one_call():
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Bidirectional(layers.LSTM(2), name="both")(inputs))
    found = reference.calls_of(model, input_specs(model), [np.ones((1, 5, 3), "float32")])
    assert [call.path for call in found if call.path.count("/") <= 1][-1] == "both"
    assert not any("cell" in call.path for call in found)
