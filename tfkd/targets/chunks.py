"""Sequences that a model takes chunk by chunk, as a stream comes in: its state passes from one chunk to the next.

    sample [T, ...]  =  chunk 0 [t, ...] | chunk 1 | ... | chunk T/t − 1        t: length of the model's input
    state:              initial ────────> ────────> ... ──>  answer             the next sample: initial again

Without that, on every target, each input starts from the initial state of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfkd._internal.types import InputArrays
from tfkd.errors import InputError, ModelError

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel

# Ops that keep a state from one inference to the next, and read a sequence forwards only.
_STATES = frozenset(
    {
        "LSTM",
        "RNN",
        "SVDF",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "VAR_HANDLE",
    }
)


def count(model: TFLiteModel, shape: tuple[int, ...], where: str) -> int:
    """The number of chunks of a sequence.

    Args:
        model: A .tflite with one input [1, t, ...] that keeps a state.
        shape: Shape of a sequence, [T, ...].
        where: Beginning of the error message.

    Raises:
        ModelError: The model keeps no state.
        InputError: T is no multiple of t, or the other dimensions differ.
    """
    if _STATES.isdisjoint(model.ops):
        raise ModelError(
            f"{where}: a model that takes sequences in chunks must keep a state between them. Received: ops without "
            "one. Convert a model whose recurrent layers have stateful=True, or whose plain LSTM becomes one op."
        )
    shapes = [tensor.shape for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) < 2 or min(shapes[0]) < 1:
        raise ModelError(
            f"{where}: a model that takes sequences in chunks must have one input [1, t, ...]. Received: {shapes}. "
            "Convert one of this form."
        )
    length, *rest = model.inputs[0].sample_shape
    if list(shape[1:]) != rest or shape[0] % length:
        raise InputError(
            f"{where}: sequences must have the shape [T, ...] with T a multiple of {length} and the other dimensions "
            f"{rest}, since the input of the model is {shapes[0]}. Received: {list(shape)}. Cut or pad them."
        )
    return shape[0] // length


def divide(model: TFLiteModel, inputs: InputArrays, where: str) -> tuple[np.ndarray, int]:
    """Sequences [N, T, ...] as chunks [N · T/t, t, ...], and the number of chunks of each; see `count`."""
    array = np.asarray(inputs if isinstance(inputs, np.ndarray) or len(inputs) != 1 else inputs[0])
    chunks = count(model, array.shape[1:], where)
    return array.reshape(-1, *model.inputs[0].sample_shape), chunks


def join(model: TFLiteModel, outputs: tuple[np.ndarray, ...], chunks: int) -> tuple[np.ndarray, ...]:
    """The outputs of sequences from those of their chunks.

    Args:
        model: The model.
        outputs: [N · chunks, ...] for each output of the model.
        chunks: Number of chunks of a sequence.

    Returns:
        For each output [N, ...] that of the last chunk; an output of each step, [t, C], joined to [T, C].
    """
    by_sequence = (output.reshape(-1, chunks, *output.shape[1:]) for output in outputs)
    return tuple(
        output.reshape(len(output), -1, *output.shape[3:]) if is_of_steps(model, index) else output[:, -1]
        for index, output in enumerate(by_sequence)
    )


def is_of_steps(model: TFLiteModel, output: int) -> bool:
    """Whether an output [1, t, C, ...] has a value for each step of the input."""
    given, taken = model.outputs[output].sample_shape, model.inputs[0].sample_shape
    return len(given) > 1 and given[0] == taken[0]
