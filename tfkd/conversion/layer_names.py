"""The Keras layers that the ops of a .tflite come from, found by the names of their tensors.

The converter calls a tensor `model/layer/op` and joins the names of fused ops with `;`. The export appends a number to
each part. So `m/relu_1/Relu;m/conv_1/convolution` is the output of layer `conv` with the activation `relu` fused in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat
from tfkd.conversion.tflite_reader import TFLiteGraph
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras


def layers(model: keras.Model) -> dict[str, bool]:
    """The names of all layers of a model, nested ones included, and whether each has a kernel."""
    return {layer.name: hasattr(layer, "kernel") for layer in keras_compat.inner_layers(model)}


def layer_of(tensor: str, weights: str, known: Mapping[str, bool]) -> str:
    """The layer of an op; of several fused layers, the one with a kernel.

    Args:
        tensor: Name of the op's output tensor.
        weights: Name of the op's weights tensor, or empty.
        known: Result of `layers`.

    Returns:
        The layer's name, or the tensor's name where no layer is known.

    >>> layer_of("m/relu_1/Relu;m/conv_1/convolution", "", {"relu": False, "conv": True})
    'conv'
    """
    found = known_layers(f"{tensor};{weights}", known)
    return next((name for name in found if known[name]), found[0] if found else tensor)


def known_layers(tensor: str, known: Container[str]) -> list[str]:
    """The known layers that a tensor's name mentions, in its order.

    Args:
        tensor: Name of a tensor, or several names joined with `;`.
        known: Names of layers.

    >>> known_layers("m/relu_1/Relu;m/conv_1/convolution", {"relu", "conv"})
    ['relu', 'conv']
    """
    matches = (next((name for name in pair if name in known), None) for pair in _parts(tensor))
    return [name for name in matches if name is not None]


def op_names(graph: TFLiteGraph, index: int) -> list[str]:
    """The names that an expression can select an op by.

    Args:
        graph: Graph of the .tflite.
        index: Index of the op.

    Returns:
        The parts of its tensor names, with and without the number of the export, and its outputs' whole names.
    """
    op = graph.ops[index]
    constants = [i for i in op.inputs if i >= 0 and graph.constants[i]]
    joined = ";".join(graph.tensors[i].name for i in (*op.outputs, *constants))
    names = [name for pair in _parts(joined) for name in pair]
    return [*dict.fromkeys((*names, *(graph.tensors[i].name for i in op.outputs)))]


def select_ops(graph: TFLiteGraph, expressions: Sequence[str], argument: str) -> set[int]:
    """The indices of the ops that expressions select.

    Args:
        graph: Graph of the .tflite.
        expressions: Regular expressions, each searched in the names of every op (`op_names`).
        argument: Name of the argument that holds the expressions, for the message.

    Raises:
        InputError: An expression selects no op.
    """
    names = [op_names(graph, index) for index in range(len(graph.ops))]
    selected = set()
    for expression in expressions:
        matches = {i for i, candidates in enumerate(names) if any(re.search(expression, name) for name in candidates)}
        if not matches:
            known = [*dict.fromkeys(name for candidates in names for name in candidates)]
            near = difflib.get_close_matches(expression.strip("^$"), known, n=1, cutoff=0.4) or known[:1]
            raise InputError(
                f"{argument}: no layer matches {expression!r} in the {len(names)} ops of the model. "
                f"Did you mean {near[0]!r}?"
            )
        selected |= matches
    return selected


def _parts(tensor: str) -> list[tuple[str, str]]:
    """The parts of a tensor's name, each as it is and without the number of the export."""
    return [(part, re.sub(r"_\d+$", "", part)) for part in re.split(r"[/;:]", tensor) if part]
