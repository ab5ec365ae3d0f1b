"""The inputs of a .tflite by name, and the arrays of samples that it takes."""

from __future__ import annotations

import numpy as np

from tfkd._internal.types import InputArrays
from tfkd.conversion import signatures
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data.lazy import LazySamples
from tfkd.data.model_inputs import ModelInput, arrays_of
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError, ModelError


def of(model: TFLiteModel) -> list[ModelInput]:
    """The inputs of a .tflite in its order: named as in its signature, without one like its tensors.

    Args:
        model: The model. A quantized input takes real values here, float32, which `quantized` rounds.
    """
    names = signatures.inputs_in_order(model.content) or [tensor.name for tensor in model.inputs]
    return [
        ModelInput(name, (name,), tensor.sample_shape, "float32" if tensor.scales else tensor.dtype)
        for name, tensor in zip(names, model.inputs, strict=True)
    ]


def real(model: TFLiteModel, x: NamedArrays, where: str) -> list[np.ndarray]:
    """The samples of each input in the order of the file, real values where it is quantized.

    Args:
        model: The model. It may have fewer inputs than the samples.
        x: Samples, whose names are those of the Keras model, or those that the signature has for them.
        where: The model, for messages.

    Raises:
        InputError: An input has no array, two, or one of another shape or type.
    """
    inputs = of(model)
    known = {one.name for one in inputs}
    names: dict[str, str] = {}
    for name in x.arrays:
        key = name if name in known else signatures.input_name(name)
        if key in known and key in names:
            raise InputError(
                f"{where}: one array must be that of the input {key!r}. Received: {names[key]!r} and {name!r}. "
                f"Name the arrays like the inputs of the file: {', '.join(one.name for one in inputs)}."
            )
        names[key] = name
    return arrays_of(inputs, NamedArrays({key: x.arrays[name] for key, name in names.items()}), where)


def quantized(model: TFLiteModel, x: np.ndarray | LazySamples | NamedArrays, where: str) -> InputArrays:
    """Samples in the types of the inputs of a .tflite: one array [N, ...], or one for each of several inputs.

    Args:
        model: The model.
        x: Samples.
        where: The model, for messages.

    Raises:
        InputError: An input has no array, or one of another shape or type.
        ModelError: The model has several inputs, and the samples one array.
    """
    if isinstance(x, NamedArrays):
        return [model.quantize_input(array, index) for index, array in enumerate(real(model, x, where))]
    check_one(model, where)
    return model.quantize_input(x)


def check_one(model: TFLiteModel, where: str) -> None:
    """Refuses a model with several inputs, where samples have one array.

    Args:
        model: The model.
        where: The model, for the message.

    Raises:
        ModelError: It has several.
    """
    if len(model.inputs) != 1:
        raise ModelError(
            f"{where} must have one input for these samples, which are one array. Received: the inputs "
            f"{', '.join(map(str, of(model)))}. Give samples as a dict of arrays by these names, in a .npz file as "
            "x_train/NAME and x_test/NAME."
        )
