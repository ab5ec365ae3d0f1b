"""Samples in another scale than a model was trained on are refused, by its first layers and by labelled samples."""

import keras
import numpy as np
import pytest

from tfkd import data
from tfkd.conversion import input_scale, keras_runs
from tfkd.errors import InputError

L = keras.layers
SCALES = {
    "0..255": lambda x: x,
    "0..1": lambda x: x / 255,
    "-1..1": lambda x: x / 127.5 - 1,
    "0..16": lambda x: x / 255 * 16,
}


class Subclassed(keras.Model):
    """A model without a graph of layers that scales its input itself."""

    def __init__(self):
        super().__init__()
        self.scale, self.rest = L.Rescaling(1 / 255), classifier()

    def call(self, x):
        return self.rest(self.scale(x))


def classifier(*first):
    conv = L.Conv2D(8, 3, activation="relu")
    return keras.Sequential([keras.Input((8, 8, 1)), *first, conv, L.Flatten(), L.Dense(10)])


def normalization(x):
    layer = L.Normalization()
    layer.adapt(x)
    return layer


# How each model is made from the training samples, and the scale that it is trained on.
MODELS = {
    "plain": (lambda x: classifier(), "-1..1"),
    "scaled": (lambda x: classifier(), "0..1"),
    "nested": (lambda x: classifier(keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(1 / 255)])), "0..255"),
    "normalization": (lambda x: classifier(normalization(x)), "0..255"),
    "batch": (lambda x: classifier(L.BatchNormalization(momentum=0.5)), "0..255"),
    "lambda": (lambda x: classifier(L.Lambda(lambda x: x / 255)), "0..255"),
    "subclassed": (lambda x: Subclassed(), "0..255"),
}


@pytest.fixture(scope="module")
def trained():
    """The models, trained for a few epochs on their scale of digits."""
    train, models = data.load("digits").train, {}
    for name, (make, scale) in MODELS.items():
        keras.utils.set_random_seed(0)
        x = SCALES[scale](train.x.astype("float32"))
        models[name] = make(x)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        models[name].compile(keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
        models[name].fit(x, train.y, batch_size=64, epochs=6, verbose=0)
    return models


def scaled(scale):
    """256 calibration samples of digits in a scale; the test split has it, too."""
    train, _, test = data.load("digits")
    x, held_out = (SCALES[scale](split.x.astype("float32")) for split in (train, test))
    return data.from_arrays((x, train.y), (held_out, test.y), validation=0.0).train.sample(256)


def test_large_models_are_run_on_fewer_samples(trained, monkeypatch):
    samples, positions = scaled("-1..1"), 6 * 6
    assert keras_runs.multiplications(trained["plain"]) == 1 + positions * 9 * 8 + positions * 8 * 10
    monkeypatch.setattr(input_scale, "_BUDGET", 1.0)
    some = samples.take(np.random.default_rng(0).permutation(256)[:64])
    outputs = trained["plain"].predict(some.x.astype("float32"), verbose=0)
    found = input_scale.audit(trained["plain"], samples, "x")
    assert (found.accuracy, found.samples) == (np.mean(outputs.argmax(axis=1) == some.y), 64)
    keras.utils.set_random_seed(0)
    assert input_scale.audit(classifier(), samples, "x").samples == 32  # of chance
    by_class = samples.take(np.argsort(samples.y)[::5])  # the first of these have few classes
    assert input_scale.audit(trained["plain"], by_class, "x").samples == 52


class Sizes(keras.layers.Layer):
    """Passes its input on and keeps the sizes of the batches."""

    def build(self, shape):
        self.seen = []

    def call(self, x):
        self.seen.append(x.shape[0])
        return x


def test_batches_are_smaller_where_a_layer_has_many_outputs(monkeypatch):
    layer = Sizes()
    model, x = classifier(layer), scaled("0..1").x[:25]
    layer.seen.clear()
    monkeypatch.setattr(keras_runs, "_VALUES", 10.0 * 6 * 6 * 8)
    outputs = keras_runs.run(model, x)[0]
    assert layer.seen == [10, 10, 5]
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_the_training_are_accepted_and_those_of_another_scale_refused(name, trained):
    right = MODELS[name][1]
    found = input_scale.audit(trained[name], scaled(right), "convert: calibration")
    assert found.accuracy > 0.85
    assert (found.findings, found.samples) == ((), 256)
    for wrong in {"0..255", "0..1"} - {right}:
        with pytest.raises(InputError, match=r"convert: calibration must (have the scale|be unscaled)"):
            input_scale.audit(trained[name], scaled(wrong), "convert: calibration")


@pytest.mark.parametrize("name", ["plain", "nested"])
def test_scales_that_are_given_up_early_are_not_the_right_ones(name, trained, monkeypatch):
    for wrong in SCALES:
        samples = scaled(wrong)
        scales = input_scale.common_scales(samples.x)
        found = input_scale.find_better(trained[name], samples, scales)
        with monkeypatch.context() as patch:
            patch.setattr(input_scale, "_HOPELESS", -1.0)
            assert found == input_scale.find_better(trained[name], samples, scales)


def test_a_model_of_chance_is_run_on_few_samples_of_each_scale_and_equal_scales_once(monkeypatch):
    keras.utils.set_random_seed(0)
    samples, model, sizes = scaled("0..1"), classifier(), []
    run = keras_runs.run
    monkeypatch.setattr(keras_runs, "run", lambda model, x: sizes.append(len(x)) or run(model, x))
    scales = input_scale.common_scales(samples.x)
    outputs = model.predict(samples.x, verbose=0)
    assert input_scale.find_better(model, samples, scales, outputs) is None
    # 0..1 is its own scale, and that of 0..255 is the same as multiplied by 255
    assert len(scales) == 7
    assert sum(sizes) < 5 * 64 / 2


def test_scale_with_one_answer_for_all_samples_is_given_up_after_the_first(monkeypatch):
    samples, model, sizes = scaled("0..1"), classifier(), []
    model.layers[-1].kernel.assign(np.zeros(model.layers[-1].kernel.shape))
    model.layers[-1].bias.assign(np.eye(10)[np.bincount(samples.y).argmax()])
    run = keras_runs.run
    monkeypatch.setattr(keras_runs, "run", lambda model, x: sizes.append(len(x)) or run(model, x))
    scales = input_scale.common_scales(samples.x)
    assert input_scale.find_better(model, samples, scales, model.predict(samples.x, verbose=0)) is None
    assert set(sizes) == {8}


def test_messages_name_the_layer_or_the_scale(trained):
    with pytest.raises(InputError, match="Normalization 'normalization.*' of the model was adapted to"):
        input_scale.audit(trained["normalization"], scaled("0..16"), "x")
    with pytest.raises(InputError, match="Rescaling 'rescaling.*' of the model multiplies its input by 0.0039"):
        input_scale.audit(trained["nested"], scaled("0..1"), "x")
    with pytest.raises(InputError, match=r"of the same samples scaled to -1..1, "):
        input_scale.audit(trained["plain"], scaled("0..1"), "x")


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_model_is_accepted_in_every_scale(scale):
    assert input_scale.audit(classifier(), scaled(scale), "x").accuracy < 0.5


def test_model_with_a_list_of_one_input_is_run_without_a_warning():
    model = classifier()
    assert input_scale.audit(keras.Model([model.inputs[0]], model.outputs[0]), scaled("0..255"), "x")[0] < 0.5


def test_accuracy_of_chance_is_a_finding():
    model = classifier()
    model.layers[-1].kernel.assign(np.zeros(model.layers[-1].kernel.shape))
    (finding,) = input_scale.audit(model, scaled("0..255"), "x")[1]
    assert "no better than chance" in finding


def test_accuracy_above_that_of_a_constant_answer_is_no_finding_with_two_classes():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = (128 + 40 * (2 * y - 1)[:, None] * np.where(rng.random((200, 1)) < 0.7, 1, -1)).astype("float32")
    split = data.from_arrays((x + rng.normal(size=x.shape).astype("float32"), y), (x[:9], y[:9]), validation=0.0).train
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Rescaling(1, -128)(inputs)))
    model.layers[-1].kernel.assign([[-0.1, 0.1]])
    accuracy, findings, _ = input_scale.audit(model, split, "x")
    assert 0.6 < accuracy < 0.75
    assert not any("no better than chance" in finding for finding in findings)


def test_loss_above_that_of_equal_probabilities_is_a_finding_where_another_scale_fits():
    y = np.arange(200) % 10
    shown = np.where(np.random.default_rng(0).random(200) < 0.65, y, (y + 1) % 10)
    x = 250 * np.eye(10, dtype="float32")[shown]
    split = data.from_arrays((x, y), (x[:9], y[:9]), validation=0.0).train
    inputs = keras.Input((10,))
    model = keras.Model(inputs, keras.layers.Dense(10)(inputs))
    model.layers[-1].kernel.assign(3 * np.eye(10))
    findings = input_scale.audit(model, split, "x")[1]
    assert any("may have another scale" in one and "divided by 255" in one for one in findings)


def test_scales_that_few_samples_do_not_tell_apart_are_all_named():
    y = np.arange(100) % 2
    x = (100.0 + 100 * y)[:, None].astype("float32")
    split = data.from_arrays((x, y), (x[:9], y[:9]), validation=0.0).train
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.ReLU(max_value=1.0)(inputs)))
    model.layers[-1].kernel.assign([[-10.0, 10.0]])
    model.layers[-1].bias.assign([9.6, 0.0])
    better = input_scale.find_better(model, split, input_scale.common_scales(x))
    assert {better.name, *(name for name, _ in better.others)} >= {"divided by 255", "scaled from 0..255 to -1..1"}
    assert len({score for _, score in better.others} | {better.after}) == 1 + len(better.others)


def test_accuracy_below_that_of_the_training_is_a_finding(trained):
    split = scaled("0..255")
    swapped = data.from_arrays((split.x, (split.y + 1) % 10), (split.x[:9], split.y[:9]), validation=0.0).train
    accuracy, (finding,), _ = input_scale.audit(trained["nested"], swapped, "x")
    assert accuracy < 0.2
    assert "in its training: they were prepared in another way, or have other labels" in finding


def test_accuracy_below_that_of_the_test_split_is_a_finding(trained):
    model = keras.models.clone_model(trained["nested"])  # without the logs of its training
    model.set_weights(trained["nested"].get_weights())
    train, _, test = data.load("digits")
    flipped = np.where((np.arange(len(train.x)) % 2 == 0)[:, None, None, None], train.x[:, ::-1], train.x)
    split = data.from_arrays((flipped, train.y), (test.x, test.y), validation=0.0).train.sample(256)
    (finding,) = input_scale.audit(model, split, "x")[1]
    assert "of the test split" in finding


def test_labels_of_other_classes_and_few_samples_are_no_evidence(trained):
    train = data.load("digits").train
    ones = train.take(np.flatnonzero(train.y == 1)[:20])
    single = data.from_arrays((ones.x, np.zeros(20, int)), (ones.x, np.zeros(20, int)), validation=0.0).train
    assert input_scale.audit(trained["nested"], single, "x") == (None, (), 0)
    assert input_scale.audit(trained["nested"], train.sample(3), "x")[0] is not None
    assert input_scale.is_far_below(0.1, 0.9, 100)
    assert not input_scale.is_far_below(0.4, 0.9, 5)
    assert not input_scale.is_far_below(0.85, 0.9, 10_000)


def test_model_that_keeps_a_state_is_not_run():
    model = keras.Sequential([keras.Input(batch_shape=(1, 8, 8)), L.LSTM(3, stateful=True), L.Dense(10)])
    before = [state.numpy() for state in model.layers[0].states]
    split = data.load("digits").train.sample(32)
    assert input_scale.audit(model, split, "x") == (None, (), 0)
    assert all((a == b.numpy()).all() for a, b in zip(before, model.layers[0].states, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_constant_answer_of_another_scale_is_no_evidence(seed):
    """Labels of two classes that mean nothing: a scale in which the model always answers one of them fits half."""
    keras.utils.set_random_seed(seed)
    x = np.random.default_rng(seed).normal(size=(96, 8, 8, 1)).astype("float32")
    y = np.arange(96) % 2
    split = data.from_arrays((x[:64], y[:64]), (x[64:], y[64:]), validation=0.0).train
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, activation="tanh"), L.Dense(5)])
    input_scale.audit(model, split, "convert: calibration")


class Count(keras.layers.Layer):
    """Adds the number of its calls to the input."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1.0)
        return x + self.calls


def test_what_the_model_assigns_to_its_variables_is_dropped():
    model = classifier(Count())
    input_scale.audit(model, scaled("0..1"), "convert: calibration")
    assert float(model.layers[0].calls) == 0
