"""Distillation of detectors with anchors: rows of four offsets and the logits of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import InputError, ModelError
from tfkd.losses.loss import (
    DistillationLoss,
    Setting,
    check_logits,
    check_number,
    divergence,
    to_config,
    value_at,
)
from tfkd.tasks import anchors
from tfkd.tasks.anchor_loss import claims_of


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


@keras.saving.register_keras_serializable(package="tfkd")
class LocalizationDistillation(DistillationLoss):
    """Localization distillation: the divergence of distributions of offsets, where the labels have boxes.

    `Σ_a w_a · T² / 4 · Σ_offsets KL(softmax(t / T) || softmax(s / T)) / max(1, Σ_a w_a)` for detectors that predict
    each of the four offsets of an anchor as the logits t and s of a distribution, such as the layer `distributions` of
    `tfkd.models.ssdlite` with `bins`. The weight w is 1 of anchors that overlap a labelled box with at least
    `least_iou` or are its best one, else 0; without boxes it is 1 of all.

    Args:
        image_size: Height and width of the images in pixels, from which the anchors follow.
        temperature: T > 0, or a schedule over steps.
        least_iou: Smallest IoU of an anchor with a labelled box, 0..1. 0.5 is the region in which anchors learn boxes
            from labels; less adds anchors around it, where a teacher says more than the labels.

    Call arguments:
        teacher: [B, A, 4, bins] logits of the teacher.
        student: [B, A, 4, bins] those of the student.
        y: Boxes [B, M, 5], see `tfkd.data.dense_labels`; optional.

    Returns:
        [B] float32, each >= 0 up to rounding.

    Raises:
        InputError: An argument is out of range, or image_size is missing.
        ModelError: The outputs have another rank, or teacher and student have other shapes.

    Reference:
        Zheng et al.: Localization Distillation for Dense Object Detection (arXiv:2102.12252), equation 3 and section
        3.3; the regions are chosen by the IoU here, in place of the DIoU.
    """

    aligns = "none"

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        temperature: Setting = 10.0,
        least_iou: float = 0.25,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        where = type(self).__name__
        self.image_size = None if image_size is None else tuple(image_size)
        self.temperature = check_number(where, "temperature", temperature, open_end=True)
        if not 0 <= least_iou <= 1:
            raise InputError(f"{where}: least_iou must be in 0..1. Received: {least_iou}. Use 0.25.")
        self.least_iou = float(least_iou)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        where = type(self).__name__
        check_logits(where, teacher, student)
        if len(student.shape) != 4:
            raise ModelError(
                f"{where}: features must be [B, anchors, 4, bins]. Received: {tuple(student.shape)}. Use the layer "
                "distributions of tfkd.models.ssdlite with bins."
            )
        temperature = value_at(self.temperature, step)
        moved = temperature**2 * ops.mean(divergence(teacher / temperature, student / temperature), axis=-1)
        weights = ops.ones_like(moved)
        if y is not None and len(y.shape) == 3:
            if self.image_size is None:
                raise InputError(
                    f"{where}: the anchors follow from the size of the images. Received: no image_size. Pass "
                    "image_size, such as loss_options = { image_size = [48, 48] }."
                )
            layout = anchors.for_outputs(self.image_size, student.shape[1])
            claims = ops.max(claims_of(ops.cast(y, "float32"), layout), axis=1)
            weights = ops.cast(claims >= self.least_iou, "float32")
        return ops.sum(weights * moved, axis=-1) / ops.maximum(ops.sum(weights, axis=-1), 1.0)

    def get_config(self) -> dict[str, object]:
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "temperature": to_config(self.temperature),
            "least_iou": self.least_iou,
        }
