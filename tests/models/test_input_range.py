"""A declared input range or preprocessing becomes the first layer of a model, an input shape its own."""

import keras
import numpy as np
import pytest
from keras import layers

from tfkd import models
from tfkd.errors import InputError
from tfkd.models.input_range import PREPROCESS

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("float32")


def net(x, *, custom=None):
    """A net with a nested model, a layer that is called twice, and a softmax."""
    block = layers.Conv2D(3, 3, padding="same", activation="relu", name="block")
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization()], name="inner")
    x = block(block(inner(x)))
    x = layers.GlobalAveragePooling2D()(x if custom is None else custom(x))
    return layers.Dense(4, activation="softmax")(x)


@pytest.fixture(scope="module")
def image_model():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, net(inputs), name="image_model")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-0.5, 0.5)])
def test_model_of_scaled_pixels_takes_pixels(image_model, low, high, tmp_path):
    loaded = models.load(image_model, input_range=(low, high))
    expected = image_model(PIXELS / 255 * (high - low) + low)
    np.testing.assert_allclose(keras.ops.softmax(loaded(PIXELS)), expected, atol=1e-5)
    loaded.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(PIXELS), loaded(PIXELS), atol=1e-6)
    assert {"block", "inner"} <= {layer.name for layer in loaded.layers}


@pytest.mark.parametrize("name", PREPROCESS)
def test_preprocessing_is_that_of_keras_applications(name):
    inputs = keras.Input((8, 8, 3))
    loaded = models.load(keras.Model(inputs, layers.Identity()(inputs)), preprocess=name)
    if name in ("tf", "torch", "caffe"):
        expected = keras.applications.imagenet_utils.preprocess_input(PIXELS.copy(), mode=name)
    else:
        expected = getattr(keras.applications, name).preprocess_input(PIXELS.copy())
    np.testing.assert_allclose(loaded(PIXELS), expected, rtol=1e-4, atol=1e-4)


def test_layer_without_a_config_is_kept_inside_the_model():
    class Custom(layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return self.factor * x

        def get_config(self):
            raise NotImplementedError

    inputs = keras.Input((8, 8, 3))
    made = keras.Model(inputs, net(inputs, custom=Custom(2.0)))
    loaded = models.load(made, input_range=(0, 1))
    np.testing.assert_allclose(keras.ops.softmax(loaded(PIXELS)), made(PIXELS / 255), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_range": (1, 1)}, "two different numbers"),
        ({"input_range": (0, 1), "preprocess": "tf"}, "exclude each other"),
        ({"preprocess": "resnet5"}, "Did you mean 'resnet50'"),
    ],
)
def test_wrong_range_is_refused(image_model, options, message):
    with pytest.raises(InputError, match=message):
        models.load(image_model, **options)


def test_model_that_does_not_take_pixels_is_refused():
    tokens = keras.Input((5,), dtype="int32")
    with pytest.raises(InputError, match="one input of floating point"):
        models.load(keras.Model(tokens, layers.Embedding(4, 3)(tokens)), input_range=(0, 1))
    gray = keras.Input((8, 8, 1))
    with pytest.raises(InputError, match="three channels"):
        models.load(keras.Model(gray, layers.Flatten()(gray)), preprocess="torch")


def test_model_of_any_size_takes_a_fixed_one():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2)(inputs)
    made = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    fixed = models.with_input_shape(made, (8, 8, 3))
    assert fixed.input_shape == (None, 8, 8, 3)
    np.testing.assert_allclose(fixed(PIXELS), made(PIXELS), rtol=1e-5)
    assert models.with_input_shape(fixed, (8, 8, 3)) is fixed
    with pytest.raises(InputError, match=r"must fit \(None, None, 3\)"):
        models.with_input_shape(made, (8, 8, 1))
    with pytest.raises(InputError, match="do not take input_shape"):
        models.with_input_shape(made, (2, 2, 3))


def test_inputs_of_any_length_take_a_fixed_one():
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in ("tokens", "mask")}
    embedded = layers.Embedding(9, 4)(inputs["tokens"])
    kept = layers.Multiply()([embedded, keras.ops.expand_dims(keras.ops.cast(inputs["mask"], "float32"), -1)])
    made = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(kept)))
    fixed = models.with_input_shape(made, (5,))
    assert [tensor.shape for tensor in fixed.inputs] == [(None, 5), (None, 5)]
    x = {"tokens": np.arange(10, dtype="int32").reshape(2, 5) % 9, "mask": np.eye(2, 5, dtype="int32")}
    np.testing.assert_allclose(fixed(x), made(x), rtol=1e-5)
