"""The settings of one training run."""

from __future__ import annotations

from typing import Literal

import pydantic


class TrainingConfig(pydantic.BaseModel):
    """How a model is trained: Adam with a learning rate that falls to 0 along a cosine."""

    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: int = pydantic.Field(default=20, ge=1, description="Passes over the training split.")
    batch_size: int = pydantic.Field(default=64, ge=1, description="Samples per training step.")
    learning_rate: float = pydantic.Field(
        default=1e-3, gt=0, description="Initial learning rate of Adam; it falls to 0 along a cosine."
    )
    augment: Literal["none", "crop_flip"] = pydantic.Field(
        default="none", description="Augmentation of images: none, or crop_flip (padding, random crop and flip)."
    )
    padding: int = pydantic.Field(default=4, ge=0, description="Padding of crop_flip, in pixels.")
    flip: bool = pydantic.Field(default=True, description="Whether crop_flip mirrors images at random.")
