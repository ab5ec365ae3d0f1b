"""What every distillation loss is, and what the losses share."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfkd.errors import InputError


class DistillationLoss(keras.layers.Layer):
    """A loss between what a teacher and a student say of the same samples.

    A subclass implements `call(teacher, student, y=None, step=None)` and returns one value per sample (per position for
    sequences and dense outputs); the Distiller weights and averages them. Inputs reach `call` in float32, whatever
    precision the models compute in, and no gradient flows into `teacher`. `aligns` says what of two features must have
    one shape before they are compared: `all` axes, `positions` (every axis but the channels) or `none`.
    """

    aligns = "all"

    def __init__(self, **kwargs: Any) -> None:
        # A loss in half precision loses small gradients, so the global policy does not reach it.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})

    def __call__(self, teacher: Any, student: Any, y: Any = None, step: Any = None, **kwargs: Any) -> Any:
        teacher, student = (ops.convert_to_tensor(z) for z in (teacher, student))
        teacher, student = ops.stop_gradient(ops.cast(teacher, "float32")), ops.cast(student, "float32")
        return super().__call__(teacher, student, y=y, step=step, **kwargs)


def value_at(setting: Any, step: Any) -> Any:
    """A number as it is; a schedule, which is callable on the step, as its value there.

    Args:
        setting: a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        step: the step of training; None is the first.

    >>> value_at(4.0, 10)
    4.0
    """
    return setting(0 if step is None else step) if callable(setting) else setting


def check_number(where: str, name: str, value: Any, *, least: float = 0.0, open_end: bool = False) -> Any:
    """Returns a finite number in range, or a schedule, as it is.

    Args:
        where: name of the loss, for the message.
        name: of the setting.
        value: to check; a configuration of a schedule becomes the schedule.
        least: the smallest allowed value.
        open_end: whether `least` itself is refused.
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
    """A number as it is, a schedule as its configuration."""
    return keras.saving.serialize_keras_object(setting) if callable(setting) else setting


def check_logits(where: str, teacher: Any, student: Any, *, least: int = 2) -> None:
    """Refuses logits that do not belong together.

    Args:
        where: name of the loss, for the message.
        teacher: [..., C] logits.
        student: [..., C] logits, of the teacher's shape.
        least: the smallest number of classes.

    Raises:
        ValueError: when the class counts or the ranks differ, or when there are too few classes.
    """
    if len(teacher.shape) != len(student.shape) or teacher.shape[-1] != student.shape[-1]:
        raise InputError(
            f"{where}: teacher and student logits must have the same rank and class count. Received: teacher "
            f"{tuple(teacher.shape)}, student {tuple(student.shape)}. Give both models the same number of outputs."
        )
    if student.shape[-1] is not None and student.shape[-1] < least:
        remedy = "Give a binary model two logits instead of one." if student.shape[-1] == 1 else "Use SoftTarget."
        raise InputError(
            f"{where}: needs at least {least} classes, one logit each. Received: {student.shape[-1]}. {remedy}"
        )


def labels(where: str, y: Any, classes: int) -> Any:
    """Labels as one-hot rows [B, C] float32.

    Args:
        where: name of the loss, for the message.
        y: [B] or [B, 1] class numbers, or [B, C] one-hot rows.
        classes: C.
    """
    if y is None:
        raise InputError(f"{where}: needs labels. Received: y=None. Train on (x, y), or use SoftTarget.")
    y = ops.convert_to_tensor(y)
    if len(y.shape) == 2 and y.shape[-1] == classes and classes > 1:
        return ops.cast(y, "float32")
    return ops.one_hot(ops.reshape(ops.cast(y, "int32"), (-1,)), classes)


def cross_entropy(one_hot: Any, logits: Any) -> Any:
    """−Σ_c y_c · log softmax(z)_c over the last axis."""
    return -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)


def divergence(teacher: Any, student: Any) -> Any:
    """KL(softmax(teacher) || softmax(student)) over the last axis, from logarithms throughout."""
    log_p, log_q = ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def unit(x: Any, axis: int = -1) -> Any:
    """Divides by the L2 norm along an axis, but by 1e-12 at least."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-24))


def flat(x: Any) -> Any:
    """[B, ...] as [B, D]."""
    return ops.reshape(x, (ops.shape(x)[0], math.prod(x.shape[1:])))
