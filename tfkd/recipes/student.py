"""The student of a recipe before its training."""

from __future__ import annotations

import os

import keras

from tfkd import models
from tfkd._internal import keras_compat
from tfkd._internal.types import JsonRecord
from tfkd.data import NamedArrays, Split
from tfkd.data.model_inputs import arrays_of
from tfkd.errors import ModelError
from tfkd.models import inputs, output_range, own_code, saved_model
from tfkd.recipes.model_input import ModelInput
from tfkd.recipes.recipe import Student
from tfkd.tasks import CLASSIFICATION, Task


def load(declared: ModelInput, path: str | os.PathLike[str], split: Split, task: Task = CLASSIFICATION) -> keras.Model:
    """Loads a student; dimensions of its input that the file leaves open are those of the data.

    Args:
        declared: What the file expects for the pixels of images.
        path: The file.
        split: Training split.
        task: The task.

    Raises:
        InputError: The file is no model, is a SavedModel, or does not take the samples.
    """
    student = declared.load(path, logits=task.gives_logits)
    if saved_model.is_wrapped(student):
        raise ModelError(
            f"distill: {path} is a SavedModel, which shows no layers to train. It can teach and be converted. Give the "
            ".keras or .h5 file of the student."
        )
    if keras_compat.shows_layers(student) and any(None in tensor.shape[1:] for tensor in student.inputs):
        student = models.with_input_shape(student, _shapes(student, split, path))
    return student


def _shapes(
    student: keras.Model, split: Split, path: str | os.PathLike[str]
) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of a sample, or of each input of a student that samples of several inputs have."""
    if not isinstance(split.x, NamedArrays):
        return split.input_shape
    taken = inputs.of(student)
    arrays = arrays_of(taken, split.x[:1], f"distill: {path}")
    return {one.name: array.shape[1:] for one, array in zip(taken, arrays, strict=True)}


def build_for(name: str, split: Split, task: Task = CLASSIFICATION, options: JsonRecord | None = None) -> keras.Model:
    """Builds a model with the outputs that a task needs; of a regression, one that starts in the range of the labels.

    The softmax or sigmoid at the end of a model of the user's function is removed where the task takes logits.

    Args:
        name: Builder of tfkd.models, or `module:function` of the user.
        split: Training split.
        task: The task.
        options: Further arguments of the builder.

    Raises:
        InputError: See `tfkd.models.own_code.build_model`.
    """
    model = own_code.build_model(name, split.sample_shape, task.outputs(split), **(options or {}))
    if ":" in name and task.gives_logits:
        return models.load(model)
    if split.label_kind == "values" and ":" not in name:
        output_range.start_at(model, split.y)
    return model


def build(settings: Student, split: Split, task: Task = CLASSIFICATION) -> keras.Model:
    """Builds or loads the student of a recipe.

    Args:
        settings: The table `[student]`.
        split: Training split; gives the input shape and the number of classes.
        task: The task.

    Raises:
        InputError: The builder or its options are unknown, a file is no model, or layers to inherit do not fit; see
            `tfkd.models.inherit`.
    """
    if settings.model is None:
        student = load(settings.input, settings.file or "", split, task)
        if not student.trainable_weights:  # a teacher is often saved frozen
            student.trainable = True
        return student
    student = build_for(settings.model, split, task, settings.options)
    if settings.file is not None:
        models.inherit(student, models.read(settings.file), settings.layers)
    return student
