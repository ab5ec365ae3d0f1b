"""recipes/imagenet_resnet50_mobilenetv2.toml: errors name what is missing; the whole recipe runs on small stand-ins."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfkd import data, models
from tfkd.data import lazy
from tfkd.errors import InputError
from tfkd.recipes import pipeline, recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "imagenet_resnet50_mobilenetv2.toml"
TEACHER = """
from tfkd import models

def teacher(input_shape, num_classes, weights):
    return models.load(weights)
"""
TEACHER_LINES = 'model = "resnet50"\noptions = { weights = "imagenet" }\nepochs = 0'
STUDENT_LINES = 'model = "mobilenet_v2"\noptions = { alpha = 1.4, weights = "imagenet" }'


def write(folder, **changes):
    """The recipe with some of its lines changed, whose run is in a folder."""
    changes |= {"output": ('output = "runs/imagenet_resnet50_mobilenetv2"', f'output = "{folder}/run"')}
    changes |= {"android": ('names = ["host", "android"]', 'names = ["host"]')}
    text = RECIPE.read_text()
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of digits in two sizes in place of ImageNet, which counts as larger than memory."""
    splits = data.load("digits")
    for part, split, count in (("train", splits.train, 24), ("test", splits.test, 10)):
        for label in range(10):
            folder = tmp_path / "imagenet" / part / f"n0000{label}"
            folder.mkdir(parents=True)
            for number, row in enumerate(np.flatnonzero(split.y == label)[:count]):
                image, side = Image.fromarray(split.x[row, ..., 0].astype(np.uint8)), 8 if number % 2 else 24
                image.resize((side, side), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    monkeypatch.setenv("TFKD_DATA", str(tmp_path))
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 0)


SMALL = {"size": ("image_size = [224, 224]", "image_size = [8, 8]"), "val": ("validation = 0.02", "validation = 0.2")}


def test_imagenet_recipe_without_a_data_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("TFKD_DATA", raising=False)
    with pytest.raises(InputError, match=r"data\.path: .*\$TFKD_DATA is not set"):
        recipe.load(write(tmp_path))
    monkeypatch.setenv("TFKD_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"/imagenet' is neither a known data set nor a file or folder"):
        pipeline.run(recipe.load(write(tmp_path)))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_imagenet_recipe_with_a_weights_file_that_is_missing_is_refused_before_any_training(tmp_path, photos, role):
    models_of = {"teacher": TEACHER_LINES, "student": STUDENT_LINES}
    small = {"teacher": 'model = "digits_teacher"\nepochs = 1', "student": 'model = "digits_student"'}
    lines = {one: (before, small[one]) for one, before in models_of.items()}
    lines[role] = (models_of[role], models_of[role].replace("imagenet", "$TFKD_DATA/none.h5"))
    with pytest.raises(InputError, match=r"none\.h5: must be a file"):
        pipeline.run(recipe.load(write(tmp_path, **SMALL, **lines)))
    assert not list((tmp_path / "run").rglob("*.keras"))


def test_imagenet_recipe_runs_whole_with_small_models(tmp_path, photos, own_module, digits_teacher_file):
    own = own_module(TEACHER)
    path = write(
        tmp_path,
        **SMALL,
        teacher=(
            TEACHER_LINES,
            f'model = "{own}:teacher"\noptions = {{ weights = "{digits_teacher_file}" }}\nepochs = 0',
        ),
        student=(STUDENT_LINES, 'model = "digits_student"'),
        padding=("padding = 16", "padding = 1"),
        rate=("learning_rate = 1e-4", "learning_rate = 1e-2"),
        batch=("batch_size = 128", "batch_size = 32"),
    )
    result = pipeline.run(recipe.load(path))
    assert result.steps["labels"] == "done"
    before, after = models.load(digits_teacher_file), models.load(tmp_path / "run" / "teacher" / "model.keras")
    for one, other in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # a teacher with epochs = 0 keeps its weights
    assert set(result.record["training"]) == {"student alone", "student distilled"}
    checks = {check["name"]: check for check in result.record["verdict"]["checks"]}
    assert set(checks) == {"runs", "better_than_constant", "max_drop_from_teacher", "max_bytes_ratio_to_teacher"}
    ratio = checks["max_bytes_ratio_to_teacher"]
    assert ratio["value"] == (tmp_path / "run" / "full_int8.tflite").stat().st_size / (4 * before.count_params())
    assert ratio["status"] == "holds"
    assert result.record["rows"][0]["accuracy"] > 0.8
