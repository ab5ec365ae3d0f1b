"""Settings of a training: moving average, early stopping, losses, precision, own code and logs."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.parse
import urllib.request
import venv

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import tfkd
from tests.conversion.execution import outputs
from tfkd.cli import app
from tfkd.distillation import label_losses, training
from tfkd.distillation.loggers import Loggers
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError

SPLITS = tfkd.data.load("digits")


def student():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def config(**settings):
    return TrainingConfig(**{"epochs": 3, "batch_size": 256, **settings})


def fit(model, *, checkpoint=None, spies=(), loggers=(), **settings):
    return training.fit(model, SPLITS, config(**settings), checkpoint=checkpoint, callbacks=spies, loggers=loggers)


class Weights(keras.callbacks.Callback):
    """Records the weights after each step, and those that each validation sees."""

    def __init__(self):
        super().__init__()
        self.steps, self.validated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights())

    def on_test_batch_end(self, batch, logs=None):
        self.validated.append(self.model.get_weights())


class Stop(keras.callbacks.Callback):
    """Raises KeyboardInterrupt in an epoch: in its first step, or after its validation."""

    def __init__(self, epoch, *, after_validation=False):
        super().__init__()
        self.last, self.after_validation = epoch, after_validation

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.last and not self.after_validation:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.last and self.after_validation:
            raise KeyboardInterrupt


def assert_equal(first, second, **tolerance):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 0, "atol": 0, **tolerance})


# Moving average ------------------------------------------------------------------------------------------------------


def test_averaged_weights_are_validated_and_remain():
    seen, model = Weights(), student()
    fit(model, spies=[seen], ema=0.9, epochs=2)
    average, averages = seen.steps[0], []
    for step, weights in enumerate(seen.steps):
        average = [0.9 * old + 0.1 * new if step else new for old, new in zip(average, weights, strict=True)]
        averages.append(average)
    assert_equal(model.get_weights(), averages[-1], atol=1e-6)
    half = len(averages) // 2 - 1
    assert_equal(seen.validated[0], averages[half], atol=1e-6)
    assert_equal(seen.validated[-1], averages[-1], atol=1e-6)
    assert max(np.abs(one - other).max() for one, other in zip(average, seen.steps[-1], strict=True)) > 1e-3


@pytest.mark.parametrize(
    "stop",
    [*(pytest.param(Stop(at), marks=pytest.mark.campaign) for at in (1, 2)), Stop(2, after_validation=True)],
    ids=["1", "2", "2-validated"],
)
def test_training_with_average_and_early_stopping_resumes_with_equal_weights(tmp_path, stop):
    settings = {"ema": 0.9, "early_stopping": 2, "learning_rate": 0.05}
    whole, resumed = student(), student()
    expected = fit(whole, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(student(), checkpoint=tmp_path, spies=[stop], **settings)
    assert fit(resumed, checkpoint=tmp_path, **settings) == expected
    assert_equal(resumed.get_weights(), whole.get_weights())


def test_checkpoint_without_the_log_that_finds_the_best_epoch_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(student(), checkpoint=tmp_path, spies=[Stop(1)], early_stopping=2)
    (file,) = tmp_path.glob("epoch-*.json")
    file.write_text(file.read_text().replace("val_accuracy", "val_label_accuracy"))
    with pytest.raises(InputError, match=r"must have val_accuracy of each of its 1 epochs. .*Remove the folder"):
        fit(student(), checkpoint=tmp_path, early_stopping=2)


# Early stopping ------------------------------------------------------------------------------------------------------

# The accuracy falls after the first epochs.
FALLING = {"learning_rate": 30.0, "optimizer": "sgd", "schedule": "constant", "epochs": 12, "early_stopping": 2}


@pytest.mark.parametrize("on_disk", [False, True])
def test_early_stopping_keeps_the_best_epoch(tmp_path, on_disk):
    model, seen = student(), Weights()
    history = fit(model, checkpoint=tmp_path if on_disk else None, spies=[seen], **FALLING)
    accuracies = history["val_accuracy"]
    best = int(np.argmax(accuracies))
    assert len(accuracies) == best + 1 + 2 < 12
    assert training.accuracy(model, SPLITS.val) == pytest.approx(accuracies[best])
    per_epoch = len(seen.steps) // len(accuracies)
    assert_equal(model.get_weights(), seen.steps[(best + 1) * per_epoch - 1])


def test_training_that_stopped_early_is_not_continued(tmp_path):
    model = student()
    expected = fit(model, checkpoint=tmp_path, **FALLING)
    again = student()
    assert fit(again, checkpoint=tmp_path, **FALLING) == expected  # the process ended before the model was saved
    assert_equal(again.get_weights(), model.get_weights())


# Losses --------------------------------------------------------------------------------------------------------------


def test_label_smoothing_is_the_cross_entropy_with_smoothed_labels():
    z = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    y = np.array([0, 3, 1, 1, 2])
    log_q = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = -((0.8 * np.eye(4)[y] + 0.2 / 4) * log_q).sum(-1).mean()
    loss = label_losses.label_loss(config(label_smoothing=0.2))
    assert float(loss(y, z)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(np.eye(4)[y], z)) == pytest.approx(expected, rel=1e-6)


def test_balanced_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    split = SPLITS.train.take(np.flatnonzero((SPLITS.train.y % 3 != 1) | (SPLITS.train.ids % 5 == 0)))
    expected = compute_class_weight("balanced", classes=np.arange(10), y=split.y)
    found = label_losses.class_weights(config(class_weights="balanced"), split)
    assert list(found.values()) == pytest.approx(expected.tolist())


def test_class_of_weight_zero_does_not_train_student_and_distiller():
    only_zero = {"0": 10.0} | {str(label): 0.0 for label in range(1, 10)}
    for distilled in (False, True):
        model = student()
        fitted = tfkd.Distiller(model, student(), alpha=0.1) if distilled else model
        fit(fitted, class_weights=only_zero, learning_rate=0.1)
        assert (model.predict(SPLITS.val.x.astype("float32"), verbose=0).argmax(-1) == 0).mean() > 0.9


@pytest.mark.parametrize(
    ("weights", "message"), [({"9x": 1.0}, "Did you mean '9'"), ({str(one): 0.0 for one in range(10)}, "0 for all")]
)
def test_class_weights_of_unknown_classes_or_none_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        label_losses.class_weights(config(class_weights=weights), SPLITS.train)


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_layers_train_in_mixed_precision_and_ship_in_float32(precision):
    used = []

    class Dense(keras.layers.Dense):
        def call(self, x):
            used.append(x.dtype)
            return super().call(x)

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), Dense(16, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    used.clear()
    history = fit(model, precision=precision, learning_rate=0.01)
    assert {str(one).removeprefix("<dtype: '").removesuffix("'>") for one in used} == {precision.removeprefix("mixed_")}
    assert history["loss"][-1] < history["loss"][0]
    assert {layer.compute_dtype for layer in model.layers} == {str(one.dtype) for one in model.weights} == {"float32"}
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")


def test_student_of_mixed_precision_is_converted(tmp_path):
    model = student()
    fit(tfkd.Distiller(model, student()), precision="mixed_float16", epochs=1)
    converted = tfkd.convert(model, tmp_path / "student.tflite", mode="float32", calibration=SPLITS.train)
    x = SPLITS.val.x[:1].astype("float32")
    np.testing.assert_allclose(outputs(converted, x)[0], model(x), rtol=1e-4, atol=1e-4)


# Own code ------------------------------------------------------------------------------------------------------------

MODULE = """
import keras
from keras import ops
import tfkd

EPOCHS = []

def adamax(learning_rate):
    return keras.optimizers.Adamax(learning_rate, clipnorm=1.0)

def squared(y, logits):
    return ops.mean(ops.square(ops.one_hot(ops.cast(y, "int32"), 10) - logits), axis=-1)

class Squared(keras.losses.Loss):
    def call(self, y, logits):
        return squared(y, logits)

def certain(y, logits):
    return ops.max(ops.softmax(logits), axis=-1)

class Certain(keras.metrics.MeanMetricWrapper):
    def __init__(self):
        super().__init__(certain, name="certain_class")

def count():
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: EPOCHS.append(sorted(logs)))

def distance(factor=1.0):
    return tfkd.losses.SoftTarget(temperature=factor)

def nothing(*arguments):
    return None
"""


@pytest.fixture
def mine(own_module):
    """The name of a module in the working directory."""
    return own_module(MODULE)


@pytest.mark.parametrize("loss", ["squared", "Squared"])
def test_own_loss_optimizer_metrics_and_callbacks_are_used(mine, loss):
    settings = {
        "optimizer": f"{mine}:adamax",
        "label_loss": f"{mine}:{loss}",
        "metrics": [f"{mine}:certain", f"{mine}:Certain"],
        "callbacks": [f"{mine}:count"],
    }
    model = student()
    history = fit(model, epochs=2, learning_rate=0.002, **settings)
    assert type(model.optimizer).__name__ == "Adamax"
    assert len(sys.modules[mine].EPOCHS) == 2
    assert {"certain", "val_certain", "certain_class"} <= set(sys.modules[mine].EPOCHS[0])
    assert history["val_certain"] == pytest.approx(history["val_certain_class"])
    logits = model.predict(SPLITS.val.x.astype("float32"), verbose=0)
    assert history["val_loss"][-1] == pytest.approx(((np.eye(10)[SPLITS.val.y] - logits) ** 2).mean(), rel=1e-4)
    assert config(**settings).own_code == [
        settings["optimizer"],
        settings["label_loss"],
        *settings["metrics"],
        *settings["callbacks"],
    ]


def test_own_distillation_loss_is_built_with_its_options(mine):
    assert tfkd.losses.build(f"{mine}:distance", factor=3.0).temperature == 3.0


@pytest.mark.parametrize(
    ("key", "kind"), [("optimizer", "Optimizer"), ("callbacks", "Callback")], ids=["optimizer", "callbacks"]
)
def test_own_code_of_another_type_is_refused(mine, key, kind):
    name = f"{mine}:nothing"
    with pytest.raises(InputError, match=f"must return an? {kind}. Received: NoneType"):
        fit(student(), **{key: name if key == "optimizer" else [name]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adan"}, "Did you mean 'adam'"),
        ({"optimizer": "mine:adamax", "weight_decay": 0.1}, "weight_decay has no effect on an optimizer of your own"),
        ({"label_loss": "mine:loss", "label_smoothing": 0.1}, "label_smoothing has no effect"),
        ({"label_loss": "loss"}, "label_loss"),
        ({"class_weights": "even"}, "class_weights must be balanced"),
        ({"ema": 1.0}, "ema"),
        ({"early_stopping": 0}, "early_stopping"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("prune", {"ema": 0.9}), ("cluster", {"early_stopping": 1}), ("qat", {"precision": "mixed_float16"})],
)
def test_settings_that_break_an_optimization_are_refused(method, settings):
    with pytest.raises(InputError, match="does not go with method"):
        tfkd.optimization.check_training(method, config(**settings))
    tfkd.optimization.check_training("qat", config(ema=0.9, early_stopping=1))


@contextlib.contextmanager
def tensorboard(logs):
    """A server of TensorBoard, as a function from (run, tag) to its points (time, step, value)."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs, "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://localhost:\d+/", line)))

            def points(run, tag):
                query = urllib.parse.urlencode({"run": run, "tag": tag})
                for _ in range(600):  # it reads the logs in the background
                    try:
                        with urllib.request.urlopen(f"{url}data/plugin/scalars/scalars?{query}") as answer:
                            return json.load(answer)
                    except urllib.error.HTTPError:  # no such tag yet
                        time.sleep(0.1)
                raise TimeoutError(f"TensorBoard does not show {tag} of {run}.")

            yield points
        finally:
            server.kill()


FLAWED = """
from keras import ops

def flat(y, logits):
    return ops.cast(ops.equal(ops.argmax(logits, -1), ops.cast(y, "int32")), "float32")

def half(x, seed):
    return x[:4]

def nothing(x, seed):
    pass
"""


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("label_loss", "flat", "label_loss='.*:flat' must be differentiable"),
        (
            "augment",
            "half",
            r"half must return .* float32 of shape \(8, 8, 1\). Received: float32 of shape \(4, 8, 1\)",
        ),
        ("augment", "nothing", "nothing must return .* Received: NoneType"),
    ],
    ids=["loss", "shape", "none"],
)
def test_function_of_the_user_with_another_result_is_refused(own_module, key, name, message):
    with pytest.raises(InputError, match=message):
        fit(student(), **{key: f"{own_module(FLAWED)}:{name}"})


# Logs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_tensorboard_shows_the_logs_of_an_interrupted_training(tmp_path):
    loggers, settings = Loggers(tensorboard=tmp_path / "logs"), config()
    for stop in (Stop(1), None):
        callbacks = loggers.callbacks("student", settings, tmp_path)
        model = tfkd.Distiller(student(), student())
        try:
            history = fit(model, checkpoint=tmp_path / "kept", spies=[stop] if stop else [], loggers=callbacks)
        except KeyboardInterrupt:
            assert stop
    with tensorboard(tmp_path / "logs") as shown:
        for part, name, key in (("train", "epoch_loss", "loss"), ("validation", "epoch_accuracy", "val_accuracy")):
            points = shown(f"student/{part}", name)
            assert {step: value for _, step, value in points} == pytest.approx(dict(enumerate(history[key])))


def test_mlflow_shows_one_run_for_an_interrupted_training(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    loggers, settings = Loggers(mlflow=uri), config(ema=0.9)
    for stop in (Stop(1), None):
        callbacks = loggers.callbacks("student", settings, tmp_path)
        try:
            history = fit(student(), checkpoint=tmp_path, spies=[stop] if stop else [], loggers=callbacks, ema=0.9)
        except KeyboardInterrupt:
            assert stop
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tfkd").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["ema"]) == ("student", "FINISHED", "0.9")
    found = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "val_accuracy")}
    assert found == pytest.approx(dict(enumerate(history["val_accuracy"])))


@contextlib.contextmanager
def mlflow_server(folder, version):
    """The address of a tracking server of the whole package mlflow, whose client alone is installed here.

    An environment of its own has the packages that the server needs in addition.
    """
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "parent.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"mlflow=={version}"], check=True)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--workers", "1"]
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *store]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.campaign
@pytest.mark.network
def test_mlflow_server_has_the_training_that_the_command_logged(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    with mlflow_server(tmp_path, mlflow.__version__) as address:
        arguments = [
            "train",
            "digits_student",
            "--epochs",
            "2",
            "--out",
            str(tmp_path / "m.keras"),
            "--mlflow",
            address,
        ]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        client = mlflow.MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name("tfkd").experiment_id])
        assert (run.info.run_name, run.info.status, run.data.params["epochs"]) == ("m", "FINISHED", "2")
        found = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [one.step for one in found] == [0, 1]
        assert f"validation accuracy {found[-1].value:.4f}" in done.output
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (callback,) = Loggers(mlflow=address).callbacks("m", config(), None)
    with pytest.raises(InputError, match="must be a tracking server"):  # it was stopped
        callback.on_epoch_end(0, {"loss": 1.0})


def test_mlflow_server_that_cannot_be_reached_is_an_error(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (callback,) = Loggers(mlflow="http://localhost:9").callbacks("student", config(), tmp_path)
    with pytest.raises(InputError, match="http://localhost:9 must be a tracking server"):
        callback.on_train_begin()
