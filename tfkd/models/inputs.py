"""The inputs of a Keras model by name, and samples in the structure that it takes."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest
from tfkd.data.lazy import LazySamples
from tfkd.data.model_inputs import ModelInput, arrays_of, select
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError, ModelError, TfkdError


def names(structure: Nest) -> list[str]:
    """The names by which Keras takes inputs, in the order of `keras.tree.flatten`.

    Args:
        structure: The symbolic inputs of a model.

    Returns:
        The keys of a dictionary of tensors; otherwise the names of the tensors.
    """
    if isinstance(structure, dict) and not any(map(keras.tree.is_nested, structure.values())):
        return [str(path[0]) for path, _ in keras.tree.flatten_with_path(structure)]
    return [tensor.name for tensor in keras.tree.flatten(structure)]


def of(model: keras.Model) -> list[ModelInput]:
    """The inputs of a model, in the order of `keras.tree.flatten`.

    Args:
        model: A functional or built Sequential model.

    Raises:
        ModelError: The model does not show its layers, so that its inputs have no names.
    """
    if not keras_compat.shows_layers(model):
        raise ModelError(
            f"{model.name}: samples of several inputs need a model that names its inputs. Received: a subclassed "
            "model. Wrap it: inputs = {'a': keras.Input(...), 'b': keras.Input(...)}; keras.Model(inputs, "
            "model(inputs))."
        )
    structure = keras_compat.input_structure(model)
    tensors = keras.tree.flatten(structure)
    return [
        ModelInput(name, (name,), tuple(tensor.shape[1:]), tensor.dtype)
        for name, tensor in zip(names(structure), tensors, strict=True)
    ]


def arranged(model: keras.Model, x: NamedArrays, where: str) -> Nest:
    """Samples as a model takes them: arrays in the structure of its inputs, found by name.

    Args:
        model: A functional model. It may have fewer inputs than the samples.
        x: Samples.
        where: The model, for messages.

    Raises:
        InputError: An input has no array, or one of another shape or type.
        ModelError: The model does not show its inputs.
    """
    return keras.tree.pack_sequence_as(keras_compat.input_structure(model), arrays_of(of(model), x, where))


def taken(model: keras.Model, x: np.ndarray | NamedArrays, where: str) -> Nest:
    """Samples as a model takes them: one array as float32, or the arrays of its inputs, see `arranged`.

    Args:
        model: A model.
        x: Samples.
        where: The model, for messages.
    """
    return arranged(model, x, where) if isinstance(x, NamedArrays) else x.astype("float32")


def fit(model: keras.Model, x: np.ndarray | LazySamples | NamedArrays) -> bool:
    """Whether a model takes samples: it has one input of their shape, or there is an array for each of its inputs.

    Args:
        model: A model. A subclassed one does not tell its inputs, and takes none by this function.
        x: Samples.
    """
    if not isinstance(x, NamedArrays):
        return getattr(model, "input_shape", None) == (None, *x.shape[1:])
    try:
        arranged(model, x[:1], model.name)
    except TfkdError:
        return False
    return True


def chosen(model: keras.Model, x: Nest, where: str) -> Nest:
    """The part of a batch that a model takes.

    From a dictionary of tensors, these are the tensors of the model's inputs, in the structure of its inputs. A batch
    in another form is returned unchanged.

    Args:
        model: A model.
        x: Inputs of a batch. Keras takes a dictionary with other keys than the model's in the order of its keys, which
            may exchange tensors of one shape.
        where: The model, for messages.

    Raises:
        InputError: An input has no tensor, or one of floats where it takes integers, which Keras would round.
    """
    if not isinstance(x, Mapping) or not keras_compat.shows_layers(model):
        return x
    inputs = of(model)
    tensors = select(inputs, x, where)
    for one, tensor in zip(inputs, tensors, strict=True):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if keras.backend.is_float_dtype(dtype) and not one.is_float:
            raise InputError(
                f"{where} takes values of the type {one.dtype} for the input {one}. Received: {dtype}. Convert the "
                "array to integers."
            )
    return keras.tree.pack_sequence_as(keras_compat.input_structure(model), tensors)
