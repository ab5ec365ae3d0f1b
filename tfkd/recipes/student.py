"""The student of a recipe before its training."""

from __future__ import annotations

import keras

from tfkd import models
from tfkd.data import Split
from tfkd.recipes.recipe import Student


def start(settings: Student, split: Split) -> keras.Model:
    """The student of a recipe before its training.

    Raises:
        ValueError: a file is no model, or layers do not fit; see `tfkd.models.inherit`.
    """
    if settings.model is None:
        student = models.load(settings.file or "")
        if not student.trainable_weights:  # as a teacher is often saved
            student.trainable = True
        return student
    student = models.build(settings.model, split.input_shape, split.num_classes, **settings.options)
    if settings.file is not None:
        models.inherit(student, models.load(settings.file), settings.layers)
    return student
