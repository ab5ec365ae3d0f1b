"""Inputs and outputs of a .tflite are those of the Keras model, in its order."""

import keras
import numpy as np
import pytest

from tests.conversion.execution import outputs
from tfkd.conversion.converter import convert


def many_inputs_and_outputs(form):
    """A model of three inputs and twelve outputs in a list or a dict; output i has i + 1 units."""
    inputs = [keras.Input((size,), name=name) for name, size in (("zeta", 4), ("alpha", 3), ("mid", 2))]
    joined = keras.layers.Concatenate()(inputs)
    heads = [keras.layers.Dense(units)(joined) for units in range(1, 13)]
    if form == "dict":
        return keras.Model({i.name: i for i in inputs}, {f"head_{i}": head for i, head in enumerate(heads)})
    return keras.Model(inputs, [heads[0], tuple(heads[1:])] if form == "nested" else heads)


def assert_same_outputs(converted, model):
    """Inputs and outputs of both models are the same, in the order of `keras.tree.flatten`."""
    tensors = keras.tree.flatten(model.input)
    assert [tensor.shape[1:] for tensor in converted.inputs] == [tensor.shape[1:] for tensor in tensors]
    x = [np.random.default_rng(i).normal(size=(1, *t.shape[1:])).astype("float32") for i, t in enumerate(tensors)]
    answers = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, x)))
    for received, answer in zip(outputs(converted, *x), answers, strict=True):
        np.testing.assert_allclose(received, answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["list", "dict", "nested"])
def test_convert_keeps_the_order_of_inputs_and_outputs(form, tmp_path):
    model = many_inputs_and_outputs(form)
    assert_same_outputs(convert(model, tmp_path / "m.tflite", mode="float32"), model)


@pytest.mark.parametrize("form", [pytest.param("list", marks=pytest.mark.campaign), "dict"])
def test_convert_saved_model_keeps_the_order_of_inputs_and_outputs(form, tmp_path):
    model = many_inputs_and_outputs(form)
    model.export(str(tmp_path / "saved"), verbose=False)
    assert_same_outputs(convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32"), model)


def test_convert_saved_model_of_keras_2_keeps_the_order_of_inputs_and_outputs(tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    inputs = [tf_keras.Input((size,), name=name) for name, size in (("zeta", 4), ("alpha", 3))]
    joined = tf_keras.layers.Concatenate()(inputs)
    model = tf_keras.Model(inputs, [tf_keras.layers.Dense(n, name=f"dense_{n}")(joined) for n in (10, 9, 11)])
    model.save(tmp_path / "saved", save_format="tf")
    made = convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32")
    x = [np.random.default_rng(i).normal(size=(1, n)).astype("float32") for i, n in enumerate((4, 3))]
    for received, answer in zip(outputs(made, *x), model(x), strict=True):
        np.testing.assert_allclose(received, answer, rtol=1e-4, atol=1e-5)


def test_convert_names_that_are_no_arguments_of_a_function(tmp_path):
    inputs = [keras.Input((1,), name=name) for name in ("class", "1st", "größe", "a.b", "a_b", "self")]
    model = keras.Model(inputs, {"a b": keras.layers.Concatenate()(inputs), "class": inputs[0]})
    made = convert(model, tmp_path / "m.tflite", mode="float32")
    x = [np.full((1, 1), i, "float32") for i in range(6)]
    np.testing.assert_array_equal(outputs(made, *x)[0], [[0, 1, 2, 3, 4, 5]])
