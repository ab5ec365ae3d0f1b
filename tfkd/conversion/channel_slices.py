"""Layers whose output is cut into slices of channels of unlike ranges, as one layer for each slice.

In int8 a slice shares the scale of the tensor that it is cut from: beside channels in -100..100, channels in -1..1 are
left with two or three steps. A layer for each slice gives each a scale of its own, and computes exactly the same:

                     ┌── STRIDED_SLICE ── y          x ──┬── CONV_2D (first channels) ── y
    x ── CONV_2D ────┤                       =>          │
                     └── STRIDED_SLICE ── z              └── CONV_2D (last channels) ── z
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel

# The ops that are cut, and the axis of the output channels of their weights.
_CHANNEL_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}
# The ops that cut, and the position of what they cut among their inputs.
_SOURCES = {"STRIDED_SLICE": 0, "SPLIT_V": 0, "SPLIT": 1}
# A slice needs a scale of its own where its range is narrower than the whole one by this factor: from there on it is
# left with fewer than 32 of 256 steps.
_NARROWER = 8


class _Cut(NamedTuple):
    """An op that cuts channels out of a tensor: for each of its outputs, the first channel and the one behind the last.

    Args:
        op: STRIDED_SLICE, SPLIT or SPLIT_V.
        parts: Tensor index of the output, first channel, channel behind the last one.
    """

    op: schema.OperatorT
    parts: list[tuple[int, int, int]]


def separate(content: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Makes one layer for each slice where a slice has a far narrower range than the whole output.

    Args:
        content: A float .tflite.
        ranges: The range of each tensor by name; slices without one stay as they are.

    Returns:
        The changed file, or `content` where nothing changes.
    """

    def width(editor: ModelEditor, index: int) -> float | None:
        limits = ranges.get(editor.tensors[index].name.decode())
        return None if limits is None else max(limits[1], 0.0) - min(limits[0], 0.0)

    def select(editor: ModelEditor, source: int, cuts: list[_Cut], readers: int) -> list[_Cut]:
        whole = width(editor, source)
        if not whole:
            return []
        narrow = [
            cut for cut in cuts if any((width(editor, part[0]) or whole) * _NARROWER < whole for part in cut.parts)
        ]
        return cuts if narrow and readers == len(cuts) else narrow

    return _separate(content, select)


def separate_as(content: bytes, converted: TFLiteModel) -> bytes:
    """Makes the layers of a float .tflite that a conversion to another mode has made by `separate`.

    Args:
        content: A float .tflite.
        converted: The conversion of the same model.
    """
    graph = converted.graph
    made = {graph.tensors[i].name for op in graph.ops if op.name in _CHANNEL_AXES for i in op.outputs}

    def select(editor: ModelEditor, source: int, cuts: list[_Cut], readers: int) -> list[_Cut]:
        return [cut for cut in cuts if any(editor.tensors[part[0]].name.decode() in made for part in cut.parts)]

    return _separate(content, select)


def _separate(content: bytes, select: Callable[[ModelEditor, int, list[_Cut], int], list[_Cut]]) -> bytes:
    editor, changed = ModelEditor(content), False
    cutting: dict[int, list[schema.OperatorT]] = {}
    for op in editor.graph.operators:
        if (position := _SOURCES.get(editor.name(op))) is not None:
            cutting.setdefault(int(op.inputs[position]), []).append(op)
    for op in list(editor.graph.operators):
        source = int(op.outputs[0]) if len(op.outputs) else -1
        if source not in cutting or editor.name(op) not in _CHANNEL_AXES or not _is_cuttable(editor, op):
            continue
        cuts = [cut for one in cutting[source] if (cut := _cut(editor, one, op)) is not None]
        for cut in select(editor, source, cuts, editor.readers()[source]):
            for part in cut.parts:
                for new in _cut_layer(editor, op, *part):
                    editor.insert(new, before=cut.op)
            editor.remove(cut.op)
            changed = True
        if not editor.readers().get(source):
            editor.remove(op)
    return editor.pack() if changed else content


def _is_cuttable(editor: ModelEditor, op: schema.OperatorT) -> bool:
    """Whether the weights are float constants, and no layer of groups of channels."""
    weights = editor.tensors[int(op.inputs[1])]
    if editor.is_activation(int(op.inputs[1])) or weights.type != schema.TensorType.FLOAT32:
        return False
    if len(op.inputs) > 2 and op.inputs[2] >= 0 and editor.is_activation(int(op.inputs[2])):
        return False
    # A convolution with groups has fewer input channels in its weights.
    return editor.name(op) != "CONV_2D" or weights.shape[-1] == editor.tensors[int(op.inputs[0])].shape[-1]


def _cut(editor: ModelEditor, op: schema.OperatorT, layer: schema.OperatorT) -> _Cut | None:
    """The slices of channels that an op cuts out of the output of a layer; None for slices of another kind."""
    source, outputs = int(layer.outputs[0]), op.outputs.tolist()
    shape, begin = list(editor.tensors[source].shape), 0
    if any(list(editor.tensors[index].shape)[:-1] != shape[:-1] for index in outputs):
        return None  # cut along another axis, too
    if editor.name(op) == "STRIDED_SLICE":
        options = op.builtinOptions
        if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
            return None
        if any(editor.is_activation(int(i)) for i in op.inputs[1:]) or (editor.constant(int(op.inputs[3])) != 1).any():
            return None
        if not options.beginMask >> (len(shape) - 1) & 1:
            begin = int(editor.constant(int(op.inputs[1]))[-1]) % shape[-1]
    sizes = [int(editor.tensors[index].shape[-1]) for index in outputs]
    ends = np.cumsum([begin, *sizes]).tolist()
    if editor.name(layer) == "DEPTHWISE_CONV_2D" and any(end % layer.builtinOptions.depthMultiplier for end in ends):
        return None  # the channels of one input channel are parted
    return _Cut(op, [*zip(outputs, ends[:-1], ends[1:], strict=True)])


def _cut_layer(
    editor: ModelEditor, op: schema.OperatorT, output: int, begin: int, end: int
) -> Iterator[schema.OperatorT]:
    """The ops that compute some of the output channels of a layer."""
    axis = _CHANNEL_AXES[editor.name(op)]

    def part(index: int, axis: int) -> int:
        tensor = editor.tensors[index]
        values = editor.constant(index).reshape(tensor.shape)
        new = editor.copy_tensor(index, f"/channels{begin}_{len(editor.tensors)}")
        values = np.take(values, range(begin, end), axis)
        editor.set_constant(new, values)
        editor.tensors[new].shape = np.array(values.shape, np.int32)
        return new

    source = int(op.inputs[0])
    if editor.name(op) == "DEPTHWISE_CONV_2D":
        multiplier = op.builtinOptions.depthMultiplier
        yield (slicing := _sliced(editor, source, begin // multiplier, end // multiplier))
        source = int(slicing.outputs[0])
    layer = copy.copy(op)
    inputs = [source, part(int(op.inputs[1]), axis)]
    inputs += [part(int(index), 0) if index >= 0 else -1 for index in op.inputs[2:]]
    layer.inputs, layer.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    yield layer


def _sliced(editor: ModelEditor, source: int, begin: int, end: int) -> schema.OperatorT:
    """A STRIDED_SLICE of some channels."""
    shape = np.array(editor.tensors[source].shape, np.int32)
    first, last, output = np.zeros_like(shape), shape.copy(), editor.copy_tensor(source, f"/{len(editor.tensors)}")
    first[-1], last[-1] = begin, end
    editor.tensors[output].shape = last - first
    bounds = zip((first, last, np.ones_like(shape)), ("begin", "end", "strides"), strict=True)
    constants = [editor.new_constant(values, f"{name}{len(editor.tensors)}") for values, name in bounds]
    return editor.new_op("STRIDED_SLICE", [source, *constants], [output], schema.StridedSliceOptionsT())
