"""Losses on embeddings."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.losses.loss import DistillationLoss, check_logits, unit


@keras.saving.register_keras_serializable(package="tfkd")
class Cosine(DistillationLoss):
    """Distance of the directions of two embeddings of one size: `1 − cos(teacher, student)`.

    Call arguments:
        teacher: [B, ..., D] teacher embeddings.
        student: [B, ..., D] student embeddings.
        y: Not used.

    Returns:
        [B, ...] float32, 0..2.

    Reference:
        Budnik, Avrithis: Asymmetric metric learning for knowledge transfer (arXiv:2006.16331), section 3.3, where it is
        called regression.

    >>> round(float(Cosine()([[1.0, 0.0]], [[3.0, 4.0]])[0]), 4)
    0.4
    """

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        check_logits("Cosine", teacher, student, least=2)
        return 1.0 - ops.sum(unit(teacher) * unit(student), axis=-1)
