"""Writes a .tflite from the objects of its schema."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

# Alignment of constants in bytes, which the schema demands and the generated code does not keep.
_ALIGNMENT = 16


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data begin at a multiple of 16 bytes."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # the name in the generated code
        data = None
        if self.data is not None and len(self.data):
            content = np.asarray(self.data, "uint8").tobytes()
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def read(content: bytes) -> schema.ModelT:
    """The model as an object of the schema, with all constants in its buffers.

    A file may keep constants behind the flatbuffer, as litert-quantizer does for larger models. TensorFlow Lite Micro
    does not read them there: it computes with other values, without an error.

    Args:
        content: The .tflite file.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, "uint8", buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for op in (op for graph in model.subgraphs for op in graph.operators or ()):
        if op.inputs is None:  # VAR_HANDLE has no inputs
            op.inputs = np.zeros(0, "int32")
        if op.outputs is None:  # ASSIGN_VARIABLE has no outputs
            op.outputs = np.zeros(0, "int32")
    return model


def write(model: schema.ModelT) -> bytes:
    """The .tflite file of a model.

    Args:
        model: Result of `read`, changed or not.
    """
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
