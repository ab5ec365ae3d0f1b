"""Optimization methods by name, on the command line and in recipes, and their resumption after a kill."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd import TFLiteModel, cli, models
from tfkd.optimization import optimize
from tfkd.recipes import pipeline, recipe

pytestmark = pytest.mark.slow

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
[[optimization]]
method = "prune"
epochs = 2
learning_rate = 1e-3
options = {{ sparsity = 0.4, schedule = "constant" }}
[[optimization]]
method = "qat"
epochs = 3
learning_rate = 1e-3
options = {{ int8_layers = ["logits"], weight_bits = 4 }}
[conversion]
ship = "qat"
calibration_samples = 100
range = "percentile"
keep_float = ["logits"]
[targets]
names = ["host:plain"]
[contract]
min_accuracy = 20
max_bytes = 20000
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits_teacher_file, digits_student_file):
    """A folder with a briefly trained teacher and student."""
    folder = tmp_path_factory.mktemp("optimization")
    shutil.copy(digits_teacher_file, folder / "teacher.keras")
    shutil.copy(digits_student_file, folder / "student.keras")
    return folder


def write(folder, name, text=RECIPE):
    path = folder / f"{name}.toml"
    path.write_text(text.format(folder=folder, name=name))
    return path


def distill(folder, *arguments):
    known = ("distill", "--teacher", folder / "teacher.keras", "--epochs", 2, "--batch-size", 256)
    return CliRunner().invoke(cli.app, [str(argument) for argument in (*known, *arguments)])


@pytest.fixture(scope="module")
def whole(folder):
    """A run without interruption."""
    return pipeline.run(recipe.load(write(folder, "whole")))


def test_run_optimizes_after_distillation(folder, whole):
    assert list(whole.steps)[-6:-4] == ["optimize-prune", "export-prune"]
    assert list(whole.steps)[-4:] == ["optimize-qat", "export-qat", "validate", "report"]
    assert whole.record["verdict"]["status"] == "SHIP"
    row = next(row for row in whole.record["rows"] if row["name"] == "qat")
    assert row["accuracy"] > 0.7
    assert row["bytes"] == (whole.folder / "qat.tflite").stat().st_size
    assert {"int4", "int8"} <= {tensor.dtype for tensor in TFLiteModel.load(whole.folder / "qat.tflite").graph.tensors}
    again = pipeline.run(recipe.load(folder / "whole.toml"))
    assert set(again.steps.values()) == {"kept"}


def test_report_shows_zeros_and_compressed_sizes(whole):
    models = whole.record["models"]
    for name in ("prune", "qat"):
        assert models[name]["weight_zeros"] > 0.3
        assert models[name]["compressed_bytes"] < models[name]["size_bytes"]
    assert models["full_int8"]["weight_zeros"] < 0.2
    assert "by percentile 99.99; float in logits" in models["full_int8"]["audit"]["findings"][-1]
    page = (whole.folder / "report.html").read_text()
    assert "kernels multiply by zeros too" in page
    assert "gzip" in page


@pytest.mark.campaign
@pytest.mark.parametrize(
    "kills",
    [
        ["optimize-qat 2/3"],  # the third epoch freezes the ranges
        pytest.param(["optimize-prune 1/2", "optimize-qat 2/3"], marks=pytest.mark.campaign),
    ],
    ids=["in one", "in each"],
)
def test_run_resumes_optimizations_after_kills(folder, whole, forks, kills):
    path = write(folder, f"killed{len(kills)}")
    shutil.copytree(whole.folder, folder / path.stem)  # all steps before these are kept
    state = json.loads((whole.folder / "state.json").read_text())
    for step in ("optimize-prune", "export-prune", "optimize-qat", "export-qat", "validate", "report"):
        del state[step]
    (folder / path.stem / "state.json").write_text(json.dumps(state))
    for last in kills:
        forks.tfkd("run", path).kill_at(last)
    resumed = pipeline.run(recipe.load(path))
    assert {name: resumed.steps[name] for name in ("student-distilled-0", "export-prune", "optimize-qat")} == {
        "student-distilled-0": "kept",
        "export-prune": "kept",
        "optimize-qat": "done",
    }
    for file in ("prune.keras", "optimize-qat/model.keras"):
        weights = [models.load(run.folder / file).get_weights() for run in (whole, resumed)]
        for one, other in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, other)
    for file in ("prune.tflite", "qat.tflite"):
        assert (whole.folder / file).read_bytes() == (resumed.folder / file).read_bytes()


def test_run_refuses_a_later_method_before_any_training(folder, tmp_path):
    text = RECIPE.replace('["logits"], weight', '["loggits"], weight').replace("{folder}/teacher", f"{folder}/teacher")
    text = text.replace("{folder}/student", f"{folder}/student")
    with pytest.raises(ValueError, match="^optimization 2 of 2, qat: optimize: int8_layers must match .*'loggits'"):
        pipeline.run(recipe.load(write(tmp_path, "refused", text)))
    assert not (tmp_path / "refused" / "state.json").exists()


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ('"qat"\nepochs', '"qatt"\nepochs', r"optimization\.1\.method: must be one of qat.*Received: 'qatt'"),
        ("epochs = 3", "epochs = 0", r"optimization\.1\.epochs: .*greater than or equal to 1"),
        ("epochs = 3", "epoch = 3", r"unknown key 'optimization\.1\.epoch'"),
        ('ship = "qat"', 'ship = "pqat"', r"conversion\.ship must be one of full_int8, prune, qat\. Received: 'pqat'"),
        ('"prune"', '"tfmot_qat"', r"before the last only prune and cluster\. Received: tfmot_qat, qat"),
    ],
)
def test_wrong_optimization_table_is_refused(folder, before, after, match):
    assert before in RECIPE
    with pytest.raises(ValueError, match=match):
        recipe.load(write(folder, "wrong", RECIPE.replace(before, after)))


@pytest.mark.campaign
def test_distill_optimizes_a_student_from_a_file(folder):
    out = folder / "cli.tflite"
    done = distill(
        folder,
        "--student",
        folder / "student.keras",
        "--optimize",
        "qat",
        "--set",
        "weight_bits=4",
        "--set",
        'int8_layers=["logits"]',
        "--out",
        out,
        "--json",
    )
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["path"] == str(out)
    assert record["val_accuracy"] > 0.7
    assert "int4" in {tensor.dtype for tensor in TFLiteModel.load(out).graph.tensors}


def test_distill_trains_a_student_from_a_file_further(folder):
    out = folder / "further.keras"
    done = distill(folder, "--student", folder / "student.keras", "--out", out, "--learning-rate", "1e-6")
    assert done.exit_code == 0, done.output
    before, after = (models.load(path).get_weights()[0] for path in (folder / "student.keras", out))
    assert 0 < np.abs(before - after).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--student", "digits_student", "--optimize", "qat"), "needs a trained student, a .keras file"),
        (("--student", "{student}", "--optimize", "qad"), "method must be one of qat"),
        (("--student", "{student}", "--optimize", "qat", "--set", "bits=4"), "takes the options: weight_bits"),
        (("--student", "{student}", "--optimize", "qat", "--set", "bits"), "--set must be NAME=VALUE"),
        (("--student", "{student}", "--set", "weight_bits=4", "--out", "x.keras"), "--set needs --optimize"),
        (("--student", "{student}", "--optimize", "qat", "--out", "x.keras"), "Choose a name that ends in .tflite"),
    ],
)
def test_distill_with_bad_options_is_status_2(folder, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(argument).format(student=folder / "student.keras") for argument in arguments]
    done = distill(folder, "--out", "x.tflite", *given)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_unknown_method_suggests_a_similar_name():
    with pytest.raises(ValueError, match=r"method must be one of qat.* Did you mean 'qat'"):
        optimize(None, "qatt")
