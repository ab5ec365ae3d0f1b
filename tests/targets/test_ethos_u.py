"""Ethos-U by the real compiler Vela: coverage, estimates, outputs of the reference kernels, refusals."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.trained_nets import Builder
from tests.random_graph import Net, samples
from tests.random_ops import Ops
from tfkd import targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.report import console
from tfkd.targets import vela


@pytest.fixture(scope="module")
def convolution() -> TFLiteModel:
    """A convolution of 16 x 16 values: 590,000 products."""
    made = Builder(random.Random(0))
    x = made.input((1, 16, 16, 16))
    return TFLiteModel.load(made.bytes(made.product(x, "CONV_2D", kernel=3, channels=16)))


@pytest.fixture(scope="module")
def partly() -> TFLiteModel:
    """A convolution, and the index of its smallest channel, which no NPU computes."""
    made = Ops(random.Random(0))
    x = made.convolution(made.input((1, 4, 4, 4)))
    return TFLiteModel.load(made.bytes(made.cast(made.indices(x, "ARG_MIN", 3))))


def test_npu_that_computes_all_ops_has_an_estimated_time(convolution: TFLiteModel) -> None:
    x = samples(convolution.content, 3)
    run = targets.get("ethos-u55-128").run(convolution, x)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(convolution, x).outputs[0])
    assert run.evidence == {"outputs": "emulated", "memory": "estimated", "estimated_ms": "estimated"}
    assert (run.environment["npu_ops"], run.environment["cpu_ops"]) == (1, [])
    cycles = run.environment["estimated_npu_cycles"]
    assert convolution.macs / 128 < cycles < convolution.macs  # 128 products a cycle at most
    assert run.estimated_ms[0] == run.estimated_ms[1] == pytest.approx(cycles / 500e6 * 1e3, rel=0.01)
    assert run.memory.ram_bytes >= 2 * 16 * 16 * 16 * 0.5
    assert run.memory.flash_bytes > 0.5 * 9 * 16 * 16
    assert run.instructions is run.latencies_ns is None
    assert run.setting["memory_mode"] == "Shared_Sram"


def test_larger_npu_takes_fewer_cycles(convolution: TFLiteModel) -> None:
    small, large = (vela.compile_model(convolution, f"ethos-u55-{macs}") for macs in (32, 256))
    assert small.cycles > 3 * large.cycles
    assert small.layers[0].macs == large.layers[0].macs == convolution.macs
    assert small.coverage == 1


def test_ops_on_the_cpu_are_named_and_leave_the_time_unknown(partly: TFLiteModel) -> None:
    run = targets.get("ethos-u65-256").run(partly, samples(partly.content, 2))
    op = run.environment["cpu_ops"][0]
    assert op["kind"] == "ARG_MIN"
    assert "Unsupported opType" in op["reason"]
    assert run.environment["npu_ops"] == 1
    assert run.estimated_ms is None
    assert run.environment["estimated_npu_cycles"] > 0
    assert f"1 of {len(partly.graph.ops)} ops on the NPU" in console.npu(run.to_json())
    assert "ARG_MIN" in console.npu(run.to_json())


def test_memory_is_unknown_where_the_npu_computes_nothing() -> None:
    made = Ops(random.Random(0))
    model = TFLiteModel.load(made.bytes(made.cast(made.indices(made.input((1, 4, 4, 4)), "ARG_MIN", 3))))
    run = targets.get("ethos-u55-64").run(model, samples(model.content, 1))
    assert run.environment["npu_ops"] == 0
    assert run.memory.ram_bytes is run.memory.flash_bytes is run.estimated_ms is None
    assert "memory unknown" in console.npu(run.to_json())


def test_refusals(convolution: TFLiteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = vela.compile_model(convolution, "ethos-u55-64")
    with pytest.raises(ValueError, match="Vela has compiled this file already"):
        vela.compile_model(TFLiteModel(compiled.content), "ethos-u55-64")
    with pytest.raises(ValueError, match="unknown target 'ethos-u55-512'"):
        targets.get("ethos-u55-512")
    with pytest.raises(
        ValueError, match=r"system_config must be one of .*Ethos_U55_Deep_Embedded.*'Ethos_U65_Embedded'"
    ):
        targets.get("ethos-u55-64,system_config=Ethos_U65_Embedded")
    with pytest.raises(
        ValueError, match="memory_mode must be one of Sram_Only, Shared_Sram. Received: 'Dedicated_Sram'"
    ):
        vela.compile_model(convolution, "ethos-u55-64", vela.System("Ethos_U55_Deep_Embedded", "Dedicated_Sram"))
    monkeypatch.setitem(sys.modules, "ethosu", None)
    with pytest.raises(RuntimeError, match=r"pip install 'tfkd\[npu\]'"):
        targets.get("ethos-u55-64")


def test_error_of_the_compiler_is_shown_without_its_traceback() -> None:
    made = Net(random.Random(0))
    shape = made.tensor((0,), "int32")
    made.model.buffers.append(schema.BufferT(data=np.zeros(0, "u1")))
    made.graph.tensors[shape].buffer = len(made.model.buffers) - 1
    out = made.op("RESHAPE", [made.input((1, 4)), shape], [made.output((1, 4))], schema.ReshapeOptionsT())
    with pytest.raises(ValueError, match=r"It printed:\nRuntimeError: .*\n - Constant tensors .* empty buffers"):
        vela.compile_model(TFLiteModel(made.bytes(out)), "ethos-u55-64")
