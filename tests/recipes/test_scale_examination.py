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


@pytest.mark.parametrize(("weight", "lost"), [(1.0, 0), (1000.0, 2)], ids=["alike", "different"])
def test_columns_that_int8_would_lose_are_found(weight, lost):
    x = np.random.default_rng(0).normal(0, (1, 1, weight), (60, 3)).astype("float32")
    train = data.from_arrays((x, np.arange(60) % 2), (x, np.arange(60) % 2), validation=0.1).train
    found = [*scale_examination.examine(models.mlp((3,), 2), train)]
    assert [one.evidence[:14] for one in found] == [f"{lost} of 3 columns"] * bool(lost)


def test_token_ids_have_no_scale():
    x = np.tile(np.array([[1, 900]], np.int32), (60, 1)) + np.arange(60, dtype=np.int32)[:, None] % 3
    train = data.from_arrays((x, np.arange(60) % 2), (x, np.arange(60) % 2), validation=0.1).train
    tokens = keras.Input((2,), dtype="int32")
    model = keras.Model(tokens, keras.layers.Flatten()(keras.layers.Embedding(1000, 2)(tokens)))
    assert not [*scale_examination.examine(model, train)]
