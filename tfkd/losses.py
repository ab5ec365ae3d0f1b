"""Distillation losses: (teacher, student, y) -> one float32 value per sample.

Each loss is a Keras layer, so that what it learns (if anything) is tracked, trained and saved like any weight.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


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
    """A number as it is; a schedule, which is callable on the step, as its value there."""
    return setting(step) if callable(setting) else setting


def check_logits(where: str, teacher: Any, student: Any) -> None:
    """Refuses logits that do not belong together.

    Args:
        where: name of the caller, for the message.
        teacher: [..., C] logits, C >= 2.
        student: [..., C] logits, of the teacher's shape.

    Raises:
        ValueError: when the class counts or the ranks differ, or when there is one class only.
    """
    if len(teacher.shape) != len(student.shape) or teacher.shape[-1] != student.shape[-1]:
        raise ValueError(
            f"{where}: teacher and student logits must have the same rank and class count. Received: teacher "
            f"{tuple(teacher.shape)}, student {tuple(student.shape)}. Give both models the same number of outputs."
        )
    if student.shape[-1] is not None and student.shape[-1] < 2:
        raise ValueError(
            f"{where}: needs at least 2 classes, one logit each. Received: {student.shape[-1]}. "
            "Give a binary model two logits instead of one."
        )


@keras.saving.register_keras_serializable(package="tfkd")
class SoftTarget(DistillationLoss):
    """Kullback-Leibler divergence from the softened teacher to the softened student.

    `T² · Σ_c p_c · (log p_c − log q_c)` with `p = softmax(teacher / T)`, `q = softmax(student / T)`. The factor T²
    keeps the size of the gradient as T changes. Both logarithms come from `log_softmax`, so that a confident
    disagreement keeps its gradient.

    Args:
        temperature: T > 0; 1.0 for no softening.

    Call arguments:
        teacher: [B, ..., C] logits.
        student: [B, ..., C] logits.
        y: not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv:1503.02531), section 2.

    >>> round(float(SoftTarget(temperature=2.0)([[2.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    0.4438
    """

    def __init__(self, temperature: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
            raise ValueError(
                f"SoftTarget: temperature must be a finite number > 0. Received: temperature={temperature}. "
                "Use 1.0 for no softening."
            )
        self.temperature = float(temperature)

    def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
        check_logits(self.name, teacher, student)
        log_p = ops.log_softmax(teacher / self.temperature, axis=-1)
        log_q = ops.log_softmax(student / self.temperature, axis=-1)
        return self.temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
