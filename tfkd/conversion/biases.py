"""Biases of an integer .tflite: both quantizers store some of them with a wrong value."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor

_Positions = tuple[int, int, int]

LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# Positions of the input, the weights and the bias among an op's inputs; of an LSTM for each gate.
_POSITIONS: dict[str, tuple[_Positions, ...]] = {
    "CONV_2D": ((0, 1, 2),),
    "DEPTHWISE_CONV_2D": ((0, 1, 2),),
    "FULLY_CONNECTED": ((0, 1, 2),),
    "TRANSPOSE_CONV": ((2, 1, 3),),
    LSTM: tuple((0, 1 + gate, 12 + gate) for gate in range(4)),
}
# Largest quantized bias. It leaves the other half of int32 to the sum of products.
_LARGEST = 2**30
_LARGEST_WEIGHT, _LARGEST_INT4 = 127, 7
_SMALLEST_SCALE = 1e-30
# Largest error of a bias that is right, in its steps and as a part of it: quantizers compute in float32.
_TOLERANCE = 2.0
_ROUNDING = 2.0**-22


def correct(content: bytes, original: bytes, names: Collection[str] = frozenset(_POSITIONS)) -> bytes:
    """Corrects the biases that differ from those of the float model.

    A bias is stored in steps of input scale x weight scale. Where weights are near 0, such as behind a
    BatchNormalization whose gamma has decayed, litert-quantizer's wraps around in 32 bits, and TensorFlow's is cut off
    at their end; there the weights get a larger scale, which changes the result by less than 2**-30 of the bias per
    product. TensorFlow's quantizer for 16-bit activations stores a bias that two layers share, or that equals another
    one, in the steps of one of them.

    Args:
        content: The quantized .tflite.
        original: The float .tflite that it was made from.
        names: Names of the ops that are corrected; all others may differ in both files.

    Returns:
        The file with other biases and weights in these layers, or `content` where all biases are right.
    """
    editor, floats = ModelEditor(content), ModelEditor(original)
    corrected = [
        _correct(editor, op, positions, *(floats.constant(int(float_op.inputs[i])) for i in positions[1:]))
        for (op, positions), (float_op, _) in zip(_layers(editor, names), _layers(floats, names), strict=True)
        if editor.tensors[int(op.inputs[positions[2]])].type != schema.TensorType.FLOAT32
    ]
    return editor.pack() if any(corrected) else content


def _layers(editor: ModelEditor, names: Collection[str]) -> list[tuple[schema.OperatorT, _Positions]]:
    """The ops with constant weights and bias, in the order of the file, which is the same in both files."""

    def has_constants(op: schema.OperatorT, positions: _Positions) -> bool:
        if positions[2] >= len(op.inputs) or op.inputs[positions[2]] < 0:
            return False
        return not any(editor.is_activation(int(op.inputs[position])) for position in positions[1:])

    named = ((op, editor.name(op)) for op in editor.graph.operators)
    return [
        (op, positions)
        for op, name in named
        if name in names
        for positions in _POSITIONS[name]
        if has_constants(op, positions)
    ]


def _correct(
    editor: ModelEditor, op: schema.OperatorT, positions: _Positions, weights: np.ndarray, bias: np.ndarray
) -> bool:
    """Gives a layer the right bias, and weights in a larger scale where it needs them; returns whether it did.

    Args:
        editor: The quantized file.
        op: The layer in it.
        positions: Positions of input, weights and bias among the op's inputs.
        weights: The layer's weights in the float file.
        bias: The layer's bias in the float file.
    """
    source, tensor, _ = (editor.tensors[int(op.inputs[position])] for position in positions)
    input_scale = float(source.quantization.scale[0])
    old_scales = np.asarray(tensor.quantization.scale, np.float64)
    smallest = np.abs(bias.astype(np.float64)) / (_LARGEST * input_scale)
    scales = np.maximum(old_scales, smallest if len(old_scales) > 1 else smallest.max())
    if not np.all(np.isfinite(scales)):  # TensorFlow's quantizer divided by the scale of an input that is always 0
        scales = np.full_like(scales, max(smallest.max(), np.abs(weights).max() / _LARGEST_WEIGHT, _SMALLEST_SCALE))
    quantized = bias / (scales * input_scale)
    stored = editor.constant(int(op.inputs[positions[2]]))
    if np.any(scales != old_scales):
        _rescale_weights(editor, op, positions[1], weights, scales)
    elif np.all(np.abs(stored - quantized) <= _TOLERANCE + np.abs(quantized) * _ROUNDING):
        return False
    editor.replace_constant(op, positions[2], np.round(quantized).astype(stored.dtype), scales * input_scale)
    return True


def _rescale_weights(
    editor: ModelEditor, op: schema.OperatorT, position: int, weights: np.ndarray, scales: np.ndarray
) -> None:
    tensor = editor.tensors[int(op.inputs[position])]
    shape = np.ones(len(tensor.shape), np.int64)
    if len(scales) > 1:
        shape[tensor.quantization.quantizedDimension] = len(scales)
    quantized = np.round(weights.reshape(tensor.shape) / scales.reshape(shape))
    if tensor.type == schema.TensorType.INT8:
        values = np.clip(quantized, -_LARGEST_WEIGHT, _LARGEST_WEIGHT).astype(np.int8)
        editor.replace_constant(op, position, values, scales)
    else:
        editor.replace_int4(op, position, np.clip(quantized, -_LARGEST_INT4, _LARGEST_INT4), scales)
