"""Distillation losses: (teacher, student, y) -> one float32 value per sample.

Each loss is a Keras layer, so that weights of its own (a learned temperature, a projection) are tracked, trained and
saved. To add a loss on outputs, write a subclass of `DistillationLoss` and add one line to `NAMES`::

    @keras.saving.register_keras_serializable(package="tfkd")
    class Absolute(DistillationLoss):
        # mean_c |teacher_c − student_c|

        def call(self, teacher, student, y=None, step=None):
            return ops.mean(ops.abs(teacher - student), axis=-1)

    NAMES = {..., "absolute": Absolute}

Recipes, the command line and `build` then know it as `absolute`. Settings are arguments of `__init__` with defaults,
returned by `get_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError
from tfkd.losses.anchors import AnchorTarget, LocalizationDistillation
from tfkd.losses.attention import AttentionScores
from tfkd.losses.embeddings import Cosine
from tfkd.losses.features import (
    AttentionTransfer,
    ContrastiveDistillation,
    Hint,
    ProbabilisticTransfer,
    RelationalKD,
    SimilarityPreserving,
    SimKD,
    VariationalInformation,
)
from tfkd.losses.loss import DistillationLoss, value_at
from tfkd.losses.outputs import CTKD, DIST, DKD, WSLD, FromKeras, MeanSquared, SoftTarget, StandardizedSoftTarget
from tfkd.losses.positions import ChannelWise
from tfkd.losses.regression import TeacherBounded
from tfkd.losses.sigmoid import HeatmapTarget, SigmoidTarget
from tfkd.models import own_code

if TYPE_CHECKING:
    import keras

__all__ = [
    "CTKD", "DIST", "DKD", "WSLD", "AnchorTarget", "AttentionScores", "AttentionTransfer", "ChannelWise",
    "ContrastiveDistillation", "Cosine", "DistillationLoss", "FromKeras", "HeatmapTarget", "Hint",
    "LocalizationDistillation", "MeanSquared", "ProbabilisticTransfer", "RelationalKD", "SigmoidTarget", "SimKD",
    "SimilarityPreserving", "SoftTarget", "StandardizedSoftTarget", "TeacherBounded", "VariationalInformation", "build",
    "build_feature", "get", "value_at",
]  # fmt: skip

# The registry of losses on outputs, by the names that recipes and the command line use.
NAMES: dict[str, type[DistillationLoss]] = {
    "soft_target": SoftTarget,
    "standardized": StandardizedSoftTarget,
    "dkd": DKD,
    "dist": DIST,
    "ctkd": CTKD,
    "wsld": WSLD,
    "mean_squared": MeanSquared,
    "teacher_bounded": TeacherBounded,
    "sigmoid_target": SigmoidTarget,
    "heatmap_target": HeatmapTarget,
    "channel_wise": ChannelWise,
    "anchor_target": AnchorTarget,
    "cosine": Cosine,
    "relational": RelationalKD,
}

# The registry of losses on inner outputs, by the names that recipes use.
FEATURE_NAMES: dict[str, type[DistillationLoss]] = {
    "hint": Hint,
    "attention_transfer": AttentionTransfer,
    "similarity": SimilarityPreserving,
    "relational": RelationalKD,
    "probabilistic": ProbabilisticTransfer,
    "variational": VariationalInformation,
    "contrastive": ContrastiveDistillation,
    "simkd": SimKD,
    "attention_scores": AttentionScores,
    "localization": LocalizationDistillation,
}


def build(name: str, **options: object) -> DistillationLoss:
    """Builds a loss on outputs by its name.

    Args:
        name: One of `NAMES`; or `module:function` of the user, which returns a loss that `get` takes.
        **options: Arguments of the loss, such as `temperature=4.0`.

    Returns:
        The loss, for `tfkd.Distiller(soft_loss=...)`.

    Raises:
        InputError: The name or an option is unknown, or the loss refuses a value.

    >>> type(build("dkd", beta=2.0)).__name__
    'DKD'
    """
    return _build(NAMES, name, options)


def build_feature(name: str, **options: object) -> DistillationLoss:
    """Builds a loss on inner outputs by its name.

    Args:
        name: One of `FEATURE_NAMES`; or `module:function` of the user, which returns such a loss.
        **options: Arguments of the loss, such as `distance=25.0`.

    Returns:
        The loss, for `tfkd.features.Feature`.

    Raises:
        InputError: The name or an option is unknown, or the loss refuses a value.

    >>> type(build_feature("relational", angle=10.0)).__name__
    'RelationalKD'
    """
    return _build(FEATURE_NAMES, name, options)


def _build(known: Mapping[str, type[DistillationLoss]], name: str, options: Mapping[str, object]) -> DistillationLoss:
    if ":" in name:
        return get(own_code.call(name, object, **options))
    if name not in known:
        raise InputError(
            f"losses.build: name must be one of {', '.join(known)}. Received: {name!r}.{suggestion(name, known)}"
        )
    takes = [key for key in known[name]().get_config() if key not in ("name", "trainable", "dtype", "autocast")]
    for option in options:
        if option not in takes:
            raise InputError(
                f"losses.build: {name} takes {', '.join(takes) or 'no options'}. Received: {option}="
                f"{options[option]!r}. Remove or rename it."
            )
    return known[name](**options)


def get(loss: DistillationLoss | keras.Loss) -> DistillationLoss:
    """Converts a loss to a DistillationLoss.

    Args:
        loss: A DistillationLoss, which is returned as it is; or a Keras loss on logits or a loss of
            keras.distillation, which is wrapped in `FromKeras`.

    Returns:
        The loss itself, or a `FromKeras` around it.

    Raises:
        InputError: `loss` is of another type, or takes probabilities.
    """
    return loss if isinstance(loss, DistillationLoss) else FromKeras(loss)
