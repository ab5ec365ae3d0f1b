"""Classification: each sample has exactly one class, and a model one logit for each.

Accuracy, its exact intervals and the confusion matrix are computed by `tfkd.validation.scores`, in NumPy: scikit-learn
takes longer to import than such a validation takes to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd.tasks.task import Metric, Task

if TYPE_CHECKING:
    import keras


class Classification(Task):
    """Chooses one of C classes by C logits; labels are class numbers, int64 [N]."""

    name = "classification"
    labels = "classes"
    metrics = (
        Metric("accuracy", "Accuracy"),
        Metric("macro_f1", "Macro F1"),
        Metric("ece", "Calibration error", larger_is_better=False, is_quality=False),
    )
    soft_loss = "soft_target"
    stored = "classes"
    is_classification = True

    def hard_loss(self) -> keras.losses.Loss:
        """Cross-entropy of logits."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_metrics(self) -> list[keras.Metric | str]:
        """The accuracy."""
        return ["accuracy"]


TASK = Classification()
