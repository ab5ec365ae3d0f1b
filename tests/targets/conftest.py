"""Models that the tests of several targets share."""

from pathlib import Path

import pytest
from filelock import FileLock

from tfkd import data, models
from tfkd.conversion.converter import convert
from tfkd.conversion.tflite import TFLiteModel


@pytest.fixture(scope="session")
def splits():
    return data.load("digits")


@pytest.fixture(scope="session")
def student(digits_student_file):
    """A trained digits student."""
    return models.load(digits_student_file)


@pytest.fixture(scope="session")
def digits_int8(digits_student_file: Path, splits) -> TFLiteModel:
    """The digits student as a .tflite of mode full_int8, converted once for all worker processes."""
    path = digits_student_file.with_name("digits_int8.tflite")
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            convert(models.load(digits_student_file), path, calibration=splits.train)
    return TFLiteModel.load(path)
