"""The table [distillation] of a recipe: how the student is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from tfkd._internal.types import JsonObject
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.recipes.feature_section import FeaturePair
from tfkd.tasks import CLASSIFICATION, Task


class Distillation(TrainingConfig):
    """How the student is trained; a student without a teacher is trained the same way for comparison."""

    alpha: float = Field(
        default=0.9, ge=0, le=1, description="Weight of the distillation loss; the loss on labels has 1 - alpha."
    )
    temperature: float | None = Field(
        default=None,
        examples=[4.0],
        gt=0,
        description="Temperature that divides the logits of teacher and student. Left out: the loss's default.",
    )
    loss: str | None = Field(
        default=None,
        examples=["soft_target"],
        description="Distillation loss: soft_target, standardized, dkd, dist, ctkd, wsld, mean_squared, "
        "teacher_bounded, sigmoid_target, heatmap_target, channel_wise, anchor_target, cosine, "
        "relational, or module:function of your own that is called with loss_options and returns a loss, "
        "see tfkd.losses. Left out: that of the task, such as soft_target for a classification and "
        "mean_squared for a regression.",
    )
    loss_options: JsonObject = Field(default={}, description="Other arguments of the distillation loss.")
    features: list[FeaturePair] = Field(default=[], description=(FeaturePair.__doc__ or "").strip())
    views: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        default=None,
        examples=[8],
        description="Store the teacher's logits once, for this many augmented views per sample, and train from the "
        "store. all: every shift and flip of crop_flip, no more than there are epochs. Left out: the teacher runs in "
        "each step.",
    )
    label_hours: float | None = Field(
        default=None,
        examples=[0.5],
        gt=0,
        description='Time for views = "all", in hours. The student is trained with the views that are labelled by '
        "then, at least one. Left out: no limit.",
    )
    allow_bad_teacher: bool = Field(
        default=False,
        description="Whether the student is trained although its teacher is no better than a constant answer, expects "
        "other inputs or classes, or is less accurate than the student alone.",
    )
    seeds: int = Field(
        default=3, ge=1, description="Number of trainings of each student; the best on the validation split ships."
    )

    @pydantic.model_validator(mode="after")
    def _check_views(self) -> Self:
        if isinstance(self.views, str):
            if self.augment_names != ["crop_flip"]:
                raise InputError(
                    f'views = "all" needs augment = "crop_flip". Received: {self.augment!r}. Use it, or views = 8.'
                )
        elif self.label_hours is not None:
            raise InputError(f'label_hours needs views = "all". Received: views = {self.views}. Leave it out.')
        elif (self.views or 1) > 1 and not self.augment_names:
            raise InputError(f'{self.views} views need an augmentation. Set augment = "crop_flip", or views = 1.')
        if self.views and self.features:
            raise InputError("views and features exclude each other: a store has no inner outputs. Leave one out.")
        return self

    def _own_code(self) -> Iterator[str]:
        yield from super()._own_code()
        yield from (name for name in (self.loss, *(one.loss for one in self.features)) if name and ":" in name)

    @property
    def soft(self) -> JsonObject:
        """Name and options of the distillation loss of a classification, for `tfkd.losses.build`."""
        return self.soft_of(CLASSIFICATION)

    def soft_of(self, task: Task) -> JsonObject:
        """Name and options of the distillation loss, for `tfkd.losses.build`.

        Args:
            task: The task, which has a default loss.
        """
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        return {"name": self.loss or task.soft_loss, **temperature, **self.loss_options}

    @property
    def training(self) -> TrainingConfig:
        """The settings that the student without a teacher is trained with too."""
        return TrainingConfig.model_validate(self.model_dump(include=set(TrainingConfig.model_fields)))
