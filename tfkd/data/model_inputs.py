"""What a model takes, and the arrays of samples that belong to each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError

_Value = TypeVar("_Value")


class ModelInput(NamedTuple):
    """An input of a model.

    Args:
        name: Its name in the signature of the SavedModel or .tflite.
        keys: The names under which data may have it: that by which the Keras model takes it, and `name`.
        shape: Shape of one sample; None for a size that the model leaves open.
        dtype: Type of the values; `float32` where the model quantizes them.
    """

    name: str
    keys: tuple[str, ...]
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """Whether it takes floats, not integers such as ids."""
        return self.dtype.startswith(("float", "bfloat"))

    def __str__(self) -> str:
        return f"{self.keys[0]!r} of shape {self.shape}"


def select(inputs: Sequence[ModelInput], found: Mapping[str, _Value], where: str) -> list[_Value]:
    """The value of each input by its name. Values of other names, such as those of another model, are left out.

    Args:
        inputs: The inputs of the model.
        found: Values by name.
        where: The model, for the message.

    Raises:
        InputError: An input has no value.
    """
    values = [next((found[key] for key in one.keys if key in found), None) for one in inputs]
    missing = [str(one) for one, value in zip(inputs, values, strict=True) if value is None]
    if missing:
        raise InputError(
            f"{where} has the inputs {', '.join(map(str, inputs))}. Received: samples of "
            f"{', '.join(map(repr, found))}, and none of {', '.join(missing)}. Name the arrays like the "
            "inputs, or the inputs in keras.Input(..., name=...)."
        )
    return [value for value in values if value is not None]


def arrays_of(inputs: Sequence[ModelInput], x: NamedArrays, where: str) -> list[np.ndarray]:
    """The array of each input, in its shape and type. As in Keras, a last axis of one value may be missing or too much.

    Args:
        inputs: The inputs of the model.
        x: Samples.
        where: The model, for messages.

    Raises:
        InputError: An input has no array, or one of another shape or with values that its type does not hold.
    """
    return [_fitted(array, one, where) for array, one in zip(select(inputs, x.arrays, where), inputs, strict=True)]


def _fitted(array: np.ndarray, one: ModelInput, where: str) -> np.ndarray:
    shape = _sizes(array.shape[1:], len(one.shape))
    if len(shape) != len(one.shape) or any(b not in (None, a) for a, b in zip(shape, one.shape, strict=True)):
        raise InputError(
            f"{where}: samples must have the shape of the input {one}. Received: {array.shape[1:]}. Use the data that "
            "the model was trained on."
        )
    return as_type(array.reshape(len(array), *shape), one, where)


def _sizes(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The shape of a sample in so many dimensions, if only a last one of a single value is missing or too much."""
    if len(shape) == rank - 1:
        return (*shape, 1)
    return shape[:-1] if len(shape) == rank + 1 and shape[-1] == 1 else shape


def as_type(array: np.ndarray, one: ModelInput, where: str) -> np.ndarray:
    """An array in the type of an input.

    Args:
        array: Values.
        one: The input.
        where: The model or data, for the message.

    Raises:
        InputError: The input takes integers, and a value is no such integer.
    """
    kept = array.astype(one.dtype, copy=False)
    if not one.is_float and (kept != array).any():
        raise InputError(
            f"{where} must have values that {one.dtype} holds for the input {one}. Received: {array.dtype} values in "
            f"{array.min():g}..{array.max():g}. Use the data that the model was trained on."
        )
    return kept
