"""Optimizer, learning rate, weight decay and warm-up of a training that names neither optimizer nor learning rate."""

from __future__ import annotations

import keras
import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import JsonObject
from tfkd.distillation.training_config import TrainingConfig
from tfkd.tasks import Task

# The trainings that led to these values are in docs/benchmarks.md, "Optimizer and learning rate".
_CONVOLUTIONAL: JsonObject = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.005, "warmup": 0.05}
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# Families whose trainings were not compared.
_OTHERS = (keras.layers.RNN, keras.layers.MultiHeadAttention, keras.layers.Embedding)


def complete(config: TrainingConfig, model: keras.Model, task: Task) -> TrainingConfig:
    """The settings with the optimizer that suits a model, if they name neither an optimizer nor a learning rate.

    A classifier of convolutions and batch normalization with random weights is trained with SGD. All others keep small
    steps of Adam: one that starts from trained weights would lose them in large steps.

    Args:
        config: The settings. A weight decay or a warm-up that they name stays.
        model: The model that is trained; one that is not built yet keeps Adam.
        task: The task.
    """
    if config.optimizer is not None or config.learning_rate is not None or not task.is_classification:
        return config
    if not _is_new_convolutional(model):
        return config
    values = dict(_CONVOLUTIONAL)
    if config.schedule != "cosine":
        del values["warmup"]
    return config.model_copy(update={name: one for name, one in values.items() if getattr(config, name) is None})


def sentence(config: TrainingConfig) -> str:
    """The values that `complete` chose, for the user."""
    warmup = f", warm-up {config.warmup:g}" if config.warmup else ""
    return (
        f"Optimizer: {config.optimizer}, learning rate {config.learning_rate:g}, weight decay {config.weight_decay:g}"
        f"{warmup}: the defaults of convolutions with batch normalization and random weights."
    )


def _is_new_convolutional(model: keras.Model) -> bool:
    layers = keras_compat.inner_layers(model)
    normalizations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return (
        bool(normalizations)
        and any(isinstance(layer, _CONVOLUTIONS) for layer in layers)
        and not any(isinstance(layer, _OTHERS) for layer in layers)
        and all(map(_is_untrained, normalizations))
    )


def _is_untrained(normalization: keras.layers.BatchNormalization) -> bool:
    """Whether the statistics are those from before the first training step; False where there are none yet."""
    if not normalization.built:
        return False
    mean, variance = (np.asarray(one) for one in (normalization.moving_mean, normalization.moving_variance))
    return bool((mean == 0).all() and (variance == 1).all())
