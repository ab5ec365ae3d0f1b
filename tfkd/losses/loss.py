"""Base class of distillation losses, and functions that several losses use."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfkd.errors import InputError, ModelError


class DistillationLoss(keras.layers.Layer):
    """Base class of losses between outputs or features of a teacher and a student on the same samples.

    A subclass implements `call(teacher, student, y=None, step=None)` and returns one value per sample, [B], or per
    position for sequences and dense outputs, [B, ...]; the Distiller weights and averages them. `call` receives float32
    tensors, whatever precision the models compute in, and no gradient flows into `teacher`.

    Attributes:
        aligns: Axes of a feature that must have the same size in teacher and student: `all`, `positions` (all but the
            channels) or `none`. Where they differ, `tfkd.features.Feature` adapts the student's feature.
    """

    aligns = "all"

    def __init__(self, **kwargs: Any) -> None:
        # Always float32: small gradients would underflow in half precision under a global mixed-precision policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})

    def __call__(self, teacher: Any, student: Any, y: Any = None, step: Any = None, **kwargs: Any) -> Any:
        teacher, student = (ops.convert_to_tensor(z) for z in (teacher, student))
        teacher, student = ops.stop_gradient(ops.cast(teacher, "float32")), ops.cast(student, "float32")
        return super().__call__(teacher, student, y=y, step=step, **kwargs)


def value_at(setting: Any, step: Any) -> Any:
    """The value of a setting at a training step.

    Args:
        setting: A number, or a `keras.optimizers.schedules.LearningRateSchedule`.
        step: Training step, >= 0; None for the first.

    >>> value_at(4.0, 10)
    4.0
    """
    return setting(0 if step is None else step) if callable(setting) else setting


def check_number(where: str, name: str, value: Any, *, least: float = 0.0, open_end: bool = False) -> Any:
    """Checks a setting of a loss.

    Args:
        where: Name of the loss, for the message.
        name: Name of the setting, for the message.
        value: A finite number, a schedule, or the configuration of a schedule.
        least: Lower bound of a number.
        open_end: Whether `least` itself is refused.

    Returns:
        The number as a float, or the schedule.

    Raises:
        InputError: The value is of another type or out of range.
    """
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf
    if not number or (open_end and value == least):
        raise InputError(
            f"{where}: {name} must be a finite number {'>' if open_end else '>='} {least:g}. Received: {name}={value}. "
            "Use a number, or a schedule of keras.optimizers.schedules."
        )
    return float(value)


def to_config(setting: Any) -> Any:
    """The form of a setting in a configuration: a number, or the configuration of a schedule."""
    return keras.saving.serialize_keras_object(setting) if callable(setting) else setting


def check_logits(where: str, teacher: Any, student: Any, *, least: int = 2) -> None:
    """Checks the shapes of teacher and student logits.

    Args:
        where: Name of the loss, for the message.
        teacher: [..., C] teacher logits.
        student: [..., C] student logits.
        least: Smallest number of classes, >= 1.

    Raises:
        ModelError: The ranks or class counts differ, or there are fewer than `least` classes.
    """
    if len(teacher.shape) != len(student.shape) or teacher.shape[-1] != student.shape[-1]:
        raise ModelError(
            f"{where}: teacher and student logits must have the same rank and class count. Received: teacher "
            f"{tuple(teacher.shape)}, student {tuple(student.shape)}. Use models with equal class counts."
        )
    if student.shape[-1] is not None and student.shape[-1] < least:
        remedy = "Build binary models with two logits instead of one." if student.shape[-1] == 1 else "Use SoftTarget."
        raise ModelError(
            f"{where}: needs at least {least} classes, one logit each. Received: {student.shape[-1]}. {remedy}"
        )


def labels(where: str, y: Any, classes: int) -> Any:
    """Converts labels to one-hot rows.

    Args:
        where: Name of the loss, for the message.
        y: [B] or [B, 1] class indices, or [B, C] one-hot rows.
        classes: Number of classes C.

    Returns:
        [B, C] float32.

    Raises:
        InputError: y is None.
    """
    if y is None:
        raise InputError(f"{where}: needs labels. Received: y=None. Train on (x, y), or use SoftTarget.")
    y = ops.convert_to_tensor(y)
    if len(y.shape) == 2 and y.shape[-1] == classes and classes > 1:
        return ops.cast(y, "float32")
    return ops.one_hot(ops.reshape(ops.cast(y, "int32"), (-1,)), classes)


def cross_entropy(one_hot: Any, logits: Any) -> Any:
    """Cross-entropy −Σ_c y_c · log softmax(z)_c over the last axis: [..., C], [..., C] -> [...]."""
    return -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)


def divergence(teacher: Any, student: Any) -> Any:
    """KL(softmax(teacher) || softmax(student)) over the last axis: [..., C], [..., C] -> [...].

    It uses log-probabilities of both: the gradient of clipped probabilities would vanish where the two disagree
    confidently.
    """
    log_p, log_q = ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def unit(x: Any, axis: int = -1) -> Any:
    """Divides by the L2 norm along an axis, or by 1e-12 where the norm is smaller."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-24))


def flat(x: Any) -> Any:
    """Flattens all axes but the first: [B, ...] -> [B, D]."""
    return ops.reshape(x, (ops.shape(x)[0], math.prod(x.shape[1:])))
