"""Models that were trained on scaled pixel values, as models that take pixel values 0..255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError, ModelError
from tfkd.models.copying import apply_copy


class _Scaling(NamedTuple):
    """`x · scale + offset`, one value or one for each channel, of channels that may be reversed (RGB to BGR) first."""

    scale: float | Sequence[float]
    offset: float | Sequence[float]
    reverse: bool = False


# The modes of `keras.applications.imagenet_utils.preprocess_input`. Mean and deviation of ImageNet.
_MEAN, _DEVIATION, _MEAN_BGR = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (103.939, 116.779, 123.68)
_MODES = {
    "tf": _Scaling(1 / 127.5, -1.0),
    "torch": _Scaling(
        [1 / (255 * one) for one in _DEVIATION],
        [-mean / one for mean, one in zip(_MEAN, _DEVIATION, strict=True)],
    ),
    "caffe": _Scaling(1.0, [-one for one in _MEAN_BGR], reverse=True),
}
# The mode of each module of `keras.applications` whose models do not scale their inputs themselves.
_APPLICATIONS = {
    "densenet": "torch", "inception_resnet_v2": "tf", "inception_v3": "tf", "mobilenet": "tf", "mobilenet_v2": "tf",
    "nasnet": "tf", "resnet": "caffe", "resnet50": "caffe", "resnet_v2": "tf", "vgg16": "caffe", "vgg19": "caffe",
    "xception": "tf",
}  # fmt: skip
PREPROCESS = (*_MODES, *_APPLICATIONS)


def take_pixels(
    model: keras.Model, *, input_range: Sequence[float] | None = None, preprocess: str | None = None
) -> keras.Model:
    """A model that takes pixel values 0..255, of a model that takes scaled ones: the scaling is its first layer.

    Args:
        model: A built model with one input of floating point, the scaled pixels.
        input_range: The values (low, high) that the model expects for the pixels 0 and 255, such as (0, 1) or (-1, 1).
        preprocess: `preprocess_input` of `keras.applications` instead: `tf`, `torch`, `caffe`, or the name of a module
            such as `resnet50`. `torch` and `caffe` take three channels, RGB.

    Returns:
        The new model, with weights of its own where its layers can be copied; `model` itself if neither is given.

    Raises:
        InputError: Both are given, the range is empty, or the name is unknown.
        ModelError: The model has several inputs, an input of integers or, for `torch` and `caffe`, not three channels.
    """
    if input_range is None and preprocess is None:
        return model
    scaling = _scaling(input_range, preprocess)
    shape = model.input_shape if keras_compat.shows_layers(model) and len(model.inputs) == 1 else None
    if not isinstance(shape, tuple) or not str(model.inputs[0].dtype).startswith(("float", "bfloat")):
        raise ModelError(
            f"models.load: input_range and preprocess need a functional or Sequential model with one input of floating "
            f"point. Received: {model.name!r}. Scale the pixels inside the model."
        )
    if isinstance(scaling.offset, list) and shape[-1] != 3:
        raise ModelError(
            f"models.load: preprocess={preprocess!r} needs three channels. Received: input shape {shape[1:]}. "
            "Use input_range."
        )
    inputs = keras.Input(batch_shape=shape, name="pixels")
    x = inputs
    if scaling.reverse:
        x = keras.layers.Concatenate(name="bgr")(ops.split(x, 3, axis=-1)[::-1])
    x = keras.layers.Rescaling(scaling.scale, scaling.offset, name="input_scaling")(x)
    return keras.Model(inputs, apply_copy(model, x), name=model.name)


def _scaling(input_range: Sequence[float] | None, preprocess: str | None) -> _Scaling:
    if preprocess is None:
        values = [float(one) for one in input_range or ()]
        if len(values) != 2 or values[0] == values[1]:
            raise InputError(
                f"models.load: input_range must be two different numbers, such as (0, 1). Received: {input_range!r}. "
                "Give what the model expects for the pixels 0 and 255."
            )
        low, high = values
        return _Scaling((high - low) / 255, low)
    if input_range is not None:
        raise InputError(
            f"models.load: input_range and preprocess exclude each other. Received: input_range={input_range!r} and "
            f"preprocess={preprocess!r}. Leave one out."
        )
    if preprocess not in PREPROCESS:
        hint = suggestion(preprocess, PREPROCESS) or f" Known: {', '.join(PREPROCESS)}."
        raise InputError(f"models.load: unknown preprocess={preprocess!r}.{hint}")
    return _MODES[_APPLICATIONS.get(preprocess, preprocess)]
