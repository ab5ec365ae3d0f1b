"""The result of validating one model on one target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfkd._internal.types import JsonObject
from tfkd.targets.measurement import Measurement
from tfkd.validation.class_scores import ClassMetrics
from tfkd.validation.scores import AccuracyDifference, OutputDivergence, Scores
from tfkd.validation.task_results import TaskResult

# The confusion matrix of 1,000 classes has a million numbers: it is kept in the Row and left out of the JSON.
_MAX_CONFUSION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one target. Unknown values are None.

    Args:
        name: Name of the model, such as `teacher` or `full_int8`.
        target: Specification of the target; None for a Keras model.
        bytes: Size of the .tflite; for a Keras model, of its weights in memory.
        parameters: Number of weights of a Keras model; None for a .tflite.
        samples: Number of samples in the test split.
        accuracy: Share of samples whose largest output is that of the label, 0..1. Of equal outputs the first counts.
        accuracy_interval: 95 % Wilson interval of the accuracy.
        constant_accuracy: Accuracy of the best constant answer, which is the share of the most frequent label, 0..1.
        top5: Share of samples whose label is among the five largest outputs; None for 10 classes or fewer.
        agreement: Share of samples with the same predicted label as the reference.
        flips: Samples that regressed (right in the reference, wrong here) and that were fixed (wrong there, right
            here).
        worst_class: (name, accuracy) of the class with the lowest accuracy.
        confusion: Confusion matrix, int64 [C, C]: rows are labels, columns are predictions.
        ties: Share of samples whose largest output is shared by two classes or more.
        differences: Accuracy of the row minus that of the `reference`, of the `teacher` and of the student trained
            `alone`, by these names, as far as they are known.
        output_divergence: See `OutputDivergence`; None for the first target and for a model with float outputs.
        class_metrics: Macro F1 and calibration error of a classification.
        result: Metrics of a task other than classification; the fields from accuracy to ties are then None.
        measurement: What the target measured.
        invalid_reason: Why there are no numbers, or why they are not valid; None for a valid row.
        broken: Whether the model is at fault: the target refused it, it crashed, or its outputs are not finite.
        unavailable: Whether the target is at fault: a program or package that it needs is missing on this platform.
        teacher_bytes: Size of the weights of the teacher in memory; None for a Keras model and without a teacher.
    """

    name: str
    target: str | None
    bytes: int
    parameters: int | None
    samples: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    constant_accuracy: float | None = None
    top5: float | None = None
    agreement: float | None = None
    flips: tuple[int, int] | None = None
    worst_class: tuple[str, float] | None = None
    confusion: np.ndarray | None = None
    ties: float | None = None
    differences: Mapping[str, AccuracyDifference] = dataclasses.field(default_factory=dict)
    output_divergence: OutputDivergence | None = None
    class_metrics: ClassMetrics | None = None
    result: TaskResult | None = None
    measurement: Measurement | None = None
    invalid_reason: str | None = None
    broken: bool = False
    unavailable: bool = False
    teacher_bytes: int | None = None

    @property
    def valid(self) -> bool:
        """Whether the row has numbers that are valid."""
        return self.invalid_reason is None

    @property
    def drift(self) -> OutputDivergence | None:
        """The former name of `output_divergence`, which scripts of the time before 0.1.0 read."""
        return self.output_divergence

    def with_scores(self, scores: Scores) -> Row:
        """A copy with the scores of the model's outputs."""
        return dataclasses.replace(self, **vars(scores))

    def to_json(self) -> JsonObject:
        """The row as plain JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("accuracy_interval", "flips", "worst_class"):
            record[name] = None if record[name] is None else list(record[name])
        small = self.confusion is not None and len(self.confusion) <= _MAX_CONFUSION_CLASSES
        record["confusion"] = self.confusion.tolist() if self.confusion is not None and small else None
        record["differences"] = {role: one.to_json() for role, one in self.differences.items()}
        record["output_divergence"] = dataclasses.asdict(self.output_divergence) if self.output_divergence else None
        record["class_metrics"] = self.class_metrics.to_json() if self.class_metrics else None
        record["result"] = self.result.to_json() if self.result else None
        record["measurement"] = self.measurement.to_json() if self.measurement else None
        return {**record, "valid": self.valid}
