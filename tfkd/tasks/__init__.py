"""What a model is for: labels, default losses and metrics of each task.

To add a task, write a module with a subclass of `ScoredTask` and add its instance to `TASKS`. The limits of a contract
on its metrics follow from `Task.metrics`; `tfkd.validation.limit_fields` lists them as fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError
from tfkd.tasks import (
    anomaly,
    binary,
    centroids,
    classification,
    detection,
    embedding,
    keypoints,
    multi_label,
    regression,
    segmentation,
    sequence_labelling,
)
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask, Task, Value

if TYPE_CHECKING:
    from tfkd.data import Split

__all__ = ["HELP", "NAMES", "TASKS", "ConstantAnswer", "Metric", "Scored", "ScoredTask", "Task", "Value", "find", "get"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        classification.TASK,
        binary.TASK,
        multi_label.TASK,
        segmentation.TASK,
        detection.TASK,
        centroids.TASK,
        keypoints.TASK,
        regression.TASK,
        anomaly.TASK,
        sequence_labelling.TASK,
        embedding.TASK,
    )
}
NAMES = tuple(TASKS)
CLASSIFICATION = classification.TASK

HELP = (
    f"Task: {', '.join(NAMES)}. By default it follows from the labels: floats are a regression, rows of 0 and 1 "
    "multi-label, masks a segmentation, boxes an object detection, points keypoints; two classes are binary where the "
    "model has one output, and class numbers a classification otherwise."
)


def get(name: str) -> Task:
    """The task of a name.

    Args:
        name: One of `NAMES`.

    Raises:
        InputError: There is none.
    """
    if name not in TASKS:
        raise InputError(f"task must be one of {', '.join(NAMES)}. Received: {name!r}.{suggestion(name, NAMES)}")
    return TASKS[name]


def find(split: Split, outputs: int | None = None, name: str | None = None) -> Task:
    """The task of a data set and a model.

    Args:
        split: Any split of the data.
        outputs: Number of outputs of a sample that the model has; None where it is not known.
        name: Name that the user gave; None to find it from labels and model.

    Raises:
        InputError: There is no task of that name, the labels are not those of the task, all have one class, or the
            task takes samples of one input.
    """
    if split.label_kind == "classes" and split.num_classes < 2:
        raise InputError(
            f"data {split.name!r}: labels must have two classes or more. Received: one, {split.class_names[0]!r}. Add "
            "samples of another class; for a regression declare the task."
        )
    if name is not None:
        task = get(name)
        task.check_labels(split)
    elif split.label_kind == "classes":
        task = binary.TASK if outputs == 1 and split.num_classes == 2 else classification.TASK
    else:
        task = next(task for task in TASKS.values() if task.labels == split.label_kind)
    if task.takes_one_input and isinstance(split.sample_shape, dict):
        raise InputError(
            f"task {task.name!r} takes samples of one input. Received: the inputs {', '.join(split.sample_shape)} of "
            f"{split.name!r}. Put them into one array, or choose another task."
        )
    return task.for_data(split)
