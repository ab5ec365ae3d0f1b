"""The optimizer of a training configuration."""

from __future__ import annotations

from typing import Any

import keras
from keras.optimizers import schedules

from tfkd.distillation.training_config import TrainingConfig

_ADAMW_DECAY = 0.01
# The learning rate of the schedule `step`: the share of the steps after which it changes, and its factor.
_STEPS = ((0.5, 0.1), (0.75, 0.01))


def build(config: TrainingConfig, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a training, not built.

    Args:
        config: Optimizer, learning rate, schedule, weight decay and clipping.
        model: Built model that is trained; its weights other than kernels do not decay.
        steps: Number of training steps in all.

    Reference:
        Loshchilov, Hutter: Decoupled Weight Decay Regularization (arXiv:1711.05101). Chen et al.: Symbolic Discovery of
        Optimization Algorithms (arXiv:2302.06675), for lion. He et al.: Deep Residual Learning (arXiv:1512.03385),
        section 4.2, for step.
    """
    default = _ADAMW_DECAY if config.optimizer == "adamw" else 0.0
    decay = default if config.weight_decay is None else config.weight_decay
    options: dict[str, Any] = {"weight_decay": decay or None, "global_clipnorm": config.clip_norm}
    rate = _learning_rate(config, steps)
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, config.momentum, nesterov=config.momentum > 0, **options)
    elif config.optimizer == "lion":
        optimizer = keras.optimizers.Lion(rate, **options)
    else:
        optimizer = keras.optimizers.Adam(rate, **options)  # with weight decay it is AdamW
    if decay:
        others = [weight for weight in model.trainable_variables if "kernel" not in weight.name]
        optimizer.exclude_from_weight_decay(var_list=others)
    return optimizer


def _learning_rate(config: TrainingConfig, steps: int) -> Any:
    rate = config.learning_rate
    if config.schedule == "constant":
        return rate
    if config.schedule == "step":
        boundaries = [max(1, round(steps * share)) for share, _ in _STEPS]
        return schedules.PiecewiseConstantDecay(boundaries, [rate, *(rate * factor for _, factor in _STEPS)])
    warmup = round(steps * config.warmup)
    if not warmup:
        return schedules.CosineDecay(rate, steps)
    return schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup)
