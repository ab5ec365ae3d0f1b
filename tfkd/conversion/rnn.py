"""Export of LSTM, GRU and SimpleRNN layers in a form that TensorFlow Lite has ops for."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfkd._internal import keras_compat
from tfkd.errors import ModelError

if TYPE_CHECKING:
    import keras

# Each step of an unrolled layer becomes about a dozen ops.
_MAX_UNROLLED_STEPS = 256


@contextlib.contextmanager
def exportable(model: keras.Model, *, integers: bool) -> Iterator[None]:
    """Replaces the computation of recurrent layers by an equivalent one while the context is open.

    An LSTM with the default activations and without state becomes one op, UNIDIRECTIONAL_SEQUENCE_LSTM. Where the
    model is to be quantized to integers, other recurrent layers are unrolled, since the converter's quantizer crashes
    on loops.

    Args:
        model: Any Keras model; it is unchanged afterwards.
        integers: Whether the model is to be quantized to integers.

    Raises:
        ModelError: A layer would have to be unrolled over too many steps.
    """
    import keras

    layers = [
        layer
        for layer in (model, *keras_compat.inner_layers(model))
        if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)) and not layer.unroll
    ]
    fused = [layer for layer in layers if isinstance(layer, keras.layers.LSTM) and _can_fuse(layer)]
    unrolled = [layer for layer in layers if layer not in fused] if integers else []
    for layer in unrolled:
        _check_steps(layer)
    try:
        for layer in fused:
            # Written to the instance's dictionary directly, since Keras tracks attributes that are assigned.
            layer.__dict__["call"] = _fused_call(layer)
        for layer in unrolled:
            layer.unroll = True
        yield
    finally:
        for layer in fused:
            layer.__dict__.pop("call", None)
        for layer in unrolled:
            layer.unroll = False


def _can_fuse(layer: Any) -> bool:
    import keras

    cell = layer.cell
    return (
        cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and cell.use_bias
        and not layer.stateful
        and not layer.return_state
    )


def _check_steps(layer: Any) -> None:
    try:
        steps = layer.input.shape[1]
    except AttributeError:  # a layer inside a wrapper, such as Bidirectional, has no input of its own
        return
    if steps is not None and steps > _MAX_UNROLLED_STEPS:
        raise ModelError(
            f"convert: {type(layer).__name__} {layer.name!r} has no TensorFlow Lite op and is unrolled, for which it "
            f"must have at most {_MAX_UNROLLED_STEPS} steps. Received: {steps} steps. Use an LSTM or fewer steps."
        )


def _fused_call(layer: Any) -> Callable[..., Any]:
    """The layer's `call` as a function that the converter recognises and replaces by the op of an LSTM.

    The converter (tensorflow/compiler/mlir/lite/utils/lstm_utils.cc) recognises it by the attribute `api_implements`
    and by the order of arguments and results; the results that hold states must be unused.
    """
    import tensorflow as tf

    def compute(
        inputs: tf.Tensor, h: tf.Tensor, c: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
    ) -> Any:
        def step(state: Any, now: tf.Tensor) -> Any:
            gates = tf.split(tf.matmul(now, kernel) + tf.matmul(state[0], recurrent) + bias, 4, axis=1)
            cell = tf.sigmoid(gates[1]) * state[1] + tf.sigmoid(gates[0]) * tf.tanh(gates[2])
            return tf.sigmoid(gates[3]) * tf.tanh(cell), cell

        outputs, cells = tf.scan(step, tf.transpose(inputs, (1, 0, 2)), (h, c))
        return outputs[-1], tf.transpose(outputs, (1, 0, 2)), outputs[-1], cells[-1], tf.constant(1.0)

    marked = {"api_implements": f"lstm_{uuid.uuid4()}", "go_backwards": False, "time_major": False}
    function = tf.function(compute, autograph=False, experimental_attributes=marked)
    original, cell = layer.call, layer.cell

    def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        if initial_state is not None or mask is not None:
            return original(sequences, initial_state=initial_state, mask=mask, training=training)
        if layer.go_backwards:
            sequences = tf.reverse(sequences, axis=[1])
        zeros = tf.zeros((sequences.shape[0] or tf.shape(sequences)[0], cell.units), sequences.dtype)
        # Converted to tensors, since the converter crashes on the handle of a variable.
        weights = [tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        last, outputs, *_ = function(sequences, zeros, zeros, *weights)
        return outputs if layer.return_sequences else last

    return call
