"""Distillation of detectors with anchors: rows of four offsets and the logits of the classes."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import ModelError
from tfkd.losses.loss import DistillationLoss, Setting, check_logits, check_number, to_config, value_at


@keras.saving.register_keras_serializable(package="tfkd")
class AnchorTarget(DistillationLoss):
    """Sigmoid distillation of the classes of each anchor, and of its offsets where the teacher sees an object.

    `[Σ_a Σ_c KL(Bernoulli(p_ac) || Bernoulli(q_ac)) + box_weight · Σ_a w_a · |t_a − s_a|₁ / 4] / max(1, Σ_a w_a)` with
    the probabilities p and q of teacher and student, their offsets t and s, and the certainty of the teacher
    `w_a = max_c p_ac`. Anchors without an object, which are most, have little weight in both terms.

    Args:
        box_weight: Weight of the offsets, >= 0, or a schedule over steps.

    Call arguments:
        teacher: [B, A, 4 + C] offsets and logits of the teacher.
        student: [B, A, 4 + C] those of the student.
        y: Not used.

    Returns:
        [B] float32, each >= 0 up to rounding.

    Raises:
        ModelError: The outputs have another rank, or teacher and student have other shapes.

    Reference:
        The classes: Chen et al.: Learning Efficient Object Detection Models with Knowledge Distillation, NeurIPS 2017,
        section 3, with independent classes; the offsets weighted by the certainty of the teacher are our own choice.
    """

    def __init__(self, box_weight: Setting = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.box_weight = check_number(type(self).__name__, "box_weight", box_weight)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits(type(self).__name__, teacher, student, least=5)
        if len(student.shape) != 3:
            raise ModelError(
                f"AnchorTarget: outputs must be [B, anchors, 4 + classes]. Received: {tuple(student.shape)}. Use "
                "SigmoidTarget."
            )
        logits, other = teacher[..., 4:], student[..., 4:]
        divergence = sum(
            ops.sigmoid(sign * logits) * (ops.log_sigmoid(sign * logits) - ops.log_sigmoid(sign * other))
            for sign in (1.0, -1.0)
        )
        certainty = ops.max(ops.sigmoid(logits), axis=-1)
        offsets = ops.mean(ops.abs(teacher[..., :4] - student[..., :4]), axis=-1)
        total = ops.sum(divergence, axis=(1, 2))
        total += value_at(self.box_weight, step) * ops.sum(certainty * offsets, axis=-1)
        return total / ops.maximum(ops.sum(certainty, axis=-1), 1.0)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "box_weight": to_config(self.box_weight)}
