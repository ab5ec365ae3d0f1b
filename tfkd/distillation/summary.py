"""Lines of `Distiller.summary` about teachers, losses and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses
from tfkd.distillation.features import Adapter, Feature
from tfkd.distillation.outputs import Output


def describe(
    teachers: Sequence[keras.Model],
    outputs: Sequence[Output],
    features: Sequence[Feature],
    adapters: Sequence[Adapter],
) -> Iterator[str]:
    """Yields one line for each teacher, for the loss of each output and for each feature.

    Args:
        teachers: Teacher models; empty for a store of soft labels.
        outputs: Outputs of the student.
        features: Feature pairs.
        adapters: Adapter of each feature; empty where the shapes are not known yet.
    """
    for teacher in teachers:
        yield f"Teacher: {teacher.name}, {teacher.count_params():,} parameters (not tracked)"
    if not teachers:
        yield "Teacher: stored soft labels"
    for output in outputs:
        soft, alpha = " + ".join(dict.fromkeys(map(_loss, output.soft_losses))), output.alpha
        fixed = not isinstance(alpha, LearningRateSchedule)
        shares = (f"{alpha:g}", f"{1 - alpha:g}") if fixed else ("alpha", "(1 - alpha)")
        terms = f"{shares[0]} · {soft} + {shares[1]} · hard loss" if soft else "hard loss"
        yield f"Loss{'' if len(outputs) == 1 else f' of {output.name!r}'}: {terms}"
    for i, feature in enumerate(features):
        adapter = f", student {adapters[i].describe()}" if adapters else ""
        weight = f"{feature.weight:g}" if isinstance(feature.weight, (int, float)) else type(feature.weight).__name__
        yield f"Feature: {weight} · {_loss(feature.loss)} of {feature.student!r} to {feature.teacher!r}{adapter}"


def _loss(loss: losses.DistillationLoss) -> str:
    of_any_layer = ("name", "trainable", "dtype", "autocast")
    settings = {key: value for key, value in loss.get_config().items() if key not in of_any_layer}
    return f"{type(loss).__name__}({', '.join(f'{key}={value}' for key, value in settings.items())})"
