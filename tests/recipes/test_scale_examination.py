"""A student whose first layer scales samples that are scaled already."""

import keras
import numpy as np
import pytest

from tfkd import data, models
from tfkd.recipes import scale_examination


@pytest.mark.parametrize(("largest", "found"), [(255, 0), (1, 1)])
def test_samples_that_are_scaled_already_are_found(largest, found):
    x = np.random.default_rng(0).uniform(0, largest, (40, 8, 8, 1)).astype("float32")
    y = np.arange(40) % 4
    train = data.from_arrays((x, y), (x, y), validation=0.1).train
    findings = [*scale_examination.examine(models.digits_student(train.input_shape, 4), train)]
    assert len(findings) == found
    assert all("Rescaling 'rescaling" in one.evidence and one.severity == "warning" for one in findings)


class Coded(keras.Model):
    def __init__(self):
        super().__init__()
        self.scaled = keras.layers.Rescaling(1e-3)

    def call(self, x):
        return self.scaled(x)


def test_student_of_another_or_no_known_input_is_not_examined():
    train = data.load("digits").train
    assert not [*scale_examination.examine(Coded(), train)]
    inputs = keras.Input((4,))
    assert not [*scale_examination.examine(keras.Model(inputs, keras.layers.Rescaling(1e-3)(inputs)), train)]
