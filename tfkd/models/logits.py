"""Which models give logits and which losses take them; everything else is refused with its remedy."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfkd._internal import keras_compat
from tfkd.errors import InputError

_PROBABILITIES = ("softmax", "sigmoid", "log_softmax", "sparsemax")


def known_classes(model: keras.Model) -> int | None:
    """The size of a model's last axis, where it is known before a call."""
    try:
        return model.output_shape[-1]
    except (AttributeError, ValueError):  # a subclassed model says its shape only when it is called
        return None


def check_gives_logits(role: str, model: Any) -> None:
    """Refuses what is no model, has several outputs or visibly ends in probabilities."""
    if not isinstance(model, keras.Model):
        raise InputError(
            f"Distiller: {role} must be a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model."
        )
    if not keras_compat.shows_layers(model):
        return
    several = not isinstance(model, keras.Sequential) and not hasattr(model.output, "shape")
    if several:
        raise InputError(
            f"Distiller: {role} must have one output, a tensor of logits. Received: output_shape={model.output_shape}. "
            f"Give keras.Model({role}.inputs, {role}.outputs[i])."
        )
    layer = _last_layer(model)
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    if isinstance(layer, keras.layers.Softmax):
        activation = "softmax"
    if activation in _PROBABILITIES:
        raise InputError(
            f"Distiller: {role} must end in logits. Received: its last layer {layer.name!r} applies {activation}. "
            f"Set its activation to None, or give keras.Model({role}.inputs, the tensor before it)."
        )


def _last_layer(layer: Any) -> Any:
    """The layer whose output is the model's, looking into nested models."""
    while keras_compat.shows_layers(layer):
        layer = keras_compat.producer(layer.outputs[0])
    return layer


def check_are_logits(role: str, model: keras.Model, x: Any) -> None:
    """Runs a model that does not show its layers on a batch x, and refuses probabilities."""
    logits = model(x, training=False)
    if not hasattr(logits, "shape"):
        raise InputError(
            f"Distiller: {role} must have one output, the logits. Received: {type(logits).__name__}. "
            "Wrap it in a model that returns the logits alone."
        )
    logits = ops.cast(logits, "float32")
    if ops.all(logits >= 0) and ops.all(ops.abs(ops.sum(logits, axis=-1) - 1) < 1e-3):
        raise InputError(
            f"Distiller: {role} must give logits. Received: rows that are >= 0 and sum to 1, as after softmax. "
            "Remove the softmax at its end."
        )


def check_takes_logits(loss: Any) -> None:
    """Refuses a compiled loss that expects probabilities."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
    expects_probabilities = isinstance(loss, keras.losses.Loss) and loss.get_config().get("from_logits") is False
    if expects_probabilities or (isinstance(name, str) and name.endswith("crossentropy")):
        raise InputError(
            f"Distiller: the compiled loss must work on logits. Received: loss={loss!r}, which expects probabilities. "
            "Use keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )
