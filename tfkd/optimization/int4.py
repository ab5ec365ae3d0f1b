"""Packs the weights of an int8 .tflite into 4 bits where their values are multiples of the int4 step already."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor

# The largest quantized weight, on both sides of 0.
_INT4, _INT8 = 7, 127
# Operators for which TensorFlow Lite supports int4 weights.
OPS = ("CONV_2D", "FULLY_CONNECTED")


def pack(content: bytes) -> bytes:
    """Stores the weights of convolutions and matrix products in half the bytes.

    A weight that was k int4 steps, k in -7..7, became round(k * 127 / 7) int8 steps in the conversion; k is recovered
    exactly. Biases are rescaled to the new weight scale.

    Args:
        content: An int8 .tflite.

    Returns:
        The .tflite with int4 weights; weights that are not such multiples keep 8 bits.
    """
    editor = ModelEditor(content)
    model = editor.model
    for graph in model.subgraphs:
        done: set[int] = set()
        for op in graph.operators:
            if editor.name(op) not in OPS:
                continue
            weights, bias = (int(op.inputs[i]) if i < len(op.inputs) else -1 for i in (1, 2))
            if weights in done or not _narrow(model, graph.tensors[weights], schema.TensorType.INT4):
                continue
            done.add(weights)
            if bias >= 0:
                _rescale(model, graph.tensors[bias])
    return editor.pack()


def _narrow(model: schema.ModelT, tensor: schema.TensorT, int4: int) -> bool:
    """Packs a weight tensor, two weights per byte with the first in the low nibble, if all are int4 multiples."""
    wide = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8).astype(np.float64)
    steps = np.round(wide * _INT4 / _INT8)
    if np.any(wide != np.round(steps * _INT8 / _INT4)):
        return False
    nibbles = steps.astype(np.int8).view(np.uint8) & 0x0F
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    _replace(model, tensor, nibbles[0::2] | (nibbles[1::2] << 4))
    tensor.type = int4
    return True


def _rescale(model: schema.ModelT, tensor: schema.TensorT) -> None:
    """Rounds a bias to its new scale, input scale times the larger weight scale."""
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32)
    _replace(model, tensor, np.round(values * (_INT4 / _INT8)).astype(np.int32).view(np.uint8))


def _replace(model: schema.ModelT, tensor: schema.TensorT, data: np.ndarray) -> None:
    """Gives a tensor a new buffer, since tensors may share one, and the int4 scale, 127 / 7 times the int8 scale."""
    buffer = type(model.buffers[0])()
    buffer.data = data
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    tensor.quantization.scale = np.asarray(tensor.quantization.scale, np.float32) * np.float32(_INT8 / _INT4)
