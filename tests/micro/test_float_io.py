"""Models with float inputs and outputs: the helpers of the C header compute the bits of QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests.micro.damage import mutated
from tests.micro.execution import STRICT, compile_and_run, write_sources
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, net
from tfkd import micro, targets
from tfkd._internal import isolation
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export


def with_float_io(content: bytes, seed: int) -> bytes:
    """An integer model between QUANTIZE and DEQUANTIZE; often an inner tensor or the input is an output too."""
    made, numbers = Net(random.Random(seed)), random.Random(seed)
    made.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    made.graph = made.model.subgraphs[0]
    inner = [i for op in made.graph.operators for i in op.outputs if made.graph.tensors[i].quantization is not None]
    (x,), (y,) = made.graph.inputs, made.graph.outputs
    made.dtype = {schema.TensorType.INT8: "int8", schema.TensorType.INT16: "int16"}[made.graph.tensors[x].type]
    inner = [i for i in inner if made.graph.tensors[i].type == made.graph.tensors[x].type and i != y]
    outputs = [y, *([numbers.choice(inner)] if inner and seed % 2 else []), *([x] if seed % 7 == 0 else [])]
    first = made.tensor(made.shape(x), "float32")
    made.op("QUANTIZE", [first], [x])
    made.graph.operators.insert(0, made.graph.operators.pop())
    made.graph.inputs = [first]
    outputs = [made.op("DEQUANTIZE", [i], [made.tensor(made.shape(i), "float32")]) for i in outputs]
    if seed % 5 == 0:  # an integer output too
        outputs.append(y)
    return made.bytes(*outputs)


def floats(model: TFLiteModel, count: int) -> np.ndarray:
    """Samples over the input's range and 10 % beyond; a third of them at or next to halves of a quantization step."""
    tensor = micro.emit(model).inputs[0].tensor
    numbers, limits = np.random.default_rng(0), np.iinfo(tensor.dtype)
    steps = numbers.uniform(1.1 * limits.min, 1.1 * limits.max, (count, *tensor.shape[1:])) - tensor.zero_point
    halves = np.where(numbers.random(steps.shape) < 0.3, np.floor(steps) + 0.5, steps)
    x = halves.astype("float32") * np.float32(tensor.scale)
    away = np.nextafter(x, numbers.choice(np.array([-np.inf, np.inf], "f4"), x.shape))
    return np.where(numbers.random(x.shape) < 0.1, away, x).astype("float32")


def interpret(models: list[bytes], inputs: list[np.ndarray]) -> list[list[bytes]]:  # in a child process
    """All outputs of each model for each sample, as bytes; empty for a model that TensorFlow Lite Micro refuses."""
    from tflite_micro import runtime

    results = []
    for content, x in zip(models, inputs, strict=True):
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        except RuntimeError:
            results.append([])
            continue
        rows = []
        for sample in x:
            interpreter.reset()
            interpreter.set_input(sample[None], 0)
            interpreter.invoke()
            outputs = range(len(TFLiteModel(content).outputs))
            rows.append(b"".join(interpreter.get_output(i).tobytes() for i in outputs))
        results.append(rows)
    return results


def native(folder: Path, programs: list[micro.Program], models: list[TFLiteModel], inputs: list[np.ndarray]) -> bytes:
    """All outputs of programs for their samples, through the helpers of their headers."""
    main = write_sources(folder, programs)
    for program, model, x in zip(programs, models, inputs, strict=True):
        n, kind = program.name, f"{program.inputs[0].tensor.dtype}_t"
        many = len(program.outputs) > 1
        sizes = [end.tensor.elements for end in program.outputs]
        lines = [f"static tfkd_{n}_ctx ctx; static float x; static {kind} in[{x[0].size}];"]
        lines += [f"static {kind} out{i}[{size}];" for i, size in enumerate(sizes)]
        if many:
            lines.append(
                f"const {kind} *ins[] = {{in}}; {kind} *outs[] = {{{', '.join(f'out{i}' for i in range(len(sizes)))}}};"
            )
        lines.append(f"for (int i = 0; i < {len(x)}; i++) {{ for (int j = 0; j < {x[0].size}; j++) {{")
        lines.append("if (fread(&x, 4, 1, stdin) != 1) return 1;")
        steps = f"TFKD_{n.upper()}_INPUT_SCALE, TFKD_{n.upper()}_INPUT_ZERO_POINT"
        lines.append(f"in[j] = tfkd_{n}_quantize(x, {steps}); }}")
        lines += [f"tfkd_{n}_reset(&ctx);"] if program.state_bytes else []
        lines.append(f"if (tfkd_{n}_run(&ctx, {'ins, outs' if many else 'in, out0'})) return 1;")
        for i, (size, described) in enumerate(zip(sizes, model.outputs, strict=True)):
            if described.dtype != "float32":
                lines.append(f"fwrite(out{i}, sizeof *out{i}, {size}, stdout);")
                continue
            prefix = f"TFKD_{n.upper()}_OUTPUT{i if many else ''}"
            lines.append(
                f"for (int j = 0; j < {size}; j++) {{ x = tfkd_{n}_dequantize(out{i}[j], {prefix}_SCALE, "
                f"{prefix}_ZERO_POINT); fwrite(&x, 4, 1, stdout); }}"
            )
        main += ["{", *lines, "} }"]
    return compile_and_run(folder, [*main, "return 0; }"], inputs)


@pytest.mark.parametrize("count", [12, pytest.param(70, marks=pytest.mark.campaign)])
def test_random_graphs_with_float_io_compute_the_bits_of_tflite_micro(count: int, tmp_path: Path) -> None:
    models = [TFLiteModel(with_float_io(net(seed), seed)) for seed in range(3_000, 3_000 + count)]
    inputs = [floats(model, 2) for model in models]
    expected = isolation.run(
        "tests.micro.test_float_io:interpret",
        models=[model.content for model in models],
        inputs=inputs,
        timeout_s=300,
        what="running models with float inputs and outputs on tflm",
    )
    taken = [i for i, rows in enumerate(expected) if rows]
    assert len(taken) >= 0.92 * count
    assert sum(len(models[i].outputs) > 1 for i in taken) > 0.44 * count
    assert sum(micro.emit(models[i]).inputs[0].tensor.dtype == "int16" for i in taken) > 0.15 * count
    programs = [micro.emit(models[i], name=f"n{i}", stream=i % 3 == 0) for i in taken]
    got = native(tmp_path, programs, [models[i] for i in taken], [inputs[i] for i in taken])
    at, different = 0, []
    for i in taken:
        outputs = b"".join(expected[i])
        if got[at : at + len(outputs)] != outputs:
            different.append(i)
        at += len(outputs)
    assert not different
    assert at == len(got)


@pytest.mark.parametrize(
    ("core", "seeds"),
    [
        ("cortex-m4", (3_005,)),
        ("cortex-m0plus", (3_009,)),
        pytest.param("cortex-m4", (3_009, 3_010), marks=pytest.mark.campaign),
        pytest.param("cortex-m0plus", (3_005, 3_010), marks=pytest.mark.campaign),
    ],
)
def test_core_computes_the_floats_of_tflite_micro(core: str, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        model = TFLiteModel(with_float_io(net(seed), seed))
        expected = targets.get("tflm").run(model, floats(model, 3), latency=False).outputs
        run = targets.get(core).run(model, floats(model, 3), latency=False)
        assert len(run.outputs) == len(expected)
        for got, wanted in zip(run.outputs, expected, strict=True):
            assert got.dtype == wanted.dtype
            assert np.array_equal(got, wanted), seed


def plain(dtype: str) -> tuple[TFLiteModel, float, int]:
    """A model of only QUANTIZE and DEQUANTIZE; its scale and zero point."""
    made = Net(random.Random(1), dtype)
    made.graph.inputs.append(x := made.tensor((1, 60), "float32"))
    steps = made.op("QUANTIZE", [x], [made.tensor((1, 60), scales=[0.037], zero_points=[-11])])
    scale, zero = made.steps(steps)
    return TFLiteModel(made.bytes(made.op("DEQUANTIZE", [steps], [made.tensor((1, 60), "float32")]))), scale, zero


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_helpers_round_halves_away_from_zero_before_the_zero_point(dtype: str, tmp_path: Path) -> None:
    model, scale, zero = plain(dtype)
    halves = (np.arange(-150, 150) + 0.5).astype("float32") * np.float32(scale)
    saturating = np.iinfo(dtype).max * np.float32(scale) * np.linspace(-1.2, 1.2, 60, dtype="float32")
    x = np.concatenate([halves, np.nextafter(halves, np.float32(9)), np.nextafter(halves, np.float32(-9)), saturating])
    x = x.reshape(-1, 60)
    program = micro.emit(model)
    expected = targets.get("tflm").run(model, x, latency=False).outputs[0]
    assert native(tmp_path, [program], [model], [x]) == expected.tobytes()
    (source,) = program.inputs
    assert np.array_equal(program.outputs[0].dequantize(source.quantize(x)), expected)
    assert source.quantize(np.float32([[2.5 * scale, -2.5 * scale, 0]])).tolist() == [[3 + zero, -3 + zero, zero]]
    # values for which the interpreter's result is undefined
    limits = np.iinfo(dtype)
    infinite = np.float32([np.inf, -np.inf, 3e38, -3e38] * 15)[None]
    assert source.quantize(infinite)[0, :4].tolist() == [limits.max, limits.min] * 2
    got = np.frombuffer(native(tmp_path, [program], [model], [infinite]), "f4")[:4]
    assert np.array_equal(got, program.outputs[0].dequantize(np.array([limits.max, limits.min] * 2)))


def test_input_with_two_equal_quantize_ops_is_supported_and_with_different_ones_refused() -> None:
    for zero in (3, 4):
        made = Net(random.Random(0))
        made.graph.inputs += [x := made.tensor((1, 6), "float32"), other := made.tensor((1, 6), "float32")]
        first, second, third = (
            made.op("QUANTIZE", [i], [made.tensor((1, 6), scales=[0.1], zero_points=[z])])
            for i, z in ((x, 3), (x, zero), (other, 5))
        )
        total = made.op("ADD", [made.op("ADD", [first, second], [made.output((1, 6))]), third], [made.output((1, 6))])
        model = TFLiteModel(made.bytes(made.op("DEQUANTIZE", [total], [made.tensor((1, 6), "float32")]), first))
        if zero == 4:
            with pytest.raises(ValueError, match="or float32 with one QUANTIZE or DEQUANTIZE each"):
                micro.emit(model)
            continue
        inputs = [np.random.default_rng(i).normal(0, 5, (3, 6)).astype("float32") for i in range(2)]
        expected = targets.get("tflm").run(model, inputs, latency=False).outputs
        run = targets.get("cortex-m4").run(model, inputs, latency=False)
        assert all(np.array_equal(a, b) for a, b in zip(run.outputs, expected, strict=True))


def test_floats_inside_a_model_are_refused_with_the_names_of_all_layers_without_a_kernel() -> None:
    made = Net(random.Random(0))
    made.graph.inputs.append(x := made.tensor((1, 4), "float32"))
    inner = made.op("QUANTIZE", [x], [made.output((1, 4))])
    for kind in ("DEQUANTIZE", "FLOOR", "SQRT", "SIN"):
        inner = made.op(kind, [inner], [made.tensor((1, 4), "float32")])
    inner = made.op("QUANTIZE", [inner], [made.output((1, 4))])
    model = made.bytes(made.op("DEQUANTIZE", [inner], [made.tensor((1, 4), "float32")]))
    with pytest.raises(ValueError, match=r"(?s)FLOOR \(t3\): computes in floats.*SIN \(t5\): computes in") as refusal:
        micro.emit(model)
    assert len(str(refusal.value).splitlines()) == 3


def test_damaged_models_with_float_io_are_refused_or_make_a_program() -> None:
    emitted = 0
    for seed in range(4_000, 4_150):
        content = mutated(with_float_io(net(seed), seed), random.Random(seed))
        with contextlib.suppress(ValueError):
            emitted += bool(micro.emit(content).files)
    assert 20 < emitted < 130


def test_nan_is_refused() -> None:
    model, *_ = plain("int8")
    with pytest.raises(ValueError, match="cortex-m4: features for 't1' must be numbers. Received: NaN"):
        targets.get("cortex-m4").run(model, np.full((1, 60), np.nan, "float32"))


def test_output_that_is_a_constant_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    fixed = made.tensor((1, 4), data=made.values((1, 4)))
    model = made.bytes(made.op("RELU", [x], [made.output((1, 4))]), fixed)
    with pytest.raises(ValueError, match="output 't1' is a constant"):
        micro.emit(model)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> TFLiteModel:
    """A student for digits, as `tfkd convert --float-io` writes it."""
    train = tfkd.data.load("digits").train
    model = tfkd.models.build("digits_student", train.input_shape, train.num_classes)
    path = tmp_path_factory.mktemp("float_io") / "digits.tflite"
    return tfkd.convert(model, path, calibration=train, float_io=True)


def test_validate_on_a_core_computes_the_floats_of_tflite_micro(student: TFLiteModel) -> None:
    assert (student.inputs[0].dtype, student.outputs[0].dtype) == ("float32", "float32")
    validation = tfkd.validate(student, tfkd.data.load("digits").test, targets=["tflm", "cortex-m4:nrf52840"])
    micros = [row.measurement for row in validation.rows if row.measurement is not None]
    assert [run.target for run in micros] == ["tflm", "cortex-m4:nrf52840"]
    assert np.array_equal(micros[1].outputs[0], micros[0].outputs[0])
    assert micros[1].outputs[0].dtype == np.float32
    assert micros[1].instructions > 0


def test_selftest_of_a_float_model_uses_the_helpers(student: TFLiteModel, tmp_path: Path) -> None:
    export.write(student, tmp_path / "out", name="digits", oracle=targets.get("tflm"))
    selftest = (tmp_path / "out" / "digits_selftest.c").read_text()
    assert "static const float in0[" in selftest
    assert "static const float expected0[" in selftest
    assert run_selftest(tmp_path / "out", *STRICT) == 0
    header = tmp_path / "out" / "digits.h"
    text = header.read_text()
    header.write_text(text.replace("(float)(q - zero_point)", "(float)(q - zero_point + 1)"))
    assert run_selftest(tmp_path / "out", *STRICT) == 4


def test_selftest_compares_float_and_integer_outputs(tmp_path: Path) -> None:
    seed = 3_005  # float and integer outputs
    model = TFLiteModel(with_float_io(net(seed), seed))
    assert {tensor.dtype for tensor in model.outputs} == {"float32", "int8"}
    report = export.write(model, tmp_path / "out", inputs=floats(model, 5), oracle=targets.get("tflm"))
    assert report["golden_vectors"] == 5
    assert run_selftest(tmp_path / "out") == 0


def test_format_tflm_supports_a_float_model(student: TFLiteModel, tmp_path: Path) -> None:
    report = export.write(student, tmp_path / "out", format="tflm", oracle=targets.get("tflm"))
    assert report["arena_bytes"] > 0
    header = (tmp_path / "out" / "model_model.h").read_text()
    assert "resolver.AddQuantize()" in header
    assert "resolver.AddDequantize()" in header


@pytest.mark.parametrize(
    ("dtype", "kind", "remedy"),
    [("float32", "FLOOR", "end it before an op that stays in floats"), ("int64", "ARG_MAX", "Cast it to int32")],
)
def test_output_that_is_not_quantized_is_refused_with_the_op_beside_it(dtype: str, kind: str, remedy: str) -> None:
    made = Net(random.Random(0))
    made.graph.inputs.append(x := made.tensor((1, 4), "float32"))
    inner = made.op("QUANTIZE", [x], [made.output((1, 4))])
    if kind == "FLOOR":
        inner = made.op("DEQUANTIZE", [inner], [made.tensor((1, 4), "float32")])
    output = made.tensor((1, 4), dtype)
    model = made.bytes(made.op(kind, [inner], [output]))
    with pytest.raises(ValueError, match=f"Received: '.*' of {dtype} with 0 scales, beside {kind}. .*{remedy}"):
        micro.emit(model)
