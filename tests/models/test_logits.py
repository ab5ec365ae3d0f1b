"""Outputs that are probabilities are found in each form, and logits of each form are accepted."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfkd.errors import InputError
from tfkd.models import logits
from tfkd.models.final_activation import final_activation

X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")


def dense(activation=None, units=3, **options):
    return layers.Dense(units, activation=activation, **options)


def model(build):
    """A functional model of six inputs."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, build(inputs))


class Custom(layers.Layer):
    """A layer that applies a function to logits of its own."""

    def __init__(self, function):
        super().__init__()
        self.logits, self.function = dense(), function

    def call(self, x):
        return self.function(self.logits(x))


class Compiled(Custom):
    """The same, as a TensorFlow function."""

    @tf.function
    def call(self, x):
        return self.function(self.logits(x))


class Subclassed(keras.Model):
    def __init__(self, activation=None):
        super().__init__()
        self.logits = dense(activation)

    def call(self, x):
        return self.logits(x)


def softmax_by_hand(z):
    return ops.exp(z) / ops.sum(ops.exp(z), axis=-1, keepdims=True)


def pair(x):
    return layers.Reshape((2, 3))(x)


# Ends that apply an activation f of any form, and are found without data unless `combined`.
ENDS = {
    "activation": lambda f: model(lambda x: dense(f)(x)),
    "operation": lambda f: model(lambda x: f(dense()(x))),
    "Lambda": lambda f: model(lambda x: layers.Lambda(lambda z: f(z))(dense()(x))),
    "activation of a lambda": lambda f: model(lambda x: dense(lambda z: f(z))(x)),
    "custom layer": lambda f: model(lambda x: Custom(f)(x)),
    "tf.function": lambda f: model(lambda x: Compiled(f)(x)),
    "nested": lambda f: model(lambda x: keras.Sequential([keras.Input((6,)), dense(f)])(x)),
    "before a nested model": lambda f: model(
        lambda x: keras.Sequential([keras.Input((3,)), layers.Flatten()])(dense(f)(x))
    ),
    "nested subclassed": lambda f: model(lambda x: Subclassed(f)(x)),
    "Reshape": lambda f: model(lambda x: layers.Reshape((1, 3))(dense(f)(x))),
    "Dropout": lambda f: model(lambda x: layers.Dropout(0.5)(dense(f)(x))),
    "Identity": lambda f: model(lambda x: layers.Identity()(dense(f)(x))),
    "linear in float32": lambda f: model(
        lambda x: layers.Activation("linear", dtype="float32")(dense(f, dtype="mixed_float16")(x))
    ),
    "cast": lambda f: model(lambda x: ops.cast(dense(f, dtype="mixed_bfloat16")(x), "float32")),
    "clip": lambda f: model(lambda x: ops.clip(dense(f)(x), 1e-7, 1 - 1e-7)),
    "TimeDistributed": lambda f: model(lambda x: layers.TimeDistributed(dense(f))(pair(x))),
    "squeeze": lambda f: model(lambda x: ops.squeeze(ops.expand_dims(dense(f)(x), 1), 1)),
    "heads": lambda f: model(lambda x: layers.Concatenate(axis=1)([pair(dense(f, 6)(x)), pair(dense(f, 6)(x))])),
}
COMBINED = {
    "Average": lambda f: model(lambda x: layers.Average()([dense(f)(x), dense(f)(x)])),
    "weighted sum": lambda f: model(lambda x: 0.3 * dense(f)(x) + 0.7 * dense(f)(x)),
    "pooling": lambda f: model(lambda x: layers.GlobalAveragePooling1D()(dense(f)(pair(x)))),
}
FUNCTIONS = {"softmax": ops.softmax, "sigmoid": ops.sigmoid}


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_found_in_the_graph(end, activation):
    with pytest.raises(InputError, match=f"teacher must return logits.*applies {activation}"):
        logits.check_gives_logits("teacher", ENDS[end](FUNCTIONS[activation]))


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("end", COMBINED)
def test_combined_probabilities_are_found_on_a_batch(end, activation):
    with pytest.raises(InputError, match="teacher must return logits"):
        logits.check_are_logits("teacher", COMBINED[end](FUNCTIONS[activation]), X)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("build", [Subclassed, lambda f: keras.Sequential([dense(f)])], ids=["subclassed", "unbuilt"])
def test_models_that_do_not_show_their_layers_are_examined_with_a_batch(build, activation):
    with pytest.raises(InputError, match=f"must return logits.*applies {activation}"):
        logits.check_are_logits("teacher", build(activation), X)


@pytest.mark.parametrize("name", ["hard_sigmoid", "sparsemax"])
def test_other_activations_of_keras_are_found_by_name(name):
    assert final_activation(model(lambda x: layers.Dropout(0.5)(dense(name)(x)))).activation == name


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("function", [softmax_by_hand, lambda z: ops.exp(ops.log_softmax(z))], ids=["division", "exp"])
def test_softmax_of_unknown_form_is_found_by_its_values(function, dtype):
    built = model(lambda x: layers.Lambda(function, dtype=dtype)(dense(units=50, dtype=dtype)(x)))
    with pytest.raises(InputError, match="rows that are >= 0 and sum to 1"):
        logits.check_are_logits("teacher", built, X)


def near(value, scale):
    return {"kernel_initializer": keras.initializers.RandomNormal(0, scale), "bias_initializer": constant(value)}


def constant(value):
    return keras.initializers.Constant(value)


LOGITS = {
    "logits": lambda x: dense()(x),
    "small and positive": lambda x: dense(**near(0.3, 0.01))(x),
    "sums near 1": lambda x: dense(**near(1 / 3, 0.02))(x),
    "sums near 1 in bfloat16": lambda x: dense(dtype="bfloat16", **near(1 / 3, 0.05))(x),
    "near 0": lambda x: dense(**near(0, 1e-6))(x),
    "equal": lambda x: dense(kernel_initializer="zeros")(x),
    "ReLU": lambda x: layers.Rescaling(0.01)(dense("relu")(x)),
    "softplus": lambda x: dense("softplus")(x),
    "one-hot": lambda x: layers.Lambda(lambda z: ops.one_hot(ops.argmax(z, axis=-1), 6))(x),
    "log_softmax": lambda x: dense("log_softmax")(x),
    "log of a softmax": lambda x: ops.log(dense("softmax")(x)),
    "scaled sigmoid": lambda x: 10 * dense("sigmoid")(x),
    "gate": lambda x: dense()(x) * dense("sigmoid")(x),
    "swish": lambda x: dense("swish")(x),
    "softmax inside": lambda x: dense()(dense("softmax")(x)),
    "recurrent": lambda x: layers.LSTM(3)(pair(x)),
    "attention": lambda x: layers.MultiHeadAttention(1, 3)(pair(x), pair(x)),
    "one output": lambda x: dense(units=1)(x),
}


@pytest.mark.parametrize("samples", [1, 12])
@pytest.mark.parametrize("form", LOGITS)
def test_logits_raise_no_alarm(form, samples):
    built = model(LOGITS[form])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits.check_gives_logits("teacher", built)
        shape = logits.check_are_logits("teacher", built, X[:samples])
    assert shape == built(X[: min(samples, 8)]).shape


def test_activation_of_a_recurrent_layer_is_not_that_of_its_output():
    assert final_activation(model(lambda x: layers.LSTM(3, activation="sigmoid")(pair(x)))) is None


def test_sigmoid_of_unknown_form_is_a_warning():
    built = model(lambda x: layers.Lambda(lambda z: 1 / (1 + ops.exp(-z)))(dense()(x)))
    with pytest.warns(UserWarning, match="outputs of the teacher stay in 0..1"):
        logits.check_are_logits("teacher", built, X)


def test_one_row_proves_nothing():
    assert not logits.are_softmax(np.array([[0.25, 0.75]]))
    assert logits.are_softmax(np.array([[[0.25, 0.75], [0.5, 0.5]]]))


def test_model_that_keeps_its_state_is_not_run():
    inputs = keras.Input(batch_shape=(12, 6))
    lstm = layers.LSTM(3, stateful=True)
    logits.check_are_logits("teacher", keras.Model(inputs, dense()(lstm(pair(inputs)))), X)
    assert not np.any(lstm.states[0].numpy())


def test_fixed_batch_size_is_kept():
    inputs = keras.Input(batch_shape=(10, 6))
    built = keras.Model(inputs, ops.reshape(dense()(inputs), (10, 3)))
    assert logits.check_are_logits("teacher", built, X) == (10, 3)
    assert logits.check_are_logits("teacher", built, X[:4]) == (10, 3)


@pytest.mark.parametrize(
    "loss",
    ["mse", keras.losses.Huber(), keras.losses.CategoricalHinge(), None, "no_such_loss", lambda y, z: z]
    + [keras.losses.BinaryCrossentropy(from_logits=True)],
)
def test_losses_on_logits_are_accepted(loss):
    logits.check_takes_logits(loss)


@pytest.mark.parametrize(
    "loss",
    [
        "kld",
        keras.losses.KLDivergence(),
        keras.losses.Dice(),
        ["sparse_categorical_crossentropy"],
        {"output": keras.losses.CategoricalFocalCrossentropy()},
        keras.losses.binary_crossentropy,
    ],
)
def test_losses_on_probabilities_are_refused(loss):
    with pytest.raises(InputError, match="must take logits"):
        logits.check_takes_logits(loss)
