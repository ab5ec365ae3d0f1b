"""Examines a trained teacher: its outputs, its accuracy on the data, and what earlier runs left."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfkd import data
from tfkd._internal.types import Nest
from tfkd.data.constant_answer import least_right
from tfkd.errors import InputError, ModelError
from tfkd.recipes.findings import Finding
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.step_cache import read_state
from tfkd.tasks import CLASSIFICATION, Metric, Scored, ScoredTask, Task, Value, bootstrap
from tfkd.validation import class_order
from tfkd.validation.scores import measure_difference

if TYPE_CHECKING:
    import keras

# Enough samples to distinguish a broken teacher from a sound one.
_SAMPLES = 1000
# With fewer than these per class, and in total, accuracy says nothing about the order of classes or the input range.
_LEAST_PER_CLASS, _LEAST = 2, 16
# Samples that are run again, alone and together.
_REPEATED = 16


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was found out about a teacher.

    Args:
        findings: The findings.
        accuracy: Accuracy on validation samples, 0..1; None if the teacher does not fit the data or they are too few.
        samples: Number of these samples.
        score: The metric by which models of another task than classification are chosen, on these samples; None as for
            the accuracy.
    """

    findings: tuple[Finding, ...]
    accuracy: float | None = None
    samples: int = 0
    score: Value | None = None


def examine(teacher: keras.Model, splits: data.Splits, task: Task = CLASSIFICATION) -> Examination:
    """Examines a trained teacher on at most 1,000 validation samples.

    Args:
        teacher: The teacher.
        splits: The data that the teacher sees.
        task: The task.

    Raises:
        ModelError: The teacher is a subclassed model that does not take the samples, or several inputs.
    """
    from tfkd.models import inputs

    split = splits.val if len(splits.val) else splits.train
    sample = split.sample(min(_SAMPLES, len(split)))
    teacher = _with_shapes(teacher, sample)
    found = [*_examine_form(teacher, sample, task)]
    if not _fits(teacher, sample, task):
        return Examination(tuple(found))
    x, classes = inputs.taken(teacher, sample.x[:], "The teacher"), sample.num_classes
    if not found and task.gives_logits:
        found += _examine_probabilities(teacher, x)
    outputs = _run(teacher, x, len(sample))
    found += _examine_mode(teacher, x, outputs[:_REPEATED])
    if isinstance(task, ScoredTask):
        scored = task.score(outputs, sample)
        found += _examine_score(scored, task, len(sample))
        name = task.selection.name
        score = Value(scored.values[name], bootstrap.interval(scored.replicates[name]))
        return Examination(tuple(found), None, len(sample), score)
    if len(sample) < max(_LEAST, _LEAST_PER_CLASS * classes):
        few = Finding(
            "warning",
            "Too few validation samples to examine the teacher's accuracy.",
            f"{len(sample)} samples of {classes} classes",
            "Raise data.validation, or add samples. Without them nothing shows that the teacher fits the labels.",
        )
        return Examination((*found, few))
    accuracy = float(np.mean(outputs.argmax(-1) == sample.y))
    found += _examine_accuracy(teacher, sample, outputs, accuracy)
    return Examination(tuple(found), accuracy, len(sample))


def _examine_score(scored: Scored, task: Task, samples: int) -> Iterator[Finding]:
    """A teacher of another task than classification that is no better than a constant answer."""
    constant, metric = scored.constant, next(one for one in task.metrics if one.name == scored.constant.metric)
    what = constant.units.split()[-1] if constant.units else "samples"
    evidence = (
        f"{metric.label} {scored.values[metric.name]:.4g} on {samples} validation samples"
        f"{f' of {constant.units}' if constant.units else ''}. {constant.answer}"
    )
    if constant.better is None:
        yield Finding(
            "warning",
            f"Too few validation {what} to examine the teacher.",
            evidence,
            f"Raise data.validation, or add {what}. Without them nothing shows that the teacher fits the labels.",
        )
    elif not constant.better:
        yield Finding(
            "error",
            "The teacher is not better than a constant answer.",
            evidence,
            "Train it, give the file that was trained on this data set, or declare the range of its input.",
        )


def compare_scores(teacher: Examination, student_score: float, metric: Metric) -> Finding | None:
    """A finding on a teacher that is worse than a student without it, in the first metric of a task.

    The finding is an error where the student is outside of the 95 % interval of the teacher, otherwise a warning.

    Args:
        teacher: The examination of the teacher.
        student_score: The metric of the student on the validation split.
        metric: The metric.

    Returns:
        The finding; None if the teacher is at least as good, or one of both is unknown.
    """
    if teacher.score is None or not metric.sign * (student_score - teacher.score.value) > 0:
        return None
    interval = teacher.score.interval
    best = None if interval is None else max(metric.sign * end for end in interval)
    return Finding(
        "error" if best is not None and metric.sign * student_score > best else "warning",
        "The teacher is worse than the student without it.",
        f"{metric.label} {teacher.score.value:.4g} on {teacher.samples} validation samples; the student has "
        f"{student_score:.4g}",
        "Train a better teacher.",
    )


def _with_shapes(teacher: keras.Model, sample: data.Split) -> keras.Model:
    """A teacher that tells the shapes of its input and output, which a subclassed one does not.

    Raises:
        ModelError: A subclassed teacher does not take the samples.
    """
    import keras

    from tfkd.models import inputs

    if hasattr(teacher, "output_shape"):
        return teacher
    if isinstance(sample.x, data.NamedArrays):
        inputs.of(teacher)  # raises
    symbolic = keras.Input(sample.input_shape)
    try:
        return keras.Model(symbolic, teacher(symbolic, training=False), name=teacher.name)
    except Exception as error:  # of the user's code
        raise ModelError(
            f"The teacher {teacher.name!r} must take samples of the shape {sample.input_shape}. Received: {error}. "
            "Give the teacher that was trained on this data set."
        ) from error


def _examine_form(teacher: keras.Model, sample: data.Split, task: Task) -> Iterator[Finding]:
    """Outputs that are not logits by the graph of the model, and shapes that do not fit the data."""
    from tfkd.models import logits

    try:
        logits.check_gives_logits("teacher", teacher, activation=task.gives_logits)
    except InputError as error:
        yield Finding(
            "error",
            "The teacher's outputs cannot be used.",
            str(error),
            "Save the teacher with one output of logits [batch, classes]: without a softmax at its end.",
        )
    if not _fits(teacher, sample, task) and isinstance(teacher.output_shape, tuple):
        several = isinstance(sample.x, data.NamedArrays) or not isinstance(teacher.input_shape, tuple)
        shape = _inputs_of(teacher) if several else teacher.input_shape[1:]
        yield Finding(
            "error",
            "The teacher does not fit the data.",
            f"its input is {shape} and its output {teacher.output_shape[1:]}; the data are "
            f"{sample.sample_shape} with {sample.num_classes} classes, which need "
            f"{task.check_outputs(teacher.output_shape[1:], sample) or 'such an output'}",
            _ADD_CHANNELS
            if isinstance(sample.sample_shape, tuple) and (*sample.sample_shape, 1) == shape
            else "Give the teacher that was trained on this data set.",
        )


_ADD_CHANNELS = "Save x with an axis for the channels, x[..., None]: floats [N, H, W] are read as sequences."


def _inputs_of(teacher: keras.Model) -> str:
    """The names and shapes of several inputs."""
    from tfkd.models import inputs

    return ", ".join(map(str, inputs.of(teacher)))


def _fits(teacher: keras.Model, sample: data.Split, task: Task) -> bool:
    """Whether a teacher takes the samples, and has one output of the shape of the labels."""
    from tfkd.models import inputs

    shapes = (teacher.output_shape, teacher.input_shape)
    if not isinstance(shapes[0], tuple) or task.check_outputs(tuple(shapes[0][1:]), sample) is not None:
        return False
    if isinstance(sample.x, data.NamedArrays):
        return inputs.fit(teacher, sample.x)
    return isinstance(shapes[1], tuple) and tuple(shapes[1][1:]) == sample.input_shape  # of any batch size


def _examine_probabilities(teacher: keras.Model, x: Nest) -> Iterator[Finding]:
    """Outputs that are probabilities by their values."""
    from tfkd.models import logits

    try:
        with warnings.catch_warnings(record=True) as hints:
            warnings.simplefilter("always")
            logits.check_are_logits("teacher", teacher, x)
    except InputError as error:
        yield Finding("error", "The teacher returns probabilities.", str(error), "Remove its softmax or sigmoid.")
        return
    for hint in hints:
        yield Finding("warning", "The teacher may return probabilities.", str(hint.message), "Check its last layer.")


def _run(model: keras.Model, x: Nest, count: int, batch: int = 128) -> np.ndarray:
    """The outputs of a model for the first `count` samples of arrays in the structure of its inputs."""
    import keras

    parts = [slice(i, min(i + batch, count)) for i in range(0, count, batch)]
    batches = [keras.tree.map_structure(lambda array, part=part: array[part], x) for part in parts]
    return np.concatenate([np.asarray(model(one, training=False), "float32") for one in batches])


def _examine_mode(teacher: keras.Model, x: Nest, outputs: np.ndarray) -> Iterator[Finding]:
    """Outputs that depend on chance, or on the rest of the batch: a layer runs in training mode."""
    count = len(outputs)
    first, second, alone = _run(teacher, x, count), _run(teacher, x, count), _run(teacher, x, count, batch=1)
    scale = max(float(np.abs(outputs).max()), 1e-6)
    for what, other in (("from call to call", second), ("with the rest of the batch", alone)):
        change = float(np.abs(other - first).max()) / scale
        if change > 1e-2:
            yield Finding(
                "error",
                "The teacher runs in training mode.",
                f"its outputs change by {change:.0%} {what}",
                "Rebuild it without training=True on its dropout or normalization layers.",
            )


def _examine_accuracy(
    teacher: keras.Model, sample: data.Split, outputs: np.ndarray, accuracy: float
) -> Iterator[Finding]:
    """Classes in another order, inputs of another range, or another reason to be no better than a constant answer."""
    from sklearn.metrics import confusion_matrix

    from tfkd.conversion import input_scale

    y, classes = sample.y, sample.num_classes
    confusion = confusion_matrix(y, outputs.argmax(-1), labels=range(classes))
    if (order := class_order.better(confusion)) is not None:
        yield Finding(
            "error",
            "The teacher's classes are in another order than the labels.",
            f"accuracy {accuracy:.1%}, but {order}",
            "Reorder the labels or the teacher's outputs.",
        )
        return
    x = None if isinstance(sample.x, data.NamedArrays) else sample.x.astype("float32")
    better = None if x is None else input_scale.find_better(teacher, sample, input_scale.common_scales(x))
    most = float(np.bincount(y).max() / len(y))
    least = least_right(len(y), most)
    if better is not None and x is not None and not better.less_confident:
        yield Finding(
            "error",
            "The teacher expects inputs of another range.",
            f"accuracy {accuracy:.1%} on {x.min():g}..{x.max():g}; it {better.words}",
            "Declare the range of its training: input_range = [0, 1] or [-1, 1] in [teacher], on the command line "
            "--teacher-range 0,1 or -1,1. Or give the data in its range.",
        )
    elif better is not None and x is not None and better.before.loss > np.log(classes):
        yield Finding(
            "warning",
            "The teacher may expect inputs of another range.",
            f"on {x.min():g}..{x.max():g} it {better.words}",
            "If its training scaled the pixels, declare it: input_range = [0, 1] in [teacher], or --teacher-range 0,1.",
        )
    elif round(accuracy * len(y)) < least <= len(y):
        yield Finding(
            "error",
            "The teacher is not better than a constant answer.",
            f"accuracy {accuracy:.1%} on {len(y)} validation samples; the most frequent label, given to every sample, "
            f"reaches {most:.1%}",
            "Train it, or give the file that was trained on this data set.",
        )


def compare_with_student(teacher: Examination, student_accuracy: float, samples: int) -> Finding | None:
    """A finding on a teacher that is less accurate than a student without it.

    The finding is an error where the 95 % interval of the difference excludes 0, otherwise a warning.

    Args:
        teacher: The examination of the teacher.
        student_accuracy: Accuracy of the student on the validation split, 0..1.
        samples: Number of samples of the validation split.

    Returns:
        The finding; None if the teacher is at least as accurate, or one of both is unknown.
    """
    if teacher.accuracy is None or not samples or teacher.accuracy >= student_accuracy:
        return None

    def right(accuracy: float, count: int) -> np.ndarray:
        return np.arange(count) < round(accuracy * count)

    difference = measure_difference(
        right(teacher.accuracy, teacher.samples), right(student_accuracy, samples), paired=False, against="student"
    )
    return Finding(
        "error" if difference.interval[1] < 0 else "warning",
        "The teacher is less accurate than the student without it.",
        f"{teacher.accuracy:.1%} on {teacher.samples} validation samples; the student has {student_accuracy:.1%}",
        "Train a better teacher.",
    )


def examine_earlier_run(recipe: Recipe, examination: Examination) -> Iterator[Finding]:
    """An earlier run in the output folder whose student without teacher is better than the teacher."""
    steps = read_state(recipe.folder)
    accuracies = [step["record"]["val_accuracy"] for name, step in steps.items() if name.startswith("student-alone-")]
    best = max((one for one in accuracies if one is not None), default=0.0)
    if examination.accuracy is not None and best > examination.accuracy:
        yield Finding(
            "warning",
            "The teacher is less accurate than the student alone.",
            f"{examination.accuracy:.1%} on validation; the student of an earlier run has {best:.1%}",
            "Train a better teacher.",
        )


def examine_stores(recipe: Recipe, teacher: keras.Model, splits: data.Splits) -> Iterator[Finding]:
    """Stored soft labels that are not of this teacher and data."""
    from tfkd.distillation.labels.store import SoftLabels

    for folder in sorted(recipe.folder.glob("labels-*")):
        try:
            SoftLabels.open(folder).check(teacher, splits.train)
        except InputError as error:
            yield Finding(
                "warning",
                "Stored soft labels are stale.",
                str(error),
                "Nothing: the next run replaces them.",
            )
