"""kill -9 of label, run, convert and distill: what is done again goes on, and ends as if nothing had been.

`pytest tests/test_kills.py --kills 300` is the long form of the random ones.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tfkd import SoftLabels, data, models

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
epochs = 3
learning_rate = 0.01
seeds = 1
augment = "crop_flip"
padding = 1
flip = false
views = 2
[conversion]
modes = ["full_int8"]
calibration_samples = 50
[targets]
names = ["tflm"]
"""
FILES = ("student-alone-0/model.keras", "student-distilled-0/model.keras", "full_int8.tflite")


class Forks:
    """A process with TensorFlow loaded that forks one for each task, so that none waits for the import."""

    def __init__(self) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, task: str, *arguments: object, kill_after: float | None = None) -> tuple[bool, float]:
        """Runs a task, or kills it after so many seconds; whether it ended by itself, and its seconds."""
        start = time.monotonic()
        self.process.stdin.write(json.dumps([task, *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # of a process that has ended the pid is kept until it is waited for
            self.process.stdin.write("reap\n")
        else:
            self.process.stdin.write("reap\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL), f"{task} ended with {status}"
        return status == 0, time.monotonic() - start

    def close(self) -> None:
        self.process.communicate(timeout=30)  # closes both pipes


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    started = Forks()
    yield started
    started.close()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kills") / "teacher.keras"
    models.build("digits_teacher", (8, 8, 1), 10).save(path)
    return path


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return -(-int(request.config.getoption("--kills")) // 3)


def disturb(
    count: int, whole: Path, attempt: Callable[[Path, float | None], tuple[bool, float]], check: Callable[[Path], None]
) -> None:
    """Kills `attempt` so many times, going on in its folder, and in a new one each time that it ends."""
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


def test_label_resumes_after_kills_with_equal_labels(forks: Forks, teacher: Path, tmp_path: Path, kills: int) -> None:
    def check(place: Path) -> None:
        one, other = (SoftLabels.open(path) for path in (tmp_path / "store", place))
        train = data.load("digits").train
        for view in range(one.views):
            np.testing.assert_array_equal(one.read(train.ids, view), other.read(train.ids, view))
        assert other.missing == 0

    disturb(kills, tmp_path / "store", lambda place, after: forks.run("label", teacher, place, kill_after=after), check)


def test_run_resumes_after_kills_with_equal_models(forks: Forks, tmp_path: Path, kills: int) -> None:
    def attempt(place: Path, after: float | None) -> tuple[bool, float]:
        path = tmp_path / f"{place.name}.toml"
        path.write_text(RECIPE.format(output=place))
        return forks.run("run", path, kill_after=after)

    def check(place: Path) -> None:
        for file in FILES[:2]:
            _assert_equal_weights(tmp_path / "whole" / file, place / file)
        assert (tmp_path / "whole" / FILES[2]).read_bytes() == (place / FILES[2]).read_bytes()
        rows = [json.loads((folder / "report.json").read_text())["rows"] for folder in (tmp_path / "whole", place)]
        assert [row["accuracy"] for row in rows[0]] == [row["accuracy"] for row in rows[1]]

    disturb(kills, tmp_path / "whole", attempt, check)


def test_convert_leaves_nothing_or_a_whole_file_after_kills(
    forks: Forks, teacher: Path, tmp_path: Path, kills: int
) -> None:
    def check(place: Path) -> None:
        assert place.read_bytes() == (tmp_path / "whole.tflite").read_bytes()

    def attempt(place: Path, after: float | None) -> tuple[bool, float]:
        done = forks.run("convert", teacher, place, kill_after=after)
        if place.exists():
            assert len(place.read_bytes()) == len((tmp_path / "whole.tflite").read_bytes())
        return done

    disturb(kills, tmp_path / "whole.tflite", attempt, check)


@pytest.mark.parametrize("method", ["prune", "cluster"])
def test_distill_resumes_optimization_after_a_kill_with_equal_weights(
    forks: Forks, teacher: Path, tmp_path: Path, method: str
) -> None:
    student = tmp_path / "student.keras"
    models.build("digits_student", (8, 8, 1), 10).save(student)
    whole, killed = (tmp_path / f"{name}.keras" for name in ("whole", "killed"))
    forks.run("distill", method, teacher, student, whole)
    assert not forks.run("distill", method, teacher, student, killed, 1)[0]
    assert list(tmp_path.glob(".killed.keras.*/epoch-000001.weights.h5"))
    assert forks.run("distill", method, teacher, student, killed, 1)[0]  # which does not come by there again
    _assert_equal_weights(whole, killed)


def _assert_equal_weights(one: Path, other: Path) -> None:
    for a, b in zip(*(models.load(path).get_weights() for path in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def _serve() -> None:
    from tfkd.conversion import converter
    from tfkd.distillation import training
    from tfkd.recipes import pipeline, recipe

    def label(teacher: str, out: str) -> None:
        augment = {"kind": "crop_flip", "padding": 1, "flip": False}
        training.label(out, Path(teacher), "digits", augment, views=40, batch_size=64)

    def run(path: str) -> None:
        pipeline.run(recipe.load(path))

    def distill(method: str, teacher: str, student: str, out: str, last: str = "") -> None:
        soft = {"teacher": teacher, "alpha": 0.9, "loss": "soft_target", "options": {}}
        schedule = recipe.schedule(epochs=2, batch_size=256)

        def on_epoch(done: int, *_: object) -> None:
            if str(done) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        training.train(
            student, Path(out), source="digits", schedule=schedule, soft=soft, method=method, on_epoch=on_epoch
        )

    def convert(model: str, out: str) -> None:
        train = data.load("digits").train
        converter.convert(model, out, calibration=train, calibration_samples=50, overwrite=True)

    tasks = {"label": label, "run": run, "convert": convert, "distill": distill}
    print("ready", flush=True)
    while line := sys.stdin.readline():
        task, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                tasks[task](*arguments)
            except BaseException:
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
