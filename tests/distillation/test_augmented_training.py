"""Trainings with augmentation and mixing: teacher and student see the same samples, also after an interruption."""

import sys

import keras
import numpy as np
import pytest

import tfkd
from tests.distillation.test_training import Interrupt
from tfkd.distillation import training
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError

SPLITS = tfkd.data.load("digits")


def net(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def config(augment, **settings):
    return TrainingConfig(epochs=3, batch_size=256, augment=augment, **settings)


@pytest.mark.campaign
def test_interrupted_training_with_mixing_resumes_with_equal_weights(tmp_path):
    settings = config(["rotation", "noise", "mixup", "cutmix"], label_smoothing=0.1)
    whole, resumed = net(), net()
    expected = training.fit(tfkd.Distiller(whole, net(1)), SPLITS, settings)
    with pytest.raises(KeyboardInterrupt):
        training.fit(tfkd.Distiller(net(), net(1)), SPLITS, settings, checkpoint=tmp_path, callbacks=[Interrupt(1)])
    assert training.fit(tfkd.Distiller(resumed, net(1)), SPLITS, settings, checkpoint=tmp_path) == expected
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_teacher_and_student_see_the_same_mixed_samples():
    student = net()
    student.trainable = True
    distiller = tfkd.Distiller(student, net(), alpha=1.0)  # both have the same weights
    history = training.fit(distiller, SPLITS, config(["mixup"], learning_rate=1e-12))
    assert history["soft_loss"][0] < 1e-6


def test_accuracy_of_mixed_samples_is_that_of_the_larger_part():
    history = training.fit(net(), SPLITS, config("mixup", learning_rate=0.01))
    assert history["accuracy"][-1] > 0.3  # chance is 0.1
    assert history["val_accuracy"][-1] > 0.3


def test_training_with_class_weights_and_mixing():
    history = training.fit(net(), SPLITS, config("cutmix", class_weights="balanced"))
    assert np.isfinite(history["loss"]).all()


def test_stored_labels_of_a_chain_are_trained_from(tmp_path):
    settings = config(["crop_flip", "rotation"], padding=1, flip=False, augment_options={"rotation": {"degrees": 5.0}})
    augment, _ = training.augmentation(settings)
    store = tfkd.SoftLabels.build(tmp_path / "labels", net(1), SPLITS.train, views=2, augment=augment)
    assert store.augment == augment
    history = training.fit(tfkd.Distiller(net(), store), SPLITS, settings, soft_labels=store)
    assert history["soft_loss"][-1] < history["soft_loss"][0]


def test_own_augmentation_is_that_of_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_augmentation.py").write_text("def darker(x, seed):\n    return x / 2\n")
    settings = config("own_augmentation:darker")
    assert settings.own_code == ["own_augmentation:darker"]
    augment, _ = training.augmentation(settings)
    store = tfkd.SoftLabels.build(tmp_path / "labels", net(1), SPLITS.train, views=2, augment=augment)
    training.fit(tfkd.Distiller(net(), store), SPLITS, settings, soft_labels=store)
    with pytest.raises(InputError, match="another augmentation"):
        training.fit(tfkd.Distiller(net(), store), SPLITS, config("flip"), soft_labels=store)
    sys.modules.pop("own_augmentation")
