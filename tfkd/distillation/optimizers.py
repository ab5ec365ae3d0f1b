"""The optimizer of a training configuration."""

from __future__ import annotations

import keras
from keras.optimizers import schedules

from tfkd.distillation.training_config import TrainingConfig
from tfkd.models import own_code

# Of settings that `training_defaults.complete` left as they are.
_OPTIMIZER, _LEARNING_RATE, _ADAMW_DECAY = "adam", 1e-3, 0.01
# The learning rate of the schedule `step`: the share of the steps after which it changes, and its factor.
_STEPS = ((0.5, 0.1), (0.75, 0.01))


def build(config: TrainingConfig, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a training, not built.

    Args:
        config: Optimizer, learning rate, schedule, weight decay, clipping, moving average and precision.
        model: Built model that is trained; its weights other than kernels do not decay.
        steps: Number of training steps in all.

    Raises:
        InputError: The function of the user does not exist, or returns no optimizer.

    Reference:
        Loshchilov, Hutter: Decoupled Weight Decay Regularization (arXiv:1711.05101). Chen et al.: Symbolic Discovery of
        Optimization Algorithms (arXiv:2302.06675), for lion. He et al.: Deep Residual Learning (arXiv:1512.03385),
        section 4.2, for step. Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging, SIAM Journal on
        Control and Optimization 30, 1992, for the moving average.
    """
    optimizer = _optimizer(config, model, steps)
    if config.precision == "mixed_float16" and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(optimizer)  # small gradients would be 0 in float16
    return optimizer


def _optimizer(config: TrainingConfig, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    name = config.optimizer or _OPTIMIZER
    default = _ADAMW_DECAY if name == "adamw" else 0.0
    decay = default if config.weight_decay is None else config.weight_decay
    options: dict[str, float | None] = {"weight_decay": decay or None, "global_clipnorm": config.clip_norm}
    if config.ema:
        options |= {"use_ema": True, "ema_momentum": config.ema}
    rate = _learning_rate(config, steps)
    if ":" in name:
        return own_code.call(name, keras.optimizers.Optimizer, rate)
    if name == "sgd":
        optimizer = keras.optimizers.SGD(rate, config.momentum, nesterov=config.momentum > 0, **options)
    elif name == "lion":
        optimizer = keras.optimizers.Lion(rate, **options)
    else:
        optimizer = keras.optimizers.Adam(rate, **options)  # with weight decay it is AdamW
    if decay:
        others = [weight for weight in model.trainable_variables if "kernel" not in weight.name]
        optimizer.exclude_from_weight_decay(var_list=others)
    return optimizer


def _learning_rate(config: TrainingConfig, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    rate = config.learning_rate or _LEARNING_RATE
    if config.schedule == "constant":
        return rate
    if config.schedule == "step":
        boundaries = [max(1, round(steps * share)) for share, _ in _STEPS]
        return schedules.PiecewiseConstantDecay(boundaries, [rate, *(rate * factor for _, factor in _STEPS)])
    warmup = round(steps * (config.warmup or 0.0))
    if not warmup:
        return schedules.CosineDecay(rate, steps)
    return schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup)
