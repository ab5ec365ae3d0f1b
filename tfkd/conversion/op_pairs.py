"""Pairs the ops of a quantized .tflite with those of the float32 .tflite of the same Keras model."""

from __future__ import annotations

import difflib
import math
from typing import NamedTuple

from tfkd.conversion.tflite_reader import TFLiteGraph

_CASTS = ("QUANTIZE", "DEQUANTIZE")


class Pair(NamedTuple):
    """An op of the quantized model and its counterpart in the reference.

    Args:
        op: Name of the op, such as `CONV_2D`.
        place: Index of the op in the quantized model.
        reference_place: Index of the op in the reference.
        output: Tensor index of the output.
        reference_output: Tensor index of the output in the reference.
        inputs: Tensor indices (quantized model, reference) of each input that is an activation.
        constants: The same of each input that is a constant in both.
        weights: Tensor index of the weights, the first constant; None without one.
    """

    op: str
    place: int
    reference_place: int
    output: int
    reference_output: int
    inputs: tuple[tuple[int, int], ...]
    constants: tuple[tuple[int, int], ...]
    weights: int | None


class Pairs(NamedTuple):
    """The result of `pair_ops`.

    Args:
        pairs: The ops that have a counterpart, in the order of the quantized model.
        unmatched: Indices of the quantized model's ops without a counterpart.
        missing: Indices of the reference's ops without a counterpart.
    """

    pairs: list[Pair]
    unmatched: list[int]
    missing: list[int]


def first_activations(graph: TFLiteGraph) -> list[int]:
    """The tensor that the ops read as each input: the output of a QUANTIZE where the model takes floats."""

    def read(index: int) -> int:
        users = [op for op in graph.ops if index in op.inputs]
        return users[0].outputs[0] if users and users[0].name == "QUANTIZE" else index

    return [read(index) for index in graph.inputs]


def pair_ops(graph: TFLiteGraph, reference: TFLiteGraph) -> Pairs:
    """Pairs the ops of two models; QUANTIZE and DEQUANTIZE are left out.

    Args:
        graph: Graph of the quantized model.
        reference: Graph of the float model.
    """
    counterparts = _counterparts(graph, reference)
    pairs = []
    for place, other in counterparts.items():
        pair = _pair(graph, reference, place, other)
        if pair is not None:
            pairs.append(pair)
    pairs.sort(key=lambda pair: pair.place)
    places, others = {pair.place for pair in pairs}, {pair.reference_place for pair in pairs}
    return Pairs(
        pairs,
        [place for place in _without_casts(graph) if place not in places],
        [place for place in _without_casts(reference) if place not in others],
    )


def _pair(graph: TFLiteGraph, reference: TFLiteGraph, place: int, reference_place: int) -> Pair | None:
    """The pair of two ops; None where their inputs or outputs differ in size."""
    op, other = graph.ops[place], reference.ops[reference_place]
    casts = {one.outputs[0]: one.inputs[0] for one in graph.ops if one.name in _CASTS and one.outputs}
    first = first_activations(graph)

    def before_casts(tensor: int) -> int:
        # The error of a cast between two ops is attributed to the op that reads its output. The number of iterations
        # is bounded since the ops of a damaged file may form a cycle.
        for _ in casts:
            if tensor in first or tensor not in casts:
                break
            tensor = casts[tensor]
        return tensor

    computed = {*reference.inputs, *(i for one in reference.ops for i in one.outputs)}  # not constants or states
    active = [i for i, index in enumerate(other.inputs) if index in computed]
    if not all(i < len(op.inputs) and op.inputs[i] >= 0 for i in active):
        return None
    inputs = tuple((before_casts(op.inputs[i]), other.inputs[i]) for i in active)
    both = [(before_casts(a), b) for a, b in zip(op.inputs, other.inputs, strict=False) if min(a, b) >= 0]
    weights = [index for index in op.inputs if index >= 0 and graph.constants[before_casts(index)]]
    pair = Pair(
        op.name,
        place,
        reference_place,
        op.outputs[0],
        other.outputs[0],
        inputs,
        tuple((a, b) for a, b in both if graph.constants[a] and reference.constants[b]),
        weights[0] if weights else None,
    )
    sizes = (*inputs, (pair.output, pair.reference_output))
    same = all(math.prod(graph.tensors[a].shape) == math.prod(reference.tensors[b].shape) for a, b in sizes)
    return pair if same else None


def _without_casts(graph: TFLiteGraph) -> list[int]:
    return [place for place, op in enumerate(graph.ops) if op.outputs and op.name not in _CASTS]


def _counterparts(graph: TFLiteGraph, reference: TFLiteGraph) -> dict[int, int]:
    """The index of an op in the reference by the index of its counterpart in the quantized model.

    Ops match by op, name and shape of the output tensor; the others by op and shape, in the order of execution.
    """

    def key(graph: TFLiteGraph, place: int) -> tuple[str, tuple[int, ...], str]:
        tensor = graph.tensors[graph.ops[place].outputs[0]]
        return graph.ops[place].name, tensor.shape, tensor.name

    named = {key(reference, place): place for place in _without_casts(reference)}
    matched = {place: named[key(graph, place)] for place in _without_casts(graph) if key(graph, place) in named}
    rest = [place for place in _without_casts(graph) if place not in matched]
    others = [place for place in _without_casts(reference) if place not in matched.values()]
    first, second = [key(graph, place)[:2] for place in rest], [key(reference, place)[:2] for place in others]
    for block in difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
        matched |= {rest[block.a + i]: others[block.b + i] for i in range(block.size)}
    return matched
