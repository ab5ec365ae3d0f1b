"""Losses on independent decisions: one logit, or one for each label."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.losses.loss import DistillationLoss, Setting, check_logits, check_number, to_config, value_at


@keras.saving.register_keras_serializable(package="tfkd")
class SigmoidTarget(DistillationLoss):
    """Kullback-Leibler divergence between softened probabilities of independent decisions.

    `T² · mean_c [p_c · log(p_c / q_c) + (1 − p_c) · log((1 − p_c) / (1 − q_c))]` with `p = sigmoid(teacher / T)` and
    `q = sigmoid(student / T)`. The mean over the labels, not the sum, has the magnitude of the binary cross-entropy of
    Keras. The logarithms are computed by `log_sigmoid`, so that the gradient does not vanish where teacher and student
    disagree confidently.

    Args:
        temperature: Temperature T > 0, or a schedule over steps; 1.0 for no softening.

    Call arguments:
        teacher: [B, ..., C] teacher logits, C >= 1.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B, ...] float32, each >= 0 up to rounding.

    Reference:
        Yang et al.: Multi-Label Knowledge Distillation (arXiv:2308.06453), section 3.2, without its weights.

    >>> round(float(SigmoidTarget(temperature=1.0)([[2.0]], [[0.0]])[0]), 4)
    0.3278
    """

    def __init__(self, temperature: Setting = 1.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number(type(self).__name__, "temperature", temperature, open_end=True)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits(type(self).__name__, teacher, student, least=1)
        temperature = value_at(self.temperature, step)
        teacher, student = teacher / temperature, student / temperature
        terms = sum(
            ops.sigmoid(sign * teacher) * (ops.log_sigmoid(sign * teacher) - ops.log_sigmoid(sign * student))
            for sign in (1.0, -1.0)
        )
        return temperature**2 * ops.mean(terms, axis=-1)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "temperature": to_config(self.temperature)}
