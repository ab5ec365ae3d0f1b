"""The frame of optimization: methods by name, on the command line, in recipes, resumed after a kill."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd import TFLiteModel, cli, data, models, pipeline, recipe
from tfkd.optimization import optimize

RECIPE = """
output = "{folder}/{name}"
[data]
name = "digits"
[teacher]
path = "{folder}/teacher.keras"
[student]
path = "{folder}/student.keras"
[distillation]
epochs = 1
learning_rate = 1e-3
seeds = 1
[optimization]
method = "qat"
epochs = 3
learning_rate = 1e-3
options = {{ int8_layers = ["logits"], weight_bits = 4 }}
[conversion]
ship = "qat"
calibration_samples = 100
[targets]
names = ["host:plain"]
[contract]
max_bytes = 20000
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a teacher and a student that know a little."""
    import keras

    folder = tmp_path_factory.mktemp("optimization")
    train = data.load("digits").train
    keras.utils.set_random_seed(0)
    for name, epochs in (("teacher", 5), ("student", 10)):
        model = models.build(f"digits_{name}", (8, 8, 1), 10)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss=loss)
        model.fit(train.batches(64, shuffle=True), epochs=epochs, shuffle=False, verbose=0)
        model.save(folder / f"{name}.keras")
    return folder


def write(folder, name, text=RECIPE):
    path = folder / f"{name}.toml"
    path.write_text(text.format(folder=folder, name=name))
    return path


def distill(folder, *arguments):
    known = ("distill", "--teacher", folder / "teacher.keras", "--epochs", 2, "--batch-size", 256)
    return CliRunner().invoke(cli.app, [str(argument) for argument in (*known, *arguments)])


def test_run_optimizes_after_distillation_and_resumes_after_a_kill(folder):
    whole = pipeline.run(recipe.load(write(folder, "whole")))
    assert list(whole.steps)[-3:] == ["optimize-qat", "export-qat", "validate"]
    assert whole.record["verdict"]["status"] == "SHIP"
    row = next(row for row in whole.record["rows"] if row["name"] == "qat")
    assert row["accuracy"] > 0.7
    assert row["bytes"] == (whole.folder / "qat.tflite").stat().st_size
    assert {"int4", "int8"} <= {tensor.dtype for tensor in TFLiteModel.load(whole.folder / "qat.tflite").graph.tensors}
    again = pipeline.run(recipe.load(folder / "whole.toml"))
    assert set(again.steps.values()) == {"kept"}

    path = write(folder, "killed")
    shutil.copytree(whole.folder, folder / "killed")  # all steps before this one are kept
    state = json.loads((whole.folder / "state.json").read_text())
    for step in ("optimize-qat", "export-qat", "validate"):
        del state[step]
    (folder / "killed" / "state.json").write_text(json.dumps(state))
    command = [sys.executable, "-m", "tfkd.cli", "run", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        seen = []
        for line in first.stdout:
            seen.append(line)
            if line.startswith("optimize-qat 2/3"):  # the third epoch freezes the ranges
                first.send_signal(signal.SIGKILL)
                break
    assert first.returncode == -signal.SIGKILL, "".join(seen)
    resumed = pipeline.run(recipe.load(path))
    assert resumed.steps["student-distilled-0"] == "kept"
    weights = [models.load(run.folder / "optimize-qat" / "model.keras").get_weights() for run in (whole, resumed)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (whole.folder / "qat.tflite").read_bytes() == (resumed.folder / "qat.tflite").read_bytes()


def test_run_refuses_a_layer_before_any_training(folder, tmp_path):
    import keras

    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Dense(10)(keras.layers.LSTM(4, name="loop")(keras.layers.Reshape((8, 8))(image)))
                ).save(tmp_path / "student.keras")  # fmt: skip
    text = RECIPE.replace("{folder}/student.keras", f"{tmp_path}/student.keras")
    with pytest.raises(ValueError, match=r"'loop' \(LSTM\) has none. Convert without qat"):
        pipeline.run(recipe.load(write(tmp_path, "refused", text.replace("{folder}/teacher", f"{folder}/teacher"))))
    assert not (tmp_path / "refused" / "state.json").exists()


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ('"qat"\nepochs', '"qatt"\nepochs', r"optimization\.method: must be one of qat.*Received: 'qatt'"),
        ("epochs = 3", "epochs = 0", r"optimization\.epochs: .*greater than or equal to 1"),
        ("epochs = 3", "epoch = 3", r"unknown key 'optimization\.epoch'"),
        ('ship = "qat"', 'ship = "prune"', r"conversion\.ship must be one of full_int8, qat, received 'prune'"),
    ],
)
def test_recipe_that_is_wrong_says_where(folder, before, after, match):
    assert before in RECIPE
    with pytest.raises(ValueError, match=match):
        recipe.load(write(folder, "wrong", RECIPE.replace(before, after)))


def test_distill_optimizes_a_student_from_a_file(folder):
    out = folder / "cli.tflite"
    done = distill(folder, "--student", folder / "student.keras", "--optimize", "qat", "--set", "weight_bits=4",
                   "--set", 'int8_layers=["logits"]', "--out", out, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["path"] == str(out)
    assert said["val_accuracy"] > 0.7
    assert "int4" in {tensor.dtype for tensor in TFLiteModel.load(out).graph.tensors}


def test_distill_goes_on_with_a_student_from_a_file(folder):
    out = folder / "further.keras"
    done = distill(folder, "--student", folder / "student.keras", "--out", out, "--learning-rate", "1e-6")
    assert done.exit_code == 0, done.output
    before, after = (models.load(path).get_weights()[0] for path in (folder / "student.keras", out))
    assert 0 < np.abs(before - after).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--student", "digits_student", "--optimize", "qat"), "starts from a trained student, a .keras file"),
        (("--student", "{student}", "--optimize", "qad"), "method must be one of qat"),
        (("--student", "{student}", "--optimize", "qat", "--set", "bits=4"), "takes the options: weight_bits"),
        (("--student", "{student}", "--optimize", "qat", "--set", "bits"), "--set must be NAME=VALUE"),
        (("--student", "{student}", "--set", "weight_bits=4", "--out", "x.keras"), "--set is for --optimize"),
        (("--student", "{student}", "--optimize", "qat", "--out", "x.keras"), "must be a new .tflite file"),
    ],
)
def test_distill_with_bad_options_is_status_2(folder, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(argument).format(student=folder / "student.keras") for argument in arguments]
    said = distill(folder, "--out", "x.tflite", *given)
    assert said.exit_code == 2, said.output
    assert message in said.stderr
    assert not list(tmp_path.iterdir())


def test_method_that_does_not_exist_has_a_near_name():
    with pytest.raises(ValueError, match=r"method must be one of qat.* Did you mean 'qat'"):
        optimize(None, "qatt")
