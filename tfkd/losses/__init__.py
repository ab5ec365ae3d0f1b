"""Distillation losses: (teacher, student, y) -> one float32 value per sample.

Each loss is a Keras layer, so that what it learns (if anything) is tracked, trained and saved like any weight.
"""

from __future__ import annotations

import difflib
from typing import Any

from tfkd.errors import InputError
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

__all__ = [
    "CTKD", "DIST", "DKD", "WSLD", "AttentionTransfer", "ContrastiveDistillation", "DistillationLoss", "FromKeras",
    "Hint", "MeanSquared", "ProbabilisticTransfer", "RelationalKD", "SimKD", "SimilarityPreserving", "SoftTarget",
    "StandardizedSoftTarget", "VariationalInformation", "build", "get", "value_at",
]  # fmt: skip

# Losses on outputs by the names that recipes and the command line use.
NAMES: dict[str, type[DistillationLoss]] = {
    "soft_target": SoftTarget,
    "standardized": StandardizedSoftTarget,
    "dkd": DKD,
    "dist": DIST,
    "ctkd": CTKD,
    "wsld": WSLD,
    "mean_squared": MeanSquared,
}


def build(name: str, **options: Any) -> DistillationLoss:
    """A loss on outputs by name.

    Args:
        name: one of `NAMES`.
        **options: of the loss, such as `temperature=4.0`.

    Raises:
        ValueError: no loss of that name, or no such option.

    >>> type(build("dkd", beta=2.0)).__name__
    'DKD'
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise InputError(
            f"losses.build: name must be one of {', '.join(NAMES)}. Received: {name!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    known = [key for key in NAMES[name]().get_config() if key not in ("name", "trainable", "dtype", "autocast")]
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "no options"
            raise InputError(f"losses.build: {name} takes {takes}. Received: {option}={options[option]!r}. Check it.")
    return NAMES[name](**options)


def get(loss: Any) -> DistillationLoss:
    """A distillation loss as it is; a Keras loss on logits, or one of keras.distillation, wrapped in `FromKeras`."""
    return loss if isinstance(loss, DistillationLoss) else FromKeras(loss)
