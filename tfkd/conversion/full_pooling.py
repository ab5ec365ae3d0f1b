"""Average pooling over the whole image as MEAN, which has a scale of its own.

AVERAGE_POOL_2D must have the scale of its input. The mean of an image has a far narrower range than its pixels: behind
a ReLU some 15 of 256 steps are left. MEAN computes the same in float, and rounds its result to steps of its own. Every
conversion to int8 does it, but for models that were trained with ranges of their own.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel

_POOL = "AVERAGE_POOL_2D"
_TRAINED_RANGES = ("QUANTIZE", "DEQUANTIZE")
_ROWS_AND_COLUMNS = np.array([1, 2], np.int32)


def replace(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Replaces each AVERAGE_POOL_2D whose window is the whole image.

    Args:
        content: A float .tflite.

    Returns:
        The changed file, or `content` where nothing changes; and the names of the results.
    """
    ops = TFLiteModel(content).ops
    if _POOL not in ops or any(name in ops for name in _TRAINED_RANGES):
        return content, ()  # without the time to read a large model
    editor, names = ModelEditor(content), []
    for op in _full(editor):
        source, output = int(op.inputs[0]), int(op.outputs[0])
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axes = editor.new_constant(_ROWS_AND_COLUMNS, f"axes{len(editor.tensors)}")
        editor.insert(editor.new_op("MEAN", [source, axes], [output], options), before=op)
        editor.remove(op)
        names.append(editor.tensors[output].name.decode())
    return (editor.pack(), tuple(names)) if names else (content, ())


def replace_as(content: bytes, converted: TFLiteModel) -> bytes:
    """Replaces them if a conversion to another mode has done so.

    Args:
        content: A float .tflite.
        converted: The conversion of the same model.
    """
    if _POOL in converted.ops and _full(ModelEditor(converted.content)):
        return content
    return replace(content)[0] if "MEAN" in converted.ops else content


def _full(editor: ModelEditor) -> list[schema.OperatorT]:
    return [op for op in editor.graph.operators if editor.name(op) == _POOL and _covers_image(editor, op)]


def _covers_image(editor: ModelEditor, op: schema.OperatorT) -> bool:
    """Whether the window is the whole image of more than one pixel, and no activation is fused."""
    options, shape = op.builtinOptions, list(editor.tensors[int(op.inputs[0])].shape)
    if options.fusedActivationFunction != schema.ActivationFunctionType.NONE or np.prod(shape[1:3]) < 2:
        return False
    window = [options.filterHeight, options.filterWidth]
    return window == shape[1:3] and list(editor.tensors[int(op.outputs[0])].shape)[1:3] == [1, 1]
