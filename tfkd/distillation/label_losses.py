"""The loss on labels of a training configuration, its metrics, and the weights of classes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from tfkd._internal.types import Tensor
from tfkd.data import Split
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.losses.loss import cross_entropy, labels
from tfkd.models import own_code
from tfkd.tasks import CLASSIFICATION, Task


class LabelLoss(keras.losses.Loss):
    """Cross-entropy of logits with labels that are smoothed, or that are mixtures of classes.

    `loss = −Σ_c ((1 − s) · y_c + s / C) · log softmax(z)_c`

    Args:
        smoothing: Share s of a label that is divided among all C classes, 0 <= s < 1.

    Reference:
        Szegedy et al.: Rethinking the Inception Architecture (arXiv:1512.00567), section 7.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(name="label_loss", dtype="float32")
        self.smoothing = smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Labels, class numbers [B] or mixtures [B, C], and logits [B, C] -> [B]."""
        rows = labels("label_loss", y_true, y_pred)
        smoothed = (1 - self.smoothing) * rows + self.smoothing / y_pred.shape[-1]
        return cross_entropy(smoothed, y_pred)


class _Own(keras.losses.Loss):
    """A function of the user: (labels [B], logits [B, C]) -> [B]."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(name=getattr(function, "__name__", "label_loss"), dtype="float32")
        self._function = function

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._function(y_true, y_pred)


def label_loss(config: TrainingConfig, *, mixed: bool = False, task: Task = CLASSIFICATION) -> keras.losses.Loss:
    """The loss on labels.

    Args:
        config: Label smoothing, or the user's own loss.
        mixed: Whether labels are mixtures of classes, [B, C].
        task: The task, which has a default loss.

    Raises:
        InputError: The loss of the user does not exist, or is no loss of Keras, or the task has no classes to smooth or
            mix.
    """
    if not task.is_classification and (config.label_smoothing or mixed):
        what = "label_smoothing" if config.label_smoothing else "mixing of samples"
        raise InputError(
            f"{what} is for classes that exclude each other. Received: the task {task.name}. Leave it out."
        )
    if config.label_loss:
        found = own_code.find(config.label_loss)
        return own_code.call(config.label_loss, keras.losses.Loss) if inspect.isclass(found) else _Own(found)
    if config.label_smoothing or mixed:
        return LabelLoss(config.label_smoothing)
    return task.hard_loss()


def metrics(config: TrainingConfig, *, mixed: bool = False, task: Task = CLASSIFICATION) -> list[keras.Metric]:
    """The accuracy or the metrics of another task, and the metrics of the user.

    Args:
        config: Names of the user's metrics.
        mixed: Whether labels are mixtures of classes, [B, C]; a sample is then correct if the largest logit is that of
            the largest part.
        task: The task.

    Raises:
        InputError: A metric does not exist, or is no metric of Keras.
    """
    own = [keras.metrics.MeanMetricWrapper(_is_correct, name="accuracy")] if mixed else task.training_metrics()
    return [*own, *map(_metric, config.metrics)]


def _is_correct(y_true: Tensor, y_pred: Tensor) -> Tensor:
    rows = labels("accuracy", y_true, y_pred)
    return ops.cast(ops.argmax(rows, axis=-1) == ops.argmax(y_pred, axis=-1), "float32")


def _metric(name: str) -> keras.metrics.Metric:
    found = own_code.find(name)
    if inspect.isclass(found):
        return own_code.call(name, keras.metrics.Metric)
    return keras.metrics.MeanMetricWrapper(found, name=name.partition(":")[2])


def class_weights(config: TrainingConfig, split: Split) -> dict[int, float] | None:
    """The weight of each class, for `keras.Model.fit`; None if all weigh 1.

    Args:
        config: `balanced`, for N / (C · n_c) with the n_c of N samples that are of class c, or weights by name.
        split: Training split.

    Raises:
        InputError: There is no class of a name, or all weights are 0.

    Reference:
        King, Zeng: Logistic Regression in Rare Events Data, Political Analysis 9, 2001, section 4; and
        `sklearn.utils.class_weight.compute_class_weight`.
    """
    given = config.class_weights
    if given is None:
        return None
    if split.label_kind != "classes":
        raise InputError(
            f"class_weights need labels that are classes. Received: {split.label_kind} in {split.name!r}. Leave it out."
        )
    if isinstance(given, str):
        counts = np.bincount(split.y, minlength=split.num_classes)
        return {
            number: len(split) / (split.num_classes * max(count, 1)) for number, count in enumerate(counts.tolist())
        }
    for name in given:
        if name not in split.class_names:
            raise InputError(f"class_weights: {_unknown_class(name, split.class_names)}")
    found = {number: given.get(name, 1.0) for number, name in enumerate(split.class_names)}
    if not any(found.values()):
        raise InputError("class_weights: a class must weigh more than 0. Received: 0 for all. Leave it out.")
    return found


def _unknown_class(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Classes: {', '.join(known[:20])}."
    return f"each name must be that of a class. Received: {name!r}. {hint}"
