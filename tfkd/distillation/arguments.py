"""Checks of the arguments of a Distiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses
from tfkd.distillation.features import Feature, find_layer
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError, ModelError
from tfkd.models import logits


def check_alpha(alpha: Any) -> Any:
    """Returns alpha as a float in 0..1, or the schedule that it is.

    Raises:
        InputError: alpha is neither.
    """
    if isinstance(alpha, LearningRateSchedule):
        return alpha
    if not (isinstance(alpha, (int, float)) and 0 <= alpha <= 1):
        raise InputError(
            f"Distiller: alpha must be a number in 0..1 or a schedule. Received: alpha={alpha}. "
            "Use 0.9 for mostly the teacher, 0.0 for labels only."
        )
    return float(alpha)


def check_teachers(
    student: keras.Model, teachers: Sequence[keras.Model], soft_losses: Sequence[losses.DistillationLoss]
) -> None:
    """Raises where models do not fit each other or the losses.

    Args:
        student: Model with logits [B, ..., C].
        teachers: Models with logits of the same classes.
        soft_losses: One loss for each teacher.

    Raises:
        ModelError: A model is not a Keras model or has several outputs or probabilities, or the class counts differ.
        InputError: The number of losses is not that of the teachers.
    """
    for role, model in (("student", student), *(("teacher", teacher) for teacher in teachers)):
        logits.check_gives_logits(role, model)
    if len(soft_losses) != len(teachers):
        raise InputError(
            f"Distiller: soft_loss must be one loss or one for each teacher. Received: {len(soft_losses)} losses for "
            f"{len(teachers)} teachers. Pass as many losses as teachers."
        )
    for teacher, loss in zip(teachers, soft_losses, strict=True):
        sizes = {logits.known_classes(student), logits.known_classes(teacher)}
        if loss.aligns == "all" and None not in sizes and len(sizes) > 1:
            raise ModelError(
                f"Distiller: teacher and student must have the same classes. Received: teacher "
                f"{teacher.output_shape}, student {student.output_shape}. Give both the same number of logits."
            )


def check_store(student: keras.Model, store: SoftLabels, features: Sequence[Feature]) -> None:
    """Raises where a student cannot learn from a store.

    Args:
        student: Model with logits [B, C].
        store: Stored teacher logits of C classes.
        features: Feature pairs; a store has none.

    Raises:
        ModelError: The student has several outputs, probabilities or another number of classes.
        InputError: There are features.
    """
    logits.check_gives_logits("student", student)
    if features:
        raise InputError(
            "Distiller: features need the teacher's model. Received: a store of soft labels, which has logits only. "
            "Pass the teacher's model, or leave the features out."
        )
    if logits.known_classes(student) not in (None, store.classes):
        raise ModelError(
            f"Distiller: the student must have the {store.classes} classes of the soft labels. Received: student "
            f"{student.output_shape}. Give it as many logits."
        )


def check_features(student: keras.Model, teacher: keras.Model, features: Sequence[Feature]) -> None:
    """Raises where a layer of a feature pair does not exist.

    Raises:
        InputError: No layer, or several layers, have the name or path.
    """
    for feature in features:
        find_layer(student, feature.student)
        find_layer(teacher, feature.teacher)


def normalize_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Teacher weights with the sum 1.

    Args:
        weights: Weight of each teacher, >= 0; None for equal weights.
        count: Number of teachers.

    Raises:
        InputError: The number of weights is not `count`, one is negative, or all are 0.
    """
    weights = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise InputError(
            f"Distiller: teacher_weights must be {count} numbers >= 0, not all 0. Received: {weights}. "
            "Leave it out for equal weights."
        )
    return [weight / sum(weights) for weight in weights]
