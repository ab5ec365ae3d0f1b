"""The Keras layers that the ops of a .tflite come from, found by the names of their tensors.

The converter calls a tensor `model/layer/op` and joins the names of fused ops with `;`. So
`m/block/relu/Relu;m/block/conv/convolution` is the output of layer `block/conv`, which is in the nested model `block`,
with the activation `block/relu` fused in. A SavedModel that tfkd did not write has a number after each name: `conv_1`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal import keras_compat
from tfkd.conversion.tflite import TFLiteModel
from tfkd.conversion.tflite_reader import OpInfo, TFLiteGraph
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

# Scopes that TensorFlow opens inside a layer.
_SCOPES_OF_TENSORFLOW = r"(batchnorm|einsum|moments|Tensordot|ReduceLogSumExp|normalize_moments|while)(_\d+)?"


def layers(model: keras.Model) -> dict[str, bool]:
    """The paths of all layers of a model, such as `conv` or `backbone/conv`, and whether each has a kernel."""
    return {path: hasattr(layer, "kernel") for path, layer in _walk(model)}


def by_tensor(reference: TFLiteModel, model: keras.Model) -> dict[str, str]:
    """The layers that the ops of a float .tflite come from.

    Args:
        reference: The model converted to float32 by `tfkd.convert`.
        model: The Keras model.

    Returns:
        The path of a layer by the name of the op's output tensor; the name itself where no layer is known.
    """
    graph, known = reference.graph, layers(model)
    # The converter gives the outputs of the model and of an LSTM op names of its own.
    outputs = dict(zip(graph.outputs, _output_layers(model), strict=False))
    found: dict[str, str] = {}
    for op in graph.ops:
        if not op.outputs:
            continue
        name = graph.tensors[op.outputs[0]].name
        constants = [i for i in op.inputs if i >= 0 and graph.constants[i]]
        layer = layer_of(name, graph.tensors[constants[0]].name if constants else "", known)
        if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            layer = _lstm(reference.constant(op.inputs[1]), model) or name
        elif layer == name and name.startswith("tfl."):  # an op that the converter split off the op before it
            layer = found.get(graph.tensors[op.inputs[0]].name, name)
        elif layer == name:
            layer = outputs.get(op.outputs[0]) or name
        found[name] = layer
    return found


def _walk(parent: keras.Layer, path: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """The paths and layers inside a layer or model."""
    for layer in keras_compat.inner_layers(parent, recursive=False):
        name = f"{path}{keras_compat.scope_name(layer)}"
        yield name, layer
        yield from _walk(layer, f"{name}/")


def _output_layers(model: keras.Model) -> list[str]:
    """The path of the layer that computes each output of a functional model; empty for other models."""
    import keras

    if not keras_compat.shows_layers(model):
        return []
    found = []
    for tensor in keras.tree.flatten(keras_compat.functional(model).outputs):
        layer = keras_compat.producer(tensor)
        inner = _output_layers(layer) if isinstance(layer, keras.Model) else []
        found.append("/".join([keras_compat.scope_name(layer), *(inner if len(inner) == 1 else ())]))
    return found


def _lstm(weights: np.ndarray | None, model: keras.Model) -> str | None:
    """The path of the LSTM layer with these weights of its input gate, [units, features]."""
    import keras

    for path, layer in _walk(model):
        if isinstance(layer, keras.layers.LSTM) and weights is not None:
            kernel = np.asarray(layer.cell.kernel)[:, : layer.units].T
            if kernel.shape == weights.shape and np.allclose(kernel, weights):
                return path
    return None


def layer_of(tensor: str, weights: str, known: Mapping[str, bool]) -> str:
    """The layer of an op; of several fused layers, the one with a kernel.

    Args:
        tensor: Name of the op's output tensor.
        weights: Name of the op's first constant, or empty. It may belong to another op with an equal constant, so that
            it decides only where the output names no layer.
        known: Result of `layers`.

    Returns:
        The layer's path, or the tensor's name where no layer is known.

    >>> layer_of("m/block/relu/Relu;m/block/conv/convolution", "", {"block/relu": False, "block/conv": True})
    'block/conv'
    """
    found = known_layers(tensor, known) or known_layers(weights, known)
    return next((name for name in found if known[name]), found[0] if found else tensor)


def known_layers(tensor: str, known: Container[str]) -> list[str]:
    """The known layers that a tensor's name mentions, in its order.

    Args:
        tensor: Name of a tensor, or several names joined with `;`.
        known: Paths of layers.

    >>> known_layers("m/relu_1/Relu;m/conv_1/convolution", {"relu", "conv"})
    ['relu', 'conv']
    """
    found = []
    for name in re.split("[;:]", tensor):
        matches = [path for plain in (False, True) for path in _paths(_parts(name, plain)) if path in known]
        found += [max(matches, key=lambda path: path.count("/"))] if matches else []
    return found


def following(graph: TFLiteGraph, op: OpInfo) -> Iterator[str]:
    """The names of the results of an op, and of the ops that read them, the nearest first.

    The converter names some ops by the model alone, such as the comparison of a mask: those behind it name the layer.
    """
    tensors = [*op.outputs]
    for tensor in tensors:  # it grows
        yield graph.tensors[tensor].name
        readers = (reader for reader in graph.ops if tensor in reader.inputs)
        tensors += dict.fromkeys(i for reader in readers for i in reader.outputs if i not in tensors)


def path_of(tensor: str, weights: str = "") -> str:
    """The path of a layer as far as the name of its tensor tells it, where the Keras model is not known.

    Of several fused layers it is the first one, which has the weights; the converter lists the last one first.

    Args:
        tensor: Name of an op's output tensor.
        weights: Name of the op's first constant, for an output that names no layer.

    >>> path_of("m/block/relu/Relu;m/block/conv/convolution")
    'block/conv'
    >>> path_of("PartitionedCall:0", "m/logits/MatMul")
    'logits'
    """
    paths = [path for names in (weights, tensor) for name in re.split("[;:]", names) if (path := layer_part(name))]
    return paths[-1] if paths else tensor


def layer_part(name: str) -> str:
    """The part of a tensor's name between the model and the op: the layers; empty where there is none."""
    parts = name.split("/")[1:-1]
    while parts and re.fullmatch(_SCOPES_OF_TENSORFLOW, parts[-1]):
        parts.pop()
    return "/".join(parts)


def op_names(graph: TFLiteGraph, index: int) -> tuple[list[str], list[str]]:
    """The names that an expression can select an op by.

    Args:
        graph: Graph of the .tflite.
        index: Index of the op.

    Returns:
        The paths in its tensor names and its outputs' whole names; and the same paths without numbers at the ends.
    """
    op = graph.ops[index]
    outputs = [graph.tensors[i].name for i in op.outputs]
    names = [*outputs, *(graph.tensors[i].name for i in op.inputs if i >= 0 and graph.constants[i])]
    split = [part for name in names for part in re.split("[;:]", name)]
    exact, plain = ([path for name in split for path in _paths(_parts(name, plain))] for plain in (False, True))
    return [*dict.fromkeys((*exact, *outputs))], [*dict.fromkeys(plain)]


def select_ops(graph: TFLiteGraph, expressions: Sequence[str], argument: str) -> set[int]:
    """The indices of the ops that expressions select.

    Args:
        graph: Graph of the .tflite.
        expressions: Regular expressions, each searched in the names of every op (`op_names`): in those without numbers
            at the ends only where no other name matches.
        argument: Name of the argument that holds the expressions, for the message.

    Raises:
        InputError: An expression selects no op.
    """
    names = [op_names(graph, index) for index in range(len(graph.ops))]
    selected = set()
    for expression in expressions:
        for kind in (0, 1):
            matches = {i for i, some in enumerate(names) if any(re.search(expression, name) for name in some[kind])}
            if matches:
                break
        else:
            known = [*dict.fromkeys(name for exact, plain in names for name in (*plain, *exact))]
            near = difflib.get_close_matches(expression.strip("^$"), known, n=1, cutoff=0.4) or known[:1]
            raise InputError(
                f"{argument}: no layer matches {expression!r} in the {len(names)} ops of the model. "
                f"Did you mean {near[0]!r}?"
            )
        selected |= matches
    return selected


def _parts(name: str, plain: bool) -> list[str]:
    """The parts of a tensor's name, as they are or without numbers at their ends."""
    parts = name.split("/") if name else []
    return [re.sub(r"_\d+$", "", part) for part in parts] if plain else parts


def _paths(parts: Sequence[str]) -> Iterator[str]:
    """All sequences of successive parts of a tensor's name, the longest first.

    Of equal lengths, those without the name of the model, which comes first in a tensor's name, have precedence.
    """
    for length in range(len(parts), 0, -1):
        for start in (*range(1, len(parts) - length + 1), 0):
            yield "/".join(parts[start : start + length])
