"""A Keras model as a flat list of layer calls; nested models are expanded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import keras

from tfkd._internal import keras_compat
from tfkd.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer.

    Args:
        layer: The layer, or an operation of keras.ops.
        name: Name of the layer, prefixed by the names of the models that contain it: `backbone_conv1`.
        inputs: Numbers of its input tensors.
        output: Number of its output tensor.
    """

    layer: keras.Layer
    name: str
    inputs: tuple[int, ...]
    output: int


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """The layer calls of a model in the order of computation.

    Args:
        calls: Calls of all layers.
        input: Number of the model's input tensor.
        output: Number of the model's output tensor.
    """

    calls: tuple[Call, ...]
    input: int
    output: int

    def users(self, tensor: int) -> list[Call]:
        """The calls that read a tensor."""
        return [call for call in self.calls if tensor in call.inputs]

    def sole_user(self, tensor: int) -> Call | None:
        """The only call that reads a tensor; None if several do or the tensor is the model's output."""
        users = self.users(tensor)
        return users[0] if len(users) == 1 and tensor != self.output else None


def read(model: keras.Model) -> LayerGraph:
    """Reads a functional or Sequential model.

    Args:
        model: Built model with one input and one output.

    Raises:
        ModelError: The model is subclassed, or has several inputs or outputs.
    """
    if not isinstance(model, keras.Model) or getattr(model, "outputs", None) is None:
        raise ModelError(
            f"optimize: the student must be a built functional or Sequential model. Received: {type(model).__name__} "
            f"{getattr(model, 'name', '')!r}, whose layers cannot be listed. Build it from keras.Input."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"optimize: the student must have one input and one output. Received: {len(model.inputs)} and "
            f"{len(model.outputs)}. Give keras.Model(input, logits)."
        )
    numbers: dict[tuple[str, int], int] = {}
    calls: list[Call] = []
    for call in _calls(model, "", [0], numbers):
        earlier = sum(other.layer is call.layer for other in calls)  # a layer without weights may be called twice
        calls.append(dataclasses.replace(call, name=f"{call.name}_{earlier + 1}") if earlier else call)
    return LayerGraph(tuple(calls), 0, numbers["", id(keras_compat.functional(model).outputs[0])])


def _calls(model: keras.Model, prefix: str, given: list[int], numbers: dict[tuple[str, int], int]) -> Iterator[Call]:
    """The calls of a model whose inputs are the tensors `given`; fills `numbers` by (prefix, id of the tensor)."""
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
