"""What a task is: its labels, default losses, metrics, and what a result on it holds.

Modules of this room import NumPy, Keras and scikit-learn inside functions: the command line reads the metrics for its
options, and `--help` loads none of them.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tfkd._internal.types import JsonObject, JsonRecord, Tensor
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from tfkd.data import Split

Unit = Literal["percent", "value", "ratio"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that says how good the outputs of a model are.

    Args:
        name: Name in contracts and records, such as `roc_auc`.
        label: Name in reports.
        unit: `percent`; `value`, the unit of the labels; or `ratio`, a number without a unit.
        larger_is_better: Whether larger values are better.
        high: Largest possible value.
        low: Smallest value that a limit may have.
        is_quality: Whether a limit on it bounds how good a model is. A constant answer may have no calibration error.
    """

    name: str
    label: str
    unit: Unit = "percent"
    larger_is_better: bool = True
    high: float = 100.0
    low: float = 0.0
    is_quality: bool = True

    @property
    def sign(self) -> int:
        """1 if larger values are better, -1 if smaller ones are."""
        return 1 if self.larger_is_better else -1


@dataclasses.dataclass(frozen=True)
class Value:
    """A value with its 95 % interval.

    Args:
        value: The value, in the unit of its metric.
        interval: Low and high end; None where the samples are too few to compute one.
    """

    value: float
    interval: tuple[float, float] | None = None

    def to_json(self) -> JsonObject:
        """The value as plain JSON values; null for a number that is not finite."""
        value = self.value if math.isfinite(self.value) else None
        return {"value": value, "interval": None if self.interval is None else list(self.interval)}


@dataclasses.dataclass(frozen=True)
class ConstantAnswer:
    """The comparison with the best constant answer.

    Args:
        metric: Name of the metric that was compared.
        value: What the constant answer reaches.
        better: Whether the model is significantly better, at 95 %, one-sided; None where the samples are too few.
        answer: The constant answer, as a sentence.
        units: What is resampled, such as `2 identities`; None for the samples.
    """

    metric: str
    value: float
    better: bool | None
    answer: str
    units: str | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of one model's outputs.

    Args:
        values: Value of each metric, in its unit.
        replicates: The same on bootstrap samples, float64 [B] for each metric.
        constant: Comparison with a constant answer.
        right: Whether each sample is answered correctly, bool [N]; None where a task has no right and wrong.
        errors: Size of the error on each sample, float64 [N]; None where a task has right and wrong instead.
        threshold: Threshold of the outputs above which an answer is positive; None for a task without one.
        details: What the report plots, as plain JSON values.
    """

    values: Mapping[str, float]
    replicates: Mapping[str, np.ndarray]
    constant: ConstantAnswer
    right: np.ndarray | None = None
    errors: np.ndarray | None = None
    threshold: float | None = None
    details: JsonRecord = dataclasses.field(default_factory=dict)


class Task(abc.ABC):
    """A task: what the outputs of a model mean.

    Attributes:
        name: Name in recipes, on the command line and in records.
        labels: Kind of its labels, see `tfkd.data.label_kinds`.
        metrics: Its metrics, the most important first.
        soft_loss: Name of its default distillation loss, see `tfkd.losses.NAMES`.
        gives_logits: Whether outputs are logits, so that a final softmax or sigmoid is removed for the training.
        has_threshold: Whether a metric depends on a threshold, which is chosen on the validation split.
        default_threshold: The threshold where none is chosen; None for that of the probability 0.5 of an output.
        stored: What a store of soft labels holds for it, see `tfkd.distillation.labels.kinds`; None where it has none.
        monitor: Name of the training log by which the best epoch is chosen.
        monitor_rises: Whether a higher value of that log is better.
        takes_one_input: Whether outputs are compared with the one array that a sample is.
        is_classification: Whether each sample has exactly one of several classes, and a model one logit for each: the
            task that recipes and commands assume, with accuracy, label smoothing, stored teacher logits and softmax.
    """

    name: str
    labels: str
    metrics: Sequence[Metric]
    soft_loss: str
    gives_logits: bool = True
    has_threshold: bool = False
    default_threshold: float | None = None
    stored: str | None = None
    monitor: str = "accuracy"
    monitor_rises: bool = True
    takes_one_input: bool = False
    is_classification: bool = False

    @property
    def primary(self) -> Metric:
        """The most important metric."""
        return self.metrics[0]

    def for_data(self, split: Split) -> Task:
        """The task with what it needs to know of a data set; itself where that is nothing."""
        return self

    def outputs(self, split: Split) -> int:
        """The size of the last axis of the outputs that a model for a split needs."""
        return split.num_classes

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        """What is wrong with the shape of a model's outputs for a split; None where it fits.

        Args:
            shape: Shape of the outputs of one sample; None for an axis of unknown size.
            split: The samples.

        Returns:
            What the outputs must be, such as `one output per class, 10 for digits`.
        """
        count, expected = math.prod(size or 1 for size in shape), self.outputs(split)
        if count == expected:
            return None
        what = "per class" if split.label_kind == "classes" else "per column of the labels"
        return f"one output{'' if expected == 1 else f' {what}'}, {expected} for {split.name}"

    @abc.abstractmethod
    def hard_loss(self) -> keras.losses.Loss:
        """The default loss on labels."""

    @abc.abstractmethod
    def training_metrics(self) -> list[keras.Metric | str]:
        """The metrics of `keras.Model.compile`."""

    @property
    def selection(self) -> Metric:
        """The metric by which the best of several models is chosen on validation samples: the first where possible."""
        return self.primary

    def with_targets(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of (inputs, what the loss on labels compares the outputs with), from those of a split."""
        return dataset

    def counts(self, y: Tensor) -> Tensor | None:
        """Which values of the distillation loss count, bool [B, ...]; None for all.

        Args:
            y: Labels of a batch.
        """
        return None

    def choose_threshold(self, outputs: np.ndarray, samples: Split) -> float | None:
        """The threshold that is best on some samples; None where these are too few.

        Args:
            outputs: Real values [N, ...] in the shape of the model's output.
            samples: The N samples.
        """
        return None

    def check_labels(self, split: Split) -> None:
        """Refuses labels of another kind.

        Raises:
            InputError: The labels of the split are not those of the task.
        """
        if split.label_kind != self.labels:
            raise InputError(
                f"task {self.name!r} needs labels of the kind {self.labels!r}. Received: {split.label_kind!r} in "
                f"{split.name!r}. Load the data with labels={self.labels!r}, or choose another task."
            )


class ScoredTask(Task):
    """A task whose outputs are compared with labels by its own metrics: each but classification."""

    @abc.abstractmethod
    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """Compares outputs with labels.

        Args:
            outputs: Real values [N, ...] in the shape of the model's output, not quantized ones.
            split: The N samples.
            threshold: Threshold of the outputs; not used by a task without one.
            seed: Seed of the bootstrap. Two models on the same samples with the same seed have paired replicates.
        """
