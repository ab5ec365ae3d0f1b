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
        return ops.mean(self._divergences(teacher, student, step), axis=-1)

    def _divergences(self, teacher: Tensor, student: Tensor, step: Tensor | None) -> Tensor:
        """The divergence of each decision, [B, ..., C]."""
        check_logits(type(self).__name__, teacher, student, least=1)
        temperature = value_at(self.temperature, step)
        teacher, student = teacher / temperature, student / temperature
        terms = sum(
            ops.sigmoid(sign * teacher) * (ops.log_sigmoid(sign * teacher) - ops.log_sigmoid(sign * student))
            for sign in (1.0, -1.0)
        )
        return temperature**2 * terms

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "temperature": to_config(self.temperature)}


@keras.saving.register_keras_serializable(package="tfkd")
class HeatmapTarget(SigmoidTarget):
    """`SigmoidTarget` of heatmaps, with more weight where the teacher sees a point.

    `Σ w · KL / Σ w` over positions and points with `w = 1 + (point_weight − 1) · sigmoid(teacher)`: the weights of the
    loss on labels, see `tfkd.tasks.heatmap_loss`. Without them the cells without a point, which are most, decide.

    Args:
        temperature: Temperature T > 0, or a schedule over steps; 1.0 for no softening.
        point_weight: Weight of a cell in which the teacher is certain of a point, >= 1.

    Call arguments:
        teacher: [B, h, w, K] teacher logits.
        student: [B, h, w, K] student logits.
        y: Not used.

    Returns:
        [B] float32, each >= 0 up to rounding.
    """

    def __init__(self, temperature: Setting = 1.0, point_weight: float = 20.0, **kwargs: object) -> None:
        super().__init__(temperature, **kwargs)
        check_number(type(self).__name__, "point_weight", point_weight, least=1.0)
        self.point_weight = float(point_weight)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        divergences = self._divergences(teacher, student, step)
        weights = 1 + (self.point_weight - 1) * ops.sigmoid(teacher)
        axes = tuple(range(1, len(student.shape)))
        return ops.sum(weights * divergences, axis=axes) / ops.sum(weights, axis=axes)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "point_weight": self.point_weight}
