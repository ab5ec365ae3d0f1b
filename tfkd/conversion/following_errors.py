"""Ranges of activations by the error of the ops that read them.

The smallest and the largest value of an activation need not matter to what follows. In a residual block

    y = relu(a + b)     with  b in 0..20

values of a below -20 give y = 0, whatever they are: a range that ends there has finer steps and loses nothing. Rare
large values may matter less than the rounding of all others. So both ends of each range are moved inwards to where the
error of the ops behind is least, each computed in float on the rounded activation:

    Σ over the ops that read x:   mean (op (q(x)) − op (x))² / mean (op (x))²

It runs the model: call it in a child process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import tflite_writer
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.litert import new_interpreter
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

# Ops whose operands and result have one scale in int8: their ranges cannot be chosen one by one.
_SHARING = (
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER",
    "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN",
    "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SELECT", "SELECT_V2", "SLICE",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE",
    "UNPACK",
)  # fmt: skip
# Ops that are read with what they compute now; a tensor that another op reads keeps its range.
_PROBED = (
    "ADD",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "MEAN",
    "MUL",
    "RELU",
    "RELU6",
    "SUB",
    "TRANSPOSE_CONV",
)
# Samples, fewer of large models: multiply-accumulates of all runs, and bytes of the activations that are kept.
_MOST_SAMPLES, _LEAST_SAMPLES = 96, 4
_MACS, _BYTES = 3e10, 2e8
# Shares of the range that are tried for one end, while the other stays.
_SHARES = (1.0, 0.93, 0.86, 0.79, 0.72, 0.65, 0.57, 0.5, 0.42, 0.35, 0.28, 0.21, 0.14, 0.07)
_STEPS = 255
# The error must fall to this share for a range to change, on both halves of the samples: values that are clipped are
# rare, so that few samples tell little about their error.
_WORTHWHILE = 0.8
_TINY = 1e-30


class _Probe(NamedTuple):
    """An op that reads an activation.

    Args:
        op: The op.
        position: Position of the activation among the op's inputs.
        tensor: Tensor index of the activation.
    """

    op: schema.OperatorT
    position: int
    tensor: int


def find(content: bytes, samples: Samples) -> dict[str, tuple[float, float]]:
    """Chooses ranges.

    Args:
        content: A float .tflite.
        samples: Calibration samples.

    Returns:
        The new range by the name of each activation whose range should be narrower than that of its values.
    """
    editor = ModelEditor(content)
    probes = _probes(editor)
    if not probes:
        return {}
    count = _count(content, editor, probes)
    some = samples[:: max(1, len(samples) // count)][:count]
    values, limits = _record(content, editor, probes, some, samples)
    engine = _Engine(editor, probes)
    exact = [engine.run(sample, {}) for sample in values]
    best = dict.fromkeys(limits, (1.0, 1.0))
    for end in (0, 1):
        errors: dict[int, list[np.ndarray]] = {tensor: [] for tensor in limits}
        for share in _SHARES:
            trial = {
                tensor: tuple(
                    share * size if place == end else chosen * size
                    for place, (chosen, size) in enumerate(zip(best[tensor], limits[tensor], strict=True))
                )
                for tensor in limits
            }
            halves = [engine.errors(values[i::2], exact[i::2], trial) for i in (0, 1)]
            for tensor in limits:
                errors[tensor].append(np.array([half[tensor] for half in halves]))
        for tensor, row in errors.items():
            ratios = [float(np.max(one / np.maximum(row[0], _TINY))) for one in row]
            place = int(np.argmin(ratios))
            if ratios[place] < _WORTHWHILE:
                best[tensor] = (_SHARES[place], best[tensor][1]) if end == 0 else (best[tensor][0], _SHARES[place])
    return {
        editor.tensors[tensor].name.decode(): (low * limits[tensor][0], high * limits[tensor][1])
        for tensor, (low, high) in best.items()
        if min(low, high) < 1
    }


def _probes(editor: ModelEditor) -> list[_Probe]:
    """The readers of all activations whose range may be chosen."""
    sharing, found = {*map(int, editor.graph.inputs), *map(int, editor.graph.outputs)}, list[_Probe]()
    for op in editor.graph.operators:
        activations = [(i, int(index)) for i, index in enumerate(op.inputs) if editor.is_activation(int(index))]
        if (name := editor.name(op)) in _SHARING:
            sharing.update(index for _, index in activations)
            sharing.update(map(int, op.outputs))
        elif name in _PROBED:
            found += [_Probe(op, position, index) for position, index in activations]
        else:
            sharing.update(index for _, index in activations)
    return [probe for probe in found if probe.tensor not in sharing]


def _count(content: bytes, editor: ModelEditor, probes: Sequence[_Probe]) -> int:
    """The number of samples that time and memory allow."""
    read = {int(i) for probe in probes for i in probe.op.inputs if editor.is_activation(int(i))}
    size = 4 * sum(int(np.prod(editor.tensors[index].shape)) for index in read)
    runs = 2 * len(_SHARES) * max(TFLiteModel(content).macs, 1)
    return int(np.clip(min(_MACS / runs, _BYTES / size), _LEAST_SAMPLES, _MOST_SAMPLES))


def _record(
    content: bytes, editor: ModelEditor, probes: Sequence[_Probe], some: Samples, samples: Samples
) -> tuple[list[dict[int, np.ndarray]], dict[int, tuple[float, float]]]:
    """The activations of some samples that the probed ops read, and the ranges of the probed ones over all samples."""
    read = sorted({int(i) for probe in probes for i in probe.op.inputs if editor.is_activation(int(i))})
    recorder, limits = TensorRecorder(content), {probe.tensor: (0.0, 0.0) for probe in probes}
    values = []
    for sample in some:
        tensor = recorder.run(sample)
        values.append({index: tensor(index) for index in read})
    for sample in samples:
        tensor = recorder.run(sample)
        for index, (low, high) in limits.items():
            one = tensor(index)
            limits[index] = (min(low, float(one.min())), max(high, float(one.max())))
    return values, limits


class _Engine:
    """The probed ops as a model: each reads inputs of the model, and its result is an output."""

    def __init__(self, editor: ModelEditor, probes: Sequence[_Probe]) -> None:
        self._probes = probes
        self._sources: list[tuple[int, bool]] = []  # for each input, its tensor and whether it is the probed one
        content = self._build(editor)
        self._interpreter = new_interpreter(content, "xnnpack")
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def _build(self, editor: ModelEditor) -> bytes:
        model = copy.copy(editor.model)
        graph = model.subgraphs[0] = copy.copy(editor.graph)
        graph.tensors, graph.operators = [*editor.tensors], []
        inputs, outputs = [], []

        def added(index: int) -> int:
            tensor = copy.copy(editor.tensors[index])
            tensor.name += f"/probe{len(graph.tensors)}".encode()
            graph.tensors.append(tensor)
            return len(graph.tensors) - 1

        for probe in self._probes:
            op = copy.copy(probe.op)
            op.inputs = op.inputs.copy()
            for position, index in enumerate(probe.op.inputs.tolist()):
                if editor.is_activation(index):
                    op.inputs[position] = added(index)
                    inputs.append(int(op.inputs[position]))
                    self._sources.append((index, position == probe.position))
            op.outputs = np.array([added(int(probe.op.outputs[0]))], np.int32)
            outputs.append(int(op.outputs[0]))
            graph.operators.append(op)
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        model.subgraphs, model.signatureDefs = [graph], []
        return tflite_writer.write(model)

    def run(self, values: Mapping[int, np.ndarray], rounded: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """The results of all probed ops on one sample.

        Args:
            values: The exact activations by tensor index.
            rounded: The rounded ones that the probed inputs take.
        """
        for place, (tensor, probed) in zip(self._inputs, self._sources, strict=True):
            self._interpreter.set_tensor(place, rounded.get(tensor, values[tensor]) if probed else values[tensor])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(place) for place in self._outputs]

    def errors(
        self,
        values: Sequence[Mapping[int, np.ndarray]],
        exact: Sequence[Sequence[np.ndarray]],
        limits: Mapping[int, Sequence[float]],
    ) -> dict[int, float]:
        """The error of the ops behind each activation, summed, where it is rounded in a range."""
        errors, signals = np.zeros(len(self._probes)), np.full(len(self._probes), _TINY)
        for sample, expected in zip(values, exact, strict=True):
            rounded = {tensor: _rounded(sample[tensor], *ends) for tensor, ends in limits.items()}
            for place, (result, right) in enumerate(zip(self.run(sample, rounded), expected, strict=True)):
                errors[place] += float(np.square(result - right).sum())
                signals[place] += float(np.square(right).sum())
        found = dict.fromkeys(limits, 0.0)
        for probe, error in zip(self._probes, errors / signals, strict=True):
            found[probe.tensor] += float(error)
        return found


def _rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values rounded to 256 steps between two ends, of which one is a step that stands for 0."""
    step = max(high - low, _TINY) / _STEPS
    zero = np.round(low / step)
    return (np.clip(np.round(values / step), zero, zero + _STEPS) * step).astype(np.float32)
