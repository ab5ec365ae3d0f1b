"""`tfkd train` and `tfkd distill`: what an interruption leaves, and how the same call goes on from it."""

import numpy as np
import pytest

from tfkd import models
from tfkd.recipes import recipe
from tfkd.recipes import train as training

CONFIG = recipe.training_config(epochs=3, batch_size=256, learning_rate=0.01)


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "teacher.keras"
    models.build("digits_teacher", (8, 8, 1), 10).save(path)
    return path


def distil(out, teacher, stop_after=None, config=CONFIG, **options):
    epochs = []

    def on_epoch(done, total, logs):
        epochs.append(done)
        if done == stop_after:
            raise Stop

    soft = {"teacher": teacher, "alpha": 0.9, "loss": "soft_target", "options": {}}
    record = training.train(
        "digits_student", out, source="digits", config=config, on_epoch=on_epoch, soft=soft, **options
    )
    return epochs, record


def test_distilling_goes_on_after_an_interruption_as_if_there_had_been_none(teacher, tmp_path):
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


def test_distilling_with_other_settings_begins_anew(teacher, tmp_path):
    out = tmp_path / "student.keras"
    with pytest.raises(Stop):
        distil(out, teacher, stop_after=1)
    epochs, _ = distil(out, teacher, config=recipe.training_config(epochs=2, batch_size=256, learning_rate=0.02))
    assert epochs == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["student.keras"]
