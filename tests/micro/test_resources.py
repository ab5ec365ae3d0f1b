"""Resource variables: a state in the generated C, with the values that the interpreter computes run by run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import differing, interpret, native
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export

_RUNS = 6
_REPEATED = ("host", "host:plain", "tflm", "cortex-m4", "cortex-m0plus")


class Streamed(Net):
    """A net with resource variables, which keep the last rows of tensors for the next run."""

    def handle(self, name: str) -> int:
        """A VAR_HANDLE in the current subgraph."""
        options = schema.VarHandleOptionsT(container=b"", sharedName=name.encode())
        return self.op("VAR_HANDLE", [], [self.tensor((), "resource")], options)

    def initialized(self, values: dict[str, int]) -> None:
        """CALL_ONCE of a second subgraph that assigns constants to variables by their names."""
        self.op("CALL_ONCE", [], [], schema.CallOnceOptionsT(initSubgraphIndex=len(self.model.subgraphs)))
        main, constants = self.graph, {name: self.graph.tensors[i] for name, i in values.items()}
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self.model.subgraphs.append(self.graph)
        for name, tensor in constants.items():
            self.graph.tensors.append(tensor)
            self.op("ASSIGN_VARIABLE", [self.handle(name), len(self.graph.tensors) - 2], [])
        self.graph = main

    def delayed(self, x: int, rows: int, name: str, late: bool) -> int:
        """The tensor [1, n, w, c] behind the last rows of earlier runs; `late`: assigned after its last reader."""
        _, n, w, c = self.shape(x)
        handle, old = self.handle(name), self.same(x, (1, rows, w, c))
        self.op("READ_VARIABLE", [handle], [old])
        if not late:  # the old rows are needed after the variable has changed
            self.op("ASSIGN_VARIABLE", [handle, self.part(self.joined(old, x), rows)], [])
        all_rows = self.joined(old, x)
        if late:
            self.op("ASSIGN_VARIABLE", [handle, self.part(all_rows, rows)], [])
        return all_rows

    def joined(self, a: int, b: int) -> int:
        _, n, w, c = self.shape(a)
        out = self.same(a, (1, n + self.shape(b)[1], w, c))
        return self.op("CONCATENATION", [a, b], [out], schema.ConcatenationOptionsT(axis=1))

    def part(self, x: int, rows: int) -> int:
        """The last rows."""
        _, n, w, c = self.shape(x)
        bounds = [self.ints([0, n - rows, 0, 0]), self.ints([1, n, w, c]), self.ints([1, 1, 1, 1])]
        options = schema.StridedSliceOptionsT()
        return self.op("STRIDED_SLICE", [x, *bounds], [self.same(x, (1, rows, w, c))], options)


def streamed(seed: int) -> bytes:
    """One or two convolutions over rows of this and earlier runs; the variables start at constants on some seeds."""
    made = Streamed(random.Random(seed), "int16" if seed % 4 == 3 else "int8", kernel=3)
    x = made.input((1, made.random.randint(1, 3), 3, made.random.randint(1, 3)))
    called = len(made.graph.operators)
    values = {}
    for name in ("first", "second")[: made.random.randint(1, 2)]:
        rows = made.random.randint(1, 4)
        if made.random.random() < 0.5:
            shape = (1, rows, *made.shape(x)[2:])
            step, zero = made.steps(x)
            values[name] = made.tensor(shape, data=made.values(shape), scales=[step], zero_points=[zero])
        x = made.delayed(x, rows, name, late=made.random.random() < 0.6)
        x = made.convolution(x)
    if values:
        made.initialized(values)
        made.graph.operators.insert(called, made.graph.operators.pop())
    return made.bytes(x)


def returned() -> bytes:
    """A model that returns a variable which it has assigned before."""
    made = Streamed(random.Random(0), kernel=3)
    x = made.convolution(made.input((1, 3, 3, 2)))
    handle = made.handle("last")
    made.op("ASSIGN_VARIABLE", [handle, x], [])
    return made.bytes(made.op("READ_VARIABLE", [handle], [made.same(x, made.shape(x))]))


def buffered(cycles: int, slots: int = 3) -> bytes:
    """A convolution over the slots of a CIRCULAR_BUFFER."""
    made = Net(random.Random(0), kernel=3)
    x = made.input((1, 1, 3, 2))
    step, zero = made.steps(x)
    out = made.variable((1, slots, 3, 2), "int8", step, zero)
    made.custom("CIRCULAR_BUFFER", [x], [out], {"cycles_max": cycles} if cycles else None)
    return made.bytes(made.convolution(out))


@pytest.mark.parametrize(("cycles", "slots"), [(1, 3), (0, 5)])
def test_circular_buffer_keeps_inputs_as_in_tflite_micro(cycles: int, slots: int, tmp_path: Path) -> None:
    content = buffered(cycles, slots)
    x = samples(content, _RUNS)
    got = native(tmp_path, [micro.emit(content)], [x])[0]
    assert np.array_equal(got, interpret([content], [x])[0])
    assert len({row.tobytes() for row in got}) > 3
    model = TFLiteModel.load(content)
    run = targets.get("cortex-m4").run(model, x, latency=False)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(model, x, latency=False).outputs[0])


def test_circular_buffer_that_skips_runs_is_refused() -> None:
    for cycles in (0, 2):
        with pytest.raises(ValueError, match="it stops 1 of 2 runs"):
            micro.emit(buffered(cycles))


def test_variables_persist_as_in_tflite_micro(tmp_path: Path) -> None:
    models = [*(streamed(seed) for seed in range(24)), returned()]
    inputs = [samples(content, _RUNS, seed) for seed, content in enumerate(models)]
    programs = [micro.emit(content, name=f"n{i}", stream=i % 3 == 0) for i, content in enumerate(models)]
    assert differing(range(25), native(tmp_path, programs, inputs), interpret(models, inputs)) == []
    steps = [step for program in programs for step in program.steps]
    assert any(step.startswith("READ_VARIABLE") for step in steps)  # a copy where the old value is needed later
    assert sum(step.startswith("READ_VARIABLE") for step in steps) < sum(step.startswith("ASSIGN") for step in steps)
    assert any("memcpy(arena" in program.files[f"{program.name}.c"] for program in programs)  # initial constants


def test_padded_value_of_a_variable_is_that_before_its_assignment(tmp_path: Path) -> None:
    made = Streamed(random.Random(0), kernel=3)
    x = made.input((1, 3, 3, 2))
    handle, old, padded = made.handle("rows"), made.same(x, (1, 3, 3, 2)), made.same(x, (1, 5, 3, 2))
    made.op("READ_VARIABLE", [handle], [old])
    made.op("PAD", [old, made.ints([[0, 0], [1, 1], [0, 0], [0, 0]])], [padded], schema.PadOptionsT())
    made.op("ASSIGN_VARIABLE", [handle, x], [])
    content = made.bytes(made.convolution(padded))
    rows = samples(content, _RUNS)
    assert np.array_equal(native(tmp_path, [micro.emit(content)], [rows])[0], interpret([content], [rows])[0])


@pytest.mark.parametrize("target", _REPEATED)
def test_same_sample_gives_the_same_answer_each_time(target: str) -> None:
    content = streamed(16)  # all variables have initial values, which LiteRT demands
    sample = samples(content, 1)
    runs = targets.get(target).run(TFLiteModel.load(content), np.repeat(sample, 5, axis=0), latency=False).outputs[0]
    expected = interpret([content], [np.repeat(sample, 5, axis=0)])[0]
    assert len({row.tobytes() for row in expected}) > 1  # without a reset, each run differs
    if target == "tflm":
        assert np.array_equal(runs[0].reshape(-1), expected[0])
    assert len({row.tobytes() for row in runs}) == 1


@pytest.mark.parametrize("core", ["cortex-m4", pytest.param("cortex-m0plus", marks=pytest.mark.campaign)])
def test_core_starts_from_the_initial_values(core: str) -> None:
    model = TFLiteModel.load(streamed(2))
    x = samples(model.content, 3)
    assert np.array_equal(targets.get(core).run(model, x).outputs[0], targets.get("tflm").run(model, x).outputs[0])


def test_selftest_of_a_model_with_variables_passes(tmp_path: Path) -> None:
    report = export.write(TFLiteModel.load(streamed(2)), tmp_path / "c", oracle=targets.get("tflm"))
    assert report["state_bytes"] > 0
    assert run_selftest(tmp_path / "c") == 0


def test_model_of_several_subgraphs_is_counted_and_registered_whole(tmp_path: Path) -> None:
    model = TFLiteModel.load(streamed(2))
    assert len(model.subgraphs) == 2
    assert model.ops["ASSIGN_VARIABLE"] == sum(
        op.name == "ASSIGN_VARIABLE" for graph in model.subgraphs for op in graph.ops
    )
    export.write(model, tmp_path / "tflm", format="tflm", oracle=targets.get("tflm"))
    header = (tmp_path / "tflm" / "model_model.h").read_text()
    for name in ("AddCallOnce", "AddVarHandle", "AddReadVariable", "AddAssignVariable", "AddConcatenation"):
        assert f"resolver.{name}();" in header
    assert "constexpr int k_model_resource_variables = " in header


def _spoiled(spoil: Callable[[Streamed], None]) -> bytes:
    made = Streamed(random.Random(0))
    x = made.delayed(made.input((1, 1, 2, 2)), 2, "old", late=True)
    spoil(made)
    return made.bytes(x)


def _computed_initial_value(made: Streamed) -> None:
    made.initialized({"old": made.tensor((1, 2, 2, 2))})


def _other_size(made: Streamed) -> None:
    made.initialized({"old": made.tensor((1, 3, 2, 2), data=made.values((1, 3, 2, 2)))})


def _second_assignment(made: Streamed) -> None:
    made.graph.operators.append(next(op for op in made.graph.operators if len(op.outputs) == 0))


def _no_handle(made: Streamed) -> None:
    made.graph.operators.pop(0)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_computed_initial_value, "initial values of variables must be constants"),
        (_other_size, "must have an initial value like it"),
        (_second_assignment, "must be assigned once in a run. Received: 2"),
        (_no_handle, "before it is computed"),
    ],
)
def test_variable_that_the_c_cannot_hold_is_refused(spoil: Callable[[Streamed], None], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        micro.emit(_spoiled(spoil))
