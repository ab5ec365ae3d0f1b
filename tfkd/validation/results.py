"""What validation found of one model on one target."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfkd.targets.measurement import Measurement
from tfkd.validation.scores import OutputDivergence

# A confusion matrix of 1,000 classes is a million numbers: it stays on the Row and is left out of the JSON.
_MAX_CONFUSION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one target; for a Keras model the target is None. What is unknown is None.

    Args:
        name: of the model: `teacher`, `full_int8`.
        target: the target's specification.
        bytes: of the .tflite; for a Keras model of its weights in memory.
        parameters: number of weights; None for a .tflite.
        samples: of the test set.
        accuracy: share of samples whose highest output is the label, 0..1; the first of equal outputs counts.
        accuracy_interval: 95 % Wilson interval of the accuracy.
        top5: share of samples whose label is among the five highest outputs; None for 10 classes or fewer.
        agreement: share of samples with the reference's label.
        flips: samples that the reference has (right, wrong) and this model has (wrong, right).
        worst_class: (name, accuracy) of the class with the lowest accuracy.
        confusion: [C, C] int64, rows are labels and columns predictions.
        ties: share of samples whose highest output is shared by two classes or more.
        output_divergence: see `OutputDivergence`; None for the first target and for a model with float outputs.
        measurement: what the target gave.
        invalid_reason: why the numbers cannot be trusted or do not exist; None for a valid row.
        broken: the model itself is at fault: it was refused, it crashed or its outputs are not finite.
    """

    name: str
    target: str | None
    bytes: int
    parameters: int | None
    samples: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    top5: float | None = None
    agreement: float | None = None
    flips: tuple[int, int] | None = None
    worst_class: tuple[str, float] | None = None
    confusion: np.ndarray | None = None
    ties: float | None = None
    output_divergence: OutputDivergence | None = None
    measurement: Measurement | None = None
    invalid_reason: str | None = None
    broken: bool = False

    @property
    def valid(self) -> bool:
        """Whether the numbers exist and can be trusted."""
        return self.invalid_reason is None

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("accuracy_interval", "flips", "worst_class"):
            record[name] = None if record[name] is None else list(record[name])
        small = self.confusion is not None and len(self.confusion) <= _MAX_CONFUSION_CLASSES
        record["confusion"] = self.confusion.tolist() if self.confusion is not None and small else None
        record["output_divergence"] = dataclasses.asdict(self.output_divergence) if self.output_divergence else None
        record["measurement"] = self.measurement.to_json() if self.measurement else None
        return {**record, "valid": self.valid}
