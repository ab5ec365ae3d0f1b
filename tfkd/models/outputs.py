"""The outputs of a model by name, and what a user gives by output as `keras.Model.compile` takes it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

import keras

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest
from tfkd.errors import InputError, ModelError

# The name of the one output of a model that does not show its layers.
_UNNAMED = "output"


def names(model: keras.Model) -> tuple[str, ...]:
    """The names of a model's outputs, in the order of `keras.tree.flatten`.

    Args:
        model: A Keras model. One that does not show its layers is taken for a model with one output.

    Returns:
        The keys of a dictionary; otherwise the names of the layers that compute the outputs, as in
        `keras.Model.compile`.

    Raises:
        ModelError: The outputs are nested, or two have the same name.
    """
    if not keras_compat.shows_layers(model):
        return (_UNNAMED,)
    structure = keras_compat.functional(model).output
    if keras.tree.is_nested(structure):
        inner = structure.values() if isinstance(structure, dict) else structure
        if any(map(keras.tree.is_nested, inner)):
            raise ModelError(
                f"{model.name}: outputs must be a tensor, or a list or dictionary of tensors. Received: "
                f"{keras.tree.map_structure(lambda tensor: tensor.name, structure)}. Pass keras.Model(model.inputs, "
                "{'a': model.outputs[0], ...})."
            )
    if isinstance(structure, dict):
        return tuple(str(path[0]) for path, _ in keras.tree.flatten_with_path(structure))
    found = tuple(keras_compat.producer(tensor).name for tensor in model.outputs)
    if len(set(found)) < len(found):
        raise ModelError(
            f"{model.name}: outputs must have different names. Received: {', '.join(found)}. Pass "
            "keras.Model(model.inputs, {'a': model.outputs[0], 'b': model.outputs[1]}) with names of your own."
        )
    return found


def are_unnamed(model: keras.Model) -> bool:
    """Whether the outputs, which are no dictionary, have the names that Keras gives to layers, such as `dense_1`."""
    if not keras_compat.shows_layers(model) or isinstance(keras_compat.functional(model).output, dict):
        return False
    return all(is_unnamed(keras_compat.producer(tensor)) for tensor in model.outputs)


def is_unnamed(layer: keras.Operation) -> bool:
    """Whether a layer has the name that Keras makes from its class, such as `dense_1`."""
    name, kind = (re.sub("[^a-z]", "", text.lower()) for text in (layer.name, type(layer).__name__))
    return name == kind


def are_nested(model: keras.Model) -> bool:
    """Whether a model is known to return a list, tuple or dictionary, be it of one tensor."""
    return keras_compat.shows_layers(model) and keras.tree.is_nested(keras_compat.functional(model).output)


def single(model: keras.Model, position: int) -> keras.Model:
    """A model with one output of another model, whose layers it shares; a model that has no other output itself.

    Args:
        model: A Keras model.
        position: Number of the output, in the order of `names`.
    """
    if not are_nested(model):
        return model
    return keras.Model(keras_compat.input_structure(model), model.outputs[position], name=model.name)


def like(model: keras.Model, values: Sequence[Nest]) -> Nest:
    """Values in the structure of a model's outputs.

    Args:
        model: A functional model.
        values: One value for each output, in the order of `names`.
    """
    structure = keras.tree.map_structure(lambda _: None, keras_compat.functional(model).output)
    return keras.tree.pack_sequence_as(structure, values)


def by_name(known: Sequence[str], given: Nest, what: str, *, shared: bool = True) -> list[Nest]:
    """Values by output, in the order of the outputs.

    Args:
        known: Names of the outputs.
        given: A dictionary of values by name, with None for a name that it lacks; a list or tuple with a value for each
            output; or one value.
        what: What the values are, for the message.
        shared: Whether one value holds for all of several outputs.

    Raises:
        InputError: A name is unknown, the number of values is another, or there is one for several outputs.

    >>> by_name(["age", "sex"], {"sex": 2.0}, "loss_weights")
    [None, 2.0]
    >>> by_name(["age", "sex"], 1.0, "loss_weights")
    [1.0, 1.0]
    """
    if isinstance(given, Mapping) and set(given) <= set(known):
        return [given.get(name) for name in known]
    if isinstance(given, (list, tuple)) and len(given) == len(known):
        return list(given)
    if len(known) == 1 and not isinstance(given, Mapping):
        return [given]
    if given is None or (shared and not isinstance(given, (Mapping, list, tuple))):
        return [given] * len(known)
    received = (
        f"a dictionary with the keys {', '.join(map(str, given))}"
        if isinstance(given, Mapping)
        else f"{len(given)} values"
        if isinstance(given, (list, tuple))
        else f"a {type(given).__name__}"
    )
    raise InputError(
        f"Distiller: {what} must be a dictionary by output, or a list in the order of the outputs: {', '.join(known)}. "
        f"Received: {received}. Use {{{known[0]!r}: ...}}."
    )


@contextlib.contextmanager
def named(name: str, known: Sequence[object]) -> Iterator[None]:
    """Adds the name of an output to errors that are raised within the block.

    Args:
        name: Name of the output.
        known: All outputs; the message of a model with one output stays as it is.
    """
    try:
        yield
    except (InputError, ModelError) as error:
        if len(known) == 1:
            raise
        raise type(error)(f"{error} This is about the output {name!r}.") from error
