"""Runs of a recipe: kept steps, a kill in the middle, the report."""

import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from tests.adb_device import adb
from tfkd import data, models
from tfkd._internal.progress import Progress
from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
from tfkd.distillation import training
from tfkd.errors import InputError, ToolMissingError
from tfkd.recipes import pipeline, recipe, records, step_cache
from tfkd.report import console

pytestmark = pytest.mark.slow

RECIPE = """
output = "{output}"
[data]
name = "digits"
[teacher]
path = "{teacher}"
[student]
model = "digits_student"
[distillation]
epochs = 1
learning_rate = 0.01
seeds = 1
[conversion]
modes = ["float16", "full_int8"]
calibration_samples = 100
[targets]
names = ["tflm"]
[contract]
min_accuracy = 20
max_bytes = {max_bytes}
"""
STEPS = (
    "examine-student",
    "teacher",
    "examine-teacher",
    "student-alone-0",
    "student-distilled-0",
    "convert-float16",
    "convert-full_int8",
    "validate",
    "report",
)
# Changes of the recipe for tests of what comes before the conversion.
SHIPPED_AS_FLOAT = ('modes = ["float16", "full_int8"]', 'modes = ["float32"]\nship = "float32"')
ON_THE_HOST = ('names = ["tflm"]', 'names = ["host:plain"]')
QUICK = {"modes": SHIPPED_AS_FLOAT, "targets": ON_THE_HOST, "size": ("max_bytes = 20000", "max_bytes = 40000")}
TRAINED_TEACHER = 'model = "digits_teacher"\nepochs = 1'


def write(folder, name, *, teacher, max_bytes=20_000, **changes):
    """Writes a recipe whose output is a folder of the same name, with some of its lines changed."""
    text = RECIPE.format(output=folder / name, teacher=teacher, max_bytes=max_bytes)
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def write_whole(folder, name, max_bytes=20_000):
    """A recipe that trains its teacher, and its students for four epochs, and refines int8."""
    return write(
        folder,
        name,
        teacher="",
        max_bytes=max_bytes,
        built=('path = ""', TRAINED_TEACHER),
        longer=("[distillation]\nepochs = 1", "[distillation]\nallow_bad_teacher = true\nepochs = 4"),
        refined=("[conversion]", "[conversion]\nrefine = true"),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of the recipe of an undisturbed run, and its result."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, pipeline.run(recipe.load(write_whole(folder, "whole")), command="tfkd run whole.toml")


def weights(path):
    return models.load(path).get_weights()


def test_run_refuses_test_samples_in_the_training_part_before_any_training(tmp_path):
    train, _, test = data.load("digits")
    x, y = np.concatenate([train.x, test.x[:2]]), np.concatenate([train.y, test.y[:2]])
    np.savez(tmp_path / "leak.npz", x_train=x, y_train=y, x_test=test.x, y_test=test.y)
    path = write(
        tmp_path,
        "leak",
        teacher="",
        built=('path = ""', TRAINED_TEACHER),
        leak=('name = "digits"', f'path = "{tmp_path / "leak.npz"}"'),
    )
    with pytest.raises(
        InputError, match=r"are in test too.\n  observed: \d equal samples? \((train|val) \d+ and test "
    ):
        pipeline.run(recipe.load(path))
    assert not list((tmp_path / "leak").rglob("*.keras"))


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
    assert "MEAN" in TFLiteModel.load(result.folder / "full_int8.tflite").ops


def test_run_shows_a_model_that_a_target_refuses(finished):
    _, result = finished
    refused = next(row for row in result.record["rows"] if row["name"] == "float16" and row["target"])
    assert "float16 weights" in refused["invalid_reason"]
    assert "does not run" in console.summary(result.record)


def test_run_again_keeps_every_step(finished):
    folder, _ = finished
    again = pipeline.run(recipe.load(folder / "whole.toml"))
    assert again.ok
    assert again.steps == dict.fromkeys(STEPS, "kept")


def test_run_redoes_only_what_a_change_touches(finished):
    folder, _ = finished
    changed = pipeline.run(recipe.load(write_whole(folder, "whole", max_bytes=1_000)))
    assert changed.steps == {**dict.fromkeys(STEPS, "kept"), "validate": "done", "report": "done"}
    assert not changed.ok
    assert changed.record["verdict"]["binding"] == "max_bytes"


def test_run_redoes_a_step_whose_file_was_altered(finished):
    folder, _ = finished
    (folder / "whole" / "full_int8.tflite").write_bytes(b"altered")
    again = pipeline.run(recipe.load(write_whole(folder, "whole")))
    assert [name for name, status in again.steps.items() if status == "done"][0] == "convert-full_int8"
    assert again.ok


def test_run_killed_in_training_resumes_with_equal_weights(finished, forks):
    folder, _ = finished
    path = write_whole(folder, "killed")
    forks.tfkd("run", path).kill_at("student-distilled-0 2/4")
    kept = list((folder / "killed" / "student-distilled-0").glob("checkpoint-*/epoch-*.json"))
    assert len(json.loads(kept[0].read_text())["loss"]) in (2, 3)
    second = forks.tfkd("run", path, "--json")
    printed = second.communicate()
    assert second.returncode == 0, printed
    steps = json.loads(printed[printed.index("\n{") :])["steps"]
    assert (steps["student-alone-0"], steps["student-distilled-0"]) == ("kept", "done")
    assert "student-distilled-0 1/4" not in printed
    for name in ("teacher", "student-alone-0", "student-distilled-0"):
        resumed, whole = (weights(folder / run / name / "model.keras") for run in ("killed", "whole"))
        for one, other in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(one, other)
    histories = [
        json.loads((folder / run / "state.json").read_text())["student-distilled-0"]["record"]["history"]
        for run in ("killed", "whole")
    ]
    assert histories[0] == histories[1]


def test_step_of_an_older_version_is_redone(tmp_path):
    """An entry of state.json without the fields of today."""
    (tmp_path / "state.json").write_text(json.dumps({"labels": {"key": "0" * 64, "path": "labels", "files": {}}}))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "zarr.json").touch()
    steps = step_cache.Steps(tmp_path, Progress())
    made = steps.do("labels", [], records.Labels, lambda key: records.Labels("labels"))
    assert steps.outcomes == {"labels": "done"}
    again = step_cache.Steps(tmp_path, Progress())
    assert again.do("labels", [], records.Labels, lambda key: pytest.fail("it is kept")) == made
    assert again.outcomes == {"labels": "kept"}


@pytest.mark.parametrize(
    "record",
    [
        records.Trained("a.keras", {"loss": [1.0, float("inf")]}, 0.5, 0.25),
        records.Converted("a.tflite", CalibrationAudit(1, 0.0, 1.0, 0.5, 1, 2, "d", 0, findings=("few",)), "b.keras"),
        records.Converted("a.tflite"),
        records.Validated("v.json", True),
    ],
)
def test_record_survives_json(record):
    text = json.dumps(step_cache.to_json(record))
    assert step_cache.from_json(type(record), json.loads(text)) == record


@pytest.mark.android
def test_run_repeats_a_validation_in_which_a_phone_failed(finished, phone):
    folder, _ = finished
    path = write_whole(folder, "whole")
    path.write_text(path.read_text().replace('names = ["tflm"]', 'names = ["tflm", "android"]'))
    adb("disconnect", phone.serial)
    printed = io.StringIO()
    failed = pipeline.run(recipe.load(path), progress=Progress(Console(file=printed, width=1000)))
    assert "no connected phone" in printed.getvalue().split("examine-student")[0]
    assert (failed.steps["convert-full_int8"], failed.steps["validate"]) == ("kept", "done")
    assert failed.record["verdict"]["status"] == "UNKNOWN"
    assert "no connected phone" in failed.record["rows"][-1]["invalid_reason"]
    adb("connect", phone.serial)
    again = pipeline.run(recipe.load(path))
    assert (again.steps["convert-full_int8"], again.steps["validate"]) == ("kept", "done")
    assert again.record["verdict"]["status"] == "SHIP"


def test_run_in_a_busy_folder_is_refused(finished):
    folder, _ = finished
    code = "import sys, filelock; a = filelock.FileLock(sys.argv[1]); a.acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(folder / "whole" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another run works here"):
            pipeline.run(recipe.load(folder / "whole.toml"))
        other.communicate("\n")
    assert pipeline.run(recipe.load(folder / "whole.toml")).ok


def test_run_with_missing_teacher_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.keras: must be a file"):
        pipeline.run(recipe.load(write(tmp_path, "out", teacher=tmp_path / "none.keras")))


def test_run_with_a_teacher_without_logits_is_refused_before_the_training(tmp_path):
    inputs = keras.Input((8, 8, 1))
    teacher = models.build("digits_student", (8, 8, 1), 10)
    hard = keras.layers.Activation("hard_sigmoid")(teacher(inputs))
    keras.Model(inputs, keras.layers.Reshape((10,))(hard)).save(tmp_path / "teacher.keras")
    with pytest.raises(InputError, match="teacher must return logits"):
        pipeline.run(recipe.load(write(tmp_path, "refused", teacher=tmp_path / "teacher.keras")))
    assert not list(tmp_path.glob("refused/student-*/*"))


def test_run_with_a_teacher_of_another_input_range_is_refused_before_the_training(tmp_path, digits_teacher_file):
    inputs = keras.Input((8, 8, 1))
    teacher = models.load(digits_teacher_file)
    keras.Model(inputs, teacher(keras.layers.Rescaling(255.0)(inputs))).save(tmp_path / "teacher.keras")
    path = write(tmp_path, "refused", teacher=tmp_path / "teacher.keras")
    with pytest.raises(InputError, match="another range(.*\n)*.*set allow_bad_teacher = true in"):
        pipeline.run(recipe.load(path))
    assert not list(tmp_path.glob("refused/student-*"))


def test_run_with_a_student_without_logits_is_refused_before_the_training(tmp_path, digits_teacher_file):
    inputs = keras.Input((8, 8, 1))
    student = models.build("digits_student", (8, 8, 1), 10)
    keras.Model(inputs, keras.layers.Activation("hard_sigmoid")(student(inputs))).save(tmp_path / "student.keras")
    own = ('model = "digits_student"', f'path = "{tmp_path}/student.keras"')
    path = write(tmp_path, "refused", teacher=digits_teacher_file, own=own)
    with pytest.raises(InputError, match="student must return logits"):
        pipeline.run(recipe.load(path))
    assert not list(tmp_path.glob("refused/student-*"))


def test_run_with_missing_tool_of_a_named_target_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("tfkd.targets.tflm.TFLM.__post_init__", missing_tool)
    with pytest.raises(ToolMissingError, match="not installed"):
        pipeline.run(recipe.load(write(tmp_path, "out", teacher=tmp_path / "none.keras")))
    assert not (tmp_path / "out").exists()


def missing_tool(target):
    raise ToolMissingError("tflite-micro is not installed")


@pytest.mark.parametrize(
    ("targets", "rows"),
    [("", ["host", "tflm"]), ('[targets]\nnames = ["host"]\noptional = ["tflm"]', ["host", "tflm"])],
)
def test_run_with_missing_tool_of_another_target_reports_it_as_unavailable(finished, monkeypatch, targets, rows):
    folder, _ = finished
    monkeypatch.setattr("tfkd.targets.tflm.TFLM.__post_init__", missing_tool)
    path = write_whole(folder, "whole")
    path.write_text(path.read_text().replace('[targets]\nnames = ["tflm"]', targets))
    result = pipeline.run(recipe.load(path))
    shipped = [row for row in result.record["rows"] if row["name"] == "full_int8"]
    assert [row["target"] for row in shipped] == rows
    assert "not installed" in shipped[1]["invalid_reason"]
    assert result.ok


def test_run_with_damaged_state_is_refused(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.json").write_text("{")
    with pytest.raises(InputError, match="Delete the file"):
        pipeline.run(recipe.load(write_whole(tmp_path, "damaged")))


@pytest.mark.campaign
def test_run_with_views_labels_once_and_trains_from_the_store(tmp_path, digits_teacher_file):
    views = ("[distillation]", '[distillation]\nviews = 2\naugment = "crop_flip"\npadding = 1\nflip = false')
    path = write(tmp_path, "stored", teacher=digits_teacher_file, views=views, **QUICK)
    first = pipeline.run(recipe.load(path))
    assert first.steps["labels"] == "done"
    path.write_text(path.read_text().replace("seeds = 1", "seeds = 2"))
    second = pipeline.run(recipe.load(path))
    assert (second.steps["labels"], second.steps["student-distilled-0"]) == ("kept", "kept")
    assert second.steps["student-distilled-1"] == "done"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, digits_student_file):
    """A trained student that was saved frozen."""
    model = models.load(digits_student_file)
    # Training moves the BatchNormalization statistics even at a tiny learning rate: here they fit the weights already.
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momentum = norms[0].momentum
    for layer in norms:
        layer.momentum = 0.8  # a few batches are enough
    for x, _ in data.load("digits").train.batches(64, shuffle=True):
        model(x, training=True)
    for layer in norms:
        layer.momentum = momentum
    model.trainable = False
    path = tmp_path_factory.mktemp("frozen") / "frozen.keras"
    model.save(path)
    return path


@pytest.mark.campaign
def test_run_of_several_teachers_starts_the_student_from_a_file(tmp_path, frozen, digits_teacher_file):
    path = write(
        tmp_path,
        "again",
        teacher="",
        several=('path = ""', f'paths = ["{digits_teacher_file}", "{frozen}"]'),
        student=('model = "digits_student"', f'path = "{frozen}"'),
        slowly=("learning_rate = 0.01", "learning_rate = 1e-6"),
        **QUICK,
    )
    result = pipeline.run(recipe.load(path))
    before, after = weights(frozen), weights(tmp_path / "again/student-distilled-0/model.keras")
    difference = max(np.abs(one - other).max() for one, other in zip(before, after, strict=True))
    assert 0 < difference < 0.1
    test = data.load("digits").test
    assert abs(result.record["rows"][2]["accuracy"] - training.accuracy(models.load(frozen), test)) < 0.02


@pytest.mark.campaign
def test_run_starts_the_student_from_layers_of_another_model(tmp_path, frozen, digits_teacher_file):
    def write_heir(layer):
        heir = f'model = "digits_student"\ninherit = "{frozen}"\nlayers = {{"{layer}" = "{layer}"}}'
        return write(
            tmp_path,
            "heir",
            teacher=digits_teacher_file,
            student=('model = "digits_student"', heir),
            slowly=("learning_rate = 0.01", "learning_rate = 1e-6"),
            **QUICK,
        )

    with pytest.raises(InputError, match="'block9'"):
        pipeline.run(recipe.load(write_heir("block9")))
    assert not list((tmp_path / "heir").glob("student-*"))  # refused before any training
    pipeline.run(recipe.load(write_heir("conv1_conv")))
    source, student = models.load(frozen), models.load(tmp_path / "heir/student-distilled-0/model.keras")
    for name, close in (("conv1_conv", True), ("block1_pointwise_conv", False)):
        kernels = [model.get_layer(name).kernel.numpy() for model in (source, student)]
        assert np.allclose(*kernels, atol=1e-3) == close


def test_run_of_a_teacher_with_other_inputs(tmp_path):
    splits = data.load("digits")
    x, y = np.concatenate([splits.train.x, splits.val.x]), np.concatenate([splits.train.y, splits.val.y])
    np.savez(tmp_path / "whole.npz", x_train=x, y_train=y, x_test=splits.test.x, y_test=splits.test.y)
    half = {"x_train": x[:, ::2, ::2], "x_test": splits.test.x[:, ::2, ::2]}
    np.savez(tmp_path / "half.npz", y_train=y, y_test=splits.test.y, **half)
    source = f'path = "{tmp_path}/half.npz"\n[data.teacher]\npath = "{tmp_path}/whole.npz"\npair = "row"'
    path = write(
        tmp_path,
        "run",
        teacher="",
        built=('path = ""', TRAINED_TEACHER),
        data=('name = "digits"', source),
        longer=("[distillation]\nepochs = 1", "[distillation]\nallow_bad_teacher = true\nepochs = 4"),
        **QUICK,
    )
    result = pipeline.run(recipe.load(path))
    assert models.load(tmp_path / "run/teacher/model.keras").input_shape == (None, 8, 8, 1)
    assert models.load(tmp_path / "run/student-distilled-0/model.keras").input_shape == (None, 4, 4, 1)
    assert result.record["rows"][0]["accuracy"] > 0.5
    assert result.record["rows"][2]["accuracy"] > 0.3
