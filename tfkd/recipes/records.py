"""What the steps of a run hand on to later steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfkd.conversion.tflite import CalibrationAudit
from tfkd.recipes.step_cache import Record

History = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Trained(Record):
    """A trained Keras model.

    Args:
        file: .keras file, relative to the folder of the run.
        history: Logs of each epoch, by name.
        val_accuracy: Accuracy on the validation split, 0..1.
        test_accuracy: Accuracy on the test split, 0..1.
    """

    file: str
    history: History
    val_accuracy: float
    test_accuracy: float

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    @property
    def summary(self) -> str:
        return f"accuracy {self.val_accuracy:.4f} on validation"


@dataclasses.dataclass(frozen=True)
class Examined(Record):
    """An examination before a training.

    Args:
        accuracy: Accuracy of the teacher on validation samples, 0..1; None if unknown.
        samples: Number of these samples.
    """

    accuracy: float | None = None
    samples: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        return ()

    @property
    def summary(self) -> str:
        return "" if self.accuracy is None else f"accuracy {self.accuracy:.4f} on {self.samples} validation samples"


@dataclasses.dataclass(frozen=True)
class Labels(Record):
    """A store of the teacher's logits.

    Args:
        store: Folder of the store, relative to the folder of the run.
    """

    store: str

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
    """

    file: str
    ok: bool

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
