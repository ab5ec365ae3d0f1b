"""Recipes: defaults, checks, and the message of a wrong one."""

import json
import typing
from pathlib import Path

import pydantic
import pytest

from tests.data.data_sets import folder
from tfkd.recipes import recipe

RECIPES = Path(__file__).parents[2] / "recipes"

GOOD = """
output = "runs/x"
[data]
name = "digits"
[teacher]
model = "digits_teacher"
epochs = 2
[student]
model = "digits_student"
[distillation]
temperature = 2
[contract]
max_bytes = 1000
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_recipe_of_the_repository_loads(path, monkeypatch):
    monkeypatch.setenv("TFKD_DATA", "/data")
    loaded = recipe.load(path)
    assert Path(loaded.output) == Path("runs") / path.relative_to(RECIPES).with_suffix("")
    assert loaded.conversion.ship == "full_int8"
    assert loaded.limits.limits


def test_recipe_fills_what_is_left_out(tmp_path):
    loaded = recipe.load(write(tmp_path, GOOD))
    assert (loaded.teacher.epochs, loaded.teacher.batch_size, loaded.distillation.temperature) == (2, 64, 2.0)
    assert loaded.distillation.seeds == 3
    assert loaded.limits.limits == {"max_bytes": 1000}
    assert (loaded.targets.names, loaded.targets.optional) == (None, [])


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("temperature", "temprature", r"recipe\.toml: unknown key 'distillation\.temprature'. Did you mean 'temper"),
        ("[contract]", "[contracts]", r"unknown key 'contracts'. Did you mean 'contract'\?"),
        ("max_bytes", "max_byte", r"unknown key 'contract\.max_byte'. Did you mean 'max_bytes'\?"),
        ("epochs", "zzz", r"unknown key 'teacher\.zzz'. Known keys: epochs, batch_size"),
        ('model = "digits_student"', "", r"student: give either model .* or path"),
        ('model = "digits_student"', 'path = "s.keras"\ninherit = "t.keras"', r"student: inherit and layers"),
        ("epochs = 2", "input_range = [0, 1]", r"teacher: input_range and preprocess need path"),
        ('model = "digits_student"', 'path = "s.keras"\ninput_range = [1, 1]', r"student: .* two different numbers"),
        ('model = "digits_student"', 'path = "s.keras"\ninput_range = [1]', r"student\.input_range: .*at least 2"),
        ('output = "runs/x"', "", r"'output' is missing"),
        ("epochs = 2", 'epochs = "2"', r"teacher\.epochs: .*valid integer. Received: '2'"),
        ("epochs = 2", "epochs = 0", r"teacher: epochs = 0 would leave the random weights of digits_teacher"),
        ("epochs = 2", "epochs = -1", r"teacher\.epochs: .*greater than or equal to 0. Received: -1"),
        ("[distillation]", "[distillation]\nepochs = 0", r"distillation\.epochs: .*greater than or equal to 1"),
        (
            "epochs = 2",
            'options = { weights = "$TFKD_NOT_SET/w.h5" }',
            r"teacher\.options: .*\$TFKD_NOT_SET is not set",
        ),
        ("max_bytes = 1000", "max_bytes = 0", r"recipe\.toml: contract: max_bytes must be"),
        ("temperature = 2", "alpha = 1.5", r"distillation\.alpha: .*less than or equal to 1"),
        ("epochs = 2", 'path = "t.keras"', r"teacher: give either model .* or path"),
        ('model = "digits_teacher"', 'path = "t.keras"', r"teacher with path is not trained\. Leave out epochs"),
        ('name = "digits"', 'name = "digits"\npath = "x.npz"', r"data: give either name .* or path"),
        ('name = "digits"', 'path = "$TFKD_NOT_SET/x.npz"', r"data\.path: .*\$TFKD_NOT_SET is not set"),
        ("[contract]", "[conversion]\nmodes = ['float32']\n[contract]", r"conversion: modes must be unique"),
        (
            "[contract]",
            "[conversion]\nmodes = ['float32']\nship = 'float32'\nrefine = true\n[contract]",
            r"conversion: refine changes full_int8, which modes lacks",
        ),
        ("[contract]", "[conversion]\nmodes = ['int4']\n[contract]", r"conversion\.modes\.0: .*Received: 'int4'"),
        ("[contract]", "[conversion]\nrange = 'mean'\n[contract]", r"conversion\.range: .*Received: 'mean'"),
        (
            "[contract]",
            "[conversion]\nint4 = ['(']\n[contract]",
            r"conversion: .*int4 must",
        ),
        (
            "[contract]",
            "[conversion]\nquantizer = 'tensorflow'\nrange = 'mse'\n[contract]",
            r"conversion: .*quantizer 'tensorflow'",
        ),
        ("[contract]", "[contract", r"recipe\.toml: must be TOML"),
    ],
)
def test_recipe_that_is_wrong_says_where(tmp_path, before, after, match):
    assert before in GOOD
    with pytest.raises(ValueError, match=match):
        recipe.load(write(tmp_path, GOOD.replace(before, after)))


def test_recipe_names_every_mistake_at_once(tmp_path):
    text = GOOD.replace("epochs", "epoch").replace("temperature", "temprature")
    with pytest.raises(ValueError, match="epoch'(.|\n)*temprature'"):
        recipe.load(write(tmp_path, text))


def test_recipe_without_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: must be a recipe file"):
        recipe.load(tmp_path / "none.toml")


def test_recipe_path_takes_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_DATA", "/data")
    text = GOOD.replace('model = "digits_teacher"\nepochs = 2', 'path = "$TFKD_DATA/t.keras"')
    assert recipe.load(write(tmp_path, text)).teacher.files == [Path("/data/t.keras")]


def test_weights_file_of_a_builder_takes_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_DATA", "/data")
    options = 'options = { weights = "$TFKD_DATA/w.h5" }\n'
    text = GOOD.replace("epochs = 2", f"epochs = 0\n{options}").replace("[distillation]", f"{options}[distillation]")
    loaded = recipe.load(write(tmp_path, text))
    assert loaded.teacher.weights_files == loaded.student.files == [Path("/data/w.h5")]
    assert recipe.load(write(tmp_path, text.replace("$TFKD_DATA/w.h5", "imagenet"))).student.files == []
    own = text.replace("digits_student", "mine:student")
    assert recipe.load(write(tmp_path, own)).student.files == []


def test_output_takes_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_RUNS", "/runs")
    loaded = recipe.load(write(tmp_path, GOOD.replace("runs/x", "$TFKD_RUNS/x")))
    assert loaded.output == "$TFKD_RUNS/x"
    assert loaded.folder == Path("/runs/x")


def test_each_key_has_a_description():
    def sections(kind):
        for field in kind.model_fields.values():
            for one in (field.annotation, *typing.get_args(field.annotation)):
                if isinstance(one, type) and issubclass(one, pydantic.BaseModel):
                    yield from (one, *sections(one))

    for section in (recipe.Recipe, *sections(recipe.Recipe)):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_training_config_with_bad_value_is_refused():
    with pytest.raises(ValueError, match="augment: 'mixxup' is unknown. Did you mean 'mixup'"):
        recipe.training_config(augment="mixxup")


def test_settings_of_a_training_and_own_code_are_keys_of_its_tables(tmp_path):
    keys = 'ema = 0.9\nclass_weights = { "1" = 2 }\nloss = "mine:loss"\ncallbacks = ["mine:callback"]'
    loaded = recipe.load(write(tmp_path, GOOD.replace("[contract]", f"{keys}\n[contract]")))
    assert (loaded.distillation.ema, loaded.distillation.class_weights) == (0.9, {"1": 2.0})
    assert loaded.distillation.own_code == ["mine:callback", "mine:loss"]
    assert loaded.distillation.training.own_code == ["mine:callback"]


def test_optimization_with_a_setting_that_undoes_it_is_refused(tmp_path):
    text = f"{GOOD}[[optimization]]\nmethod = 'prune'\nema = 0.9\n"
    with pytest.raises(ValueError, match=r"optimization\.0: .*ema does not go with method 'prune'"):
        recipe.load(write(tmp_path, text))


def test_loss_takes_its_options_and_the_temperature(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'output = "out"\n[data]\nname = "digits"\n[teacher]\nmodel = "digits_teacher"\n'
        '[student]\nmodel = "digits_student"\n'
        '[distillation]\nloss = "dkd"\ntemperature = 2.0\nloss_options = { beta = 4.0 }\n'
    )
    assert recipe.load(path).distillation.soft == {"name": "dkd", "temperature": 2.0, "beta": 4.0}


def test_views_need_an_augmentation(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(GOOD.replace("[distillation]", "[distillation]\nviews = 4"))
    with pytest.raises(ValueError, match="4 views need an augmentation"):
        recipe.load(path)


def test_mixing_with_another_data_set_of_the_teacher_is_refused(tmp_path):
    text = GOOD.replace("[teacher]", '[data.teacher]\nname = "mnist"\n[teacher]')
    text = text.replace("[distillation]", '[distillation]\naugment = ["flip", "mixup"]')
    with pytest.raises(ValueError, match=r"\[data.teacher\] and mixup exclude each other"):
        recipe.load(write(tmp_path, text))


def test_data_reads_images_with_its_options(tmp_path):
    text = GOOD.replace('name = "digits"', 'path = "photos"\nimage_size = [96, 64]\ncolor = "gray"\nskip_broken = true')
    request = recipe.load(write(tmp_path, text)).data.request()
    assert (request.reference, request.options.image_size) == ("photos", (96, 64))
    assert request.options.given == ("image_size", "color", "skip_broken")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("image_size = [96]", "data.image_size: List should have at least 2 items"),
        ('crop = "pad"', "data: load: crop needs the size"),
        ('image_size = [9, 9]\nresize = "area"', "data: load: resize must be one of nearest, box"),
    ],
)
def test_wrong_reading_option_in_data_is_refused(tmp_path, key, message):
    with pytest.raises(ValueError, match=message):
        recipe.load(write(tmp_path, GOOD.replace('name = "digits"', f'path = "photos"\n{key}')))


def test_teacher_runs_online_where_stored_labels_cannot_hold_the_augmentation(tmp_path):
    import io

    from rich.console import Console

    from tfkd._internal.progress import Progress
    from tfkd.recipes.step_cache import Steps
    from tfkd.recipes.trainer import Saved, Trainer

    text = GOOD.replace("[distillation]", '[distillation]\nviews = 8\naugment = ["crop_flip", "mixup"]')
    printed = io.StringIO()
    progress = Progress(Console(file=printed, width=200))
    trainer = Trainer(recipe.load(write(tmp_path, text)), Steps(tmp_path, progress), progress)
    assert trainer.teaching(Saved((), {})).labels is None
    assert "mixup mixes the samples of a batch" in printed.getvalue()
    assert "views = 8 is ignored" in printed.getvalue()


def test_run_writes_the_list_of_files(tmp_path):
    from tfkd._internal.progress import Progress
    from tfkd.recipes.step_cache import Steps
    from tfkd.recipes.trainer import Trainer

    photos = folder(tmp_path / "photos", sizes=(10, 10))
    (tmp_path / "run").mkdir()
    text = GOOD.replace('name = "digits"', f'path = "{photos}"\nimage_size = [8, 8]')
    Trainer(recipe.load(write(tmp_path, text)), Steps(tmp_path / "run", Progress()), Progress())
    lines = (tmp_path / "run" / "data.csv").read_text().splitlines()
    assert lines[0] == "path,label,split"
    assert sorted(line.rsplit(",")[-1] for line in lines[1:]) == ["test"] * 6 + ["train"] * 12 + ["val"] * 2


@pytest.mark.parametrize("features", ["log_mel", "mfcc"])
def test_run_writes_how_features_of_sounds_are_computed(tmp_path, features):
    from tests.data.test_sounds import tone
    from tfkd._internal.progress import Progress
    from tfkd.recipes.step_cache import Steps
    from tfkd.recipes.trainer import Trainer

    for number in range(12):
        tone(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav")
    text = GOOD.replace('name = "digits"', f'path = "{tmp_path}/sounds"\nfeatures = "{features}"\nseconds = 0.25')
    Trainer(recipe.load(write(tmp_path, text)), Steps(tmp_path, Progress()), Progress())
    written = json.loads((tmp_path / "features.json").read_text())
    assert (written["sample_rate"], written["frame"], written["hop"], written["seconds"]) == (8000, 240, 160, 0.25)
    assert (written["kind"], written.get("coefficients")) == (features, 13 if features == "mfcc" else None)
