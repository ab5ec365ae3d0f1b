"""Checks of the arguments of a Distiller."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses
from tfkd._internal.types import Tensor
from tfkd.distillation.features import Feature, check_path
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError, ModelError
from tfkd.losses.loss import Setting
from tfkd.models import logits
from tfkd.tasks import Task


def check_alpha(alpha: Setting) -> Setting:
    """Returns alpha as a float in 0..1, or the schedule that it is.

    Args:
        alpha: Weight of the soft loss, or a schedule.

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
    student: keras.Model, teachers: Sequence[keras.Model], soft_losses: Sequence[losses.DistillationLoss], task: Task
) -> None:
    """Raises where models do not fit each other or the losses.

    Args:
        student: Model with logits [B, ..., C].
        teachers: Models with logits of the same classes.
        soft_losses: One loss for each teacher.
        task: The task; outputs of a regression need not be logits.

    Raises:
        ModelError: A model is not a Keras model or has several outputs or probabilities, or the class counts differ.
        InputError: The number of losses is not that of the teachers.
    """
    for role, model in (("student", student), *(("teacher", teacher) for teacher in teachers)):
        logits.check_gives_logits(role, model, activation=task.gives_logits)
    if len(soft_losses) != len(teachers):
        raise InputError(
            f"Distiller: soft_loss must be one loss or one for each teacher. Received: {len(soft_losses)} losses for "
            f"{len(teachers)} teachers. Pass as many losses as teachers."
        )
    for teacher, loss in zip(teachers, soft_losses, strict=True):
        check_classes(loss, logits.known_classes(student))
        sizes = {logits.known_classes(student), logits.known_classes(teacher)}
        if loss.aligns == "all" and None not in sizes and len(sizes) > 1:
            raise ModelError(
                f"Distiller: teacher and student must have the same classes. Received: teacher "
                f"{teacher.output_shape}, student {student.output_shape}. Give both the same number of logits."
            )


def check_classes(loss: losses.DistillationLoss, outputs: int | None) -> None:
    """Raises where a loss on classes is used for one output.

    Args:
        loss: Soft loss.
        outputs: Number of outputs, >= 1; None if it is not known yet.

    Raises:
        ModelError: The softmax over one output is 1 for all values.
    """
    if loss.needs_classes and outputs == 1:
        raise ModelError(
            f"Distiller: {type(loss).__name__} needs at least 2 classes, one logit each. Received: 1 output. Pass "
            "task='binary' or task='regression', or soft_loss=tfkd.losses.MeanSquared()."
        )


def check_losses(hard_loss: Tensor, soft_losses: Sequence[losses.DistillationLoss]) -> None:
    """Raises where the compiled loss is one of regression, but a soft loss compares classes.

    Args:
        hard_loss: Compiled loss: name, function or instance, or None.
        soft_losses: Loss of each teacher.

    Raises:
        InputError: They do not fit each other.
    """
    for loss in soft_losses:
        if loss.needs_classes and logits.is_regression(hard_loss):
            raise InputError(
                f"Distiller: {type(loss).__name__} compares probabilities of classes, the compiled loss is one of "
                f"regression. Received: loss={hard_loss!r}. Pass task='regression' or "
                "soft_loss=tfkd.losses.MeanSquared(); for classes "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )


def check_targets(
    y: Tensor, outputs: tuple[int | None, ...], soft_losses: Sequence[losses.DistillationLoss], *, binary: bool
) -> None:
    """Raises where labels are several classes or real numbers, but a soft loss compares classes that exclude others.

    Args:
        y: Labels of a batch, or None. Only rows with one value per class are examined.
        outputs: Shape of the logits, [B, ..., C].
        soft_losses: Loss of each teacher.
        binary: Whether the compiled loss is a binary one, which allows rows without a class.

    Raises:
        InputError: A row of labels has a sum above 1 or a value below 0, or, under a binary loss, another sum than 1.
    """
    loss = next((loss for loss in soft_losses if loss.needs_classes), None)
    if loss is None or not hasattr(y, "shape") or len(y.shape) != len(outputs) or y.shape[-1] != outputs[-1]:
        return
    values = np.asarray(y, "float32")
    sums = values.sum(axis=-1)
    if (values < -0.001).any() or (sums > 1.001).any() or (binary and (sums < 0.999).any()):
        shares = binary and values.min() >= 0 and values.max() <= 1  # smoothed labels
        several = shares or np.isin(values, (0, 1)).all()
        received = (
            f"labels of several classes, rows with sums {sums.min():g}..{sums.max():g}"
            if several
            else f"real numbers in {values.min():g}..{values.max():g}, as of a regression"
        )
        raise InputError(
            f"Distiller: {type(loss).__name__} needs samples of exactly one class. Received: {received}. Pass "
            f"task={'multi_label' if several else 'regression'!r}, or soft_loss=tfkd.losses.MeanSquared()."
        )


def check_store(student: keras.Model, store: SoftLabels, features: Sequence[Feature], task: Task) -> None:
    """Raises where a student cannot learn from a store.

    Args:
        student: Model with logits [B, C].
        store: Stored teacher logits of C classes.
        features: Feature pairs; a store has none.
        task: The task; the store must hold its outputs.

    Raises:
        ModelError: The student has several outputs, probabilities or another number of classes.
        InputError: There are features, or the outputs are those of another task.
    """
    if task.stored != store.kind:
        raise InputError(
            f"Distiller: the store holds {store.kind}. Received: the task {task.name}. Label the data with task="
            f"{task.name!r}, or pass the teacher's model."
        )
    logits.check_gives_logits("student", student, activation=task.gives_logits)
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

    Args:
        student: The student.
        teacher: The first teacher.
        features: The feature pairs.

    Raises:
        InputError: No layer, or several layers, have the name or path.
    """
    for feature in features:
        check_path(student, feature.student)
        check_path(teacher, feature.teacher)


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
