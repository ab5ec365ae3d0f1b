"""The student of a recipe before its training."""

from __future__ import annotations

import os

import keras

from tfkd import models
from tfkd._internal import keras_compat
from tfkd.data import Split
from tfkd.models import own_code
from tfkd.recipes.model_input import ModelInput
from tfkd.recipes.recipe import Student


def load(declared: ModelInput, path: str | os.PathLike[str], split: Split) -> keras.Model:
    """Loads a student; dimensions of its input that the file leaves open are those of the data.

    Args:
        declared: What the file expects for the pixels of images.
        path: The file.
        split: Training split.

    Raises:
        InputError: The file is no model, or does not take the samples.
    """
    student = declared.load(path)
    if keras_compat.shows_layers(student) and len(student.inputs) == 1 and None in student.inputs[0].shape[1:]:
        student = models.with_input_shape(student, split.input_shape)
    return student


def build(settings: Student, split: Split) -> keras.Model:
    """Builds or loads the student of a recipe.

    Args:
        settings: The table `[student]`.
        split: Training split; gives the input shape and the number of classes.

    Raises:
        InputError: The builder or its options are unknown, a file is no model, or layers to inherit do not fit; see
            `tfkd.models.inherit`.
    """
    if settings.model is None:
        student = load(settings.input, settings.file or "", split)
        if not student.trainable_weights:  # a teacher is often saved frozen
            student.trainable = True
        return student
    student = own_code.build_model(settings.model, split.input_shape, split.num_classes, **settings.options)
    if settings.file is not None:
        models.inherit(student, models.read(settings.file), settings.layers)
    return student
