"""The whole line: kept steps, a kill in the middle, the report."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from tfkd import models
from tfkd.recipes import pipeline, recipe, step_cache, trial

RECIPE = """
output = "{output}"
[data]
name = "digits"
[teacher]
model = "digits_teacher"
epochs = 1
[student]
model = "digits_student"
[distillation]
epochs = 4
learning_rate = 0.01
seeds = 1
[conversion]
modes = ["float16", "full_int8"]
calibration_samples = 100
[targets]
names = ["tflm"]
[contract]
max_bytes = {max_bytes}
"""
STEPS = ("teacher", "student-alone-0", "student-distilled-0", "convert-float16", "convert-full_int8", "validate")


def write(folder, name, max_bytes=20_000):
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(output=folder / name, max_bytes=max_bytes))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run without disturbance: its folder of recipes and what it gave."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, pipeline.run(recipe.load(write(folder, "whole")), command="tfkd run whole.toml")


def weights(path):
    return models.load(path).get_weights()


def test_run_gives_verdict_and_reports(finished):
    _, result = finished
    assert result.ok
    assert result.record["verdict"]["status"] == "SHIP"
    assert result.steps == dict.fromkeys(STEPS, "done")
    names = [(row["name"], row["target"]) for row in result.record["rows"]]
    assert names[:3] == [("teacher", None), ("student alone", None), ("student distilled", None)]
    assert names[3:] == [("float16", "tflm"), ("full_int8", "tflm")]
    assert set(result.record["training"]) == {"teacher", "student alone", "student distilled"}
    assert [run["seed"] for run in result.record["seeds"]["student distilled"]] == [0]
    assert "<html" in (result.folder / "report.html").read_text()
    assert result.record["models"]["full_int8"]["audit"]["samples"] == 100
    assert "tfkd run whole.toml" in (result.folder / "report.md").read_text()


def test_run_shows_a_model_that_a_target_refuses(finished):
    _, result = finished
    refused = next(row for row in result.record["rows"] if row["name"] == "float16" and row["target"])
    assert "float16 weights" in refused["invalid_reason"]
    assert "does not run" in trial.summary(result.record)


def test_run_again_keeps_every_step(finished):
    folder, _ = finished
    again = pipeline.run(recipe.load(folder / "whole.toml"))
    assert again.ok
    assert again.steps == dict.fromkeys(STEPS, "kept")


def test_run_redoes_only_what_a_change_touches(finished):
    folder, _ = finished
    changed = pipeline.run(recipe.load(write(folder, "whole", max_bytes=1_000)))
    assert changed.steps == {**dict.fromkeys(STEPS, "kept"), "validate": "done"}
    assert not changed.ok
    assert changed.record["verdict"]["binding"] == "max_bytes"


def test_run_redoes_a_step_whose_file_was_altered(finished):
    folder, _ = finished
    (folder / "whole" / "full_int8.tflite").write_bytes(b"altered")
    again = pipeline.run(recipe.load(write(folder, "whole")))
    assert [name for name, status in again.steps.items() if status == "done"][0] == "convert-full_int8"
    assert again.ok


def test_run_killed_in_training_resumes_with_equal_weights(finished):
    folder, _ = finished
    path = write(folder, "killed")
    command = [sys.executable, "-m", "tfkd.cli", "run", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        seen = []
        for line in first.stdout:
            seen.append(line)
            if line.startswith("student-distilled-0 2/4"):
                first.send_signal(signal.SIGKILL)
                break
    assert first.returncode == -signal.SIGKILL, "".join(seen)
    kept = list((folder / "killed" / "student-distilled-0").glob("checkpoint-*/epoch-*.json"))
    assert len(json.loads(kept[0].read_text())["loss"]) in (2, 3)
    second = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    said = json.loads(second.stdout)
    assert (said["steps"]["student-alone-0"], said["steps"]["student-distilled-0"]) == ("kept", "done")
    assert "student-distilled-0 1/4" not in second.stderr
    for name in ("teacher", "student-alone-0", "student-distilled-0"):
        resumed, whole = (weights(folder / run / name / "model.keras") for run in ("killed", "whole"))
        for one, other in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(one, other)
    histories = [
        json.loads((folder / run / "state.json").read_text())["student-distilled-0"]["history"]
        for run in ("killed", "whole")
    ]
    assert histories[0] == histories[1]


def test_run_in_a_busy_folder_is_refused(finished):
    folder, _ = finished
    with (
        step_cache.locked(folder / "whole"),
        pytest.raises(ValueError, match="another run works here"),
    ):
        pipeline.run(recipe.load(folder / "whole.toml"))


def test_run_with_missing_teacher_is_refused(tmp_path):
    text = RECIPE.format(output=tmp_path / "out", max_bytes=1).replace(
        'model = "digits_teacher"\nepochs = 1', f'path = "{tmp_path}/none.keras"'
    )
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ValueError, match=r"none\.keras: must be a file"):
        pipeline.run(recipe.load(tmp_path / "r.toml"))


def test_run_with_spoilt_state_is_refused(tmp_path):
    path = write(tmp_path, "spoilt")
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="Delete the file to begin anew"):
        pipeline.run(recipe.load(path))


def test_run_with_views_labels_once_and_trains_from_the_store(tmp_path):
    path = write(tmp_path, "stored")
    text = path.read_text().replace(
        "learning_rate = 0.01", 'learning_rate = 0.01\nviews = 2\naugment = "crop_flip"\npadding = 1\nflip = false'
    )
    path.write_text(text)
    first = pipeline.run(recipe.load(path))
    assert first.steps["labels"] == "done"
    path.write_text(text.replace("seeds = 1", "seeds = 2"))
    second = pipeline.run(recipe.load(path))
    assert (second.steps["labels"], second.steps["student-distilled-0"]) == ("kept", "kept")
    assert second.steps["student-distilled-1"] == "done"


@pytest.fixture(scope="module")
def trained(finished):
    """A frozen student and two teachers as files."""
    folder, _ = finished
    model = models.load(folder / "whole" / "student-distilled-0" / "model.keras")
    model.trainable = False
    model.save(folder / "frozen.keras")
    return folder


def test_run_of_several_teachers_starts_the_student_from_a_file(trained, finished):
    text = RECIPE.format(output=trained / "again", max_bytes=20_000).replace("epochs = 4", "epochs = 1")
    text = text.replace("learning_rate = 0.01", "learning_rate = 1e-6").replace(
        'model = "digits_teacher"\nepochs = 1',
        f'paths = ["{trained}/whole/teacher/model.keras", "{trained}/frozen.keras"]',
    )
    text = text.replace('model = "digits_student"', f'path = "{trained}/frozen.keras"')
    (trained / "again.toml").write_text(text)
    result = pipeline.run(recipe.load(trained / "again.toml"))
    before, after = weights(trained / "frozen.keras"), weights(trained / "again/student-distilled-0/model.keras")
    difference = max(np.abs(one - other).max() for one, other in zip(before, after, strict=True))
    assert 0 < difference < 0.1
    first, again = (run.record["rows"][2]["accuracy"] for run in (finished[1], result))
    assert abs(first - again) < 0.02


def test_run_starts_the_student_from_layers_of_another_model(trained):
    text = RECIPE.format(output=trained / "heir", max_bytes=20_000).replace("epochs = 4", "epochs = 1")
    text = text.replace("learning_rate = 0.01", "learning_rate = 1e-6").replace(
        'model = "digits_teacher"\nepochs = 1', f'path = "{trained}/whole/teacher/model.keras"'
    )
    heir = f'model = "digits_student"\ninherit = "{trained}/frozen.keras"\nlayers = {{"LAYER" = "LAYER"}}\n'
    file = trained / "heir.toml"
    file.write_text(text.replace('model = "digits_student"', heir.replace("LAYER", "block9")))
    with pytest.raises(ValueError, match="inherit: 'block9' matches no layer"):
        pipeline.run(recipe.load(file))
    text = text.replace('modes = ["float16", "full_int8"]', 'modes = ["float16"]\nship = "float16"')
    file.write_text(text.replace('model = "digits_student"', heir.replace("LAYER", "conv1_conv")))
    pipeline.run(recipe.load(file))
    source, student = (models.load(trained / f) for f in ("frozen.keras", "heir/student-distilled-0/model.keras"))
    for name, close in (("conv1_conv", True), ("block1_pointwise_conv", False)):
        kernels = [model.get_layer(name).kernel.numpy() for model in (source, student)]
        assert np.allclose(*kernels, atol=1e-3) == close


def test_run_of_a_teacher_that_sees_something_else(tmp_path):
    from tfkd import data

    splits = data.load("digits")
    x, y = np.concatenate([splits.train.x, splits.val.x]), np.concatenate([splits.train.y, splits.val.y])
    np.savez(tmp_path / "whole.npz", x_train=x, y_train=y, x_test=splits.test.x, y_test=splits.test.y)
    half = {"x_train": x[:, ::2, ::2], "x_test": splits.test.x[:, ::2, ::2]}
    np.savez(tmp_path / "half.npz", y_train=y, y_test=splits.test.y, **half)
    text = RECIPE.format(output=tmp_path / "run", max_bytes=20_000).replace(
        'name = "digits"',
        f'path = "{tmp_path}/half.npz"\n[data.teacher]\npath = "{tmp_path}/whole.npz"\npair = "row"',
    )
    (tmp_path / "cross.toml").write_text(text)
    result = pipeline.run(recipe.load(tmp_path / "cross.toml"))
    assert models.load(tmp_path / "run/teacher/model.keras").input_shape == (None, 8, 8, 1)
    assert models.load(tmp_path / "run/student-distilled-0/model.keras").input_shape == (None, 4, 4, 1)
    assert result.record["rows"][0]["accuracy"] > 0.5
    assert result.record["rows"][2]["accuracy"] > 0.3
