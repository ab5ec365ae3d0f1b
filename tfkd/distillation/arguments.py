"""Checks of the arguments of a Distiller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from tfkd import losses
from tfkd._internal.types import Nest, Tensor
from tfkd.distillation.features import Feature, check_path
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError, ModelError
from tfkd.losses.loss import Setting
from tfkd.models import logits, outputs
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


def check_no_alpha(name: str, alpha: Mapping[str, Setting] | Setting) -> None:
    """Raises where an output without a soft loss is given a weight for it.

    Args:
        name: Name of the output.
        alpha: One weight for all outputs, which is not that of this one, or weights by output.

    Raises:
        InputError: Its own weight is not 0.
    """
    own = alpha.get(name, 0) if isinstance(alpha, Mapping) else 0
    if own != 0:
        raise InputError(
            f"Distiller: alpha of the output {name!r} must be 0, since soft_loss has no loss for it. Received: "
            f"alpha={own}. Leave it out, or add a loss."
        )


def check_teachers(
    student: keras.Model, teachers: Sequence[keras.Model], soft_losses: Sequence[losses.DistillationLoss], task: Task
) -> None:
    """Raises where models do not fit each other or the losses.

    Args:
        student: Model with one output, logits [B, ..., C].
        teachers: Models with logits of the same classes.
        soft_losses: One loss for each teacher.
        task: The task; outputs of a regression need not be logits.

    Raises:
        ModelError: A model returns probabilities, or the class counts differ.
    """
    for role, model in (("student", student), *(("teacher", teacher) for teacher in teachers)):
        logits.check_gives_logits(role, model, activation=task.gives_logits)
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
    y: Tensor, shape: tuple[int | None, ...], soft_losses: Sequence[losses.DistillationLoss], *, binary: bool
) -> None:
    """Raises where labels are several classes or real numbers, but a soft loss compares classes that exclude others.

    Args:
        y: Labels of a batch, or None. Only rows with one value per class are examined.
        shape: Shape of the logits, [B, ..., C].
        soft_losses: Loss of each teacher.
        binary: Whether the compiled loss is a binary one, which allows rows without a class.

    Raises:
        InputError: A row of labels has a sum above 1 or a value below 0, or, under a binary loss, another sum than 1.
    """
    loss = next((loss for loss in soft_losses if loss.needs_classes), None)
    if loss is None or not hasattr(y, "shape") or len(y.shape) != len(shape) or y.shape[-1] != shape[-1]:
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


def check_store(student: keras.Model, store: SoftLabels, task: Task) -> None:
    """Raises where a student cannot learn from a store.

    Args:
        student: Model with one output, logits [B, C].
        store: Stored teacher logits of C classes.
        task: The task; the store must hold its outputs.

    Raises:
        ModelError: The student has probabilities or another number of classes.
        InputError: The outputs are those of another task.
    """
    if task.stored != store.kind:
        raise InputError(
            f"Distiller: the store holds {store.kind}. Received: the task {task.name}. Label the data with task="
            f"{task.name!r}, or pass the teacher's model."
        )
    logits.check_gives_logits("student", student, activation=task.gives_logits)
    if logits.known_classes(student) not in (None, store.classes):
        raise ModelError(
            f"Distiller: the student must have the {store.classes} classes of the soft labels. Received: student "
            f"{student.output_shape}. Give it as many logits."
        )


def check_features(student: keras.Model, teachers: Sequence[keras.Model], features: Sequence[Feature]) -> None:
    """Raises where a layer of a feature pair does not exist.

    Args:
        student: The student.
        teachers: The teachers, of which the first has the features; none for stored soft labels.
        features: The feature pairs.

    Raises:
        InputError: No layer, or several layers, have the name or path, or there is no teacher.
    """
    if features and not teachers:
        raise InputError(
            "Distiller: features need the teacher's model. Received: a store of soft labels, which has logits only. "
            "Pass the teacher's model, or leave the features out."
        )
    for feature in features:
        check_path(student, feature.student)
        check_path(teachers[0], feature.teacher)


def check_weights(names: Sequence[str], weights: Nest) -> list[float]:
    """The weight of each output, 1 where none is given.

    Args:
        names: Names of the outputs.
        weights: `loss_weights` of `keras.Model.compile`.

    Raises:
        InputError: One is not a number >= 0, or belongs to no output.
    """
    found = [1.0 if weight is None else weight for weight in outputs.by_name(names, weights, "loss_weights")]
    if not all(isinstance(weight, (int, float)) and weight >= 0 for weight in found):
        raise InputError(
            f"Distiller: loss_weights must be a number >= 0 for each output. Received: {weights}. Use 1.0 for equal "
            "weights."
        )
    return list(map(float, found))


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
