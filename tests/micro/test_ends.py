"""Inputs and outputs as other converters write them: uint8, mixed types, open batches, no batch axis, scalars."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests.micro.execution import SANITIZED, STRICT
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, net, samples
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export


def with_ends(content: bytes, first: str, last: str, seed: int = 0) -> TFLiteModel:
    """A model of integers between a QUANTIZE from another type and a QUANTIZE or DEQUANTIZE to another type.

    Args:
        content: A model with one input and one output.
        first: Type of the new input; empty for none.
        last: Types of the new outputs, separated by spaces; the old one where it is empty.
        seed: Random seed of scales and zero points; with an even seed they only change the sign bit.
    """
    made, numbers = Net(random.Random(seed)), random.Random(seed)
    made.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    made.graph = made.model.subgraphs[0]
    (x,), (y,) = made.graph.inputs, made.graph.outputs

    def end(index: int, dtype: str) -> int:
        if dtype == "float32":
            return made.tensor(made.shape(index), dtype)
        step, zero = made.steps(index)
        scale, offset = (step, zero + 128) if seed % 2 == 0 else (made.scale(0.01, 0.3), numbers.randint(0, 255))
        return made.tensor(made.shape(index), dtype, scales=[scale], zero_points=[offset])

    if first:
        made.graph.inputs = [source := end(x, first)]
        made.op("QUANTIZE", [source], [x])
        made.graph.operators.insert(0, made.graph.operators.pop())
    kinds = {"float32": "DEQUANTIZE", "uint8": "QUANTIZE"}
    outputs = [made.op(kinds[dtype], [y], [end(y, dtype)]) if dtype in kinds else y for dtype in last.split()]
    return TFLiteModel(made.bytes(*(outputs or [y])))


def export_all(folder: Path, models: Sequence[TFLiteModel]) -> None:
    """Exports models with self-tests from TensorFlow Lite Micro, compiles all into one program and runs it."""
    calls, sources = [], []
    for i, model in enumerate(models):
        report = export.write(model, folder / f"n{i}", name=f"n{i}", oracle=targets.get("tflm"), stream=i % 3 == 0)
        assert report["golden_source"] == "tflm", report["golden_refusals"]
        calls.append(f"{{ static tfkd_n{i}_ctx ctx; if (tfkd_n{i}_selftest(&ctx)) return {i + 1}; }}")
        sources += [str(path) for path in (folder / f"n{i}").glob("*.c")]
    declared = [f'#include "n{i}/n{i}.h"\nint tfkd_n{i}_selftest(tfkd_n{i}_ctx *ctx);' for i in range(len(models))]
    (folder / "main.c").write_text("\n".join([*declared, "int main(void) {", *calls, "return 0; }"]))
    command = ["cc", *STRICT, *SANITIZED, str(folder / "main.c"), *sources, "-o", str(folder / "run")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run([folder / "run"], capture_output=True, text=True)
    assert done.returncode == 0, f"model {done.returncode - 1}: {done.stderr[-3000:]}"


# The type of the input and those of the outputs; an empty one leaves the model's own end.
ENDS = [
    ("uint8", "uint8"),
    ("uint8", "float32"),
    ("uint8", ""),
    ("float32", "uint8"),
    ("", "uint8 float32"),
    ("uint8", "int8 uint8 float32"),
]


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.campaign)])
def test_uint8_and_mixed_ends_compute_the_bits_of_tflite_micro(count: int, tmp_path: Path) -> None:
    seeds = [seed for seed in range(7_000, 7_000 + 2 * count) if seed % 5 != 4][:count]  # without int16
    models = [with_ends(net(seed), *ENDS[i % len(ENDS)], seed=seed) for i, seed in enumerate(seeds)]
    export_all(tmp_path, models)


def test_core_runs_ends_of_several_types_as_tflite_micro_does() -> None:
    model = with_ends(net(7_001), "uint8", "int8 uint8 float32", seed=7_001)
    x = samples(model.content, 3)
    expected = targets.get("tflm").run(model, x, latency=False).outputs
    run = targets.get("cortex-m4").run(model, x)
    assert [y.dtype.name for y in run.outputs] == ["int8", "uint8", "float32"]
    assert all(np.array_equal(a, b) for a, b in zip(run.outputs, expected, strict=True))
    assert run.instructions is not None


@pytest.mark.campaign
def test_validate_runs_uint8_ends_on_tflm_and_a_core() -> None:
    made = Net(random.Random(2))
    x = made.input((1, 8, 8, 1))
    flat = made.op("RESHAPE", [x, made.ints((1, 64))], [made.same(x, (1, 64))])
    weights, scales = made.weights((10, 64), 10, 0, per_channel=False)
    inputs = [flat, weights, made.bias(x, scales, 10)]
    y = made.op("FULLY_CONNECTED", inputs, [made.output((1, 10))], schema.FullyConnectedOptionsT())
    model = with_ends(made.bytes(y), "uint8", "uint8", seed=1)
    rows = tfkd.validate(model, tfkd.data.load("digits").test, targets=["tflm", "cortex-m4"]).rows
    runs = [row.measurement for row in rows if row.measurement is not None]
    assert [run.target for run in runs] == ["tflm", "cortex-m4"]
    assert runs[0].outputs[0].dtype == np.uint8
    assert np.array_equal(runs[0].outputs[0], runs[1].outputs[0])
    assert len({row.accuracy for row in rows}) == 1


def test_header_names_the_type_of_each_end() -> None:
    header = micro.emit(with_ends(net(7_001), "uint8", "uint8", seed=7_001)).files["model.h"]
    assert "tfkd_model_run(tfkd_model_ctx *ctx, const uint8_t *in, uint8_t *out);" in header
    assert "static inline uint8_t tfkd_model_quantize(float x" in header
    several = micro.emit(with_ends(net(7_001), "uint8", "int8 uint8", seed=7_001)).files["model.h"]
    assert "const uint8_t *const *in, void *const *out);" in several


def test_quantize_that_tflite_micro_lacks_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.tensor((1, 4), "uint8", scales=[0.1], zero_points=[3])
    made.graph.inputs.append(x)
    y = made.op("QUANTIZE", [x], [made.tensor((1, 4), "uint8", scales=[0.2], zero_points=[3])])
    with pytest.raises(ValueError, match="from uint8 to uint8 is not supported"):
        micro.emit(made.bytes(y))


def open_batch(content: bytes) -> bytes:
    """The model with a signature in which the batch is open."""
    made = Net(random.Random(0))
    made.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    made.graph = made.model.subgraphs[0]
    for tensor in made.graph.tensors:
        if len(tensor.shape) > 1 and tensor.shape[0] == 1 and not tensor.buffer:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], "i4")
    return made.bytes(*made.graph.outputs)


def test_open_batch_is_a_batch_of_one() -> None:
    for seed in range(7_100, 7_110):
        model = TFLiteModel(open_batch(net(seed)))
        assert model.inputs[0].open_axes == (0,)
        assert model.inputs[0].shape[0] == 1
        assert micro.emit(model).files == micro.emit(net(seed)).files
    x = samples(model.content, 3)
    runs = [targets.get(spec).run(model, x, latency=False) for spec in ("host:reference", "tflm", "cortex-m4")]
    assert np.array_equal(runs[1].outputs[0], runs[2].outputs[0])
    assert runs[0].outputs[0].shape == runs[1].outputs[0].shape


def waveform() -> TFLiteModel:
    """A model of a waveform [240] without a batch axis, and an output [6, 4] without one."""
    made = Net(random.Random(5))
    x = made.input((240,))
    image = made.op("RESHAPE", [x, made.ints((1, 6, 8, 5))], [made.same(x, (1, 6, 8, 5))])
    rows = made.op("RESHAPE", [image, made.ints((6, 40))], [made.same(x, (6, 40))])
    weights, scales = made.weights((4, 40), 4, 0, per_channel=False)
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    y = made.op("FULLY_CONNECTED", [rows, weights, made.bias(x, scales, 4)], [made.output((6, 4))], options)
    return TFLiteModel(made.bytes(y))


def test_input_without_a_batch_axis_runs_on_all_engines() -> None:
    model = waveform()
    x = np.random.default_rng(0).integers(-128, 128, (130, 240)).astype("int8")
    outputs = {
        spec: targets.get(spec).run(model, x, latency=False).outputs[0]
        for spec in ("host", "host:reference", "tflm", "cortex-m4")
    }
    assert {one.shape for one in outputs.values()} == {(130, 6, 4)}
    assert np.array_equal(outputs["tflm"], outputs["cortex-m4"])
    for spec in ("host", "host:reference"):  # their FULLY_CONNECTED rounds otherwise
        assert np.abs(outputs[spec].astype(int) - outputs["tflm"]).max() <= 1
    assert (outputs["tflm"][0] != outputs["tflm"][1]).any()
    with pytest.raises(ValueError, match=r"must be \[N, 240\]"):
        targets.get("tflm").run(model, x[0], latency=False)
    with pytest.raises(ValueError, match="does not accept a batch of 3"):
        targets.get("host", batch=3).run(model, x[:3])


def scalar(dtype: str) -> TFLiteModel:
    """A model that reshapes one value to a scalar."""
    made = Net(random.Random(0))
    steps = {"scales": [0.1], "zero_points": [3]} if dtype == "int8" else {}
    x = made.tensor((1, 1), dtype, **steps)
    made.graph.inputs.append(x)
    y = made.tensor((), dtype, **steps)
    return TFLiteModel(made.bytes(made.op("RESHAPE", [x, made.tensor((0,), "int32")], [y])))


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_scalar_output_runs(dtype: str) -> None:
    model, x = scalar(dtype), np.arange(-2, 3).astype(dtype).reshape(5, 1)
    for spec in ("host", "tflm", "cortex-m4"):
        run = targets.get(spec).run(model, x, latency=False)
        assert run.outputs[0].dtype == dtype
        assert np.array_equal(run.outputs[0], x[:, 0]), spec


def several_outputs() -> TFLiteModel:
    """Outputs of [8, 3], [1, 8, 5] and [1]; two of them have no batch axis."""
    made = Net(random.Random(9))
    x = made.input((1, 8, 5))
    weights, scales = made.weights((3, 5), 3, 0, per_channel=False)
    options = schema.FullyConnectedOptionsT()
    rows = made.op("FULLY_CONNECTED", [x, weights, made.bias(x, scales, 3)], [made.output((8, 3))], options)
    same = made.op("RELU", [x], [made.output((1, 8, 5))])
    mean = made.op("MEAN", [x, made.ints([0, 1, 2])], [made.output((1,))], schema.ReducerOptionsT())
    return TFLiteModel(made.bytes(rows, same, mean))


def stacked_int16() -> TFLiteModel:
    """CONCATENATION of two int16 inputs along the first axis."""
    made = Net(random.Random(0), "int16")
    x = made.input((1, 64))
    made.graph.inputs.append(y := made.same(x, (1, 64)))
    out = made.op("CONCATENATION", [x, y], [made.same(x, (2, 64))], schema.ConcatenationOptionsT(axis=0))
    return TFLiteModel(made.bytes(out))


def unquantized(dtype: str) -> TFLiteModel:
    """Ops that move values which have no scale."""
    made = Net(random.Random(0), dtype)
    frame = made.tensor((1, 6, 5), dtype)
    made.graph.inputs.append(frame)
    part = made.tensor((1, 2, 5), dtype)
    for index in (frame, part):
        made.graph.tensors[index].quantization = None
    inputs = [frame, made.ints([0, 1, 0]), made.ints([1, 5, 5]), made.ints([1, 2, 1])]
    made.op("STRIDED_SLICE", inputs, [part], schema.StridedSliceOptionsT())
    both = made.tensor((1, 4, 5), dtype)
    made.graph.tensors[both].quantization = None
    return TFLiteModel(
        made.bytes(made.op("CONCATENATION", [part, part], [both], schema.ConcatenationOptionsT(axis=1)), part)
    )


def rescaled(first: str, last: str) -> TFLiteModel:
    """QUANTIZE from or to int32."""
    made = Net(random.Random(3), first)
    steps = {"int8": 0.05, "int16": 0.002, "int32": 3e-5}
    x, y = (
        made.tensor((1, 200), dtype, scales=[steps[dtype]], zero_points=[7 if dtype == "int8" else 0])
        for dtype in (first, last)
    )
    made.graph.inputs.append(x)
    return TFLiteModel(made.bytes(made.op("QUANTIZE", [x], [y])))


def test_selftest_has_the_size_of_each_output(tmp_path: Path) -> None:
    models = [several_outputs(), stacked_int16(), waveform(), scalar("int8"), scalar("int32")]
    models += [unquantized("int8"), unquantized("int16")]
    models += [rescaled(one, "int32") for one in ("int8", "int16")]
    models += [rescaled("int32", one) for one in ("int8", "int16")]
    export_all(tmp_path, models)


def test_selftest_of_an_op_that_tflite_micro_lacks_comes_from_a_core(tmp_path: Path) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    model = TFLiteModel(made.bytes(made.op("TILE", [x, made.ints([1, 2])], [made.same(x, (1, 8))])))
    oracles = [targets.get("tflm"), targets.get("cortex-m4")]
    report = export.write(model, tmp_path / "out", oracle=oracles)
    assert report["golden_source"] == "cortex-m4"
    assert "does not support TILE" in report["golden_refusals"]["tflm"]
    assert run_selftest(tmp_path / "out") == 0
    values = samples(model.content, 3)
    on_core = targets.get("cortex-m4").run(model, values, latency=False).outputs[0]
    assert np.array_equal(on_core, np.tile(values, (1, 2)))
    report = export.write(model, tmp_path / "without", oracle=oracles[:1])
    assert (report["golden_vectors"], report["golden_source"]) == (0, None)
    assert not (tmp_path / "without" / "model_selftest.c").exists()
