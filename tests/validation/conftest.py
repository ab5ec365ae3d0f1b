"""Fixtures that the tests of validation share: the digits data and a student that is trained once per session."""

import pytest

from tests.validation.identity_models import split_of
from tfkd.conversion.converter import convert


@pytest.fixture(scope="session")
def modes(student, splits, tmp_path_factory):
    """The student as .tflite, by conversion mode."""
    folder = tmp_path_factory.mktemp("modes")
    wanted = ("float32", "float16", "full_int8", "int16x8")
    return {mode: convert(student, folder / f"{mode}.tflite", mode=mode, calibration=splits.train) for mode in wanted}


@pytest.fixture(scope="session")
def test_split():
    """Eight samples of three classes for models that return their input, which classify six correctly."""
    logits = [[2, 1, 0], [2, 1, 0], [0, 3, 1], [1, 3, 0], [0, 1, 2], [0, 2, 1], [1, 0, 3], [2, 2, 0]]
    return split_of(logits, [0, 1, 1, 1, 2, 2, 2, 0]).test
