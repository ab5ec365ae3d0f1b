"""Initializes layers of a student with weights of another model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import keras

from tfkd._internal import keras_compat
from tfkd.errors import InputError, ModelError


def inherit(student: keras.Model, source: keras.Model, layers: Mapping[str, str]) -> list[str]:
    """Copies weights of a trained model into layers of a student, such as the first block of each teacher stage.

    Weights are matched by their names within the layer; weights that only the student's layer has are unchanged.

    Args:
        student: Built model whose weights change.
        source: Built model that the weights are copied from.
        layers: For each regular expression, which must match a whole layer name of the student, the name of the layer
            of `source`, in which `\\1` stands for the first group. The first expression that matches is used.

    Returns:
        The names of the student's layers that changed.

    Raises:
        InputError: An expression is invalid or matches no layer, or the source has no such layer.
        ModelError: The weights of two layers differ in shape.

    Reference:
        Sanh et al.: DistilBERT, a distilled version of BERT (arXiv:1910.01108), section 2.
    """
    source_layers = {layer.name: layer for layer in keras_compat.inner_layers(source)}
    changed: dict[str, str] = {}  # the expression by layer
    for layer in keras_compat.inner_layers(student):
        pattern, name = _counterpart(layer.name, layers)
        if not name or not layer.weights:
            continue
        if name not in source_layers:
            near = difflib.get_close_matches(name, source_layers, n=3) or list(source_layers)[-3:]
            raise InputError(
                f"models.inherit: {source.name!r} has no layer {name!r}, which {layers[pattern]!r} names for the layer "
                f"{layer.name!r}. Similar layers: {', '.join(near)}."
            )
        _copy_weights(layer, source_layers[name])
        changed[layer.name] = pattern
    if unused := [pattern for pattern in layers if pattern not in changed.values()]:
        raise InputError(
            f"models.inherit: {unused[0]!r} matches no layer of {student.name!r} that has weights and that no earlier "
            f"expression matches. Layers: {', '.join(layer.name for layer in student.layers if layer.weights)}."
        )
    return list(changed)


def _counterpart(layer: str, layers: Mapping[str, str]) -> tuple[str, str]:
    """The first expression that matches a layer, and the name of the source's layer; empty strings without a match."""
    for pattern, template in layers.items():
        try:
            match = re.fullmatch(pattern, layer)
            name = match.expand(template) if match else ""
        except re.error as error:
            raise InputError(
                f"models.inherit: layers must be regular expressions and names with their groups. Received: "
                f"{pattern!r}: {template!r}, {error}. Use {{'^name$': 'name'}} for one layer."
            ) from None
        if name:
            return pattern, name
    return "", ""


def _copy_weights(layer: keras.Layer, source: keras.Layer) -> None:
    weights = {weight.name: weight for weight in source.weights}
    for weight in layer.weights:
        if weight.name not in weights:
            continue
        if weight.shape != weights[weight.name].shape:
            raise ModelError(
                f"models.inherit: layer {layer.name!r} must have the shapes of {source.name!r}. Received: "
                f"{weight.name} {tuple(weight.shape)} and {tuple(weights[weight.name].shape)}. Leave it out."
            )
        weight.assign(weights[weight.name])
