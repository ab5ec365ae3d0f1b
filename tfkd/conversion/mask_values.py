"""Masks of attention in integers: the value that stands for a masked score is brought near to the scores.

A mask replaces the scores that a softmax must not see by a number such as -2e38, or -1e9. The scores share the scale of
that number, so that all of them would become one step, and the attention would be the same for each token:

    range of the scores      -4 .. 3           step 0.027
    with the mask            -2e38 .. 3        step 9e35     softmax of equal scores
    limited by `limit`       -14 .. 3          step 0.07     the softmax of a masked score is below half a step
"""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import activation_ranges
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

_SELECTIONS = ("SELECT", "SELECT_V2")


def limit(content: bytes, samples: Samples, *, steps: int) -> bytes:
    """Raises the constants of masks in front of a softmax to the largest value that still masks.

    All masked scores of a row together get a probability below half a step.

    Args:
        content: A float .tflite.
        samples: Calibration samples in the order of its inputs, which give the ranges of the scores.
        steps: Number of steps of a probability, 256 in int8 and 32,768 in int16.

    Returns:
        The changed file, or `content` where it has no such mask.
    """
    graph = TFLiteModel.load(content).graph
    if "SOFTMAX" not in TFLiteModel(content).ops or not any(op.name in _SELECTIONS for op in graph.ops):
        return content
    editor = ModelEditor(content)
    masks = [(op, *found) for op in editor.graph.operators if (found := _mask(editor, op)) is not None]
    if not masks:
        return content
    ranges, changed = activation_ranges.extremes(content, graph, samples), False
    for op, position, scores in masks:
        row = int(editor.tensors[int(op.outputs[0])].shape[-1])
        least = np.float32(ranges[scores][0] - math.log(2 * steps * row))
        values = editor.constant(int(op.inputs[position]))
        if (values < least).all():
            editor.replace_constant(op, position, np.full_like(values, least))
            changed = True
    return editor.pack() if changed else content


def _mask(editor: ModelEditor, op: schema.OperatorT) -> tuple[int, int] | None:
    """The position of a constant that a selection puts in the place of scores, and the tensor of the scores."""
    if editor.name(op) not in _SELECTIONS or not _ends_in_softmax(editor, int(op.outputs[0])):
        return None
    constants = [position for position in (1, 2) if not editor.is_activation(int(op.inputs[position]))]
    if len(constants) != 1 or editor.tensors[int(op.outputs[0])].type != schema.TensorType.FLOAT32:
        return None
    return constants[0], int(op.inputs[3 - constants[0]])


def _ends_in_softmax(editor: ModelEditor, index: int) -> bool:
    """Whether softmax ops alone read a tensor, directly or in another shape."""
    readers = [op for op in editor.graph.operators if index in op.inputs]
    if len(readers) != editor.readers().get(index, 0):
        return False  # an output of the model, too
    return bool(readers) and all(
        editor.name(op) == "SOFTMAX" or (editor.name(op) == "RESHAPE" and _ends_in_softmax(editor, int(op.outputs[0])))
        for op in readers
    )
