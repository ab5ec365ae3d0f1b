"""The inputs of teacher and student in one batch."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor
from tfkd.data import SoftLabelInputs, Split, Stream, TeacherStudentInputs, as_split
from tfkd.errors import InputError
from tfkd.models import inputs as model_inputs


def student_input(x: Nest, student: keras.Model) -> Nest:
    """The input of the student: a part of the two typed pairs of `tfkd.data`, or x itself; of a dictionary its inputs.

    Raises:
        InputError: One of its inputs has no tensor.
    """
    x = x.student if isinstance(x, TeacherStudentInputs | SoftLabelInputs) else x
    return model_inputs.chosen(student, x, "Distiller: the student")


def teacher_input(x: Nest, teacher: keras.Model) -> Nest:
    """The input of a teacher: from what the student sees unless x is a `TeacherStudentInputs`.

    Raises:
        InputError: One of its inputs has no tensor.
    """
    if isinstance(x, TeacherStudentInputs | SoftLabelInputs):
        x = x.teacher if isinstance(x, TeacherStudentInputs) else x.student
    return model_inputs.chosen(teacher, x, "Distiller: the teacher")


def soft_labels(x: Nest) -> Tensor:
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


def check_pairing(x: Nest, student: keras.Model) -> None:
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


# Samples per batch where `fit` is given none, as in Keras.
_BATCH_SIZE = 32


def replace_splits(arguments: dict[str, Any]) -> None:
    """Replaces a `Split` or `Stream` in the arguments of `fit` by its batches; the training data are shuffled.

    Args:
        arguments: Arguments of `fit` by name, which are changed.
    """
    found = [name for name in ("x", "validation_data") if isinstance(arguments.get(name), Split | Stream)]
    size = arguments.pop("batch_size", None) if found else None
    for name in found:
        split = as_split(arguments[name], "train" if name == "x" else "val")
        arguments[name] = split.batches(size or _BATCH_SIZE, shuffle=name == "x")


# Samples that are examined before a training.
_EXAMINED = 8


def first_batches(x: Nest, y: Nest = None) -> tuple[list[tuple[Nest, Nest]], Nest]:
    """The first batches of inputs and labels: enough for a few samples.

    Args:
        x: What `fit` is given: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, or an array or nested
            structure of arrays [N, ...].
        y: Labels of arrays.

    Returns:
        Pairs of inputs and labels, the labels None where there are none; no pairs for other types of x. And x, or for a
        generator its replacement, which yields the first batch again.
    """
    if isinstance(x, tf.data.Dataset):
        found, samples = [], 0
        for batch in x.take(_EXAMINED):
            found.append(_inputs_and_labels(batch))
            samples += keras.tree.flatten(batch)[0].shape[0]
            if samples >= _EXAMINED:
                break
        return found, x
    if isinstance(x, keras.utils.PyDataset):
        return [_inputs_and_labels(x[0])], x
    if isinstance(x, types.GeneratorType):
        first = next(x, None)
        return ([], x) if first is None else ([_inputs_and_labels(first)], _again(first, x))
    if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        return [(keras.tree.map_structure(lambda leaf: ops.convert_to_tensor(leaf[:32]), x), y)], x
    return [], x


def _again(first: Nest, rest: Iterator[Nest]) -> Iterator[Nest]:
    """A generator like the one whose first batch was taken."""
    yield first
    yield from rest


def _inputs_and_labels(batch: Nest) -> tuple[Nest, Nest]:
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.tree.map_structure(lambda leaf: leaf if tf.is_tensor(leaf) else ops.convert_to_tensor(leaf), x), y


def zeros(model: keras.Model) -> Nest:
    """Two samples of zeros for a functional or Sequential model; dimensions of unknown size are 8."""
    return keras.tree.map_structure(
        lambda tensor: ops.zeros((2, *(size or 8 for size in tensor.shape[1:])), tensor.dtype),
        keras_compat.input_structure(model),
    )
