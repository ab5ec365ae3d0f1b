"""The inputs of teacher and student in one batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfkd._internal import keras_compat
from tfkd.data import SoftLabelInputs, TeacherStudentInputs
from tfkd.errors import InputError


def student_input(x: Any) -> Any:
    """The input of the student: a part of the two typed pairs of `tfkd.data`, or x itself."""
    return x.student if isinstance(x, TeacherStudentInputs | SoftLabelInputs) else x


def teacher_input(x: Any) -> Any:
    """The input of the teacher: the same as the student's unless x is a `TeacherStudentInputs`."""
    return x.teacher if isinstance(x, TeacherStudentInputs) else student_input(x)


def soft_labels(x: Any) -> Any:
    """The stored teacher logits [B, C] of a batch.

    Raises:
        InputError: The batch has none.
    """
    if not isinstance(x, SoftLabelInputs):
        raise InputError(
            f"Distiller: a store of soft labels needs batches with their logits. Received: inputs of type "
            f"{type(x).__name__}. Use Split.batches(..., soft_labels=store), or make inputs of type "
            "tfkd.data.SoftLabelInputs."
        )
    return x.soft_labels


def check_pairing(x: Any, student: Any) -> None:
    """Raises where a plain dictionary is given for a student with another input, in place of a typed pair.

    Args:
        x: Inputs of a batch, or of all samples.
        student: Model of the student; the input of a model that does not show its layers is not known.

    Raises:
        InputError: x is a dictionary with the keys `teacher` and `student`, which the student does not take.
    """
    if not isinstance(x, dict) or set(x) != {"teacher", "student"} or not keras_compat.shows_layers(student):
        return
    if not isinstance(keras_compat.input_structure(student), dict):
        raise InputError(
            "Distiller: inputs of teacher and student must be a tfkd.data.TeacherStudentInputs. Received: a dictionary "
            "with the keys teacher and student. Use TeacherStudentInputs(teacher=..., student=...)."
        )


def first_batch(x: Any) -> Any:
    """The inputs of a first batch; None for a generator, which would lose it.

    Args:
        x: What `fit` is given: a `tf.data.Dataset`, or an array or nested structure of arrays [N, ...].
    """
    if isinstance(x, tf.data.Dataset):
        return keras.utils.unpack_x_y_sample_weight(next(iter(x.take(1))))[0]
    if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        return keras.tree.map_structure(lambda leaf: ops.convert_to_tensor(leaf[:32]), x)
    return None


def zeros(model: keras.Model) -> Any:
    """Two samples of zeros for a functional or Sequential model; dimensions of unknown size are 8."""
    return keras.tree.map_structure(
        lambda tensor: ops.zeros((2, *(size or 8 for size in tensor.shape[1:])), tensor.dtype),
        keras_compat.input_structure(model),
    )
