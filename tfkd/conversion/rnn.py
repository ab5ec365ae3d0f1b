"""LSTM, GRU and SimpleRNN in a form that TensorFlow Lite has ops for, for as long as a model is exported."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfkd._internal import keras_compat
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

# Each step of an unrolled layer is a dozen ops.
_MOST_STEPS = 256


@contextlib.contextmanager
def exportable(model: keras.Model, *, integers: bool) -> Iterator[None]:
    """Makes a model's recurrent layers compute in another way, to the same result, while it is exported.

    An LSTM becomes one op, UNIDIRECTIONAL_SEQUENCE_LSTM, where it has the default activations and no state of its own.
    A layer that cannot is unrolled where the model is to compute in integers: the quantizer dies on loops.

    Args:
        model: of any kind; it is left as it was.
        integers: whether the model is to be quantized throughout.

    Raises:
        ValueError: a layer would have to be unrolled over too many steps.
    """
    import keras

    layers = [
        layer
        for layer in (model, *keras_compat.inner_layers(model))
        if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)) and not layer.unroll
    ]
    fused = [layer for layer in layers if isinstance(layer, keras.layers.LSTM) and _is_plain(layer)]
    rolled = [layer for layer in layers if layer not in fused] if integers else []
    for layer in rolled:
        _check_steps(layer)
    try:
        for layer in fused:
            # In the instance's own dictionary, past Keras's tracking of attributes.
            layer.__dict__["call"] = _fused(layer)
        for layer in rolled:
            layer.unroll = True
        yield
    finally:
        for layer in fused:
            layer.__dict__.pop("call", None)
        for layer in rolled:
            layer.unroll = False


def _is_plain(layer: Any) -> bool:
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
    steps = layer.input.shape[1] if getattr(layer, "_inbound_nodes", None) else None  # unknown in a wrapper
    if steps is not None and steps > _MOST_STEPS:
        raise InputError(
            f"convert: {type(layer).__name__} {layer.name!r} has no op of its own and is unrolled: it must have "
            f"{_MOST_STEPS} steps at most. Received: {steps} steps. Use an LSTM, which has an op, or fewer steps."
        )


def _fused(layer: Any) -> Callable[..., Any]:
    """What the layer computes, as a function that the converter knows as an LSTM.

    It does so by the attribute `api_implements`, the order of the arguments and that of the results, of which the
    states must be unused, as in TensorFlow's tensorflow/compiler/mlir/lite/utils/lstm_utils.cc.
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
        # As tensors: of a variable the converter would see a handle, on which it dies.
        weights = [tf.convert_to_tensor(one) for one in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        last, outputs, *_ = function(sequences, zeros, zeros, *weights)
        return outputs if layer.return_sequences else last

    return call
