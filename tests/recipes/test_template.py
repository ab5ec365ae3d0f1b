"""`tfkd init`: the recipes that it writes load, and have a comment on each key."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd import cli, models
from tfkd.data.sources import NAMES
from tfkd.recipes import recipe, template

DEMONSTRATION = Path(__file__).parents[2] / "recipes" / "digits.toml"


def test_init_writes_the_demonstration(tmp_path):
    out = tmp_path / "recipe.toml"
    result = CliRunner().invoke(cli.app, ["init", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert recipe.load(out) == recipe.load(DEMONSTRATION)
    assert f"tfkd run {out}" in result.output


@pytest.mark.parametrize(
    ("data", "student", "expected"),
    [
        ("cifar10", None, ({"name": "cifar10", "validation": 0.1}, {"model": "resnet8"})),
        ("my images/", "s.keras", ({"path": "my images/", "validation": 0.1}, {"path": "s.keras"})),
        ("my images/", "s.h5", ({"path": "my images/", "validation": 0.1}, {"path": "s.h5"})),
        ('say "hi".npz', "ds_cnn", ({"path": 'say "hi".npz', "validation": 0.1}, {"model": "ds_cnn"})),
    ],
)
def test_init_writes_a_recipe_for_data_and_teacher(tmp_path, data, student, expected):
    out = template.write(tmp_path / "deep" / "r.toml", data=data, teacher="t.keras", student=student)
    content = tomllib.loads(out.read_text())
    assert (content["data"], content["student"]) == expected
    loaded = recipe.load(out)
    assert loaded.teacher.files == [Path("t.keras")]
    assert loaded.distillation.optimizer is loaded.distillation.learning_rate is None  # the defaults of the student


@pytest.mark.parametrize(
    ("folders", "task", "student", "limit"),
    [
        (("images", "masks"), "segmentation", "unet", "max_dice_drop"),
        (("Annotations", "JPEGImages"), "object_detection", "ssdlite", "max_ap50_drop"),
        (("cat", "dog"), None, "resnet8", "max_accuracy_drop"),
    ],
    ids=["masks", "boxes", "classes"],
)
def test_init_knows_the_task_from_the_form_of_a_folder(tmp_path, folders, task, student, limit):
    for name in folders:
        (tmp_path / "data" / name).mkdir(parents=True)
    loaded = recipe.load(template.write(tmp_path / "r.toml", data=str(tmp_path / "data"), teacher="t.keras"))
    assert (loaded.task, loaded.student.model) == (task, student)
    assert limit in loaded.limits.limits


@pytest.mark.parametrize("task", template._STUDENTS)
def test_student_that_init_suggests_is_no_larger_than_the_default_of_its_builder(task):
    shape = {"anomaly": (16,), "sequence_labelling": (32, 3)}.get(task, (32, 32, 3))
    student = template._STUDENTS[task]
    small, default = (models.build(student["model"], shape, 7, **one) for one in (student["options"], {}))
    assert small.count_params() <= default.count_params()


@pytest.mark.parametrize(
    ("x", "y", "task", "student"),
    [
        (np.full((20, 3), 0.5, np.float32), np.arange(20) + 0.5, "regression", "mlp"),
        (np.full((20, 5), 900, np.int32), np.arange(20) % 3, None, "text_encoder"),
        (np.ones((20, 5, 2), np.float32), np.arange(20) % 3, None, "sensor_cnn"),
    ],
    ids=["values", "tokens", "sensors"],
)
def test_init_knows_task_and_student_of_arrays(tmp_path, x, y, task, student):
    file = tmp_path / "data.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    loaded = recipe.load(template.write(tmp_path / "r.toml", data=str(file), teacher="t.keras"))
    assert (loaded.task, loaded.student.model) == (task, student)
    small, default = (models.build(student, x.shape[1:], 3, **one) for one in (loaded.student.options, {}))
    assert small.count_params() < default.count_params()


@pytest.mark.parametrize(
    ("suffix", "labels", "task", "student"),
    [
        ("jpg", ("cat", "dog"), None, "resnet8"),
        ("wav", ("cat", "dog"), None, "sensor_cnn"),
        ("png", ("0.5", "2"), "regression", "resnet8"),
    ],
    ids=["images", "sounds", "values"],
)
def test_init_reads_the_names_of_files_only(tmp_path, suffix, labels, task, student):
    """The files are empty; reading those of a large data set would take long."""
    for number, label in enumerate(labels):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{number}.{suffix}").touch()
    rows = [f"{label}/{number}.{suffix},{label}" for number, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    for name in ("t.csv", *([""] if task is None else [])):
        data = tmp_path / name
        loaded = recipe.load(template.write(tmp_path / "r.toml", data=str(data), teacher="t.keras", overwrite=True))
        assert (loaded.task, loaded.student.model) == (task, student)


def test_init_takes_a_table_of_whole_numbers_for_a_table(tmp_path):
    rows = [f"{3 * i},{i % 4},{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["age,children,label", *rows]))
    loaded = recipe.load(template.write(tmp_path / "r.toml", data=str(tmp_path / "t.csv"), teacher="t.keras"))
    assert loaded.student.model == "mlp"


def test_init_warns_of_a_teacher_that_does_not_exist(tmp_path):
    out, teacher = tmp_path / "r.toml", tmp_path / "t.keras"
    arguments = ["init", "--data", "digits", "--teacher", str(teacher), "--out", str(out)]
    warned = CliRunner().invoke(cli.app, arguments)
    assert warned.exit_code == 0, warned.output
    assert f"the teacher {teacher} does not exist" in warned.stderr
    teacher.touch()
    assert "warning" not in CliRunner().invoke(cli.app, [*arguments, "--overwrite"]).stderr


def test_init_refuses_an_existing_file_without_overwrite(tmp_path):
    out = tmp_path / "recipe.toml"
    out.write_text("mine")
    result = CliRunner().invoke(cli.app, ["init", "--out", str(out)])
    assert result.exit_code == 2
    assert "already exists. Pass --overwrite" in result.stderr
    assert out.read_text() == "mine"
    assert CliRunner().invoke(cli.app, ["init", "--out", str(out), "--overwrite"]).exit_code == 0
    recipe.load(out)


@pytest.mark.parametrize("options", [{"data": "digits"}, {"teacher": "t.keras"}, {"student": "resnet8"}])
def test_init_needs_data_and_teacher_together(tmp_path, options):
    with pytest.raises(ValueError, match="needs --data and --teacher"):
        template.write(tmp_path / "r.toml", **options)
    assert not list(tmp_path.iterdir())


def test_recipe_of_init_comments_each_key_of_the_schema():
    lines = template.render(template.DIGITS, "Title.").splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    assert all(lines[number - 1].startswith("# ") for number in keys)
    names = {re.match(r"(?:# )?(\w+) = ", lines[number])[1] for number in keys}
    schema = recipe.Recipe.model_json_schema()
    tables = [schema, *(table for name, table in schema["$defs"].items() if name != "Search")]
    known = {key for table in tables for key in table.get("properties", {})}
    assert names == known - {"data", "teacher", "student", "distillation", "optimization", "conversion"} - {
        "targets",
        "contract",
        "search",  # the table of `tfkd search`, which `tfkd run` does not read
    }


def test_commented_keys_of_init_are_valid_once_uncommented():
    """Each default and example has the type of its key; keys that exclude each other are tried one at a time."""
    text = template.render(template.DIGITS, "Title.")
    exclusive = {"path", "paths", "name", "inherit", "layers", "pair", "method", "padding", "flip"}
    exclusive |= {"input_range", "preprocess"}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"# (\w+) = ", line)
        if key is None or key[1] in exclusive or "[[" in "".join(lines[max(0, number - 24) : number]):
            continue
        changed = [*lines[:number], line.removeprefix("# "), *lines[number + 1 :]]
        if key[1] in ("views", "label_hours"):
            changed.insert(number, 'augment = "crop_flip"')
        if key[1] == "label_hours":
            changed.insert(number, 'views = "all"')
        recipe.parse("\n".join(changed), line)


def test_description_of_data_names_each_data_set():
    text = recipe.Recipe.model_json_schema()["$defs"]["Data"]["properties"]["name"]["description"]
    assert all(name in text for name in NAMES)
