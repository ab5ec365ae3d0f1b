"""Test data in any form as a split, for a model that is judged on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfkd import tasks
from tfkd._internal.types import SampleData

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split


def as_test_split(test: SampleData, model: TFLiteModel, task: str | None) -> Split:
    """Test data as a split; the number of classes of other forms than a split is that of the model.

    Args:
        test: Labelled test data, see `tfkd.data.as_split`.
        model: The model, or that of the judged output.
        task: Name of the task; None to find it.
    """
    from tfkd.data import Split, as_split

    if isinstance(test, Split):
        return test
    outputs = outputs_of(model)
    labels = None if task is None else tasks.get(task).labels
    return as_split(test, "test", num_classes=2 if outputs == 1 else outputs, labels=labels)


def outputs_of(model: TFLiteModel) -> int:
    """The number of values of the first output for a sample."""
    return int(np.prod(model.outputs[0].sample_shape))
