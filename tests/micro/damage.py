"""Damages .tflite files: a few fields changed at random."""

from __future__ import annotations

import random
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def mutated(content: bytes, numbers: random.Random) -> bytes:
    """A model with one to three fields changed: tensor indices, shapes, scales, options or data."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for _ in range(numbers.randint(1, 3)):
        _damage(tree, numbers)
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _damage(tree: Any, numbers: random.Random) -> None:
    """Changes one field."""
    graph = tree.subgraphs[0]
    tensor, op = numbers.choice(graph.tensors), numbers.choice(graph.operators)
    odd = numbers.choice([-(2**31), -1, 0, 1, 2, 3, 7, 127, 255, 2**15, 2**31 - 1])
    kind = numbers.randrange(8)
    if kind == 0 and len(tensor.shape):
        shape = np.array(tensor.shape)
        shape[numbers.randrange(len(shape))] = odd
        tensor.shape = shape
    elif kind == 1 and tensor.quantization is not None and tensor.quantization.scale is not None:
        scale = numbers.choice([0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf"), 1e-9, 3.0])
        tensor.quantization.scale = np.full(len(tensor.quantization.scale), scale, "f4")
    elif kind == 2 and tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
        tensor.quantization.zeroPoint = np.full(len(tensor.quantization.zeroPoint), odd, "i8")
    elif kind == 3 and op.inputs is not None and len(op.inputs):  # VAR_HANDLE has none
        inputs = np.array(op.inputs)
        inputs[numbers.randrange(len(inputs))] = numbers.choice([odd, numbers.randrange(len(graph.tensors))])
        op.inputs = inputs
    elif kind == 4:
        op.outputs = np.array([numbers.randrange(len(graph.tensors))])
    elif kind == 5 and op.builtinOptions is not None:
        fields = [name for name, value in vars(op.builtinOptions).items() if type(value) is int]
        if fields:
            setattr(op.builtinOptions, numbers.choice(fields), max(-128, min(127, odd)))
    elif kind == 6:
        tensor.type = numbers.choice([0, 2, 3, 7, 9, 9])
    else:
        buffer = numbers.choice(tree.buffers)
        if buffer.data is not None and len(buffer.data):
            data = np.array(buffer.data)
            data[numbers.randrange(len(data))] = numbers.randrange(256)
            buffer.data = data if numbers.random() < 0.7 else data[: numbers.randrange(len(data)) + 1]
