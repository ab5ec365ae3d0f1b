"""The student of a recipe before its training."""

from __future__ import annotations

import keras

from tfkd import models
from tfkd.data import Split
from tfkd.recipes.recipe import Student


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
        student = settings.input.load(settings.file or "")
        if not student.trainable_weights:  # a teacher is often saved frozen
            student.trainable = True
        return student
    student = models.build(settings.model, split.input_shape, split.num_classes, **settings.options)
    if settings.file is not None:
        models.inherit(student, models.read(settings.file), settings.layers)
    return student
