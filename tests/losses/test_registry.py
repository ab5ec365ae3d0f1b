"""A loss is added by one class and one line in the registry."""

import re
from typing import Any

import keras
import numpy as np
import pytest
import typer.main
from keras import ops

import tfkd
from tfkd import losses
from tfkd.cli import app
from tfkd.recipes.distillation_section import Distillation
from tfkd.recipes.feature_section import FeaturePair


@keras.saving.register_keras_serializable(package="test_registry")
class Absolute(losses.DistillationLoss):
    """Mean absolute difference of logits: `mean_c |teacher_c − student_c|`."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, teacher, student, y=None, step=None):
        return self.factor * ops.mean(ops.abs(teacher - student), axis=-1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@pytest.fixture
def registered(monkeypatch):
    """The registry with the line `"absolute": Absolute`."""
    monkeypatch.setitem(losses.NAMES, "absolute", Absolute)


def test_build_makes_an_added_loss_by_name(registered):
    loss = losses.build("absolute", factor=2.0)
    assert isinstance(loss, Absolute)
    np.testing.assert_allclose(loss([[1.0, 2.0]], [[0.0, 4.0]]), [3.0])
    with pytest.raises(tfkd.errors.InputError, match="absolute takes factor. Received: scale=2"):
        losses.build("absolute", scale=2)


def test_added_loss_trains_a_student(registered):
    def net(units):
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Dense(units, activation="relu")(inputs)))

    student, teacher = net(8), net(32)
    distiller = tfkd.Distiller(student, teacher, soft_loss=losses.build("absolute", factor=2.0), alpha=1.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    before = [weight.numpy() for weight in student.trainable_weights]
    expected = 2 * np.abs(teacher(x).numpy() - student(x).numpy()).mean()
    history = distiller.fit(x, batch_size=32, epochs=1, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    for old, new in zip(before, student.trainable_weights, strict=True):
        assert not np.array_equal(old, new.numpy())


def test_each_registered_loss_is_public_and_has_defaults():
    for name, kind in losses.NAMES.items():
        assert kind.__name__ in losses.__all__
        assert type(losses.build(name)) is kind


def test_help_and_recipe_list_each_loss():
    group: Any = typer.main.get_command(app)
    command = group.commands["distill"]
    option = next(one.help for one in command.params if one.name == "loss")
    key, feature_key = Distillation.model_fields["loss"].description, FeaturePair.model_fields["loss"].description
    for text, names in ((option, losses.NAMES), (key, losses.NAMES), (feature_key, losses.FEATURE_NAMES)):
        assert set(names) <= set(re.findall(r"\w+", text))
