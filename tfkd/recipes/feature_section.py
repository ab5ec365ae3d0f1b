"""The tables [[distillation.features]] of a recipe: losses between inner layers of teacher and student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tfkd._internal.types import JsonObject
from tfkd.recipes.section import Section

if TYPE_CHECKING:
    from tfkd.distillation.features import Feature


class FeaturePair(Section):
    """A loss between an inner layer of the student and one of the teacher; shapes are adapted by trained layers."""

    student_layer: str = Field(examples=["code_relu"], description="Name of the student's layer.")
    teacher_layer: str = Field(examples=["code_relu"], description="Name of the teacher's layer.")
    loss: str = Field(
        default="hint",
        description="Loss: hint, attention_transfer, similarity, relational, probabilistic, variational, contrastive, "
        "simkd, attention_scores, localization, or module:function of your own.",
    )
    loss_options: JsonObject = Field(default={}, description="Arguments of the loss.")
    weight: float = Field(default=1.0, gt=0, description="Factor of this loss in the total loss.")

    def build(self) -> Feature:
        """The pair for the Distiller.

        Raises:
            InputError: The loss or an option is unknown.
        """
        from tfkd import losses
        from tfkd.distillation.features import Feature

        loss = losses.build_feature(self.loss, **self.loss_options)
        return Feature(loss, self.student_layer, self.teacher_layer, self.weight)
