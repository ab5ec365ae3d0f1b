"""Distillation of the attention of Transformers."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.errors import ModelError
from tfkd.losses.loss import DistillationLoss

# Below it a probability counts as that of a masked token.
_SMALLEST = 1e-7


@keras.saving.register_keras_serializable(package="tfkd")
class AttentionScores(DistillationLoss):
    """Mean squared distance of attention scores: what each token looks at, in each head.

    `mean_h,q,k (t_hqk − s_hqk)²` with the scores `q · k / √d` of teacher and student before their softmax. They follow
    from the probabilities: `log p` is the score up to a number for each query, which the softmax does not see, so the
    mean over the keys is subtracted from both. Keys that the teacher masks do not count. Models with other numbers of
    heads are compared by the mean of their heads.

    Call arguments:
        teacher: [B, heads, T, S] probabilities of the teacher, the feature `<layer>/scores` of an attention layer.
        student: [B, heads', T, S] those of the student.
        y: Not used.

    Returns:
        [B] float32, each >= 0.

    Raises:
        ModelError: The features have another rank, or teacher and student have other numbers of tokens.

    Reference:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding (arXiv:1909.10351), equation 7.
    """

    aligns = "none"

    def call(self, teacher: Tensor, student: Tensor, y: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        if len(teacher.shape) != 4 or len(student.shape) != 4 or teacher.shape[2:] != student.shape[2:]:
            raise ModelError(
                "AttentionScores: features must be [B, heads, tokens, tokens] of the same tokens. Received: teacher "
                f"{tuple(teacher.shape)}, student {tuple(student.shape)}. Use the feature <layer>/scores of layers "
                "MultiHeadAttention."
            )
        if teacher.shape[1] != student.shape[1]:
            teacher, student = (ops.mean(p, axis=1, keepdims=True) for p in (teacher, student))
        counted = ops.cast(teacher > _SMALLEST, "float32")
        number = ops.maximum(ops.sum(counted, axis=-1, keepdims=True), 1.0)
        centred = []
        for p in (teacher, student):
            scores = ops.log(ops.maximum(p, _SMALLEST))
            centred.append(scores - ops.sum(counted * scores, axis=-1, keepdims=True) / number)
        squares = ops.sum(counted * ops.square(centred[0] - centred[1]), axis=-1) / number[..., 0]
        return ops.mean(squares, axis=(1, 2))
