"""Models of keras.applications with random weights, the published ones, or those of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError, ToolMissingError
from tfkd.models import legacy

# Momentum of BatchNorm's moving averages. Keras's default of 0.99, and the 0.999 of its MobileNetV2, need more steps
# than a short training has: the averages stay near their initial values, and the model predicts at chance.
MOMENTUM = 0.9

PUBLISHED = "imagenet"
"""Value of `weights` for the published weights, which Keras downloads once into `~/.keras/models`."""


def application(
    builder: Callable[..., keras.Model],
    image: Tensor,
    x: Tensor,
    num_classes: int,
    weights: str | None,
    **options: object,
) -> keras.Model:
    """A model of keras.applications on a scaled image, with a new classifier where its weights have none.

    Args:
        builder: Function of `keras.applications`.
        image: Input of the model.
        x: The scaled image.
        num_classes: Number of classes or of other outputs.
        weights: None for random weights, `PUBLISHED`, or the path of a weights file.
        **options: Further arguments of the builder.

    Raises:
        InputError: The weights file does not exist, or is that of another model.
        ToolMissingError: The published weights are not in the cache of Keras and could not be downloaded.
    """
    include_top = weights is None or num_classes == 1000
    head: JsonObject = {"classes": num_classes, "classifier_activation": None}
    if not include_top:  # without the shape, MobileNetV2 takes the weights that were trained at 224x224 for all sizes
        head = {"pooling": "avg", "input_shape": tuple(image.shape[1:])}
    try:
        model = builder(include_top=include_top, weights=weights, input_tensor=x, **head, **options)
    except Exception as error:  # Keras raises any exception, and a bare Exception where a download fails
        if weights is None:
            raise
        raise _refusal(builder.__name__, weights, include_top, error) from error
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    if include_top:
        return model
    return keras.Model(image, layers.Dense(num_classes, name="logits")(model.output), name=model.name)


def _refusal(name: str, weights: str, include_top: bool, error: Exception) -> InputError | ToolMissingError:
    """The error for weights that cannot be loaded."""
    reason = legacy.reason(error)
    if "URL fetch failure" in reason:
        return ToolMissingError(
            f"{name}: the weights {weights!r} are not in the cache of Keras and could not be downloaded. {reason}. Put "
            "that file into ~/.keras/models (or models/ in $KERAS_HOME), or give weights the path of a weights file."
        )
    if weights != PUBLISHED and not Path(weights).is_file():
        return InputError(
            f"{name}: weights must be {PUBLISHED!r} or a weights file of keras.applications. Received: {weights!r}, "
            "which does not exist. Check the path."
        )
    classifier = "with" if include_top else "without"
    return InputError(
        f"{name}: weights must be those of keras.applications.{name} {classifier} its classifier. Received: "
        f"{weights!r}, which Keras refuses. {reason}. Give the file of this model."
    )
