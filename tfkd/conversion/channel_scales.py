"""Which channels of a float .tflite may be multiplied by a factor without a change of the model's outputs.

A channel behind a layer, with a ReLU or none, may be multiplied by s > 0 in the weights of that layer and divided by s
in the weights of the layers that read it:

    x ── CONV_2D (W, b) ── RELU ── CONV_2D (V)      =      x ── CONV_2D (s W, s b) ── RELU ── CONV_2D (V / s)

Ops between them that treat each channel alone and are positively homogeneous pass the factor on. ADD and CONCATENATION
tie channels to each other: what they tie has one factor. Channels that reach any other op, or an input or output of the
model, keep the factor 1. A factor that is a power of 2 changes no bit of the outputs in float, short of underflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor

# Layers, and the axes of the output and the input channels of their weights.
_AXES = {"CONV_2D": (0, 3), "FULLY_CONNECTED": (0, 1), "DEPTHWISE_CONV_2D": (3, 3)}
# Ops of one activation whose channel c depends on channel c alone, and grows with it in proportion.
_BY_CHANNEL = (
    "AVERAGE_POOL_2D", "EXPAND_DIMS", "LEAKY_RELU", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SQUEEZE",
)  # fmt: skip
_HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


class Layer(NamedTuple):
    """A layer with constant float weights.

    Args:
        op: The op.
        name: `CONV_2D`, `FULLY_CONNECTED` or `DEPTHWISE_CONV_2D`.
        source: Tensor index of its input.
        output: Tensor index of its output.
    """

    op: schema.OperatorT
    name: str
    source: int
    output: int


class ChannelScales:
    """The channels of all activations by the factor that they share, and the layers that take the factors in.

    Args:
        editor: The float .tflite.

    Attributes:
        layers: The layers whose weights may be scaled.
        ids: For each activation that reaches a layer, int [channels]: channels with the same number have one factor.
        free: Whether the factor may differ from 1, bool [numbers].
    """

    def __init__(self, editor: ModelEditor) -> None:
        self.editor = editor
        self._parents: list[int] = []
        self._fixed: set[int] = set()
        numbers: dict[int, np.ndarray] = {}
        self._numbers = numbers
        self.layers = [layer for op in editor.graph.operators if (layer := self._layer(op)) is not None]
        by_op = {id(layer.op): layer for layer in self.layers}
        for op in editor.graph.operators:
            self._visit(op, by_op.get(id(op)))
        for index in (*editor.graph.inputs, *editor.graph.outputs):
            self._fix(int(index))
        roots = {index: np.array([self._root(int(i)) for i in some], np.int64) for index, some in numbers.items()}
        distinct, places = np.unique(np.concatenate([*roots.values(), np.zeros(0, np.int64)]), return_inverse=True)
        ends = np.cumsum([len(some) for some in roots.values()])
        self.ids = dict(zip(roots, np.split(places, ends[:-1]), strict=True)) if roots else {}
        fixed = {self._root(number) for number in self._fixed}
        self.free = np.array([number not in fixed for number in distinct.tolist()], bool)

    def weights(self, layer: Layer) -> np.ndarray:
        """The weights of a layer as [output channels, taps, input channels]; of a depthwise one as [channels, taps, 1].

        The output channel c of a depthwise layer reads the input channel c alone.
        """
        values = self._constant(layer, 1)
        outputs = values.shape[_AXES[layer.name][0]]
        if layer.name == "DEPTHWISE_CONV_2D":
            return np.moveaxis(values, 3, 0).reshape(outputs, -1, 1)
        return values.reshape(outputs, -1, values.shape[-1])

    def apply(self, factors: np.ndarray) -> None:
        """Multiplies channels by factors in the weights of all layers.

        Args:
            factors: Factors > 0, float [numbers]; 1 where a channel is not free.
        """
        for layer in self.layers:
            axis_out, axis_in = _AXES[layer.name]
            weights = self._constant(layer, 1)
            # A flattened image has the channels of all pixels one after the other.
            before = np.resize(factors[self.ids[layer.source]], weights.shape[axis_in])
            after = factors[self.ids[layer.output]]
            if np.all(before == 1) and np.all(after == 1):
                continue
            shape = [-1 if axis == axis_out else 1 for axis in range(weights.ndim)]
            scaled = weights * after.reshape(shape) / before  # the input channels are the last axis in all layers
            self.editor.replace_constant(layer.op, 1, scaled.astype(np.float32))
            if len(layer.op.inputs) > 2 and layer.op.inputs[2] >= 0:
                bias = self._constant(layer, 2)
                self.editor.replace_constant(layer.op, 2, (bias * after).astype(np.float32))

    def _constant(self, layer: Layer, position: int) -> np.ndarray:
        index = int(layer.op.inputs[position])
        return self.editor.constant(index).reshape(self.editor.tensors[index].shape)

    def _layer(self, op: schema.OperatorT) -> Layer | None:
        """The layer of an op whose weights can take factors in; None for another op."""
        editor, name = self.editor, self.editor.name(op)
        if name not in _AXES or any(editor.is_activation(int(i)) for i in op.inputs[1:] if i >= 0):
            return None
        source, output, weights = int(op.inputs[0]), int(op.outputs[0]), editor.tensors[int(op.inputs[1])]
        constants = [editor.tensors[int(i)] for i in op.inputs[1:] if i >= 0]
        if not editor.is_activation(source) or any(one.type != schema.TensorType.FLOAT32 for one in constants):
            return None
        inputs = editor.tensors[source].shape[-1]
        if name != "FULLY_CONNECTED" and weights.shape[-1] != inputs:  # groups, or several outputs per channel
            return None
        return Layer(op, name, source, output)

    def _visit(self, op: schema.OperatorT, layer: Layer | None) -> None:
        """Ties the channels of an op's activations, or fixes them."""
        editor, name = self.editor, self.editor.name(op)
        sources = [int(i) for i in op.inputs if editor.is_activation(int(i))]
        outputs = [int(i) for i in op.outputs]
        fused = getattr(op.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
        if layer is not None:
            self._of(layer.source), self._of(layer.output)
            if fused not in _HOMOGENEOUS:
                self._fix(layer.output)
            per_channel = self._of(layer.source)
            if layer.name == "FULLY_CONNECTED" and self._constant(layer, 1).shape[1] % len(per_channel):
                self._fix(layer.source)
        elif fused not in _HOMOGENEOUS or len(outputs) != 1:
            self._fix(*sources, *outputs)
        elif name == "CONCATENATION" and len(sources) == len(op.inputs) and self._joins_channels(op):
            self._tie(outputs[0], np.concatenate([self._of(index) for index in sources]))
        elif name == "ADD" and len(sources) == 2 and len({len(self._of(i)) for i in (*sources, *outputs)}) == 1:
            for index in sources:
                self._tie(outputs[0], self._of(index))
        elif name in _BY_CHANNEL and len(sources) == 1 and self._keeps_channels(op, name):
            # Behind a flattening the channels of all pixels stand one after the other.
            self._tie(outputs[0], np.resize(self._of(sources[0]), len(self._of(outputs[0]))))
        else:
            self._fix(*sources, *outputs)

    def _joins_channels(self, op: schema.OperatorT) -> bool:
        rank = len(self.editor.tensors[int(op.outputs[0])].shape)
        return rank > 1 and op.builtinOptions.axis % rank == rank - 1

    def _keeps_channels(self, op: schema.OperatorT, name: str) -> bool:
        """Whether an op of `_BY_CHANNEL` leaves the last axis as it is, or flattens an image with the channels last."""
        editor = self.editor
        before, after = (list(editor.tensors[int(i)].shape) for i in (op.inputs[0], op.outputs[0]))
        if name == "PAD":
            return not editor.constant(int(op.inputs[1])).reshape(-1, 2)[-1].any()
        if name == "MEAN":
            axes = editor.constant(int(op.inputs[1])) % len(before)
            return len(before) - 1 not in axes
        flattened = name == "RESHAPE" and len(after) == 2 and after[-1] == int(np.prod(before[1:]))
        return flattened or before[-1] == after[-1]

    def _of(self, index: int) -> np.ndarray:
        """The numbers of a tensor's channels."""
        if index not in self._numbers:
            shape = self.editor.tensors[index].shape
            count = int(shape[-1]) if shape is not None and len(shape) else 1
            first = len(self._parents)
            self._parents.extend(range(first, first + count))
            self._numbers[index] = np.arange(first, first + count)
        return self._numbers[index]

    def _tie(self, index: int, numbers: np.ndarray) -> None:
        for one, other in zip(self._of(index).tolist(), numbers.tolist(), strict=True):
            self._parents[self._root(one)] = self._root(other)

    def _fix(self, *indices: int) -> None:
        for index in indices:
            self._fixed.update(self._of(index).tolist())

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def readers(self, index: int) -> Iterator[Layer]:
        """The layers that read a tensor."""
        return (layer for layer in self.layers if layer.source == index)
