"""Generated C against TensorFlow Lite Micro's interpreter on random graphs around each single op, under sanitizers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.damage import mutated
from tests.micro.execution import differing, interpret, native, run_damaged
from tests.micro.test_resources import streamed
from tests.random_graph import Net, samples
from tests.random_ops import MAKERS, WIDE, Ops, all_ops, op_net
from tests.signal_ops import SIGNAL_MAKERS
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.graph import Graph, read
from tfkd.micro.lowering import lower

pytestmark = pytest.mark.slow

_SAMPLES = 3
SELECTIONS = (
    "BATCH_TO_SPACE_ND", "BROADCAST_TO", "DEPTH_TO_SPACE", "GATHER", "GATHER_ND", "MIRROR_PAD", "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH", "SPLIT_V",
)  # fmt: skip


def check_bits(cases: Iterable[tuple[str, int, str]], folder: Path) -> list[Graph]:
    """Compares generated C with the interpreter on graphs (op, seed, type of activations), which it must take."""
    cases = list(cases)
    models = [op_net(*case) for case in cases]
    inputs = [samples(content, _SAMPLES, i) for i, content in enumerate(models)]
    expected = interpret(models, inputs)
    assert [case for case, rows in zip(cases, expected, strict=True) if not rows.size] == []
    programs = [micro.emit(content, name=f"n{i}", size=i % 3 == 0) for i, content in enumerate(models)]
    got = native(folder, programs, inputs)
    assert differing(cases, got, expected) == []
    return [read(TFLiteModel.load(content)) for content in models]


def cases(seeds: Iterable[int]) -> list[tuple[str, int, str]]:
    """Graphs of all ops, with int16 activations where the interpreter has them."""
    return [
        (kind, seed, dtype)
        for seed in seeds
        for dtype in ("int8", "int16")
        for kind in MAKERS
        if dtype == "int8" or kind in WIDE
    ]


def test_each_op_computes_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    # Graphs of signal ops have many layers: two of each here, ten and more in the campaign.
    graphs = check_bits([case for case in cases(range(5)) if case[0] not in SIGNAL_MAKERS or case[1] < 2], tmp_path)
    assert {op.kind for graph in graphs for op in graph.ops} >= set(MAKERS)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_each_op_on_a_core_computes_the_bits_of_tflite_micro(core: str) -> None:
    model = TFLiteModel.load(all_ops(3))
    numbers = np.random.default_rng(3)
    x = [numbers.integers(-128, 128, (3, *tensor.shape[1:])).astype("int8") for tensor in model.inputs]
    run, expected = targets.get(core).run(model, x, latency=False), targets.get("tflm").run(model, x, latency=False)
    kinds = list(MAKERS)
    differing = [kinds[i] for i, (a, b) in enumerate(zip(run.outputs, expected.outputs, strict=True)) if (a != b).any()]
    assert differing == []


def damaged(seed: int) -> bytes:
    kinds = list(MAKERS)
    content = streamed(seed) if seed % 8 == 0 else op_net(kinds[seed % len(kinds)], seed)
    return mutated(content, random.Random(seed))


def test_damaged_files_are_refused_or_make_programs_that_stay_in_their_arrays(tmp_path: Path) -> None:
    made, refused = run_damaged(map(damaged, range(300)), tmp_path)
    assert made > 50
    assert refused > 75


@pytest.mark.campaign
def test_many_damaged_files_are_refused_or_make_programs_that_stay_in_their_arrays(tmp_path: Path) -> None:
    made, refused = run_damaged(map(damaged, range(300, 1500)), tmp_path)
    assert made > 200
    assert refused > 300


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(4))
def test_each_op_computes_the_bits_of_tflite_micro_on_many_graphs(part: int, tmp_path: Path) -> None:
    check_bits(cases(range(100 + 10 * part, 110 + 10 * part)), tmp_path)


def test_space_to_batch_pads_with_the_zero_point(tmp_path: Path) -> None:
    """TensorFlow Lite Micro pads with memory that it never sets."""
    made = Net(random.Random(0))
    x = made.input((1, 3, 5, 2))
    out = made.same(x, (6, 2, 2, 2))
    made.op("SPACE_TO_BATCH_ND", [x, made.ints([2, 3]), made.ints([[1, 0], [0, 1]])], [out])
    content = made.bytes(out)
    rows, zero_point = samples(content, 2), made.steps(x)[1]
    padded = np.pad(rows, ((0, 0), (1, 0), (0, 1), (0, 0)), constant_values=zero_point)
    expected = padded.reshape(2, 2, 2, 2, 3, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, -1)
    assert np.array_equal(native(tmp_path, [micro.emit(content)], [rows])[0], expected)


def test_absolute_values_are_scaled_by_a_quotient_in_double_precision(tmp_path: Path) -> None:
    made = Net(random.Random(0), "int16")
    x = made.tensor((1, 1), scales=[0.07097730040550232])
    made.graph.inputs.append(x)
    content = made.bytes(made.op("ABS", [x], [made.tensor((1, 1), scales=[0.13035601377487183])]))
    rows = np.array([[-16791]], "int16")  # 9142.49997; by a quotient in single precision 9142.50022
    assert native(tmp_path, [micro.emit(content)], [rows])[0] == interpret([content], [rows])[0] == 9142


def test_computed_rows_outside_of_a_table_are_its_last_one(tmp_path: Path) -> None:
    made = Ops(random.Random(0))
    x = made.input((1, 7, 1))
    ids = made.tensor((1,), "int32")
    made.op("RESHAPE", [made.indices(x, "ARG_MAX", 1), made.ints([1])], [ids], schema.ReshapeOptionsT(newShape=[1]))
    table = made.constant((2, 3))
    content = made.bytes(made.op("EMBEDDING_LOOKUP", [ids, table], [made.same(table, (1, 3))]))
    rows = np.full((3, 7, 1), -5, "int8")
    for sample, row in enumerate((0, 1, 6)):
        rows[sample, row] = 5
    values = read(TFLiteModel.load(content)).tensors[table].data
    assert values is not None
    assert np.array_equal(native(tmp_path, [micro.emit(content)], [rows])[0], values[[0, 1, 1]])


def test_token_ids_of_the_input_are_rows_of_a_constant_table(tmp_path: Path) -> None:
    """Keras's Embedding."""
    made = Ops(random.Random(0))
    ids, table = made.tensor((1, 6), "int32"), made.constant((20, 3))
    made.graph.inputs.append(ids)
    out = made.op("GATHER", [table, ids], [made.same(table, (1, 6, 3))], schema.GatherOptionsT(axis=0))
    content = made.bytes(out)
    rows = np.random.default_rng(0).integers(0, 20, (4, 6)).astype("int32")
    got = native(tmp_path / "inside", [micro.emit(content)], [rows])[0]
    assert np.array_equal(got, interpret([content], [rows])[0])
    assert len({row.tobytes() for row in got}) == 4
    native(tmp_path / "outside", [micro.emit(content)], [rows - 10 + 30 * (rows > 10)])


def test_selections_are_copies_or_a_table() -> None:
    graphs = [(kind, lower(read(TFLiteModel.load(op_net(kind, seed))))[0]) for kind in SELECTIONS for seed in range(12)]
    for kind, layers in graphs:
        selected = [layer for layer in layers if layer.op.kind == kind]
        assert len(selected) <= 17
        assert {layer.kernel for layer in selected} <= {"move", "pick", "set"}
    assert {layer.kernel for kind, layers in graphs if kind == "GATHER" for layer in layers} >= {"move", "pick"}


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda made, x: made.op("RSQRT", [x], [made.same(x, (1, 20))]), "zero point must be -128"),
        (lambda made, x: made.op("CUMSUM", [made.input((1, 40)), made.ints([1])], [made.same(x, (1, 40))],
                                 schema.CumsumOptionsT()),
         "sums of 40 values may overflow 32 bits"),
        (lambda made, x: made.op("DIV", [x, made.tensor((20,), data=np.full(20, 4, "i1"), scales=[1], zero_points=[4])],
                                 [made.same(x, (1, 20))], schema.DivOptionsT()), "holds zeros"),
        (lambda made, x: made.op("GATHER", [x, made.ints([3, 20])], [made.same(x, (1, 2))],
                                 schema.GatherOptionsT(axis=1)), "positions 3 to 20 of 20"),
        (lambda made, x: made.op("MIRROR_PAD", [x, made.ints([[0, 0], [20, 0]])], [made.same(x, (1, 40))],
                                 schema.MirrorPadOptionsT()), r"\(20, 0\) values cannot mirror 20"),
        (lambda made, x: made.op("ADD_N", [x] * 5, [made.same(x, (1, 20))], schema.AddNOptionsT()), "5 tensors, not 2"),
        (lambda made, x: made.op("LOG_SOFTMAX", [x], [made.same(x, (1, 20))]), "scale 1/16, zero point 127"),
    ],
)  # fmt: skip
def test_op_that_the_interpreter_would_compute_wrongly_or_not_at_all_is_refused(
    build: Callable[[Ops, int], int], found: str
) -> None:
    made = Ops(random.Random(0))
    x = made.tensor((1, 20), scales=[0.1], zero_points=[0])
    made.graph.inputs.append(x)
    with pytest.raises(ValueError, match=found):
        micro.emit(made.bytes(build(made, x)))
