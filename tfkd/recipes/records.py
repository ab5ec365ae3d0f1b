"""What the steps of a run pass to later steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from tfkd.conversion.tflite import CalibrationAudit
from tfkd.recipes.step_cache import Record
from tfkd.tasks import Task

History = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Trained(Record):
    """A trained Keras model.

    Args:
        file: .keras file, relative to the folder of the run.
        history: Logs of each epoch, by name.
        val_accuracy: Accuracy on the validation split, 0..1; None for a task other than classification.
        test_accuracy: Accuracy on the test split, 0..1; likewise.
        metric: Name of the metric by which models of another task are chosen; None for a classification.
        val_score: That metric on the validation split.
        test_score: The first metric of the task on the test split.
    """

    file: str
    history: History
    val_accuracy: float | None
    test_accuracy: float | None
    metric: str | None = None
    val_score: float | None = None
    test_score: float | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    @property
    def summary(self) -> str:
        if self.metric is not None:
            return f"{self.metric} {self.val_score:.4g} on validation"
        return f"accuracy {self.val_accuracy:.4f} on validation"

    def quality(self, task: Task) -> float:
        """How good the model is on the validation split; more is better."""
        value = self.val_accuracy if self.metric is None else self.val_score
        return -math.inf if value is None or math.isnan(value) else task.selection.sign * value


@dataclasses.dataclass(frozen=True)
class Examined(Record):
    """An examination before a training.

    Args:
        accuracy: Accuracy of the teacher on validation samples, 0..1; None if unknown.
        samples: Number of these samples.
        score: First metric of another task than classification; None as for the accuracy.
        score_interval: Its 95 % interval, low and high.
    """

    accuracy: float | None = None
    samples: int = 0
    score: float | None = None
    score_interval: tuple[float, float] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return ()

    @property
    def summary(self) -> str:
        if self.score is not None:
            return f"score {self.score:.4g} on {self.samples} validation samples"
        return "" if self.accuracy is None else f"accuracy {self.accuracy:.4f} on {self.samples} validation samples"


@dataclasses.dataclass(frozen=True)
class Labels(Record):
    """A store of the teacher's logits.

    Args:
        store: Folder of the store, relative to the folder of the run.
        views: Number of views that are labelled where time was the limit; None where all of them are.
    """

    store: str
    views: int | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return (f"{self.store}/zarr.json",)


@dataclasses.dataclass(frozen=True)
class Converted(Record):
    """A .tflite.

    Args:
        file: .tflite file, relative to the folder of the run.
        audit: Audit of its calibration samples.
        student: .keras file with the changed weights, from which another optimization continues.
        findings: Findings of the comparison with the Keras model.
    """

    file: str
    audit: CalibrationAudit | None = None
    student: str | None = None
    findings: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,) if self.student is None else (self.file, self.student)


@dataclasses.dataclass(frozen=True)
class Validated(Record):
    """A validation.

    Args:
        file: The validation as JSON, relative to the folder of the run.
        ok: See `tfkd.Validation.ok`.
        final: Whether a repetition would find the same: no device failed, and no measurement was disturbed.
    """

    file: str
    ok: bool
    final: bool = True

    @property
    def is_final(self) -> bool:
        return self.final

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)


@dataclasses.dataclass(frozen=True)
class Reported(Record):
    """The reports.

    Args:
        pages: Files relative to the folder of the run, by format.
    """

    pages: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.pages.values())
