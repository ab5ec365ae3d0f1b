"""Models that end in probabilities become models of logits, and back, with the same probabilities."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tests.models.test_logits import COMBINED, ENDS, FUNCTIONS, LOGITS, Subclassed, X, dense, model, softmax_by_hand
from tfkd import models
from tfkd.errors import InputError
from tfkd.models.final_activation import final_activation
from tfkd.models.probabilities import to_logits, with_softmax

# Where the layers do not show the activation, its logarithm is taken.
HIDDEN = {
    "Lambda", "custom layer", "tf.function", "nested subclassed", "before a nested model", "clip", "TimeDistributed",
}  # fmt: skip
# Half precision rounds the probabilities that they are compared with.
ROUNDED = {"linear in float32", "cast"}


def probabilities(activation, logits):
    return ops.convert_to_numpy(FUNCTIONS[activation](ops.cast(logits, "float32")))


def changed(built):
    """The model of logits, and whether there was a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = to_logits(built)
    assert result is not built
    assert {str(one.message).split(":")[0] for one in caught} <= {"models.load"}
    return result, bool(caught)


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("end", sorted(ENDS))
def test_activation_is_removed_where_the_layers_show_it_and_inverted_elsewhere(end, activation):
    built = ENDS[end](FUNCTIONS[activation])
    if end == "heads" and activation == "softmax":
        assert to_logits(built) is built  # two distributions side by side
        return
    result, inverted = changed(built)
    assert inverted == (end in HIDDEN | {"heads"})
    assert inverted or final_activation(result) is None
    np.testing.assert_allclose(
        probabilities(activation, result(X)), ops.cast(built(X), "float32"), atol=5e-3 if end in ROUNDED else 1e-6
    )


@pytest.mark.parametrize("end", COMBINED)
def test_mean_of_softmaxes_becomes_its_logarithm(end):
    built = COMBINED[end](ops.softmax)
    result, inverted = changed(built)
    assert inverted
    np.testing.assert_allclose(probabilities("softmax", result(X)), built(X), atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Subclassed("softmax"),
        lambda: model(lambda x: layers.Lambda(softmax_by_hand)(dense()(x))),
    ],
    ids=["subclassed", "by hand"],
)
def test_softmax_that_no_layer_shows_is_found_by_its_values_and_returned(build):
    built = build()
    expected = ops.convert_to_numpy(built(X))
    result, inverted = changed(built)
    assert inverted
    np.testing.assert_allclose(probabilities("softmax", result(X)), expected, atol=1e-6)
    again = with_softmax(result)
    assert not any(type(one).__name__ == "Log" for one in again.operations)
    np.testing.assert_array_equal(again(X), expected)


@pytest.mark.parametrize("form", sorted(set(LOGITS) - {"one-hot"}))
def test_logits_stay_as_they_are(form):
    built = model(LOGITS[form])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_logits(built) is built


def test_each_of_several_outputs_becomes_logits_under_its_name():
    """A softmax in the last layer, one in a layer of its own, a sigmoid, and values."""
    inputs = keras.Input(X.shape[1:])
    ends = [
        layers.Dense(3, activation="softmax", name="kind")(inputs),
        layers.Softmax(name="start")(layers.Dense(5, name="start_logits")(inputs)),
        layers.Dense(1, activation="sigmoid", name="box")(inputs),
        layers.Dense(2, name="place")(inputs),
    ]
    names = ["kind", "start", "box", "place"]
    built = keras.Model(inputs, ends)
    expected = built(X)
    result, warned = changed(built)
    assert not warned
    assert result.output_names == names
    for activation, value, probability in zip(("softmax", "softmax", "sigmoid"), result(X), expected, strict=False):
        np.testing.assert_allclose(probabilities(activation, value), probability, atol=1e-6)
    np.testing.assert_array_equal(result(X)[3], expected[3])
    named = keras.Model(inputs, dict(zip("dcba", ends, strict=True)))
    partly = models.load(named, logits=["c"])(X)
    np.testing.assert_allclose(ops.softmax(partly["c"]), expected[1], atol=1e-6)
    np.testing.assert_array_equal(partly["b"], expected[2])
    with pytest.raises(InputError, match="must name outputs of the model: a, b, c, d. Received: kind"):
        models.load(named, logits=["kind"])


@pytest.mark.parametrize("activation", ["hard_sigmoid", "sparsemax"])
def test_activation_without_an_inverse_is_kept(activation):
    built = model(lambda x: dense(activation)(x))
    assert models.load(built) is built


def test_softmax_over_another_axis_is_kept():
    built = model(lambda x: layers.Softmax(axis=1)(layers.Reshape((3, 2))(x)))
    assert to_logits(built) is built


def test_exact_logits_keep_probabilities_that_are_too_small_for_float32():
    built = model(lambda x: layers.Dense(3, "softmax", kernel_initializer=keras.initializers.Constant(50.0))(x))
    result, inverted = changed(built)
    assert not inverted
    assert np.abs(result(X)).max() > 100


def test_load_of_a_file_gives_logits_that_train_and_save(tmp_path):
    built = model(lambda x: layers.Dropout(0.1)(layers.Activation("softmax")(dense()(x))))
    built.save(tmp_path / "softmax.keras")
    student = models.load(tmp_path / "softmax.keras")
    np.testing.assert_array_equal(models.read(tmp_path / "softmax.keras")(X), built(X))
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student.train_on_batch(X, np.arange(12) % 3)
    models.with_softmax(student).save(tmp_path / "trained.keras")
    trained = keras.saving.load_model(tmp_path / "trained.keras")
    np.testing.assert_allclose(trained(X), ops.softmax(student(X)), atol=1e-6)
    np.testing.assert_allclose(models.load(tmp_path / "trained.keras")(X), student(X), atol=1e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_softmax_of_tensorflow_as_an_activation_is_loaded_and_removed(tmp_path, suffix):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=tf.nn.softmax)(inputs))
    model.save(tmp_path / f"m.{suffix}")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(models.read(tmp_path / f"m.{suffix}")(x), model(x), rtol=1e-6)
    loaded = models.load(tmp_path / f"m.{suffix}")
    assert loaded.layers[-1].activation is keras.activations.linear
    np.testing.assert_allclose(keras.ops.softmax(loaded(x)), model(x), rtol=1e-5)
    loaded.save(tmp_path / "again.keras")
    keras.saving.load_model(tmp_path / "again.keras")


def test_load_of_another_object_is_refused():
    with pytest.raises(InputError, match="must be a path or a keras.Model. Received: int"):
        models.load(3)


def test_softmax_of_a_model_with_two_outputs_is_refused():
    inputs = keras.Input((6,))
    with pytest.raises(InputError, match="one output"):
        with_softmax(keras.Model(inputs, [dense()(inputs), dense()(inputs)]))
