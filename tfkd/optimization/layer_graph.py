"""A Keras model as a flat list of layer calls, nested models opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from tfkd._internal import keras_compat
from tfkd.errors import InputError


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer.

    Args:
        layer: what is called; an operation of keras.ops is no layer, but stands here too.
        name: of the layer, behind the names of the models that it is nested in: `backbone_conv1`.
        inputs: numbers of the tensors that it takes.
        output: number of the tensor that it gives.
    """

    layer: Any
    name: str
    inputs: tuple[int, ...]
    output: int


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """The calls of a model in the order in which they run.

    Args:
        calls: of its layers.
        input: number of the tensor that it takes.
        output: number of the tensor that it gives.
    """

    calls: tuple[Call, ...]
    input: int
    output: int

    def users(self, tensor: int) -> list[Call]:
        """The calls that take a tensor."""
        return [call for call in self.calls if tensor in call.inputs]

    def sole_user(self, tensor: int) -> Call | None:
        """The call that takes a tensor, where it is the only one and the tensor is not the model's output."""
        users = self.users(tensor)
        return users[0] if len(users) == 1 and tensor != self.output else None


def read(model: keras.Model) -> LayerGraph:
    """Reads a functional or Sequential model.

    Args:
        model: built, of one input and one output; models nested in it are opened.

    Raises:
        ValueError: the model is built by code, or has several inputs or outputs.
    """
    if not isinstance(model, keras.Model) or getattr(model, "outputs", None) is None:
        raise InputError(
            f"optimize: the student must be a built functional or Sequential model. Received: {type(model).__name__} "
            f"{getattr(model, 'name', '')!r}, which does not show its layers. Build it from keras.Input."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"optimize: the student must have one input and one output. Received: {len(model.inputs)} and "
            f"{len(model.outputs)}. Give keras.Model(input, logits)."
        )
    numbers: dict[tuple[str, int], int] = {}
    calls: list[Call] = []
    for call in _calls(model, "", [0], numbers):
        earlier = sum(other.layer is call.layer for other in calls)  # a layer without weights may be called again
        calls.append(dataclasses.replace(call, name=f"{call.name}_{earlier + 1}") if earlier else call)
    return LayerGraph(tuple(calls), 0, numbers["", id(keras_compat.functional(model).outputs[0])])


def _calls(model: Any, prefix: str, given: list[int], numbers: dict[tuple[str, int], int]) -> Iterator[Call]:
    """The calls of a model that is fed with the tensors `given`; fills `numbers`, of tensors by model and identity."""
    inner = keras_compat.functional(model)
    for tensor, number in zip(inner.inputs, given, strict=True):
        numbers[prefix, id(tensor)] = number
    for node in keras_compat.nodes(model):
        if node.is_input:
            continue
        layer, inputs = node.operation, [numbers[prefix, id(tensor)] for tensor in node.input_tensors]
        if keras_compat.shows_layers(layer) and isinstance(layer, keras.Model):
            nested = f"{prefix}{layer.name}_"
            yield from _calls(layer, nested, inputs, numbers)
            made = [numbers[nested, id(tensor)] for tensor in keras_compat.functional(layer).outputs]
        else:
            made = [len(numbers) + 1 + i for i in range(len(node.outputs))]
            yield Call(layer, f"{prefix}{layer.name}", tuple(inputs), made[0])
        for tensor, number in zip(node.outputs, made, strict=True):
            numbers[prefix, id(tensor)] = number
