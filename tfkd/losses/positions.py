"""Losses between maps of logits: of segmentation, heatmaps and other outputs with positions."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import ModelError
from tfkd.losses.loss import (
    DistillationLoss,
    Setting,
    check_logits,
    check_number,
    divergence,
    to_config,
    value_at,
)


@keras.saving.register_keras_serializable(package="tfkd")
class ChannelWise(DistillationLoss):
    """Kullback-Leibler divergence between the softmax of each channel over all positions.

    `T² / C · Σ_c KL(softmax_positions(teacher_c / T) || softmax_positions(student_c / T))`: where in the image a class
    is, whatever its logits are compared with those of other classes.

    Args:
        temperature: Temperature T > 0, or a schedule over steps. The paper uses 4 for logits.

    Call arguments:
        teacher: [B, ..., C] teacher logits with at least one axis of positions.
        student: [B, ..., C] student logits.
        y: Not used.

    Returns:
        [B] float32, each >= 0 up to rounding.

    Raises:
        ModelError: The logits have no positions, or the shapes differ.

    Reference:
        Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction (arXiv:2011.13256), section 3.2.

    >>> round(float(ChannelWise(temperature=1.0)([[[2.0], [0.0]]], [[[0.0], [0.0]]])[0]), 4)
    0.3278
    """

    def __init__(self, temperature: Setting = 4.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number(type(self).__name__, "temperature", temperature, open_end=True)

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits(type(self).__name__, teacher, student, least=1)
        if len(student.shape) < 3:
            raise ModelError(
                f"ChannelWise: logits must have positions, [B, ..., C]. Received: {tuple(student.shape)}. Use "
                "SoftTarget."
            )
        temperature = value_at(self.temperature, step)
        teacher, student = (_by_channel(z) / temperature for z in (teacher, student))
        return temperature**2 * ops.mean(divergence(teacher, student), axis=-1)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "temperature": to_config(self.temperature)}


def _by_channel(x: Tensor) -> Tensor:
    """[B, ..., C] -> [B, C, positions]."""
    rows = ops.reshape(x, (ops.shape(x)[0], math.prod(x.shape[1:-1]), x.shape[-1]))
    return ops.transpose(rows, (0, 2, 1))
