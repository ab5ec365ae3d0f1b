"""A trained student and its conversions, made once per session: each conversion starts a process with TensorFlow."""

import functools

import pytest

from tfkd.conversion.converter import convert


@pytest.fixture(scope="session")
def converted(student, splits, tmp_path_factory):
    """A function that converts the student in a mode, with settings of a quantizer."""
    folder = tmp_path_factory.mktemp("converted")

    @functools.cache
    def conversion(mode, quantizer="tensorflow", check=True):
        path = folder / f"{len(list(folder.iterdir()))}.tflite"
        return convert(student, path, mode=mode, quantizer=quantizer, calibration=splits.train, check=check)

    return conversion
