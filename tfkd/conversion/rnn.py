"""Recurrent layers: their export in a form that TensorFlow Lite has ops for, and the scales of their states."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Each step of an unrolled layer becomes about a dozen ops.
_MAX_UNROLLED_STEPS = 256
_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# The inputs of the op that hold its states, and the scales of the cell state for which LiteRT computes the tanh
# of it: 0 to 6 of its 15 bits are before the point (ApplyTanh in tensorflow/lite/kernels/internal). For other scales
# LiteRT leaves the result unset, without an error. TensorFlow Lite Micro takes all powers of two.
_STATES = _HIDDEN_STATE, _CELL_STATE = 18, 19
_HIDDEN = 4  # the intermediate tensor of the hidden state
_CELL_SCALES = (2.0**-15, 2.0**-9)


@contextlib.contextmanager
def exportable(model: keras.Model, *, integers: bool, lstm_op: bool = True) -> Iterator[None]:
    """Replaces the computation of recurrent layers by an equivalent one while the context is open.

    An LSTM with the default activations, and without mask, initial state and other use of its states, becomes one op,
    UNIDIRECTIONAL_SEQUENCE_LSTM. Where the model is to be quantized to integers, all other recurrent layers are
    unrolled, since the converter's quantizer crashes on loops. Dropout inside of cells is off: Keras draws its masks in
    inference too, which nothing reads, but which leaves the state of a random generator in the .tflite.

    Args:
        model: Any Keras model; it is unchanged afterwards.
        integers: Whether the model is to be quantized to integers.
        lstm_op: Whether UNIDIRECTIONAL_SEQUENCE_LSTM may be used.

    Raises:
        ModelError: A layer would have to be unrolled over too many steps.
    """
    import keras

    every = (model, *keras_compat.inner_layers(model))
    layers = [layer for layer in every if isinstance(layer, keras.layers.RNN)]
    rates = [(cell, cell.dropout, cell.recurrent_dropout) for cell in every if hasattr(cell, "reset_dropout_mask")]
    too_long: list[str] = []
    before = [(layer, layer.unroll, getattr(layer, "use_cudnn", None)) for layer in layers]
    try:
        for layer in layers:
            # Written to the instance's dictionary directly, since Keras tracks attributes that are assigned.
            layer.__dict__["call"] = _call(layer, integers, lstm_op, too_long)
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = False  # on a machine with a GPU, Keras would use an op of cuDNN
        for cell, *_ in rates:
            cell.dropout = cell.recurrent_dropout = 0.0
        yield
    finally:
        for cell, dropout, recurrent in rates:
            cell.dropout, cell.recurrent_dropout = dropout, recurrent
        for layer, unroll, use_cudnn in before:
            layer.__dict__.pop("call", None)
            layer.unroll = unroll
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = use_cudnn
    if too_long:
        raise ModelError(
            f"convert: {', '.join(too_long)}: recurrent layers other than a plain LSTM have no TensorFlow Lite op and "
            f"are unrolled for integer modes, for which they must have at most {_MAX_UNROLLED_STEPS} steps. Use an "
            "LSTM with default activations, fewer steps, or mode='dynamic_range'."
        )


def _call(layer: keras.Layer, integers: bool, lstm_op: bool, too_long: list[str]) -> Callable[..., Nest]:
    """A `call` of a layer for its export; the layer is added to `too_long` where it has too many steps to unroll."""
    original = layer.call
    fused = _fused_call(layer) if lstm_op and _can_fuse(layer) else None

    def call(sequences: tf.Tensor, *args: object, **kwargs: object) -> Nest:
        states_and_mask = (*args[:2], kwargs.get("initial_state"), kwargs.get("mask"))
        if fused and all(value is None for value in states_and_mask):
            return fused(sequences)
        if integers and not layer.unroll:
            steps = sequences.shape[1]
            if steps is None or steps > _MAX_UNROLLED_STEPS:
                too_long.append(f"{type(layer).__name__} {layer.name!r} of {steps or 'an unknown number of'} steps")
            else:
                layer.unroll = True
        return original(sequences, *args, **kwargs)

    return call


def _can_fuse(layer: keras.Layer) -> bool:
    """Whether a layer is an LSTM of Keras itself, not of a subclass, with the settings of the op."""
    import keras

    cell = layer.cell
    return (
        type(layer) is keras.layers.LSTM
        and type(cell) is keras.layers.LSTMCell
        and cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and cell.use_bias
        and not layer.stateful
        and not layer.return_state
        and not layer.unroll
    )


def _fused_call(layer: keras.Layer) -> Callable[[tf.Tensor], tf.Tensor]:
    """An LSTM's `call` without initial state and mask, which the converter recognises and replaces by one op.

    The converter (tensorflow/compiler/mlir/lite/utils/lstm_utils.cc) recognises it by the attribute `api_implements`
    and by the order of arguments and results; the results that hold states must be unused.
    """
    import tensorflow as tf

    def compute(
        inputs: tf.Tensor, h: tf.Tensor, c: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        def step(state: tuple[tf.Tensor, tf.Tensor], now: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gates = tf.split(tf.matmul(now, kernel) + tf.matmul(state[0], recurrent) + bias, 4, axis=1)
            cell = tf.sigmoid(gates[1]) * state[1] + tf.sigmoid(gates[0]) * tf.tanh(gates[2])
            return tf.sigmoid(gates[3]) * tf.tanh(cell), cell

        outputs, cells = tf.scan(step, tf.transpose(inputs, (1, 0, 2)), (h, c))
        return outputs[-1], tf.transpose(outputs, (1, 0, 2)), outputs[-1], cells[-1], tf.constant(1.0)

    marked = {"api_implements": f"lstm_{uuid.uuid4()}", "go_backwards": False, "time_major": False}
    function = tf.function(compute, autograph=False, experimental_attributes=marked)
    cell = layer.cell

    def call(sequences: tf.Tensor) -> tf.Tensor:
        if layer.go_backwards:
            sequences = tf.reverse(sequences, axis=[1])
        zeros = tf.zeros((sequences.shape[0] or tf.shape(sequences)[0], cell.units), sequences.dtype)
        # Converted to tensors, since the converter crashes on the handle of a variable.
        weights = [tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        last, outputs, *_ = function(sequences, zeros, zeros, *weights)
        return outputs if layer.return_sequences else last

    return call


def states(model: keras.Model) -> list[keras.Variable]:
    """The variables in which layers with `stateful=True` keep their states."""
    import keras

    layers = [layer for layer in (model, *keras_compat.inner_layers(model)) if isinstance(layer, keras.layers.RNN)]
    return [state for layer in layers if layer.stateful for state in keras.tree.flatten(layer.states or ())]


@contextlib.contextmanager
def initial_states(model: keras.Model) -> Iterator[None]:
    """Sets the states of layers with `stateful=True` to zero while the context is open, and restores them afterwards.

    Args:
        model: Any Keras model.
    """
    import keras

    before = [(state, keras.ops.convert_to_numpy(state)) for state in states(model)]
    for state, _ in before:
        state.assign(keras.ops.zeros_like(state))
    try:
        yield
    finally:
        for state, value in before:
            state.assign(value)


def correct_lstms(content: bytes) -> bytes:
    """Corrects what the converter writes for an LSTM.

    - It limits cell states to -10..10. Keras has no limit.
    - It merges constants that are equal, so that weights of shape [1, 1] that are 0, or other zeros of the shape of a
      state, become the variable tensor of the state, and change with it. They become constants again.

    Args:
        content: A .tflite whose activations are floats.

    Returns:
        The changed file, or `content` where it has no such op.
    """
    if _LSTM not in TFLiteModel(content).ops:
        return content
    editor = ModelEditor(content)
    for op in editor.graph.operators:
        is_lstm = editor.name(op) == _LSTM
        if is_lstm:
            op.builtinOptions.cellClip = 0.0
        for position, index in enumerate(op.inputs.tolist()):
            if index >= 0 and editor.tensors[index].isVariable and not (is_lstm and position in _STATES):
                zeros = np.zeros(editor.tensors[index].shape, np.float32)
                editor.set_input(op, position, editor.new_constant(zeros, f"zeros{len(editor.tensors)}"))
    return editor.pack()


def align_lstm_scales(content: bytes) -> bytes:
    """Changes the scales of integer LSTMs so that all engines compute the same.

    - LiteRT scales the hidden state like an intermediate tensor, TensorFlow Lite Micro like the output. Their values
      are the same, but calibration may give them different ranges; the intermediate takes that of the output.
    - Cell states with a scale that is too small for LiteRT take the smallest one that it computes.

    The kernels derive their factors from these scales when the model is loaded, so that nothing else changes.

    Args:
        content: A .tflite.

    Raises:
        ModelError: A cell state is beyond -64..64, for which LiteRT has no integer tanh.
    """
    aligned = bytearray(content)
    subgraph = schema.Model.GetRootAs(aligned, 0).Subgraphs(0)
    for index, op in enumerate(TFLiteModel.load(content).graph.ops):
        if op.name != _LSTM or len(op.inputs) <= _CELL_STATE:
            continue
        cell, output = (subgraph.Tensors(i) for i in (op.inputs[_CELL_STATE], op.outputs[0]))
        if cell.Type() != schema.TensorType.INT16:
            continue
        hidden = subgraph.Tensors(subgraph.Operators(index).Intermediates(_HIDDEN)).Quantization()
        hidden.ScaleAsNumpy()[:] = output.Quantization().ScaleAsNumpy()  # views of the file
        hidden.ZeroPointAsNumpy()[:] = output.Quantization().ZeroPointAsNumpy()
        scales = cell.Quantization().ScaleAsNumpy()
        if scales[0] > _CELL_SCALES[1]:
            raise ModelError(
                f"the cell state of the LSTM {output.Name().decode()!r} is beyond -64..64, which the integer op of "
                "LiteRT does not compute. Use fewer steps, or mode='dynamic_range'."
            )
        scales[0] = max(scales[0], _CELL_SCALES[0])
    return bytes(aligned)


def kept_state(model: TFLiteModel) -> tuple[str, ...]:
    """A finding on a .tflite whose LSTM begins a run with the state in which the run before ended; () for others."""
    if _LSTM not in model.ops:
        return ()
    finding = (
        "The op UNIDIRECTIONAL_SEQUENCE_LSTM keeps its state from one run to the next, unlike the Keras model. Before "
        "each sequence call reset_all_variables() in Python, resetVariableTensors() in Java, ResetVariableTensors() in "
        "C++, Reset() of TensorFlow Lite Micro, or tfkd_<name>_reset of the generated C."
    )
    return (finding,)
