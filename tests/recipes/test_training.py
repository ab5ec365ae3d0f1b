"""`tfkd train` and `tfkd distill`: an interruption, and how the same call resumes after it."""

import filelock
import keras
import numpy as np
import pytest

from tfkd import data, models
from tfkd.errors import InputError, ModelError
from tfkd.recipes import data_examination, recipe, teacher_examination, training

CONFIG = recipe.training_config(epochs=3, batch_size=256, learning_rate=0.01)


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def teacher(digits_teacher_file):
    return digits_teacher_file


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "untrained.keras"
    models.build("digits_teacher", (8, 8, 1), 10).save(path)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A student with few layers, since each training traces them."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 16)(image))
    path = tmp_path_factory.mktemp("student") / "student.keras"
    keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x))).save(path)
    return str(path)


@pytest.fixture(scope="module")
def distil(student):
    """A function that distils that student."""

    def run(out, teacher, stop_after=None, config=CONFIG, **options):
        epochs = []

        def on_epoch(done, total, logs):
            epochs.append(done)
            if done == stop_after:
                raise Stop

        job = training.Job(student, out, "digits", config, distillation=training.Distillation(teacher), **options)
        return epochs, training.train(job, on_epoch=on_epoch)

    return run


def test_training_resumes_after_an_interruption_with_equal_results(distil, teacher, tmp_path):
    whole, cut = tmp_path / "whole.keras", tmp_path / "deep" / "cut.keras"
    _, expected = distil(whole, teacher)
    with pytest.raises(Stop):
        distil(cut, teacher, stop_after=2)
    assert not cut.exists()
    epochs, record = distil(cut, teacher)
    assert epochs == [3]
    assert record["history"] == expected["history"]
    for one, other in zip(models.load(whole).get_weights(), models.load(cut).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [file.name for file in cut.parent.iterdir()] == ["cut.keras"]


def test_training_with_other_settings_starts_again(distil, teacher, tmp_path):
    out = tmp_path / "student.keras"
    with pytest.raises(Stop):
        distil(out, teacher, stop_after=1)
    epochs, _ = distil(out, teacher, config=recipe.training_config(epochs=2, batch_size=256, learning_rate=0.02))
    assert epochs == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["student.keras"]


def test_training_deletes_nothing_that_it_did_not_make(distil, teacher, tmp_path):
    """A file that a kill inside the conversion left, and a folder of the user, both named like the output."""
    out = tmp_path / "student.keras"
    left = [tmp_path / ".student.keras.abc123", tmp_path / f".student.keras.tfkd-{'0' * 16}" / "mine"]
    left[0].touch()
    left[1].parent.mkdir()
    left[1].touch()
    with pytest.raises(Stop):
        distil(out, teacher, stop_after=1)
    distil(out, teacher, config=recipe.training_config(epochs=1, batch_size=256))
    assert all(path.exists() for path in left)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        left[0].name,
        left[1].parent.name,
        "student.keras",
    ]


def test_training_of_an_output_that_another_process_writes_is_refused(distil, teacher, tmp_path):
    out = tmp_path / "student.keras"
    lock = filelock.FileLock(tmp_path / ".student.keras.tfkd.lock", is_singleton=False)
    with lock, pytest.raises(InputError, match="another run works here"):
        distil(out, teacher)
    assert distil(out, teacher, config=recipe.training_config(epochs=1, batch_size=256))[0] == [1]


def test_training_refuses_an_existing_output(distil, teacher, tmp_path):
    out = tmp_path / "student.keras"
    out.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        distil(out, teacher)
    assert out.read_text() == "mine"


def test_training_with_a_bad_teacher_is_refused_before_it_begins(distil, untrained, tmp_path):
    out = tmp_path / "student.keras"
    with pytest.raises(InputError, match=r"not better than a constant answer.*\n.*\n.*\n.*allow_bad_teacher=True"):
        distil(out, untrained)
    assert not list(tmp_path.iterdir())


def test_distillation_on_data_with_a_leak_is_refused_before_it_begins(teacher, tmp_path, student):
    train, out = data.load("digits").train, tmp_path / "student.keras"
    np.savez(tmp_path / "leak.npz", x_train=train.x, y_train=train.y, x_test=train.x[:40], y_test=train.y[:40])
    distillation = training.Distillation(teacher)
    job = training.Job(student, out, str(tmp_path / "leak.npz"), CONFIG, distillation=distillation)
    with pytest.raises(InputError, match=r"data are refused before(.|\n)*Samples of train are in test too"):
        training.train(job)
    assert not out.exists()


def test_teacher_of_images_on_arrays_without_channels_names_the_axis():
    x, y = np.random.default_rng(0).normal(size=(24, 9, 8)).astype("float32"), np.arange(24) % 2
    splits = data.from_arrays((x, y), (x + 1, y), validation=0.5)
    teacher = keras.Sequential([keras.Input((9, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    (finding,) = teacher_examination.examine(teacher, splits).findings
    assert finding.what == "The teacher does not fit the data."
    assert "x[..., None]" in finding.remedy


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.end = keras.layers.Dense(2)

    def call(self, x):
        return self.end(x)


def test_subclassed_teacher_is_examined():
    y = np.arange(200) % 2
    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32") + y[:, None]
    splits, teacher = data.from_arrays((x[:160], y[:160]), (x[160:], y[160:]), validation=0.5), Subclassed()
    teacher(x[:1])
    teacher.set_weights([np.array([[-1, 1]] * 3, "float32"), np.array([1, -1], "float32")])
    found = teacher_examination.examine(teacher, splits)
    logits = splits.val.x @ np.array([[-1, 1]] * 3) + [1, -1]
    assert (found.findings, found.accuracy) == ((), pytest.approx((logits.argmax(1) == splits.val.y).mean()))
    with pytest.raises(ModelError, match=r"must take samples of the shape \(4,\)"):
        teacher_examination.examine(teacher, data.from_arrays((np.c_[x, y], y), (np.c_[x, y] + 1, y)))


def test_part_of_another_scale_is_a_warning():
    x, y = np.random.default_rng(0).normal(size=(200, 3)).astype("float32"), np.arange(200) % 2
    for scale, found in ((255.0, ["Samples of test have another scale than those of train."]), (3.0, [])):
        splits = data.from_arrays((x[:100], y[:100]), (scale * x[100:], y[100:]), validation=0)
        assert [one.what for one in data_examination.examine(splits)] == found


def grid_of_logits(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Conv2D(num_classes, 3)(inputs))


def test_outputs_that_the_labels_do_not_fit_are_refused(tmp_path):
    job = training.Job(f"{__name__}:grid_of_logits", tmp_path / "m.keras", "digits", CONFIG)
    with pytest.raises(InputError, match=r"must have one output per class, 10 for digits. Received: .*\(6, 6, 10\)"):
        training.train(job)


def test_few_equal_rows_of_a_table_are_a_warning_and_many_an_error():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    y = np.arange(200) % 2
    for equal, severity in ((5, "warning"), (6, "error")):
        splits = data.from_arrays(
            (x[:100], y[:100]), (np.concatenate([x[:equal], x[100 + equal :]]), y[100:]), validation=0
        )
        assert [one.severity for one in data_examination.examine(splits)] == [severity]


def test_training_with_a_bad_teacher_is_possible_and_reports_it(untrained, tmp_path, student):
    notes, settings = [], training.Distillation(untrained, allow_bad_teacher=True)
    config = recipe.training_config(epochs=1, batch_size=256)
    job = training.Job(student, tmp_path / "student.keras", "digits", config, distillation=settings)
    training.train(job, on_note=notes.append)
    assert ["not better than a constant answer" in note for note in notes] == [True]


def test_teacher_that_is_worse_than_the_given_student_is_refused(digits_files, tmp_path):
    worse = models.load(digits_files["teacher"])
    last = worse.layers[-1]
    last.set_weights([weight * (np.arange(10) < 5) for weight in last.get_weights()])  # right on half of the classes
    worse.save(tmp_path / "worse.keras")
    settings = training.Distillation(tmp_path / "worse.keras")
    job = training.Job(str(digits_files["student"]), tmp_path / "out.keras", "digits", CONFIG, distillation=settings)
    with pytest.raises(InputError, match="The teacher is less accurate than the student without it"):
        training.train(job)


@pytest.mark.parametrize(
    ("method", "settings", "match"),
    [(None, ["a=1"], "--set needs --optimize"), ("qat", ["a"], "NAME=VALUE"), ("qat", ["=1"], "NAME=VALUE")],
)
def test_optimization_with_wrong_settings_is_refused(method, settings, match):
    with pytest.raises(InputError, match=match):
        training.parse_optimization(method, settings)


def test_optimization_settings_are_json_or_text():
    found = training.parse_optimization("qat", ["bits=4", "name=a b", "on=true"])
    assert found == training.Optimization("qat", {"bits": 4, "name": "a b", "on": True})
