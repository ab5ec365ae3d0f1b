"""IF and WHILE: the subgraphs that they run become part of one graph, between ops that mark the C's control flow.

WHILE(inputs) -> states, where tensors of the subgraphs that have the form of a state are the state itself:

    COPY         input -> state, for each state
    LOOP         for (;;) {
                     the condition's ops
    LOOP_TEST        if (!condition) break;
                     the body's ops
    COPY             result -> state, for each state
    LOOP_END     }

IF(condition, inputs) -> outputs becomes BRANCH, the ops of the first subgraph and COPY to each output, BRANCH_ELSE, the
same of the second one, and BRANCH_END. As in TensorFlow Lite Micro, values are copied with their bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfkd.errors import ModelError
from tfkd.micro.graph import VIEWS, Graph, Op, Options, Tensor

_MOST_TENSORS = 100_000  # of subgraphs in subgraphs: a damaged file may nest them without end


def has_control_flow(graph: Graph) -> bool:
    """Whether a graph has IF or WHILE."""
    return any(op.kind in ("IF", "WHILE") for op in graph.ops)


def flatten(graph: Graph) -> Graph:
    """Replaces IF and WHILE by the ops of their subgraphs and marks.

    Args:
        graph: A model.

    Returns:
        One graph, whose bodies are those of CALL_ONCE. A state and an output of IF are written by two ops.

    Raises:
        ModelError: A subgraph does not fit its op, or runs itself.
    """
    if not has_control_flow(graph):
        return graph
    flat = _Flat(graph)
    for op in graph.ops:
        flat.add(op)
    called = {op.options["InitSubgraphIndex"] for op in flat.ops if op.kind == "CALL_ONCE"}
    bodies = {i: body for i, body in graph.bodies.items() if i in called}
    return Graph(tuple(flat.tensors), tuple(flat.ops), graph.inputs, graph.outputs, bodies)


class _Flat:
    """The tensors and ops of the flat graph, while they are collected."""

    def __init__(self, graph: Graph) -> None:
        self.tensors, self.ops, self._bodies = list(graph.tensors), list[Op](), graph.bodies
        self._mark = self._tensor(Tensor(0, "control flow", (1,), "bool"))
        self._running: list[int] = []

    def add(self, op: Op) -> None:
        """Adds an op, or the ops of its subgraphs."""
        if op.kind == "IF":
            self._branch(op)
        elif op.kind == "WHILE":
            self._loop(op)
        else:
            self.ops.append(op)

    def _branch(self, op: Op) -> None:
        condition, *sources = op.inputs
        self._check_condition(op, condition)
        for mark, option in (("BRANCH", "ThenSubgraphIndex"), ("BRANCH_ELSE", "ElseSubgraphIndex")):
            self._add_mark(mark, [condition] if mark == "BRANCH" else [])
            for result, output in self._pairs(op, self._inline(op, option, sources), op.outputs):
                self._copy(op, result, output)
        self._add_mark("BRANCH_END", [])

    def _loop(self, op: Op) -> None:
        states = op.outputs
        for source, state in self._pairs(op, op.inputs, states):
            self._copy(op, source, state)
        self._add_mark("LOOP", [])
        conditions = self._inline(op, "CondSubgraphIndex", states)
        if len(conditions) != 1:
            raise self._misfit(op, f"a condition of {len(conditions)} values")
        self._check_condition(op, conditions[0])
        self._add_mark("LOOP_TEST", conditions)
        results = self._inline(op, "BodySubgraphIndex", states)
        pairs = self._pairs(op, results, states)
        # A result that is another state, or a view of one, is kept first, since that one is overwritten.
        kept = [
            self._kept(op, result) if self._viewed(result) in states and result != state else result
            for result, state in pairs
        ]
        for result, state in zip(kept, states, strict=True):
            if result != state:
                self._copy(op, result, state)
        self._add_mark("LOOP_END", states)  # reads the states, which keeps their memory until here

    def _inline(self, op: Op, option: str, sources: Sequence[int]) -> list[int]:
        """Adds the ops of a subgraph that takes some tensors; returns its outputs."""
        number = int(op.options[option])
        if number not in self._bodies or number in self._running or len(self.tensors) > _MOST_TENSORS:
            raise self._misfit(op, f"subgraph {number}")
        body, names = self._bodies[number], {-1: -1}
        for source, i in self._pairs(op, sources, body.inputs):
            outer, inner = self.tensors[source], body.tensors[i]
            if outer.data is None and _form(outer) == _form(inner):
                names[i] = source
            else:
                names[i] = self._tensor(inner)
                self._copy(op, source, names[i])
        for tensor in body.tensors:
            if tensor.index not in names:
                names[tensor.index] = self._tensor(tensor)
        self._running.append(number)
        for inner_op in body.ops:
            inputs, outputs = (tuple(names[i] for i in side) for side in (inner_op.inputs, inner_op.outputs))
            self.add(dataclasses.replace(inner_op, inputs=inputs, outputs=outputs))
        self._running.pop()
        return [names[i] for i in body.outputs]

    def _tensor(self, tensor: Tensor) -> int:
        self.tensors.append(dataclasses.replace(tensor, index=len(self.tensors)))
        return len(self.tensors) - 1

    def _viewed(self, index: int) -> int:
        """The tensor whose bytes a tensor has."""
        sources = {op.outputs[0]: op.inputs[0] for op in self.ops if op.kind in VIEWS}
        while index in sources:
            index = sources[index]
        return index

    def _kept(self, op: Op, index: int) -> int:
        copy = self._tensor(self.tensors[index])
        self._copy(op, index, copy)
        return copy

    def _copy(self, op: Op, source: int, target: int) -> None:
        first, second = self.tensors[source], self.tensors[target]
        if (first.elements, first.dtype) != (second.elements, second.dtype):
            raise self._misfit(op, f"{first.dtype} {first.shape} for {second.dtype} {second.shape}")
        self.ops.append(Op("COPY", (source,), (target,), Options()))

    def _add_mark(self, kind: str, reads: Sequence[int]) -> None:
        self.ops.append(Op(kind, tuple(reads), (self._mark,), Options()))

    def _pairs(self, op: Op, first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
        if len(first) != len(second) or min((*first, *second), default=0) < 0:
            raise self._misfit(op, f"{len(first)} tensors for {len(second)}")
        return list(zip(first, second, strict=True))

    def _check_condition(self, op: Op, index: int) -> None:
        tensor = self.tensors[index]
        if (tensor.dtype, tensor.elements) != ("bool", 1):
            raise self._misfit(op, f"a condition of {tensor.dtype} {tensor.shape}")

    def _misfit(self, op: Op, found: str) -> ModelError:
        name = self.tensors[op.outputs[0]].name if op.outputs else ""
        return ModelError(
            f"micro: {op.kind} ({name}) must have subgraphs that fit its inputs and outputs. Received: {found}. The "
            "file is damaged."
        )


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.scales, tensor.zero_points
