"""The optimizer of a training configuration: learning rates, weight decay of kernels only, and clipping."""

import keras
import numpy as np
import pytest
from keras import ops

from tfkd.distillation import optimizers
from tfkd.distillation.training_config import TrainingConfig


def net():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, {0: 0.1, 50: 0.05, 100: 0.0}),
        ({"schedule": "constant"}, {0: 0.1, 100: 0.1}),
        ({"schedule": "step"}, {0: 0.1, 50: 0.1, 51: 0.01, 76: 0.001}),
        ({"warmup": 0.1}, {0: 0.0, 5: 0.05, 10: 0.1, 55: 0.05, 100: 0.0}),
    ],
)
def test_learning_rate_follows_the_schedule(settings, rates):
    optimizer = optimizers.build(TrainingConfig(learning_rate=0.1, **settings), net(), 100)
    for step, rate in rates.items():
        optimizer.iterations.assign(step)
        assert float(ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion"])
def test_weight_decay_acts_on_kernels_only(name):
    model = net()
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    config = TrainingConfig(optimizer=name, learning_rate=0.1, schedule="constant", weight_decay=0.5)
    optimizer = optimizers.build(config, model, 10)
    optimizer.apply([ops.zeros_like(weight) for weight in model.trainable_variables], model.trainable_variables)
    for weight in model.trainable_variables:
        expected = 1 - 0.1 * 0.5 if weight.name == "kernel" else 1.0
        np.testing.assert_allclose(weight, np.full(weight.shape, expected), rtol=1e-6)


def test_adamw_decays_and_adam_does_not_by_default():
    assert optimizers.build(TrainingConfig(optimizer="adamw"), net(), 10).weight_decay == 0.01
    assert optimizers.build(TrainingConfig(), net(), 10).weight_decay is None


def test_gradient_is_clipped_by_its_norm():
    model = net()
    config = TrainingConfig(optimizer="sgd", momentum=0.0, learning_rate=1.0, schedule="constant", clip_norm=1.0)
    optimizer = optimizers.build(config, model, 10)
    before = [weight.numpy() for weight in model.trainable_variables]
    optimizer.apply([7 * ops.ones_like(weight) for weight in model.trainable_variables], model.trainable_variables)
    moved = [new.numpy() - old for new, old in zip(model.trainable_variables, before, strict=True)]
    assert sum((one**2).sum() for one in moved) == pytest.approx(1.0, rel=1e-4)


def test_sgd_has_nesterov_momentum():
    assert optimizers.build(TrainingConfig(optimizer="sgd"), net(), 10).get_config()["nesterov"]


def test_warmup_without_a_cosine_is_refused():
    with pytest.raises(ValueError, match='warmup needs schedule = "cosine"'):
        TrainingConfig(warmup=0.1, schedule="step")
