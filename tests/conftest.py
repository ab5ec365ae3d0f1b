"""Fixtures and options that the tests of several rooms share."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.adb_device import Phone, adb
from tests.forks import PLAIN_GRAPHS, Forks, leave_graphs_plain
from tfkd.conversion import litert

# Epochs of the digits models that the tests share: enough for labels that mean something.
DIGITS_EPOCHS = {"teacher": 5, "student": 10}

# Seconds that the tests measure a latency for. Their figures are checked for consistency, not for precision.
litert.TIMED_S = 0.05

# A shell without job control starts background jobs that ignore SIGINT, and their children inherit that. The tests of
# Ctrl-C need children that react to it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """Seeds the random numbers of each test, so that the weights of its models are the same in each run."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory):
    """A separate adb server, so that the tests do not touch the user's."""
    home = tmp_path_factory.mktemp("home")
    environment = dict(os.environ)
    os.environ |= {"ADB_SERVER_SOCKET": f"localfilesystem:{home}/adb", "HOME": str(home)}  # a TCP port may be in use
    adb("start-server")
    yield
    adb("kill-server")
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def phone(adb_server, tmp_path):
    """An emulated phone that adb is connected to."""
    one = Phone(tmp_path / "phone")
    assert "connected" in adb("connect", one.serial).stdout
    yield one
    adb("disconnect", one.serial)
    one.asleep = False
    one.pull_the_cable()


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Starts Python scripts and `tfkd` commands in processes that have TensorFlow loaded; see `Forks`."""
    return Forks(tmp_path_factory.mktemp("forks"))


# Training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def digits_files(tmp_path_factory) -> dict[str, Path]:
    """Paths of a trained digits teacher and a trained digits student, as .keras files.

    They are trained once per test session, whatever the number of worker processes: the first worker that needs them
    holds a lock while it trains, the others wait for it and read its files.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in the session's
    files = {name: base / f"digits_{name}.keras" for name in DIGITS_EPOCHS}
    with FileLock(base / "digits.lock"):
        for name, path in files.items():
            if not path.exists():
                train_digits(name, path)
    return files


def train_digits(name: str, path: Path) -> None:
    """Trains a digits model of the zoo from seed 0 and writes it atomically."""
    import keras

    from tfkd import data, models

    keras.utils.set_random_seed(0)
    train = data.load("digits").train
    model = models.build(f"digits_{name}", train.input_shape, train.num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    model.fit(train.batches(64, shuffle=True), epochs=DIGITS_EPOCHS[name], shuffle=False, verbose=0)
    unfinished = path.with_suffix(".unfinished.keras")
    model.save(unfinished)
    unfinished.rename(path)


@pytest.fixture(scope="session")
def digits_teacher_file(digits_files) -> Path:
    """Path of a digits teacher (`digits_teacher` of the zoo), trained for five epochs."""
    return digits_files["teacher"]


@pytest.fixture(scope="session")
def digits_student_file(digits_files) -> Path:
    """Path of a digits student (`digits_student` of the zoo), trained alone for ten epochs."""
    return digits_files["student"]


@pytest.fixture(scope="session")
def splits():
    """The digits data set: 8x8x1 images, 10 classes."""
    from tfkd import data

    return data.load("digits")


@pytest.fixture(scope="session")
def student(digits_student_file):
    """A trained digits student; a test that changes weights clones it first."""
    from tfkd import models

    return models.load(digits_student_file)


@pytest.fixture(scope="session")
def digits_int8(digits_student_file):
    """The digits student as a .tflite of mode full_int8, converted once for all worker processes."""
    from tfkd import data, models
    from tfkd.conversion.converter import convert
    from tfkd.conversion.tflite import TFLiteModel

    path = digits_student_file.with_name("digits_int8.tflite")
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            convert(models.load(digits_student_file), path, calibration=data.load("digits").train)
    return TFLiteModel.load(path)


# Collection ----------------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items):
    """Orders the files that hold slow tests before the others; `--no-loadscope-reorder` keeps that order.

    One worker process runs a whole file, so a long file that starts last would leave the other workers idle.
    """
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish(session):
    """Prepares the process for many short trainings.

    TensorFlow's graph optimization takes a quarter of the time of a short training and does not change what it computes
    beyond rounding. Campaigns leave it on, as do conversions and processes that a test starts by `subprocess`.
    """
    if session.config.option.markexpr == "not campaign":
        os.environ[PLAIN_GRAPHS] = "1"
        if "tensorflow" in sys.modules:
            leave_graphs_plain()
    # Keeps what was imported so far out of later garbage collections, which Keras runs when it clears a session.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Saves the coverage that this process has measured, since pytest-xdist kills workers that take long to exit."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()):
        measured.save()


def pytest_addoption(parser):
    parser.addoption("--kills", default="21", help="number of times that test_kills.py kills a process, in all")


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A function that writes a module of the user into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"own_{abs(hash(str(tmp_path)))}"

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop(name, None)
