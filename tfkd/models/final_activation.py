"""The activation that a model's output comes from, found in its graph.

The graph is followed from the output towards the input, through operations after which probabilities are still
probabilities: casts, reshapes, dropout, concatenations, means and so on. Of Keras layers with an activation its name is
read. All others, such as Lambda layers, custom layers and subclassed models, are traced to TensorFlow operations, which
are not executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor

# Activations of Keras whose values are probabilities. The values of log_softmax are logits: their softmax is unchanged.
_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax")
# The same as TensorFlow operations.
_OPERATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
# Operations with values of their first input only: changed in shape or type, selected or limited.
_FIRST_INPUT = {
    "BroadcastTo", "Cast", "CheckNumerics", "ClipByValue", "EnsureShape", "ExpandDims", "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel", "GatherV2", "Identity", "PreventGradient",
    "Reshape", "Slice", "Snapshot", "SplitV", "Squeeze", "StopGradient", "StridedSlice", "Tile", "Transpose", "Unpack",
}  # fmt: skip
# Operations with values of all their inputs, apart from constants.
_ALL_INPUTS = {"Pack", "ConcatV2", "Minimum", "Maximum"}
# Operations with other values: still probabilities if all inputs are and the values stay in 0..1, as in a mean.
_COMBINED = {"AddV2", "AddN", "Sub", "Mul", "RealDiv"}
_COMBINED_FIRST = {"Mean", "Sum", "AvgPool"}
_CONSTANT = {"Const", "Shape", "ShapeN", "Size", "Rank"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Values that an output comes from.

    Args:
        activation: `softmax`, `sigmoid`, `hard_sigmoid` or `sparsemax`; None for other values.
        layer: Name of the layer that computes them.
        combined: Whether sums, means or products follow, so that the output may have another range.
        tensor: Symbolic input of the graph that was followed, if the values are that input's.
    """

    activation: str | None
    layer: str
    combined: bool = False
    tensor: Tensor | None = None


def final_activation(model: keras.Model, x: Nest = None) -> Source | None:
    """The activation whose probabilities are the output of a model with one output.

    Args:
        model: Model to examine; it is not executed.
        x: [B, ...] batch of inputs, for its shapes; a model that does not show its layers is not examined without it.

    Returns:
        The activation, if all values of the output come from it; else None.
    """
    if keras_compat.shows_layers(model):
        sources = list(_of_keras(model.outputs[0]))
    elif x is not None:

        def call(*placeholders: Tensor) -> Nest:
            return model(keras.tree.pack_sequence_as(x, placeholders), training=False)

        sources = list(_of_operation(model.name, call, list(map(tf.convert_to_tensor, keras.tree.flatten(x))), 0))
    else:
        return None
    activations = {source.activation for source in sources}
    if len(activations) != 1 or None in activations:
        return None
    return dataclasses.replace(sources[0], combined=any(source.combined for source in sources))


def _of_keras(tensor: Tensor, combined: bool = False) -> Iterator[Source]:
    """The sources of a symbolic Keras tensor."""
    layer, node = keras_compat.producer(tensor), keras_compat.node(tensor)
    if node.is_input:
        yield Source(None, layer.name, combined, tensor)
        return
    activation = _activation(layer)
    if activation in _PROBABILITIES:
        yield Source(activation, layer.name, combined)
        return
    position = [id(output) for output in node.outputs].index(id(tensor))
    if keras_compat.shows_layers(layer):  # a nested model
        inner = keras_compat.functional(layer)
        found = _of_keras(inner.outputs[position], combined)
        places = [id(one) for one in inner.inputs]
    else:
        symbols = node.input_tensors

        def call(*placeholders: Tensor) -> Nest:
            values = dict(zip(map(id, symbols), placeholders, strict=True))
            args, kwargs = node.arguments.fill_in(values)
            return layer(*args, **kwargs)

        found = _of_operation(layer.name, call, symbols, position, combined)
        places = [id(one) for one in symbols]
    for source in found:
        if source.tensor is None:
            yield source
        else:
            yield from _of_keras(node.input_tensors[places.index(id(source.tensor))], source.combined)


def _activation(layer: keras.Layer) -> str:
    """The activation that a layer shows; the one of a recurrent layer is not that of its output."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    shown = None if isinstance(layer, keras.layers.RNN) else getattr(layer, "activation", None)
    return str(getattr(shown, "__name__", ""))


def _of_operation(
    name: str, call: Callable[..., Nest], inputs: list[Tensor], position: int, combined: bool = False
) -> Iterator[Source]:
    """The sources of one output of a call, traced to TensorFlow operations.

    Args:
        name: Name of the layer that is called, for the sources.
        call: Function of placeholders like the inputs.
        inputs: Symbolic or concrete tensors.
        position: Number of the output.
        combined: Whether the output is combined afterwards.
    """
    graph = tf.__internal__.FuncGraph(name)
    eagerly = tf.config.functions_run_eagerly()
    try:
        tf.config.run_functions_eagerly(True)  # functions inside become part of the graph
        with graph.as_default(), keras.StatelessScope():
            placeholders = [tf.compat.v1.placeholder(one.dtype, one.shape) for one in inputs]
            output = keras.tree.flatten(call(*placeholders))[position]
    except Exception:  # a layer of the user may not be traceable; its values are examined after a call
        yield Source(None, name)
        return
    finally:
        tf.config.run_functions_eagerly(eagerly)
    symbols = {placeholder.name: one for placeholder, one in zip(placeholders, inputs, strict=True)}
    yield from _of_tensorflow(output, name, symbols, combined)


def _of_tensorflow(tensor: Tensor, name: str, symbols: dict[str, Tensor], combined: bool) -> Iterator[Source]:
    """The sources of a tensor of a TensorFlow graph."""
    if tensor.name in symbols:
        yield Source(None, name, combined, symbols[tensor.name])
        return
    operation, kind = tensor.op, tensor.op.type
    if kind in _OPERATIONS:
        yield Source(_OPERATIONS[kind], name, combined)
    elif kind in _FIRST_INPUT or kind in _COMBINED_FIRST:
        yield from _of_tensorflow(operation.inputs[0], name, symbols, combined or kind in _COMBINED_FIRST)
    elif kind in _ALL_INPUTS or kind in _COMBINED:
        for one in operation.inputs:
            if one.op.type not in _CONSTANT:
                yield from _of_tensorflow(one, name, symbols, combined or kind in _COMBINED)
    else:
        yield Source(None, name, combined)
