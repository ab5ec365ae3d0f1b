"""Tests of writing a .tflite from the objects of its schema."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import tflite_writer
from tfkd.conversion.tflite import TFLiteModel


def with_external_data(content):
    """The file with its largest constant behind the flatbuffer."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer = max(tree.buffers, key=lambda one: 0 if one.data is None else len(one.data))
    data, buffer.data, buffer.offset, buffer.size = bytes(buffer.data), None, 2, 2

    def pack():
        builder = flatbuffers.Builder(0)
        builder.Finish(tree.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    buffer.offset, buffer.size = len(pack()), len(data)
    return pack() + data


def test_constants_behind_the_flatbuffer_are_moved_into_it(converted):
    content = converted("full_int8").content
    external = with_external_data(content)
    assert len(TFLiteModel.load(external).weights()) < len(TFLiteModel.load(content).weights())
    written = tflite_writer.write(tflite_writer.read(external))
    for name, values in TFLiteModel.load(content).weights().items():
        np.testing.assert_array_equal(TFLiteModel.load(written).weights()[name], values)


def test_constants_are_aligned(converted):
    written = tflite_writer.write(tflite_writer.read(converted("full_int8").content))
    model = schema.Model.GetRootAs(written, 0)
    buffers = [buffer for buffer in map(model.Buffers, range(model.BuffersLength())) if buffer.DataLength()]
    assert buffers
    assert all(buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0 for buffer in buffers)
