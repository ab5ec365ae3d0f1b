"""Base class of distillation losses, and functions that several losses use."""

from __future__ import annotations

import math
from typing import TypeAlias

import keras
from keras import ops

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError, ModelError

# A setting that may change during the training: a number, or a function of the step.
Setting: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"
Shape: TypeAlias = tuple[int | None, ...]


class DistillationLoss(keras.layers.Layer):
    """Base class of losses between outputs or features of a teacher and a student on the same samples.

    A subclass implements `call(teacher, student, y=None, step=None)` and returns one value per sample, [B], or per
    position for sequences and dense outputs, [B, ...]; the Distiller weights and averages them. `call` receives float32
    tensors, whatever precision the models compute in, and no gradient flows into `teacher`.

    Attributes:
        aligns: Axes of a feature that must have the same size in teacher and student: `all`, `positions` (all but the
            channels) or `none`. Where they differ, `tfkd.features.Feature` adapts the student's feature.
        needs_classes: Whether the loss takes the softmax of logits, so that the outputs must be classes of which each
            sample has exactly one.
    """

    aligns = "all"
    needs_classes = False

    def __init__(self, **kwargs: object) -> None:
        # Always float32: small gradients would underflow in half precision under a global mixed-precision policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})

    def __call__(
        self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None, **kwargs: object
    ) -> Tensor:
        teacher, student = (ops.convert_to_tensor(z) for z in (teacher, student))
        teacher, student = ops.stop_gradient(ops.cast(teacher, "float32")), ops.cast(student, "float32")
        return super().__call__(teacher, student, y=y, step=step, **kwargs)


def value_at(setting: Setting, step: Tensor | None) -> float | Tensor:
    """The value of a setting at a training step.

    Args:
        setting: A number, or a `keras.optimizers.schedules.LearningRateSchedule`.
        step: Training step, >= 0; None for the first.

    >>> value_at(4.0, 10)
    4.0
    """
    return setting(0 if step is None else step) if callable(setting) else setting


def check_number(
    where: str, name: str, value: Setting | JsonObject, *, least: float = 0.0, open_end: bool = False
) -> Setting:
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
    found = keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
    if isinstance(found, keras.optimizers.schedules.LearningRateSchedule):
        return found
    number = isinstance(found, (int, float)) and not isinstance(found, bool) and least <= found < math.inf
    if not number or (open_end and found == least):
        raise InputError(
            f"{where}: {name} must be a finite number {'>' if open_end else '>='} {least:g}. Received: {name}={found}. "
            "Use a number, or a schedule of keras.optimizers.schedules."
        )
    return float(found)


def to_config(setting: Setting) -> float | JsonObject:
    """The form of a setting in a configuration: a number, or the configuration of a schedule."""
    return keras.saving.serialize_keras_object(setting) if callable(setting) else setting


def check_logits(where: str, teacher: Tensor, student: Tensor, *, least: int = 2) -> None:
    """Checks the shapes of teacher and student logits.

    Args:
        where: Name of the loss, for the message.
        teacher: [..., C] teacher logits.
        student: [..., C] student logits.
        least: Smallest number of classes, >= 1.

    Raises:
        ModelError: The shapes differ, or there are fewer than `least` classes.
    """
    if not _fit(teacher.shape, student.shape):
        raise ModelError(
            f"{where}: teacher and student logits must have the same positions and the same rank and class count. "
            f"Received: teacher {tuple(teacher.shape)}, student {tuple(student.shape)}. Use models with equal outputs."
        )
    if student.shape[-1] is not None and student.shape[-1] < least:
        remedy = (
            "Use MeanSquared, or build binary models with two logits instead of one."
            if student.shape[-1] == 1
            else "Use SoftTarget."
        )
        raise ModelError(
            f"{where}: needs at least {least} classes, one logit each. Received: {student.shape[-1]}. {remedy}"
        )


def _fit(one: Shape, other: Shape) -> bool:
    """Whether two shapes are equal where both are known: a smaller one would be broadcast without an error."""
    return len(one) == len(other) and all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))


def labels(where: str, y: Tensor | None, logits: Tensor) -> Tensor:
    """Converts labels to one-hot rows.

    Args:
        where: Name of the loss, for the message.
        y: [B, ...] or [B, ..., 1] class indices, or [B, ..., C] one-hot rows.
        logits: [B, ..., C] logits that the labels belong to, C >= 2.

    Returns:
        [B, ..., C] float32. The row of an index outside 0..C-1, such as that of an ignored pixel, is 0.

    Raises:
        InputError: y is None, or has other positions than the logits.
    """
    if y is None:
        raise InputError(f"{where}: needs labels. Received: y=None. Train on (x, y), or use SoftTarget.")
    y = ops.convert_to_tensor(y)
    if len(y.shape) == len(logits.shape) and y.shape[-1] == 1:
        y = ops.squeeze(y, axis=-1)
    one_hot = y if len(y.shape) == len(logits.shape) else ops.one_hot(ops.cast(y, "int32"), logits.shape[-1])
    if not _fit(one_hot.shape, logits.shape):
        raise InputError(
            f"{where}: labels must be one class index, or one one-hot row, for each row of logits. Received: labels "
            f"{tuple(y.shape)}, logits {tuple(logits.shape)}. Correct the shape of y."
        )
    return ops.cast(one_hot, "float32")


def cross_entropy(one_hot: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy −Σ_c y_c · log softmax(z)_c over the last axis: [..., C], [..., C] -> [...]."""
    return -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last axis: [..., C], [..., C] -> [...].

    Log-probabilities of both are used: the gradient of clipped probabilities would vanish where the two disagree
    confidently. See `divergence_of` for the precision at high temperatures.
    """
    return divergence_of(ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1), teacher - student)


def divergence_of(log_p: Tensor, log_q: Tensor, difference: Tensor) -> Tensor:
    """KL(p || q) over the last axis, precise also where p and q are almost equal.

    The sum `Σ p · (log p − log q)` cancels: at temperature 1e4 its terms are near 1e-4, the result is near 1e-8, and
    float32 rounds by 1e-7. With c the difference of the logits minus its mean under p, `KL = log Σ p · exp(−c)`.
    Because of `Σ p · c = 0` this is `log(1 + Σ p · h(−c))` with `h(x) = exp(x) − 1 − x`, a sum of terms >= 0. It is
    used where every |c| <= 1, with the power series of h.

    Args:
        log_p: [..., C] log-probabilities of the teacher.
        log_q: [..., C] log-probabilities of the student.
        difference: [..., C] `log_p − log_q` up to a constant, computed from the logits.

    Returns:
        [...] float32.
    """
    p = ops.exp(log_p)
    centred = difference - ops.sum(p * difference, axis=-1, keepdims=True)
    x = ops.clip(-centred, -1.0, 1.0)
    series = 0.0  # h(x) / x²
    for power in range(12, 1, -1):
        series = series * x + 1 / math.factorial(power)
    near = ops.log1p(ops.sum(p * x * x * series, axis=-1))
    return ops.where(ops.all(ops.abs(centred) <= 1, axis=-1), near, ops.sum(p * (log_p - log_q), axis=-1))


def unit(x: Tensor, axis: int = -1) -> Tensor:
    """Divides by the L2 norm along an axis, or by 1e-12 where the norm is smaller."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-24))


def flat(x: Tensor) -> Tensor:
    """Flattens all axes but the first: [B, ...] -> [B, D]."""
    return ops.reshape(x, (ops.shape(x)[0], math.prod(x.shape[1:])))
