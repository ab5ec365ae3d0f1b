"""Names and order of a model's inputs and outputs, from the Keras model through the SavedModel to the .tflite.

The signature of a SavedModel has names but no order, and the converter changes the order again. The order that a user
sees is that of `keras.tree.flatten`: lists as they are, dictionaries sorted by their keys.
"""

from __future__ import annotations

import itertools
import json
import keyword
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.types import Nest

if TYPE_CHECKING:
    import tensorflow as tf


def input_name(name: str) -> str:
    """The name of an input in a signature: one that TensorFlow accepts as that of an argument and keeps unchanged.

    >>> [input_name(name) for name in ("x", "image/left", "class", "1st")]
    ['x', 'image_left', 'input_class', 'input_1st']
    """
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    usable = re.match("[A-Za-z]", name) and not keyword.iskeyword(name) and name != "self"
    return name if usable else f"input_{name}"


def input_names(names: Iterable[str]) -> list[str]:
    """Different names of inputs, see `input_name`.

    >>> input_names(["input_3", "image/left", "x", "x"])
    ['input_3', 'image_left', 'x', 'input_4']
    """
    valid: list[str] = []
    for index, name in enumerate(map(input_name, names)):
        others = (f"input_{number}" for number in itertools.count(index))
        valid.append(next(one for one in itertools.chain([name], others) if one not in valid))
    return valid


def output_names(outputs: Nest, layers: Sequence[str | None] = ()) -> list[str]:
    """The keys of a dictionary of tensors; of any other structure the names of the layers that compute them.

    Args:
        outputs: The outputs of a Keras model.
        layers: Name of the layer of each output of a list; None for one that nobody named, which is `output_0`,
            `output_1` and so on, by its place.

    Returns:
        One name for each tensor, in the order of `keras.tree.flatten`.
    """
    import keras

    if isinstance(outputs, dict) and not any(map(keras.tree.is_nested, outputs.values())):
        keys = [str(key) for key in keras.tree.flatten({key: key for key in outputs})]
        if all(map(_is_name, keys)):
            return keys
    numbered = [f"output_{index}" for index in range(len(keras.tree.flatten(outputs)))]
    if not isinstance(outputs, list | tuple) or len(layers) != len(numbered):
        return numbered
    found = [name if name and _is_name(name) else other for name, other in zip(layers, numbered, strict=True)]
    return found if len(set(found)) == len(found) else numbered


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII) is not None


def orders(
    loaded: tf.Module, signature: tf.types.experimental.ConcreteFunction, folder: str
) -> tuple[list[str], list[str]]:
    """The names of a SavedModel's inputs and outputs in the order of the Keras model that it was made from.

    Keras keeps the structure of inputs and outputs in the function `serve` (`export`) or `__call__` (`save` of
    Keras 2). Without it, inputs are sorted by name, and outputs by number or name.

    Args:
        loaded: The SavedModel as TensorFlow loads it.
        signature: Its signature.
        folder: Its folder.
    """
    inputs = sorted(signature.structured_input_signature[1])
    outputs = sorted(signature.structured_outputs)
    numbered = all(re.fullmatch(r"output_\d+", name) for name in outputs)
    for function in (getattr(loaded, name, None) for name in ("serve", "__call__")):
        for concrete in getattr(function, "concrete_functions", ()):
            arguments = [
                spec.name for spec in _flatten(concrete.structured_input_signature[0]) if hasattr(spec, "name")
            ]
            if sorted(arguments) == inputs:
                inputs = arguments
                numbered &= not isinstance(concrete.structured_outputs, dict)
    if numbered:
        outputs.sort(key=lambda name: int(name.removeprefix("output_")))
    layers = _output_layers(Path(folder) / "keras_metadata.pb")
    return inputs, layers if sorted(layers) == outputs else outputs


def _flatten(structure: Nest) -> list[tf.TensorSpec]:
    """The leaves of lists, tuples and dictionaries, in the order of `keras.tree.flatten`; Keras is not loaded here."""
    if isinstance(structure, dict):
        structure = [structure[key] for key in sorted(structure)]
    if isinstance(structure, (list, tuple)) and not hasattr(structure, "_fields"):
        return [leaf for part in structure for leaf in _flatten(part)]
    return [structure]


def _output_layers(metadata: Path) -> list[str]:
    """The layers of a model's outputs in their order, from the file that `save` of Keras 2 writes beside the graph."""
    if not metadata.is_file():
        return []
    text = metadata.read_text("latin-1")  # a protocol buffer whose first string with a brace is the model's JSON
    try:
        config = json.JSONDecoder().raw_decode(text, text.index("{"))[0]["config"]
        entries = config["output_layers"]
    except (ValueError, KeyError, TypeError):  # a subclassed model has no graph of layers
        return []
    if isinstance(entries, dict):
        entries = [entries[key] for key in sorted(entries)]
    return [entry[0] for entry in (entries if isinstance(entries[0], list) else [entries])]


def inputs_in_order(content: bytes) -> list[str]:
    """The names of the inputs in the signature of a .tflite, in the order of its inputs; none without a signature."""
    return _in_order(content, "Inputs")


def outputs_in_order(content: bytes) -> list[str]:
    """The names of the outputs in the signature of a .tflite, in the order of its outputs; none without a signature."""
    return _in_order(content, "Outputs")


def _in_order(content: bytes, side: str) -> list[str]:
    model = schema.Model.GetRootAs(content, 0)
    if not model.SignatureDefsLength():
        return []
    signature = model.SignatureDefs(0)
    entries = map(getattr(signature, side), range(getattr(signature, f"{side}Length")()))
    names = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
    return [names[int(index)] for index in getattr(model.Subgraphs(0), f"{side}AsNumpy")()]


def reorder(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Puts the inputs and outputs of a .tflite into an order.

    Both vectors of tensor indices are overwritten in place, so that the rest of the file stays as it is.

    Args:
        content: A .tflite with one signature.
        inputs: Names of all inputs in the signature, in the new order.
        outputs: Names of all outputs.
    """
    reordered = bytearray(content)
    model = schema.Model.GetRootAs(reordered, 0)
    signature, graph = model.SignatureDefs(0), model.Subgraphs(0)
    indices = {
        entry.Name().decode(): entry.TensorIndex() for entry in map(signature.Inputs, range(signature.InputsLength()))
    }
    graph.InputsAsNumpy()[:] = [indices[name] for name in inputs]
    indices = {
        entry.Name().decode(): entry.TensorIndex() for entry in map(signature.Outputs, range(signature.OutputsLength()))
    }
    graph.OutputsAsNumpy()[:] = [indices[name] for name in outputs]
    return bytes(reordered)
