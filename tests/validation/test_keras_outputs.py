"""Outputs of Keras models on a split: no state passes from one sample to the next."""

import keras
import numpy as np
import pytest

from tfkd import data
from tfkd.validation import keras_outputs


@pytest.mark.parametrize("wrapped", [False, True])
def test_stateful_model_computes_each_sample_from_a_state_of_zero(wrapped):
    x = np.random.default_rng(0).normal(size=(5, 3, 2)).astype("float32")
    split = data.from_arrays((x, [0, 1, 0, 1, 0]), (x, [0, 1, 0, 1, 0]), validation=0.0).test
    inputs = keras.Input((3, 2), batch_size=1)
    layer = keras.layers.GRU(4, stateful=True)
    model = keras.Model(inputs, (keras.layers.Bidirectional(layer) if wrapped else layer)(inputs))
    stateless = keras.layers.GRU(4)
    alone = keras.Sequential([keras.layers.Bidirectional(stateless) if wrapped else stateless])
    alone.build(x.shape)
    alone.set_weights(model.get_weights())
    expected = alone(x)
    before = model(x[:1])
    np.testing.assert_allclose(keras_outputs.compute(model, split), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model(x[:1]), before)  # the state that the model had before is restored
