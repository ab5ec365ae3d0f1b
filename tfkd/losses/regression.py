"""Distillation of values that a teacher does not know exactly."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import InputError
from tfkd.losses.loss import DistillationLoss, Setting, check_logits, check_number, to_config, value_at


@keras.saving.register_keras_serializable(package="tfkd")
class TeacherBounded(DistillationLoss):
    """Squared error to the labels of samples on which the student is not better than the teacher, for regression.

    `e_s = mean_d (student_d − y_d)²` where `e_s + margin > e_t = mean_d (teacher_d − y_d)²`, otherwise 0: the teacher
    is a bound, and its errors are not imitated.

    Args:
        margin: How much smaller than that of the teacher the squared error must be to count as better, >= 0, in the
            squared unit of the labels, or a schedule over steps.

    Call arguments:
        teacher: [B, ..., D] teacher outputs.
        student: [B, ..., D] student outputs.
        y: [B, ..., D] labels, or [B, ...] where D = 1; required.

    Returns:
        [B, ...] float32, each >= 0.

    Raises:
        InputError: There are no labels, or they have another shape.

    Reference:
        Chen et al.: Learning Efficient Object Detection Models with Knowledge Distillation (NIPS 2017), equation 6,
        "teacher bounded regression loss". Takamoto et al. (arXiv:2002.12597) reject labels far from the teacher's
        values instead.
    """

    def __init__(self, margin: Setting = 0.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("TeacherBounded", "margin", margin)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("TeacherBounded", teacher, student, least=1)
        if y is None:
            raise InputError("TeacherBounded: needs labels. Received: y=None. Train on (x, y), or use MeanSquared.")
        values = ops.cast(ops.convert_to_tensor(y), "float32")
        if len(values.shape) == len(student.shape) - 1 and student.shape[-1] == 1:
            values = values[..., None]
        check_logits("TeacherBounded, labels", values, student, least=1)
        error, bound = (ops.mean(ops.square(one - values), axis=-1) for one in (student, teacher))
        return ops.where(error + value_at(self.margin, step) > bound, error, 0.0)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "margin": to_config(self.margin)}
