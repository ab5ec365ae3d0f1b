"""Checks that models return logits and that the compiled loss takes logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfkd._internal import keras_compat
from tfkd.errors import InputError, ModelError

_PROBABILITIES = ("softmax", "sigmoid", "log_softmax", "sparsemax")
# Rows that sum to 1 up to this tolerance are taken for probabilities.
_TOLERANCE = 1e-3


def known_classes(model: keras.Model) -> int | None:
    """The size of the last axis of a model's output, or None where it is known only after a call."""
    try:
        classes: int | None = model.output_shape[-1]
    except (AttributeError, ValueError):  # a subclassed model has no output shape before a call
        return None
    return classes


def check_gives_logits(role: str, model: Any) -> None:
    """Refuses objects that are not models, models with several outputs, and models whose last layer is a softmax.

    Args:
        role: `student` or `teacher`, for the message.
        model: Model to check. A subclassed model does not show its layers; `check_are_logits` checks its outputs.

    Raises:
        InputError: `model` is not a Keras model.
        ModelError: It has several outputs, or returns probabilities.
    """
    if not isinstance(model, keras.Model):
        raise InputError(
            f"Distiller: {role} must be a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model."
        )
    if not keras_compat.shows_layers(model):
        return
    if not isinstance(model, keras.Sequential) and not hasattr(model.output, "shape"):
        raise ModelError(
            f"Distiller: {role} must have one output, a tensor of logits. Received: output_shape={model.output_shape}. "
            f"Pass keras.Model({role}.inputs, {role}.outputs[i])."
        )
    layer = _last_layer(model)
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    if isinstance(layer, keras.layers.Softmax):
        activation = "softmax"
    if activation in _PROBABILITIES:
        raise ModelError(
            f"Distiller: {role} must end in logits. Received: its last layer {layer.name!r} applies {activation}. "
            f"Set its activation to None, or pass keras.Model({role}.inputs, the tensor before it)."
        )


def _last_layer(layer: Any) -> Any:
    """The layer that computes the model's output, also inside nested models."""
    while keras_compat.shows_layers(layer):
        layer = keras_compat.producer(layer.outputs[0])
    return layer


def check_are_logits(role: str, model: keras.Model, x: Any) -> None:
    """Runs a subclassed model on a batch and refuses outputs that look like probabilities.

    Args:
        role: `student` or `teacher`, for the message.
        model: Model to check.
        x: [B, ...] batch of inputs.

    Raises:
        ModelError: The model has several outputs, or returns probabilities.
    """
    logits = model(x, training=False)
    if not hasattr(logits, "shape"):
        raise ModelError(
            f"Distiller: {role} must have one output, the logits. Received: {type(logits).__name__}. "
            "Wrap it in a model that returns only the logits."
        )
    logits = ops.cast(logits, "float32")
    if ops.all(logits >= 0) and ops.all(ops.abs(ops.sum(logits, axis=-1) - 1) < _TOLERANCE):
        raise ModelError(
            f"Distiller: {role} must return logits. Received: rows that are >= 0 and sum to 1, as after softmax. "
            "Remove the softmax at its end."
        )


def check_takes_logits(loss: Any) -> None:
    """Refuses a compiled loss that expects probabilities.

    Args:
        loss: Name, function or instance of a Keras loss.

    Raises:
        InputError: The loss expects probabilities.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
    expects_probabilities = isinstance(loss, keras.losses.Loss) and loss.get_config().get("from_logits") is False
    if expects_probabilities or (isinstance(name, str) and name.endswith("crossentropy")):
        raise InputError(
            f"Distiller: the compiled loss must take logits. Received: loss={loss!r}, which expects probabilities. "
            "Use keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )
