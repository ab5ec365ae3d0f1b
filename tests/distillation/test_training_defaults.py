"""The optimizer of a training that names none: SGD for new convolutional classifiers, small steps for all others."""

import keras
import pytest
from keras import layers

from tfkd import models, tasks
from tfkd.distillation import training_defaults
from tfkd.distillation.training_config import TrainingConfig

SGD = ("sgd", 0.1, 0.005, 0.05)
CLASSIFICATION = tasks.get("classification")


def chosen(model, task=CLASSIFICATION, **settings):
    config = training_defaults.complete(TrainingConfig(**settings), model, task)
    return config.optimizer, config.learning_rate, config.weight_decay, config.warmup


@pytest.fixture(scope="module")
def convolutional():
    return models.build("digits_student", (8, 8, 1), 10)


def test_new_convolutional_classifier_is_trained_with_sgd(convolutional):
    assert chosen(convolutional) == SGD
    assert chosen(keras.Sequential([keras.Input((8, 8, 1)), convolutional])) == SGD  # inside another model
    config = training_defaults.complete(TrainingConfig(), convolutional, CLASSIFICATION)
    assert "sgd, learning rate 0.1, weight decay 0.005, warm-up 0.05" in training_defaults.sentence(config)


def test_settings_that_are_given_stay(convolutional):
    assert chosen(convolutional, learning_rate=0.02) == (None, 0.02, None, None)
    assert chosen(convolutional, optimizer="adam") == ("adam", None, None, None)
    assert chosen(convolutional, weight_decay=0.0, warmup=0.0) == ("sgd", 0.1, 0.0, 0.0)
    assert chosen(convolutional, schedule="step") == ("sgd", 0.1, 0.005, None)


class Coded(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = layers.Conv2D(4, 3), layers.BatchNormalization()
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(10)

    def call(self, x):
        return self.head(self.pool(self.norm(self.stem(x))))


def test_subclassed_model_is_known_once_it_is_built():
    model = Coded()
    assert chosen(model) == (None,) * 4
    model(keras.ops.zeros((1, 8, 8, 1)))
    assert chosen(model) == SGD


def test_trained_weights_other_families_and_other_tasks_keep_small_steps(student, convolutional):
    assert chosen(student) == (None,) * 4  # statistics of batch normalization are those of a training
    assert chosen(convolutional, tasks.get("regression")) == (None,) * 4
    for name, shape in (("mlp", (8,)), ("gru", (8, 4))):
        assert chosen(models.build(name, shape, 10)) == (None,) * 4
    inputs = keras.Input((8, 4))
    x = layers.BatchNormalization()(layers.Conv1D(4, 3)(inputs))
    assert chosen(keras.Model(inputs, layers.Dense(2)(layers.GRU(4)(x)))) == (None,) * 4
