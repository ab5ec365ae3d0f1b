"""The search for the smallest mixture of precisions that keeps the accuracy."""

import keras
import numpy as np
import pytest

from tfkd import data, targets
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.optimization import mixed_precision
from tfkd.optimization.mixed_precision import Trial, search

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits", validation=0.3)


def accuracy(model, split, target="host:plain"):
    outputs = targets.get(target).run(model, model.quantize_input(split.x), latency=False).outputs[0]
    return (outputs.argmax(axis=1) == split.y).mean()


def with_outlier(student, factor):
    """The same function, with one channel of an inner layer scaled up and its readers scaled down."""
    model = keras.models.clone_model(student)
    model.set_weights(student.get_weights())
    norm, users = model.get_layer("block1_depthwise_bn"), model.get_layer("block1_pointwise_conv").kernel
    scale = np.where(np.arange(norm.gamma.shape[0]) == 2, factor, 1.0).astype("float32")
    norm.gamma.assign(norm.gamma * scale)  # the ReLU after it keeps the scale
    norm.beta.assign(norm.beta * scale)
    users.assign(users / scale[:, None])
    return model


def test_search_with_accepted_int8_gives_int4_weights(student, splits, tmp_path):
    reported = []
    model, trials = search(student, tmp_path / "m.tflite", splits, accuracy_drop=3, report=reported.append)
    assert reported == list(trials)
    assert trials[0].what == "int8"
    best = min((trial for trial in trials if trial.ok), key=lambda trial: trial.bytes)
    assert best.settings.int4
    assert best.bytes == model.size_bytes < trials[0].bytes
    assert accuracy(model, splits.val) == pytest.approx(best.accuracy)
    assert best.drop == pytest.approx(100 * (trials[0].accuracy - best.accuracy) + trials[0].drop)
    assert model.path.read_bytes() == model.content
    assert model.audit.samples == 256


def test_search_with_an_outlier_channel_gives_that_layer_int16_activations(student, splits, tmp_path):
    hard = with_outlier(student, 60)
    model, trials = search(hard, tmp_path / "m.tflite", splits, accuracy_drop=1)
    best = min((trial for trial in trials if trial.ok), key=lambda trial: trial.bytes)
    assert not trials[0].ok
    narrowed = [trial for trial in trials if trial.ok and 0 < len(trial.settings.int16) < 7]
    assert narrowed
    assert all("block1_depthwise" in trial.what for trial in narrowed)
    assert model.size_bytes == best.bytes
    assert accuracy(model, splits.val) >= accuracy_of(hard, splits.val) - 0.01 - 1e-9


def accuracy_of(graph, split):
    return (graph.predict(split.x.astype("float32"), verbose=0).argmax(axis=1) == split.y).mean()


def test_search_without_any_accepted_candidate_gives_float32(student, splits, tmp_path):
    hard = with_outlier(student, 1e5)
    model, trials = search(hard, tmp_path / "m.tflite", splits, accuracy_drop=0, most_trials=2)
    assert trials[-1].what == "float32"
    assert model.inputs[0].dtype == "float32"
    assert sum(trial.ok for trial in trials) == 1


def test_candidate_that_the_target_does_not_run_is_rejected(student, splits, tmp_path):
    # TensorFlow Lite Micro has no Dense layer with weights of 4 bits.
    model, trials = search(student, tmp_path / "m.tflite", splits, accuracy_drop=100, target="tflm")
    refused = next(trial for trial in trials if trial.note)
    assert "logits" in refused.what
    assert "does not run: tflm: " in str(refused)
    assert accuracy(model, splits.val, "tflm") > 0
    assert "int4" in {tensor.dtype for tensor in model.graph.tensors}


class Fake:
    """Accepts layers while their summed noise is within a limit."""

    def __init__(self, noise, limit, most=100):
        self.noise, self.limit, self.most, self.tried = noise, limit, most, []

    @property
    def spent(self):
        return len(self.tried) >= self.most

    def attempt(self, what, names):
        self.tried.append(tuple(names))
        return Trial(what, None, ok=sum(self.noise[name] for name in names) <= self.limit)

    def taken(self):
        return max((names for names in self.tried if sum(self.noise[name] for name in names) <= self.limit), key=len)


def make(names):
    return "", names


def test_take_most_gives_the_longest_prefix_and_single_later_layers():
    fake = Fake({"a": 1, "b": 1, "c": 9, "d": 1, "e": 9}, limit=3)
    mixed_precision._take_most(fake, "abcde", make)
    assert set(fake.taken()) == set("abd")


def test_take_fewest_leaves_out_unneeded_layers():
    need = {"b", "d"}
    fake = Fake({}, 0)
    fake.attempt = lambda what, names: (fake.tried.append(names), Trial(what, None, ok=need <= set(names)))[1]
    mixed_precision._take_fewest(fake, list("abcde"), make)
    assert min((names for names in fake.tried if need <= set(names)), key=len) == ["b", "d"]


@pytest.mark.parametrize("most", [1, 3])
def test_search_ends_after_most_trials(most):
    fake = Fake(dict.fromkeys("abcdefgh", 1), limit=3, most=most)
    mixed_precision._take_most(fake, "abcdefgh", make)
    assert len(fake.tried) == most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy_drop": -1}, r"accuracy_drop must be in 0..100 points"),
        ({"accuracy_drop": 1, "most_trials": 1}, r"most_trials must be >= 2. Received: 1"),
    ],
)
def test_arguments_are_checked(options, message, student, splits, tmp_path):
    with pytest.raises(ValueError, match=message):
        search(student, tmp_path / "m.tflite", splits, **options)


def test_existing_file_and_empty_validation_split_are_refused(student, splits, tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"")
    with pytest.raises(ValueError, match=r"m.tflite already exists"):
        search(student, tmp_path / "m.tflite", splits, accuracy_drop=1)
    with pytest.raises(ValueError, match=r"the validation split is empty"):
        search(student, tmp_path / "n.tflite", data.load("digits", validation=0), accuracy_drop=1)


def test_trial_is_printed_in_one_line():
    trial = Trial("int8", QuantizerSettings(), 1000, 0.9, 0.5, ok=True)
    assert str(trial) == "int8: 1,000 bytes, 90.00%, drop 0.50 points, accepted"
