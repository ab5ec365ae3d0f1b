"""IF and WHILE in generated C against TensorFlow Lite Micro's interpreter, under sanitizers and on a core."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import differing, interpret, native
from tests.random_graph import samples
from tests.random_ops import Ops
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel

_SHAPE = (1, 6)


class Flow(Ops):
    """Adds IF and WHILE with random subgraphs; states are a counter, its limit, and two tensors of activations."""

    @contextlib.contextmanager
    def subgraph(self, like: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Ops of the block go into a new subgraph. Its number, and its inputs, which have the form of some tensors."""
        outer, models = self.graph, self.model.subgraphs
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        models.append(self.graph)
        self.graph.inputs = [self.twin(outer.tensors[i]) for i in like]
        yield len(models) - 1, list(self.graph.inputs)
        self.graph = outer

    def twin(self, tensor: schema.TensorT) -> int:
        """A tensor of the same form; one of another scale now and then, which gets the same bits."""
        index = len(self.graph.tensors)
        quantization = tensor.quantization
        if quantization is not None and self.random.random() < 0.2:
            quantization = schema.QuantizationParametersT(
                scale=np.array([self.scale()], "f4"), zeroPoint=quantization.zeroPoint
            )
        twin = schema.TensorT(
            shape=tensor.shape, type=tensor.type, buffer=0, name=f"t{index}".encode(), quantization=quantization
        )
        self.graph.tensors.append(twin)
        return index

    def mixed(self, a: int, b: int) -> int:
        """A random op of two tensors."""
        kind = self.random.choice(["ADD", "SUB", "MUL", "MAXIMUM"])
        if kind == "MAXIMUM":
            return self.op("LEAKY_RELU", [a], [self.output(_SHAPE)], schema.LeakyReluOptionsT(alpha=0.3))
        options = getattr(schema, f"{kind.capitalize()}OptionsT")()
        return self.op(kind, [a, b], [self.output(_SHAPE)], options)

    def view(self, x: int) -> int:
        return self.op(
            "RESHAPE", [x, self.ints(_SHAPE)], [self.same(x, _SHAPE)], schema.ReshapeOptionsT(newShape=_SHAPE)
        )

    def less(self, a: int, b: int) -> int:
        return self.op("LESS", [a, b], [self.bools((1,))], schema.LessOptionsT())

    def chosen(self, a: int, b: int, condition: int) -> int:
        """IF: an op of both tensors, or one of them."""
        with self.subgraph([a, b]) as (first, (x, y)):
            self.graph.outputs = [self.mixed(self.mixed(x, y), x)]
        with self.subgraph([a, b]) as (second, (x, y)):
            self.graph.outputs = [self.random.choice([x, self.mixed(y, x), self.constant(_SHAPE)])]
        options = schema.IfOptionsT(thenSubgraphIndex=first, elseSubgraphIndex=second)
        return self.op("IF", [condition, a, b], [self.output(_SHAPE)], options)

    def repeated(self, count: int, a: int, b: int) -> int:
        """WHILE: as many turns as an int32 says; a third of them exchanges the tensors."""
        start = [self.ints([0]), count, a, b]
        with self.subgraph(start) as (condition, (counter, limit, _, _)):
            self.graph.outputs = [self.less(counter, limit)]
        with self.subgraph(start) as (body, (counter, limit, x, y)):
            one = self.op("ADD", [counter, self.ints([1])], [self.tensor((1,), "int32")], schema.AddOptionsT())
            new = self.mixed(x, y)
            if self.random.random() < 0.5:
                new = self.chosen(new, y, self.less(counter, self.ints([2])))
            self.graph.outputs = [one, limit, *self.random.choice([(new, x), (y, x), (new, y), (new, self.view(x))])]
        ends = [self.twin(self.graph.tensors[i]) for i in start]
        self.op("WHILE", start, ends, schema.WhileOptionsT(condSubgraphIndex=condition, bodySubgraphIndex=body))
        return self.mixed(ends[2], ends[3])


def flow_net(seed: int) -> bytes:
    """A model that runs a loop or a branch as often or where its input says."""
    made = Flow(random.Random(seed))
    x = made.input(_SHAPE)
    largest = made.op("ARG_MAX", [x, made.ints(1)], [made.tensor((1,), "int32")], schema.ArgMaxOptionsT(outputType=2))
    y = made.mixed(x, made.constant(_SHAPE))
    if seed % 3 == 0:
        return made.bytes(made.chosen(x, y, made.less(largest, made.ints([3]))))
    return made.bytes(made.repeated(largest, x, y))


def flagged() -> bytes:
    """A loop whose condition is a state that starts as a constant."""
    made = Flow(random.Random(1))
    start = [made.tensor((1,), "bool", np.array([True])), made.input(_SHAPE)]
    with made.subgraph(start) as (condition, (flag, _)):
        made.graph.outputs = [flag]
    with made.subgraph(start) as (body, (_, x)):
        y = made.mixed(x, x)
        options = schema.ArgMaxOptionsT(outputType=schema.TensorType.INT32)
        largest = made.op("ARG_MAX", [y, made.ints(1)], [made.tensor((1,), "int32")], options)
        made.graph.outputs = [made.less(largest, made.ints([0])), y]
    ends = [made.twin(made.graph.tensors[i]) for i in start]
    made.op("WHILE", start, ends, schema.WhileOptionsT(condSubgraphIndex=condition, bodySubgraphIndex=body))
    return made.bytes(made.mixed(ends[1], ends[1]))


def check_bits(seeds: Sequence[int], folder: Path) -> None:
    models = [flow_net(seed) for seed in seeds]
    inputs = [samples(content, 8, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = interpret(models, inputs)
    assert [seed for seed, rows in zip(seeds, expected, strict=True) if not rows.size] == []
    programs = [micro.emit(content, name=f"n{i}", stream=i % 2 == 0) for i, content in enumerate(models)]
    assert differing(seeds, native(folder, programs, inputs), expected) == []


def test_loops_and_branches_compute_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    check_bits(range(24), tmp_path)


def test_constant_condition_of_the_first_turn(tmp_path: Path) -> None:
    content = flagged()
    rows = samples(content, 8)
    assert np.array_equal(native(tmp_path, [micro.emit(content)], [rows])[0], interpret([content], [rows])[0])


@pytest.mark.campaign
def test_many_loops_and_branches_compute_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    check_bits(range(100, 300), tmp_path)


def test_loop_on_a_core_computes_the_bits_of_tflite_micro() -> None:
    model = TFLiteModel.load(flow_net(1))
    x = samples(model.content, 6, 0)
    run = targets.get("cortex-m4").run(model, x)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(model, x, latency=False).outputs[0])
    assert sum(run.environment["layers"].values()) == run.instructions


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda tree: setattr(tree.subgraphs[0].operators[-2].builtinOptions, "bodySubgraphIndex", 9), "subgraph 9"),
        (lambda tree: setattr(tree.subgraphs[1], "inputs", tree.subgraphs[1].inputs[:3]), "4 tensors for 3"),
        (lambda tree: setattr(tree.subgraphs[2], "outputs", tree.subgraphs[2].outputs[::-1]), r"\(1, 6\) for int32"),
        (lambda tree: setattr(tree.subgraphs[1], "outputs", [0]), "a condition of int32"),
    ],
    ids=["number", "inputs", "outputs", "condition"],
)
def test_subgraphs_that_do_not_fit_are_refused(damage: Callable[[schema.ModelT], None], found: str) -> None:
    tree = schema.ModelT.InitFromPackedBuf(flow_net(1))
    damage(tree)
    builder = flatbuffers.Builder()
    builder.Finish(tree.Pack(builder), b"TFL3")
    with pytest.raises(ValueError, match=found):
        micro.emit(bytes(builder.Output()))
