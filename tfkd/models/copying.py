"""Models whose layers are copied onto another input."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest
from tfkd.errors import InputError, ModelError
from tfkd.models import inputs as model_inputs


def apply_copy(model: keras.Model, x: Nest) -> Nest:
    """The output of a model for a symbolic input, by copies of its layers with the same names and weights.

    Where a layer cannot be copied, such as one without a configuration, the model itself is called, as one layer.

    Args:
        model: A functional or Sequential model.
        x: Symbolic input, or several in the structure of the model's.
    """
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = {}

    def copied(operation: keras.Operation) -> keras.Operation:
        if not isinstance(operation, keras.Layer):
            return operation
        if id(operation) not in copies:
            copies[id(operation)] = (operation, type(operation).from_config(operation.get_config()))
        return copies[id(operation)][1]

    inputs = keras.tree.pack_sequence_as(keras_compat.input_structure(model), keras.tree.flatten(x))
    try:
        outputs = keras_compat.run_through(model, inputs, copied)
        for layer, copy in copies.values():
            copy.set_weights(layer.get_weights())
    except Exception:  # a layer of the user without a config, or a Lambda layer
        return model(inputs)
    return keras.tree.flatten(outputs)[0] if len(model.outputs) == 1 else outputs


def with_input_shape(model: keras.Model, shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> keras.Model:
    """A model with inputs of fixed shape, of one that leaves dimensions such as height and width open.

    Args:
        model: A built model. The result has weights of its own.
        shape: Shape of one sample, without the batch axis; of several inputs the shape of each by its name, or one that
            all have, such as the token ids and the mask of a text model.

    Returns:
        The new model; `model` itself if its input shape is fixed already.

    Raises:
        ModelError: The model does not show its layers.
        InputError: The shape does not fit the dimensions that an input fixes, or the layers.
    """
    if not keras_compat.shows_layers(model):
        raise ModelError(
            f"models.with_input_shape: {model.name!r} must be a functional or Sequential model. Received: "
            f"{type(model).__name__}, which shows no layers. Build it with keras.Input of the size used on the device."
        )
    names = model_inputs.names(keras_compat.input_structure(model))
    shapes = [shape.get(name, ()) if isinstance(shape, Mapping) else shape for name in names]
    tensors = keras.tree.flatten(keras_compat.input_structure(model))
    for name, tensor, sizes in zip(names, tensors, shapes, strict=True):
        known = tensor.shape[1:]
        if len(known) != len(sizes) or any(one not in (None, size) for one, size in zip(known, sizes, strict=True)):
            raise InputError(
                f"models.with_input_shape: input_shape must fit {tuple(known)} of the input {name!r} of "
                f"{model.name!r}. Received: {shape}. Give one size for each dimension."
            )
    if all(None not in tensor.shape[1:] for tensor in model.inputs):
        return model
    fixed = [
        keras.Input(batch_shape=(tensor.shape[0], *sizes), dtype=tensor.dtype, name=tensor.name)
        for tensor, sizes in zip(tensors, shapes, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(keras_compat.input_structure(model), fixed)
    try:
        return keras.Model(inputs, apply_copy(model, inputs), name=model.name)
    except ValueError as error:  # Keras, of a size that is too small for the strides
        raise InputError(
            f"models.with_input_shape: the layers of {model.name!r} do not take input_shape {shape}: "
            f"{str(error).splitlines()[0]} Give another size."
        ) from error
