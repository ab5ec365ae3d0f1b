"""The settings of one training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from tfkd._internal.suggestion import suggestion
from tfkd.data import augmentations
from tfkd.errors import InputError

OPTIMIZERS = ("adam", "adamw", "sgd", "lion")
# `module:function` of the user's own code.
OwnCode = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
# Keys that an optimizer of the user does not take: its function sets them.
_OF_OUR_OPTIMIZERS = ("momentum", "weight_decay", "clip_norm", "ema")


class TrainingConfig(pydantic.BaseModel):
    """How a model is trained: by default with the optimizer that suits it, and a learning rate that falls to 0."""

    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: int = Field(default=20, ge=1, description="Passes over the training split.")
    batch_size: int = Field(default=64, ge=1, description="Samples per training step.")
    learning_rate: float | None = Field(
        default=None,
        examples=[1e-3],
        gt=0,
        description="Highest learning rate; see schedule. Left out: 0.001, or as optimizer says.",
    )
    optimizer: str | None = Field(
        default=None,
        examples=["adam"],
        description="adam, adamw, sgd (with Nesterov momentum), lion, or module:function of your own, which is called "
        "with the learning rate (a number or a schedule) and returns a keras.optimizers.Optimizer. Left out: adam. "
        "Where learning_rate is left out too, a classifier of convolutions and batch normalization that starts from "
        "random weights is trained with sgd, learning rate 0.1, weight decay 0.005 and warm-up 0.05.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float | None = Field(
        default=None,
        examples=[1e-4],
        ge=0,
        description="Decoupled weight decay: a step takes away learning_rate * weight_decay of each kernel. Biases and "
        "normalization do not decay. Left out: 0.01 for adamw, 0 for the others, or as optimizer says.",
    )
    schedule: Literal["cosine", "step", "constant"] = Field(
        default="cosine",
        description="How the learning rate falls: cosine (to 0), step (to a tenth after half of the steps, to a "
        "hundredth after three quarters) or constant.",
    )
    warmup: float | None = Field(
        default=None,
        examples=[0.05],
        ge=0,
        lt=1,
        description="Share of the steps in which the rate rises from 0 first; for cosine. Left out: 0, or as optimizer "
        "says.",
    )
    clip_norm: float | None = Field(
        default=None,
        examples=[1.0],
        gt=0,
        description="Largest norm of the gradient of all weights. Left out: no limit.",
    )
    ema: float | None = Field(
        default=None,
        examples=[0.999],
        gt=0,
        lt=1,
        description="Exponential moving average of the weights with this momentum per step. The averaged weights are "
        "validated and ship. Left out: the weights of the last step.",
    )
    early_stopping: int | None = Field(
        default=None,
        examples=[5],
        ge=1,
        description="Stop after this many epochs without a higher validation accuracy, and keep the weights of the "
        "best epoch. Left out: all epochs, and the weights of the last.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a label that is divided among all classes, in the loss on labels.",
    )
    class_weights: str | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        examples=["balanced"],
        description="Weight of the samples of each class in the losses: balanced (the inverse of the number of its "
        "samples, 1 on average over the samples), or a table such as { cat = 2.0 }; other classes weigh 1. Left out: "
        "all weigh 1.",
    )
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        default="float32",
        description="Precision of the layers during the training: float32, mixed_float16 or mixed_bfloat16, which are "
        "faster on a GPU. The weights, and the model that is saved, are float32.",
    )
    label_loss: OwnCode | None = Field(
        default=None,
        examples=["mine:loss"],
        description="Loss on labels of your own: module:function, called with labels [B] and logits [B, C], returns "
        "[B]; or a class of keras.losses.Loss. Left out: cross-entropy.",
    )
    metrics: list[OwnCode] = Field(
        default=[],
        description="Metrics of your own beside the accuracy: module:function, called with labels and logits, or "
        "classes of keras.metrics.Metric.",
    )
    callbacks: list[OwnCode] = Field(
        default=[],
        description="Keras callbacks of your own: module:function, called without arguments, or classes of "
        "keras.callbacks.Callback.",
    )
    augment: str | list[str] = Field(
        default="none",
        examples=[["resized_crop", "flip", "mixup"]],
        description="Augmentation of the training samples: none, or one or several of "
        f"{', '.join(augmentations.NAMES)}, in this order, or module:function of your own, called with a sample and a "
        "seed of TensorFlow. mixup and cutmix mix the samples of a batch.",
    )
    augment_options: dict[str, dict[str, bool | int | float]] = Field(
        default={},
        examples=[{"rotation": {"degrees": 10.0}}],
        description="Arguments of augmentations by name.",
    )
    padding: int = Field(default=4, ge=0, description="Padding of crop_flip, in pixels.")
    flip: bool = Field(default=True, description="Whether crop_flip mirrors images at random.")

    @pydantic.model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if self.optimizer is None:
            return self
        if ":" not in self.optimizer and self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, or module:function. Received: "
                f"{self.optimizer!r}.{suggestion(self.optimizer, OPTIMIZERS)}"
            )
        fields = type(self).model_fields
        unused = [name for name in _OF_OUR_OPTIMIZERS if getattr(self, name) != fields[name].default]
        if ":" in self.optimizer and unused:
            raise InputError(
                f"{unused[0]} has no effect on an optimizer of your own. Received: optimizer = {self.optimizer!r}. Set "
                "it in that function, and leave it out here."
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup and self.schedule != "cosine":
            raise InputError(f'warmup needs schedule = "cosine". Received: schedule = "{self.schedule}". Leave it out.')
        return self

    @pydantic.model_validator(mode="after")
    def _check_losses(self) -> Self:
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise InputError(
                f"class_weights must be balanced, or a weight for each class. Received: {self.class_weights!r}. "
                "Use balanced."
            )
        if self.label_loss and self.label_smoothing:
            raise InputError("label_smoothing has no effect on a loss of your own. Leave one of them out.")
        return self

    @pydantic.model_validator(mode="after")
    def _check_augment(self) -> Self:
        augmentations.check(self.augment_names, self.augment_options)
        return self

    @property
    def augment_names(self) -> list[str]:
        """Names of the augmentations, in order."""
        if isinstance(self.augment, list):
            return self.augment
        return [] if self.augment == "none" else [self.augment]

    @property
    def mixes(self) -> list[str]:
        """Names of the augmentations that mix the samples of a batch."""
        return augmentations.mixes(self.augment_names)

    @property
    def own_code(self) -> list[str]:
        """Names `module:function` of the user's code that the training executes."""
        return list(self._own_code())

    def _own_code(self) -> Iterator[str]:
        if self.optimizer and ":" in self.optimizer:
            yield self.optimizer
        if self.label_loss:
            yield self.label_loss
        yield from (*self.metrics, *self.callbacks, *(name for name in self.augment_names if ":" in name))
