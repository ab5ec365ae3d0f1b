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

from tfkd._internal import keras_compat
from tfkd.conversion.tflite_reader import TFLiteGraph
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras


def layers(model: keras.Model) -> dict[str, bool]:
    """The paths of all layers of a model, such as `conv` or `backbone/conv`, and whether each has a kernel."""

    def walk(parent: keras.Layer, path: str) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for layer in keras_compat.inner_layers(parent, recursive=False):
            name = f"{path}{keras_compat.scope_name(layer)}"
            found |= {name: hasattr(layer, "kernel"), **walk(layer, f"{name}/")}
        return found

    return walk(model, "")


def layer_of(tensor: str, weights: str, known: Mapping[str, bool]) -> str:
    """The layer of an op; of several fused layers, the one with a kernel.

    Args:
        tensor: Name of the op's output tensor.
        weights: Name of the op's weights tensor, or empty.
        known: Result of `layers`.

    Returns:
        The layer's path, or the tensor's name where no layer is known.

    >>> layer_of("m/block/relu/Relu;m/block/conv/convolution", "", {"block/relu": False, "block/conv": True})
    'block/conv'
    """
    found = known_layers(f"{tensor};{weights}", known)
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
