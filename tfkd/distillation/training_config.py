"""The settings of one training run."""

from __future__ import annotations

from typing import Literal, Self

import pydantic
from pydantic import Field

from tfkd.errors import InputError


class TrainingConfig(pydantic.BaseModel):
    """How a model is trained: by default Adam with a learning rate that falls to 0 along a cosine."""

    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: int = Field(default=20, ge=1, description="Passes over the training split.")
    batch_size: int = Field(default=64, ge=1, description="Samples per training step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Highest learning rate; see schedule.")
    optimizer: Literal["adam", "adamw", "sgd", "lion"] = Field(
        default="adam", description="adam, adamw, sgd (with Nesterov momentum) or lion."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float | None = Field(
        default=None,
        examples=[1e-4],
        ge=0,
        description="Decoupled weight decay: a step takes away learning_rate * weight_decay of each kernel. Biases and "
        "normalization do not decay. Left out: 0.01 for adamw, 0 for the others.",
    )
    schedule: Literal["cosine", "step", "constant"] = Field(
        default="cosine",
        description="How the learning rate falls: cosine (to 0), step (to a tenth after half of the steps, to a "
        "hundredth after three quarters) or constant.",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps in which the rate rises from 0 first; for cosine."
    )
    clip_norm: float | None = Field(
        default=None,
        examples=[1.0],
        gt=0,
        description="Largest norm of the gradient of all weights. Left out: no limit.",
    )
    augment: Literal["none", "crop_flip"] = Field(
        default="none", description="Augmentation of images: none, or crop_flip (padding, random crop and flip)."
    )
    padding: int = Field(default=4, ge=0, description="Padding of crop_flip, in pixels.")
    flip: bool = Field(default=True, description="Whether crop_flip mirrors images at random.")

    @pydantic.model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup and self.schedule != "cosine":
            raise InputError(f'warmup needs schedule = "cosine". Received: schedule = "{self.schedule}". Leave it out.')
        return self
