"""Lines of `Distiller.summary` about teachers, losses and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses
from tfkd.distillation.features import Adapter, Feature
from tfkd.losses.loss import Setting


def describe(
    teachers: Sequence[keras.Model],
    alpha: Setting,
    soft_losses: Sequence[losses.DistillationLoss],
    features: Sequence[Feature],
    adapters: Sequence[Adapter],
) -> Iterator[str]:
    """Yields one line for each teacher, for the loss and for each feature.

    Args:
        teachers: Teacher models; empty for a store of soft labels.
        alpha: Weight of the soft loss, a number or a schedule.
        soft_losses: Loss of each teacher.
        features: Feature pairs.
        adapters: Adapter of each feature; empty where the shapes are not known yet.
    """
    for teacher in teachers:
        yield f"Teacher: {teacher.name}, {teacher.count_params():,} parameters (not tracked)"
    if not teachers:
        yield "Teacher: stored soft labels"
    soft = " + ".join(dict.fromkeys(map(_loss, soft_losses)))
    shares = ("alpha", "(1 - alpha)") if isinstance(alpha, LearningRateSchedule) else (f"{alpha:g}", f"{1 - alpha:g}")
    yield f"Loss: {shares[0]} · {soft} + {shares[1]} · hard loss"
    for i, feature in enumerate(features):
        adapter = f", student {adapters[i].describe()}" if adapters else ""
        weight = f"{feature.weight:g}" if isinstance(feature.weight, (int, float)) else type(feature.weight).__name__
        yield f"Feature: {weight} · {_loss(feature.loss)} of {feature.student!r} to {feature.teacher!r}{adapter}"


def _loss(loss: losses.DistillationLoss) -> str:
    of_any_layer = ("name", "trainable", "dtype", "autocast")
    settings = {key: value for key, value in loss.get_config().items() if key not in of_any_layer}
    return f"{type(loss).__name__}({', '.join(f'{key}={value}' for key, value in settings.items())})"
