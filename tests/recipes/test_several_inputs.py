"""Samples of several inputs from the recipe, and from the commands of the training, to the report."""

import json
import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import tfkd
from tfkd import cli, data, models, tasks
from tfkd.errors import InputError
from tfkd.recipes import pipeline, recipe, template
from tfkd.tasks import CLASSIFICATION

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
COUNT = 240
# Two inputs of one shape, so that a wrong order shows in the accuracy only, and a column. Labels need left and side.
X = {
    "left": RNG.normal(size=(COUNT, 4)).astype("float32"),
    "right": RNG.normal(size=(COUNT, 4)).astype("float32"),
    "side": RNG.integers(0, 2, COUNT).astype("float32"),
}
Y = X["left"][:, :2].argmax(1) + (X["left"].max(1) > 1) * X["side"].astype(int)
# "right" comes first in the model: neither the order of the data nor the alphabet.
MODULE = """
import keras
SHAPES = []

def two(shapes, classes, width=8):
    SHAPES.append(shapes)
    inputs = [keras.Input(shapes[name] or (1,), name=name) for name in ("right", "left", "side")]
    x = keras.layers.Concatenate()([0 * inputs[0], *inputs[1:]])
    x = keras.layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))
"""
RECIPE = """
output = "{folder}/run"
[data]
path = "{folder}/pairs.npz"
[teacher]
model = "{module}:two"
options = {{ width = 32 }}
optimizer = "adam"
learning_rate = 0.03
epochs = 30
[student]
model = "{module}:two"
[distillation]
optimizer = "adam"
learning_rate = 0.03
epochs = 10
views = 1
[conversion]
modes = ["full_int8"]
[targets]
names = ["host:plain"]
[contract]
min_accuracy = 60
max_accuracy_drop = 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data and the module of the models."""
    path = tmp_path_factory.mktemp("pairs")
    parts = [("train", slice(0, 180)), ("test", slice(180, COUNT))]
    arrays = {f"x_{role}/{name}": array[rows] for role, rows in parts for name, array in X.items()}
    np.savez(path / "pairs.npz", **arrays, **{f"y_{role}": Y[rows] for role, rows in parts})
    (path / "pair_models.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(path), *sys.path])
        yield path
    sys.modules.pop("pair_models", None)


@pytest.fixture(scope="module")
def finished(folder):
    """The result of a run."""
    (folder / "r.toml").write_text(RECIPE.format(folder=folder, module="pair_models"))
    return pipeline.run(recipe.load(folder / "r.toml"))


def test_recipe_finds_inputs_by_name_in_every_step(folder, finished):
    x = {name: array[180:] for name, array in X.items()}
    accuracies = {}
    for name, file in (("teacher", "teacher"), ("student distilled", "student-distilled-0")):
        model = models.load(folder / "run" / file / "model.keras")
        logits = model.predict([x["right"], x["left"], x["side"]], verbose=0)
        accuracies[name] = float((logits.argmax(1) == Y[180:]).mean())
    assert accuracies["teacher"] > 0.7
    rows = {row["name"]: row for row in finished.record["rows"]}
    assert {name: rows[name]["accuracy"] for name in accuracies} == pytest.approx(accuracies)
    assert rows["full_int8"]["accuracy"] == pytest.approx(accuracies["student distilled"], abs=0.05)
    assert finished.record["test"]["input_shape"] == {"left": [4], "right": [4], "side": []}
    assert finished.ok == (finished.record["verdict"]["status"] == "SHIP")
    assert "side" in finished.page.read_text()


def test_finished_recipe_is_kept(folder, finished):
    again = pipeline.run(recipe.load(folder / "r.toml"))
    assert set(again.steps.values()) == {"kept"}


def run(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def test_commands_of_the_training_take_several_inputs(folder, finished, tmp_path):
    archive, teacher = folder / "pairs.npz", folder / "run" / "teacher" / "model.keras"
    options = ("--data", archive, "--epochs", 1, "--json")
    trained = run("train", "pair_models:two", *options, "--out", tmp_path / "t.keras")
    assert trained.exit_code == 0, trained.output
    student = folder / "run" / "student-distilled-0" / "model.keras"
    distilled = run(
        "distill",
        "--teacher",
        teacher,
        "--student",
        student,
        *options,
        "--augment",
        "none",
        "--out",
        tmp_path / "s.keras",
    )
    assert distilled.exit_code == 0, distilled.output
    labelled = run("label", "--teacher", teacher, "--data", archive, "--out", tmp_path / "store", "--json")
    assert labelled.exit_code == 0, labelled.output
    assert json.loads(labelled.stdout)["missing"] == 0
    written = run("init", "--out", tmp_path / "r.toml", "--data", archive, "--teacher", teacher, "--student", student)
    assert written.exit_code == 0, written.output
    assert recipe.load(tmp_path / "r.toml").student.path == str(student)


REFUSED = {
    "builder": (("train", "resnet8"), "builders of tfkd.models have one input. Received: 'resnet8' for samples of the"),
    "augment": (("train", "pair_models:two", "--augment", "flip"), "an augmentation changes samples of one input"),
    "mixing": (("train", "pair_models:two", "--augment", "mixup"), "mixing needs samples of one input"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_takes_one_input_is_refused_by_name(what, folder, tmp_path):
    arguments, message = REFUSED[what]
    result = run(*arguments, "--data", folder / "pairs.npz", "--out", tmp_path / "t.keras", "--epochs", 1)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "t.keras").exists()


@pytest.mark.parametrize("kind", ["abnormal", "boxes", "points", "masks"])
def test_labels_of_one_array_are_refused_by_name(kind):
    kinds = {
        "abnormal": np.zeros(COUNT, bool),
        "points": np.zeros((COUNT, 2, 3)),
        "masks": np.zeros((COUNT, 4, 4), int),
    }
    y = kinds.get(kind, np.tile([0.1, 0.1, 0.5, 0.5, 0.0], (COUNT, 1, 1)))
    parts = [({one: array[rows] for one, array in X.items()}, y[rows]) for rows in (slice(0, 180), slice(180, COUNT))]
    with pytest.raises(InputError, match="takes samples of one input. Received: the inputs left, right, side"):
        tasks.find(data.from_arrays(*parts, labels=kind).train)


def test_init_needs_a_student_with_these_inputs(folder, tmp_path):
    with pytest.raises(InputError, match="samples of several inputs need --student"):
        template.write(tmp_path / "r.toml", data=str(folder / "pairs.npz"), teacher="t.keras")


def test_teacher_without_an_input_is_found_before_the_training(folder):
    from tfkd.recipes import teacher_examination

    splits = data.load(folder / "pairs.npz")
    named = [keras.Input((4,), name=name) for name in ("left", "middle")]
    teacher = keras.Model(named, keras.layers.Dense(3)(keras.layers.Add()(named)))
    (finding,) = teacher_examination.examine(teacher, splits, CLASSIFICATION).findings
    assert finding.severity == "error"
    assert "'middle' of shape (4,)" in finding.evidence
    other = keras.Sequential([keras.Input((4,), name="up"), keras.layers.Dense(3)])
    (finding,) = teacher_examination.examine(other, splits, CLASSIFICATION).findings
    assert "its input is 'up' of shape (4,)" in finding.evidence


def test_scale_of_each_input_is_compared(folder):
    from tfkd.recipes import data_examination

    x = {**{name: array.copy() for name, array in X.items()}, "mask": X["side"] > 0}
    first, last = ({name: array[rows] for name, array in x.items()} for rows in (slice(0, 180), slice(180, COUNT)))
    last["left"] *= 255
    splits = data.from_arrays((first, Y[:180]), (last, Y[180:]))
    (evidence,) = [one.evidence for one in data_examination.examine(splits) if "scale" in one.what]
    assert evidence.startswith("input left: 99% of their values")


def test_open_sizes_of_a_student_are_those_of_the_data(folder):
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), name="mask")
    student = keras.Model([ids, mask], keras.ops.cast(ids, "float32") * mask)
    fixed = tfkd.models.with_input_shape(student, {"ids": (5,), "mask": (5,)})
    assert [tensor.shape for tensor in fixed.inputs] == [(None, 5)] * 2
    with pytest.raises(InputError, match="input_shape must fit .* of the input 'mask'"):
        tfkd.models.with_input_shape(student, {"ids": (5,)})


def test_ensemble_finds_inputs_by_name():
    parts = {name: keras.Input((2,), name=name) for name in ("b", "a")}
    one = keras.Model([parts["b"], parts["a"]], parts["a"] - parts["b"])
    other = keras.Model([parts["a"], parts["b"]], 3 * parts["a"])
    together = tfkd.distillation.teachers.ensemble([one, other], combine="logits")
    x = {"a": np.array([[1.0, 2.0]], "float32"), "b": np.array([[5.0, 7.0]], "float32")}
    np.testing.assert_allclose(together(x), (x["a"] - x["b"] + 3 * x["a"]) / 2)
