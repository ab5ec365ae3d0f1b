"""The settings of one training run."""

from __future__ import annotations

from typing import Literal

import pydantic


class TrainingConfig(pydantic.BaseModel):
    """How a model is trained: Adam with a learning rate that falls to 0 along a cosine.

    Args:
        epochs: Passes over the training split, >= 1.
        batch_size: Samples per step, >= 1.
        learning_rate: Learning rate of the first step, > 0.
        augment: `none` or `crop_flip` (images).
        padding: Pixels of padding before the crop of `crop_flip`, >= 0.
        flip: Whether `crop_flip` mirrors images at random.
    """

    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: int = pydantic.Field(default=20, ge=1)
    batch_size: int = pydantic.Field(default=64, ge=1)
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    augment: Literal["none", "crop_flip"] = "none"
    padding: int = pydantic.Field(default=4, ge=0)
    flip: bool = True
