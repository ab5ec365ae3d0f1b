"""Classification: each sample has exactly one class, and a model one logit for each.

Accuracy, its exact intervals and the confusion matrix are computed by `tfkd.validation.scores`, in NumPy: scikit-learn
takes longer to import than such a validation takes to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd.tasks.task import Metric, Task

if TYPE_CHECKING:
    import keras
    import numpy as np

# Largest difference of the sum of probabilities from 1: those of an int8 softmax are rounded to 1/256.
_SUM_TOLERANCE = 0.05


def sum_to_1(outputs: np.ndarray) -> bool:
    """Whether outputs are probabilities of classes that exclude each other, up to a rounding to 8 bits.

    Values that are all 0 or 1 prove nothing: logits may be such.

    Args:
        outputs: Real outputs, [..., C].
    """
    import numpy as np

    sums = outputs.sum(axis=-1, dtype=np.float64)
    near = outputs.min() >= 0 and np.abs(sums - 1).max() <= _SUM_TOLERANCE
    return bool(near and not np.isin(outputs, (0, 1)).all())


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
