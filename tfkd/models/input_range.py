"""Models that were trained on scaled pixel values, as models that take pixel values 0..255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.suggestion import suggestion
from tfkd._internal.types import Tensor
from tfkd.errors import InputError, ModelError
from tfkd.models import inputs
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
    model: keras.Model,
    *,
    input_range: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    preprocess: str | Mapping[str, str] | None = None,
) -> keras.Model:
    """A model that takes pixel values 0..255, of a model that takes scaled ones: the scaling is its first layer.

    Args:
        model: A built model with an input of floating point, the scaled pixels.
        input_range: The values (low, high) that the model expects for the pixels 0 and 255, such as (0, 1) or (-1, 1).
            Of a model with several inputs a dictionary, such as {"image": (0, 1)}; the others stay as they are.
        preprocess: `preprocess_input` of `keras.applications` instead: `tf`, `torch`, `caffe`, or the name of a module
            such as `resnet50`; of several inputs a dictionary. `torch` and `caffe` take three channels, RGB.

    Returns:
        The new model, with weights of its own where its layers can be copied; `model` itself if neither is given.

    Raises:
        InputError: Both are given for an input, the range is empty, or a name is unknown.
        ModelError: The model does not show its layers, or has an input of integers or, for `torch` and `caffe`, not
            three channels.
    """
    if input_range is None and preprocess is None:
        return model
    if not keras_compat.shows_layers(model):
        raise ModelError(
            "models.load: input_range and preprocess need a functional or Sequential model. Received: "
            f"{model.name!r}. Scale the pixels inside the model."
        )
    structure = keras_compat.input_structure(model)
    tensors, names = keras.tree.flatten(structure), inputs.names(structure)
    scalings = _by_input(names, input_range, preprocess)
    taken, scaled = [], []
    for name, tensor in zip(names, tensors, strict=True):
        alone = len(tensors) == 1
        one = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name="pixels" if alone else tensor.name)
        taken.append(one)
        scaled.append(_scaled(one, scalings[name], "" if alone else f"{tensor.name}_") if name in scalings else one)
    outputs = apply_copy(model, scaled)
    return keras.Model(keras.tree.pack_sequence_as(structure, taken), outputs, name=model.name)


def _by_input(
    names: Sequence[str],
    input_range: Sequence[float] | Mapping[str, Sequence[float]] | None,
    preprocess: str | Mapping[str, str] | None,
) -> dict[str, _Scaling]:
    """The scaling of each input that has one."""
    given: list[Mapping[str, Any]] = []
    for argument, value in (("input_range", input_range), ("preprocess", preprocess)):
        if not isinstance(value, Mapping) and value is not None and len(names) > 1:
            raise InputError(
                f"models.load: {argument} of a model with the inputs {', '.join(names)} must name the input. Received: "
                f"{value!r}. Pass {argument}={{{names[0]!r}: {value!r}}}; on the command line NAME=LOW,HIGH."
            )
        found = value if isinstance(value, Mapping) else {} if value is None else {names[0]: value}
        if unknown := [name for name in found if name not in names]:
            raise InputError(
                f"models.load: {argument} must name inputs of the model, {', '.join(names)}. Received: {unknown[0]!r}. "
                "Correct the name."
            )
        given.append(found)
    return {name: _scaling(given[0].get(name), given[1].get(name)) for name in {**given[0], **given[1]}}


def _scaled(pixels: Tensor, scaling: _Scaling, prefix: str) -> Tensor:
    """Pixels 0..255 as the model expects them."""
    if not str(pixels.dtype).startswith(("float", "bfloat")):
        raise ModelError(
            f"models.load: input_range and preprocess scale one input of floating point. Received: {pixels.dtype} "
            f"for {pixels.name!r}. Leave them out."
        )
    if isinstance(scaling.offset, list) and pixels.shape[-1] != 3:
        raise ModelError(
            f"models.load: this preprocess needs three channels. Received: input shape {tuple(pixels.shape[1:])}. Use "
            "input_range."
        )
    x = pixels
    if scaling.reverse:
        x = keras.layers.Concatenate(name=f"{prefix}bgr")(ops.split(x, 3, axis=-1)[::-1])
    return keras.layers.Rescaling(scaling.scale, scaling.offset, name=f"{prefix}input_scaling")(x)


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
