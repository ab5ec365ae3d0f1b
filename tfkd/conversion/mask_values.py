"""Masks of attention in integers: the value that stands for a masked score is brought near to the scores.

A mask replaces the scores that a softmax must not see by a number such as -2e38, or -1e9. The scores share the scale of
that number, so that all of them would become one step, and the attention would be the same for each token:

    range of the scores      -4 .. 3           step 0.027
    with the mask            -2e38 .. 3        step 9e35     softmax of equal scores
    limited by `limit`       -14 .. 3          step 0.07     the softmax of a masked score is below half a step

A mask selects the number, or is multiplied by it and added to the scores: `scores + (1 - mask) * -1e9`.
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
# Ops that pass on the values of their first input in another shape.
_SHAPES = ("RESHAPE", "STRIDED_SLICE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "BROADCAST_TO", "TILE")


def limit(content: bytes, samples: Samples, *, int16: bool) -> bytes:
    """Raises the constants of masks in front of a softmax to the largest value that still masks.

    All masked scores of a row together get a probability below half a step. A row of which every score is masked keeps
    the differences of its scores where the mask is added; in floats a number such as -1e9 leaves them equal.

    Args:
        content: A float .tflite.
        samples: Calibration samples in the order of its inputs, which give the ranges of the scores.
        int16: Whether probabilities have the 32,768 steps of int16 somewhere, instead of the 256 of int8.

    Returns:
        The changed file, or `content` where it has no such mask, or where the ranges are unknown, as in loops.
    """
    graph = TFLiteModel.load(content).graph
    if all(op.name != "SOFTMAX" for op in graph.ops):
        return content
    editor = ModelEditor(content)
    selected = [(op, *mask) for op in editor.graph.operators if (mask := _selection(editor, op)) is not None]
    added = [(op, *factor) for op in editor.graph.operators if (factor := _factor(editor, op)) is not None]
    if not selected and not added:
        return content
    ranges, changed = activation_ranges.known_extremes(content, samples)[0], False
    if not ranges:
        return content

    def below(op: schema.OperatorT) -> float:
        """How far a masked score must be below the least one."""
        return math.log(2 * 2 ** (15 if int16 else 8) * int(editor.tensors[int(op.outputs[0])].shape[-1]))

    for op, position, scores in selected:
        least = np.float32(ranges[scores][0] - below(op))
        values = editor.constant(int(op.inputs[position]))
        if (values < least).all():
            editor.replace_constant(op, position, np.full_like(values, least))
            changed = True
    for op, position, sums in added:
        low, high = ranges[int(op.outputs[0])]
        if editor.name(sums[0][0]) == "SUB":
            low, high = -high, -low
        most = min(ranges[scores][0] - ranges[scores][1] - below(one) for one, scores in sums)
        if high <= 0 and low < most:
            values = editor.constant(int(op.inputs[position]))
            editor.replace_constant(op, position, (values * (most / low)).astype(values.dtype))
            changed = True
    return editor.pack() if changed else content


def _selection(editor: ModelEditor, op: schema.OperatorT) -> tuple[int, int] | None:
    """The position of a constant that a selection puts in the place of scores, and the tensor of the scores."""
    if editor.name(op) not in _SELECTIONS or not _ends_in_softmax(editor, int(op.outputs[0])):
        return None
    constants = [position for position in (1, 2) if not editor.is_activation(int(op.inputs[position]))]
    if len(constants) != 1 or editor.tensors[int(op.outputs[0])].type != schema.TensorType.FLOAT32:
        return None
    return constants[0], int(op.inputs[3 - constants[0]])


def _factor(editor: ModelEditor, op: schema.OperatorT) -> tuple[int, list[tuple[schema.OperatorT, int]]] | None:
    """The position of the constant that multiplies a mask, and the sums with scores that alone read the product."""
    if editor.name(op) != "MUL" or editor.tensors[int(op.outputs[0])].type != schema.TensorType.FLOAT32:
        return None
    constants = [position for position in (0, 1) if not editor.is_activation(int(op.inputs[position]))]
    if len(constants) != 1 or np.ptp(editor.constant(int(op.inputs[constants[0]]))) > 0:
        return None
    sums = _sums(editor, int(op.outputs[0]))
    return (constants[0], sums) if sums and len({editor.name(one) for one, _ in sums}) == 1 else None


def _sums(editor: ModelEditor, index: int) -> list[tuple[schema.OperatorT, int]] | None:
    """The sums in front of a softmax that alone read a tensor, in any shape, each with the tensor of its scores."""
    readers = [op for op in editor.graph.operators if index in op.inputs]
    if len(readers) != editor.readers().get(index, 0):
        return None
    found: list[tuple[schema.OperatorT, int]] = []
    for op in readers:
        position = [*map(int, op.inputs)].index(index)
        if editor.name(op) in _SHAPES and position == 0:
            inner = _sums(editor, int(op.outputs[0]))
            if inner is None:
                return None
            found += inner
        elif (editor.name(op) == "ADD" or (editor.name(op) == "SUB" and position == 1)) and _ends_in_softmax(
            editor, int(op.outputs[0])
        ):
            found.append((op, int(op.inputs[1 - position])))
        else:
            return None
    return found


def _ends_in_softmax(editor: ModelEditor, index: int) -> bool:
    """Whether softmax ops alone read a tensor, directly or in another shape."""
    readers = [op for op in editor.graph.operators if index in op.inputs]
    if len(readers) != editor.readers().get(index, 0):
        return False  # an output of the model, too
    return bool(readers) and all(
        editor.name(op) == "SOFTMAX" or (editor.name(op) == "RESHAPE" and _ends_in_softmax(editor, int(op.outputs[0])))
        for op in readers
    )
