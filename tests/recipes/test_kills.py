"""kill -9 of label, run, convert and distill: the same call resumes, with the result of an undisturbed one.

`pytest -m campaign tests/recipes/test_kills.py --kills 300` kills at more moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.forks import Forks
from tfkd import SoftLabels, data, models
from tfkd.conversion import converter
from tfkd.recipes import labels, pipeline, recipe, training

pytestmark = pytest.mark.slow

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
epochs = 2
learning_rate = 0.01
seeds = 1
augment = "crop_flip"
padding = 1
flip = false
views = 2
allow_bad_teacher = true
[conversion]
modes = ["full_int8"]
calibration_samples = 50
[targets]
names = ["tflm"]
"""
FILES = ("student-alone-0/model.keras", "student-distilled-0/model.keras", "full_int8.tflite")


Attempt = Callable[[Path, float | None], tuple[bool, float]]


def run(forks: Forks, task: str, *arguments: object, kill_after: float | None = None) -> tuple[bool, float]:
    """Runs a function of this module, or kills it after `kill_after` seconds.

    Returns:
        Whether the function ended by itself, and its seconds.
    """
    start = time.monotonic()
    process = forks.start(f"import sys; from {__name__} import {task}; {task}(*sys.argv[1:])", *arguments)
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    printed = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), f"{task}: {printed}"
    return process.returncode == 0, time.monotonic() - start


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kills") / "teacher.keras"
    models.build("digits_teacher", (8, 8, 1), 10).save(path)
    return path


@pytest.fixture(params=["short", pytest.param("campaign", marks=[pytest.mark.campaign, pytest.mark.slow])])
def kills(request: pytest.FixtureRequest) -> int:
    """Number of kills per test: one, and in a campaign a third of `--kills`."""
    return 1 if request.param == "short" else -(-int(request.config.getoption("--kills")) // 3)


def disturb(count: int, whole: Path, attempt: Attempt, check: Callable[[Path], None]) -> None:
    """Kills `attempt` at `count` random moments; it resumes each time, in a new folder each time that it finishes."""
    _, seconds = attempt(whole, None)
    numbers, killed, folder = random.Random(count), 0, 0
    while killed < count:
        place = whole.with_name(f"{whole.name}-{folder}")
        ended, _ = attempt(place, numbers.uniform(0.02, seconds))
        if ended:
            check(place)
            folder += 1
        else:
            killed += 1
    attempt(place, None)
    check(place)


@pytest.mark.campaign  # tests/distillation/labels/test_store.py kills one of three that label
def test_label_resumes_after_kills_with_equal_labels(forks: Forks, teacher: Path, tmp_path: Path, kills: int) -> None:
    def check(place: Path) -> None:
        one, other = (SoftLabels.open(path) for path in (tmp_path / "store", place))
        train = data.load("digits").train
        for view in range(one.views):
            np.testing.assert_array_equal(one.read(train.ids, view), other.read(train.ids, view))
        assert other.missing == 0

    disturb(
        kills, tmp_path / "store", lambda place, after: run(forks, "label", teacher, place, kill_after=after), check
    )


@pytest.mark.campaign  # test_pipeline.py kills a run in its training
def test_run_resumes_after_kills_with_equal_models(forks: Forks, tmp_path: Path, kills: int) -> None:
    def attempt(place: Path, after: float | None) -> tuple[bool, float]:
        path = tmp_path / f"{place.name}.toml"
        path.write_text(RECIPE.format(output=place))
        return run(forks, "run_recipe", path, kill_after=after)

    def check(place: Path) -> None:
        for file in FILES[:2]:
            _assert_equal_weights(tmp_path / "whole" / file, place / file)
        assert (tmp_path / "whole" / FILES[2]).read_bytes() == (place / FILES[2]).read_bytes()
        rows = [json.loads((folder / "report.json").read_text())["rows"] for folder in (tmp_path / "whole", place)]
        assert [row["accuracy"] for row in rows[0]] == [row["accuracy"] for row in rows[1]]

    disturb(kills, tmp_path / "whole", attempt, check)


def test_convert_leaves_no_file_or_a_complete_one_after_kills(
    forks: Forks, teacher: Path, tmp_path: Path, kills: int
) -> None:
    def check(place: Path) -> None:
        assert place.read_bytes() == (tmp_path / "whole.tflite").read_bytes()

    def attempt(place: Path, after: float | None) -> tuple[bool, float]:
        done = run(forks, "convert", teacher, place, kill_after=after)
        if place.exists():
            assert len(place.read_bytes()) == len((tmp_path / "whole.tflite").read_bytes())
        return done

    disturb(kills, tmp_path / "whole.tflite", attempt, check)


@pytest.mark.campaign  # tests/optimization/test_optimization.py kills a run in each of its optimizations
@pytest.mark.parametrize("method", ["prune", "cluster"])
def test_distill_resumes_optimization_after_a_kill_with_equal_weights(
    forks: Forks, teacher: Path, tmp_path: Path, method: str
) -> None:
    student = tmp_path / "student.keras"
    models.build("digits_student", (8, 8, 1), 10).save(student)
    whole, killed = (tmp_path / f"{name}.keras" for name in ("whole", "killed"))
    run(forks, "distill", method, teacher, student, whole)
    assert not run(forks, "distill", method, teacher, student, killed, 1)[0]
    assert list(tmp_path.glob(".killed.keras.tfkd-*/epoch-000001.weights.h5"))
    assert run(forks, "distill", method, teacher, student, killed, 1)[0]  # it does not reach that epoch again
    _assert_equal_weights(whole, killed)


def _assert_equal_weights(one: Path, other: Path) -> None:
    for a, b in zip(*(models.load(path).get_weights() for path in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


# What the processes run.


def label(teacher: str, out: str) -> None:
    labels.build(labels.Job(Path(teacher), out, "digits", views=20, padding=1, flip=False, batch_size=64))


def run_recipe(path: str) -> None:
    pipeline.run(recipe.load(path))


def distill(method: str, teacher: str, student: str, out: str, last: str = "") -> None:
    def on_epoch(done: int, *_: object) -> None:
        if str(done) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    job = training.Job(
        student,
        Path(out),
        "digits",
        recipe.training_config(epochs=2, batch_size=256),
        distillation=training.Distillation(Path(teacher), allow_bad_teacher=True),
        optimization=training.Optimization(method),
    )
    training.train(job, on_epoch=on_epoch)


def convert(model: str, out: str) -> None:
    converter.convert(model, out, calibration=data.load("digits").train, calibration_samples=50, overwrite=True)
