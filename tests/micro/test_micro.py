"""Generated C against TensorFlow Lite Micro's interpreter, bit for bit, under sanitizers."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net, net, samples
from tfkd import micro
from tfkd._internal import isolation
from tfkd.micro import export, memory_plan

_STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
_SAMPLES = 3


def interpret(models: list[bytes], inputs: list[np.ndarray]) -> list[np.ndarray]:  # in a child
    """What TensorFlow Lite Micro gives for each model and its samples; empty where it does not take a model."""
    from tflite_micro import runtime

    results = []
    for content, x in zip(models, inputs, strict=True):
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        except RuntimeError:
            results.append(np.zeros(0, "int8"))
            continue
        rows = []
        for sample in x:
            interpreter.set_input(sample[None], 0)
            interpreter.invoke()
            rows.append(interpreter.get_output(0).reshape(-1))
        results.append(np.stack(rows))
    return results


def begun(folder: Path, programs: list[micro.Program]) -> list[str]:
    """Writes programs into a folder; the first lines of a C file that calls them."""
    for program in programs:
        for name, text in program.files.items():
            (folder / name).write_text(text)
    includes = [f'#include "{program.name}.c"' for program in programs]
    return ["#include <stdio.h>", *includes, "int main(void) {"]


def native(folder: Path, programs: list[micro.Program], inputs: list[np.ndarray], *flags: str) -> list[np.ndarray]:
    """Compiles programs into one executable, with every warning an error, and runs their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    main = begun(folder, programs)
    for program, x in zip(programs, inputs, strict=True):
        n = program.name
        reset = f"tfkd_{n}_reset(&ctx);" if program.state_bytes else ""
        main.append(
            f"{{ static tfkd_{n}_ctx ctx; {reset} static {x.dtype}_t in[TFKD_{n.upper()}_INPUT_SIZE];"
            f"static {x.dtype}_t out[TFKD_{n.upper()}_OUTPUT_SIZE]; for (int i = 0; i < {len(x)}; i++) {{"
            f"if (fread(in, 1, sizeof in, stdin) != sizeof in || tfkd_{n}_run(&ctx, in, out)) return 1;"
            f"fwrite(out, 1, sizeof out, stdout); }} }}"
        )
    main.append("return 0; }")
    (folder / "main.c").write_text("\n".join(main))
    command = ["cc", *_STRICT, *(flags or _SANITIZED), str(folder / "main.c"), "-o", str(folder / "run")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert compiled.returncode == 0, compiled.stderr[-3000:]
    done = subprocess.run(
        [folder / "run"], input=b"".join(x.tobytes() for x in inputs), capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    results, at = [], 0
    for program, x in zip(programs, inputs, strict=True):
        size = int(program.files[f"{program.name}.h"].split("OUTPUT_SIZE ")[1].split()[0])
        results.append(np.frombuffer(done.stdout, x.dtype, len(x) * size, at).reshape(len(x), size))
        at += results[-1].nbytes
    assert at == len(done.stdout)
    return results


@pytest.mark.parametrize("part", range(8))
def test_random_graphs_give_the_bits_of_tflite_micro(part: int, tmp_path: Path) -> None:
    seeds = range(part * 260, part * 260 + 260)
    models = [net(seed) for seed in seeds]
    inputs = [samples(content, _SAMPLES, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = isolation.run(
        "tests.micro.test_micro:interpret",
        models=models,
        inputs=inputs,
        timeout_s=300,
        what="running random graphs on tflm",
    )
    taken = [i for i, rows in enumerate(expected) if rows.size]
    assert len(taken) >= 250
    programs = [micro.emit(models[i], name=f"n{i}") for i in taken]
    got = native(tmp_path, programs, [inputs[i] for i in taken])
    different = [seeds[i] for i, rows in zip(taken, got, strict=True) if not np.array_equal(rows, expected[i])]
    assert not different


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits.tflite, a student as `tfkd convert` makes them."""
    import tfkd

    folder = tmp_path_factory.mktemp("micro")
    train = tfkd.data.load("digits").train
    student = tfkd.models.build("digits_student", train.input_shape, train.num_classes)
    student.compile("adam", loss="sparse_categorical_crossentropy")
    tfkd.convert(student, folder / "digits.tflite", calibration=train)
    return folder


def test_export_c_selftest_passes_and_notices_a_changed_weight(trained: Path, tmp_path: Path) -> None:
    export.write(trained / "digits.tflite", tmp_path / "out", name="digits")
    run = ["make", "-C", str(tmp_path / "out"), "selftest", "CC=cc", "CFLAGS=-O1 -Wall -Wextra -Werror"]
    subprocess.run(run, check=True, capture_output=True)
    assert subprocess.run([tmp_path / "out" / "selftest"]).returncode == 0
    source = tmp_path / "out" / "digits.c"
    text = source.read_text()
    start = text.index("= {\n", text.rindex("static const int32_t tfkd_digits_bias_")) + 4  # the last layer's
    end = text.index(",", start)
    source.write_text(f"{text[:start]}{int(text[start:end]) + 2_000}{text[end:]}")
    subprocess.run(run, check=True, capture_output=True)
    assert subprocess.run([tmp_path / "out" / "selftest"]).returncode == 4  # all vectors


def test_export_c_for_size_passes_its_selftest_with_less_code(trained: Path, tmp_path: Path) -> None:
    for size in (False, True):
        export.write(trained / "digits.tflite", tmp_path / "out", size=size, overwrite=True)
        subprocess.run(["make", "-C", str(tmp_path / "out"), "selftest", "CC=cc"], check=True, capture_output=True)
        assert subprocess.run([tmp_path / "out" / "selftest"]).returncode == 0
        text = (tmp_path / "out" / "model.c").read_text()
        assert ("-Os" in (tmp_path / "out" / "Makefile").read_text()) == size
        assert not size or text.count("TFKD_NOINLINE void tfkd_convolution_flags") == 1
    with pytest.raises(ValueError, match="size must go with the format c"):
        export.write(trained / "digits.tflite", tmp_path / "other", format="tflm", size=True)


@pytest.mark.parametrize("layout", export.LAYOUTS)
def test_export_c_layout_holds_its_build_files(layout: str, trained: Path, tmp_path: Path) -> None:
    export.write(trained / "digits.tflite", tmp_path / "out", layout=layout)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    expected = {
        "plain": {"model.c", "model.h", "model_selftest.c", "CMakeLists.txt", "Makefile"},
        "arduino": {"library.properties", "src/model.c", "src/model.h", "src/model_selftest.c"},
        "zephyr": {"zephyr/module.yml", "zephyr/CMakeLists.txt", "src/model.c", "src/model.h", "src/model_selftest.c"},
    }[layout]
    assert found == expected | {"report.json"}


def test_export_c_for_tflite_micro_holds_the_model_and_its_ops(trained: Path, tmp_path: Path) -> None:
    export.write(trained / "digits.tflite", tmp_path / "out", name="digits", format="tflm")
    source = (tmp_path / "out" / "digits_model.cc").read_text()
    content = bytes(int(word, 16) for word in source.split("{")[1].split("}")[0].replace(",", " ").split())
    assert content == (trained / "digits.tflite").read_bytes()
    header = (tmp_path / "out" / "digits_model.h").read_text()
    assert "resolver.AddConv2D()" in header
    assert "resolver.AddFullyConnected()" in header


def test_export_c_header_compiles_as_cpp(trained: Path, tmp_path: Path) -> None:
    export.write(trained / "digits.tflite", tmp_path / "out")
    (tmp_path / "main.cc").write_text('#include "model.h"\nint main() { return TFKD_MODEL_INPUT_SIZE != 64; }\n')
    subprocess.run(
        [
            "c++",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{tmp_path / 'out'}",
            str(tmp_path / "main.cc"),
            "-o",
            str(tmp_path / "main"),
        ],
        check=True,
    )
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_export_c_existing_folder_is_kept(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="must not exist"):
        export.write(trained / "digits.tflite", tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()
    export.write(trained / "digits.tflite", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine").exists()


def test_emit_names_all_that_is_not_supported() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    first = made.op("ELU", [x], [made.output((1, 4))])
    last = made.op("CEIL", [first], [made.output((1, 4))])
    with pytest.raises(ValueError, match=r"(?s)ELU \(t1\): is not supported.*CEIL \(t2\): is not supported"):
        micro.emit(made.bytes(last))


def test_emit_op_without_its_options_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    with pytest.raises(ValueError, match=r"CONCATENATION \(t1\): has no option 'Axis'"):
        micro.emit(made.bytes(made.op("CONCATENATION", [x, x], [made.same(x, (1, 8))])))


def test_transposed_convolution_of_16_bits_with_a_bias_of_32_is_refused() -> None:
    made = Net(random.Random(0), "int16")
    x = made.input((1, 3, 3, 2))
    weights, scales = made.weights((2, 2, 2, 2), 2, 0, per_channel=True)
    inputs = [made.ints((1, 6, 6, 2)), weights, x, made.bias(x, scales, 2, ("int32",))]
    options = schema.TransposeConvOptionsT(strideH=2, strideW=2)
    with pytest.raises(ValueError, match=r"TRANSPOSE_CONV .*must be a constant of int64, is int32"):
        micro.emit(made.bytes(made.op("TRANSPOSE_CONV", inputs, [made.output((1, 6, 6, 2))], options)))


def mutated(content: bytes, numbers: random.Random) -> bytes:
    """A model with a few of its fields changed: numbers of tensors, shapes, scales, options, data."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for _ in range(numbers.randint(1, 3)):
        spoil(tree, numbers)
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def spoil(tree: Any, numbers: random.Random) -> None:
    graph = tree.subgraphs[0]
    tensor, op = numbers.choice(graph.tensors), numbers.choice(graph.operators)
    odd = numbers.choice([-(2**31), -1, 0, 1, 2, 3, 7, 127, 255, 2**15, 2**31 - 1])
    kind = numbers.randrange(8)
    if kind == 0 and len(tensor.shape):
        shape = np.array(tensor.shape)
        shape[numbers.randrange(len(shape))] = odd
        tensor.shape = shape
    elif kind == 1 and tensor.quantization is not None and tensor.quantization.scale is not None:
        scale = numbers.choice([0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf"), 1e-9, 3.0])
        tensor.quantization.scale = np.full(len(tensor.quantization.scale), scale, "f4")
    elif kind == 2 and tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
        tensor.quantization.zeroPoint = np.full(len(tensor.quantization.zeroPoint), odd, "i8")
    elif kind == 3:
        inputs = np.array(op.inputs)
        inputs[numbers.randrange(len(inputs))] = numbers.choice([odd, numbers.randrange(len(graph.tensors))])
        op.inputs = inputs
    elif kind == 4:
        op.outputs = np.array([numbers.randrange(len(graph.tensors))])
    elif kind == 5 and op.builtinOptions is not None:
        fields = [name for name, value in vars(op.builtinOptions).items() if type(value) is int]
        if fields:
            setattr(op.builtinOptions, numbers.choice(fields), max(-128, min(127, odd)))
    elif kind == 6:
        tensor.type = numbers.choice([0, 2, 3, 7, 9, 9])
    else:
        buffer = numbers.choice(tree.buffers)
        if buffer.data is not None and len(buffer.data):
            data = np.array(buffer.data)
            data[numbers.randrange(len(data))] = numbers.randrange(256)
            buffer.data = data if numbers.random() < 0.7 else data[: numbers.randrange(len(data)) + 1]


def test_damaged_files_give_an_error_or_a_program_that_stays_in_its_arrays(tmp_path: Path) -> None:
    programs, inputs, refused = [], [], 0
    for seed in range(1200):
        numbers = random.Random(seed)
        content = mutated(net(seed), numbers)
        try:
            program = micro.emit(content, name=f"n{seed}", stream=seed % 2 == 1)
        except ValueError:
            refused += 1
            continue
        assert program.arena_bytes < 1 << 24
        programs.append(program)
        inputs.append(samples(content, 1, seed))
    assert refused > 300
    assert len(programs) > 200
    native(tmp_path, programs, inputs)


def test_emit_float_model_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.tensor((1, 4), "int32")
    made.graph.inputs.append(x)
    with pytest.raises(ValueError, match="inputs and outputs must be all int8 or all int16"):
        micro.emit(made.bytes(made.op("ABS", [x], [made.tensor((1, 4), "int32")])))


@pytest.mark.parametrize("name", ["Model", "a-b", "", "1x", 'x"; system("rm")'])
def test_emit_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a C identifier"):
        micro.emit(net(0), name=name)


def test_layer_name_cannot_leave_its_comment() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    out = made.op("RELU", [x], [made.output((1, 4))])
    made.graph.tensors[out].name = b'*/ #error "out" \\\n\x00\xff'
    made.graph.tensors[x].name = b"*/ int main(void) { return 7; } /*"
    program = micro.emit(made.bytes(out))
    assert "*/ int main" not in program.files["model.h"]
    assert "*/ #error" not in program.files["model.c"]


def test_memory_plan_keeps_what_lives_together_apart() -> None:
    numbers = random.Random(1)
    for _ in range(50):
        buffers = []
        for i in range(numbers.randint(1, 20)):
            first = numbers.randint(-1, 15)
            buffers.append(memory_plan.Buffer(str(i), numbers.randint(1, 500), first, first + numbers.randint(0, 6)))
        plan = memory_plan.plan(buffers)
        assert plan.bytes >= plan.lower_bound
        for i, (a, x) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
            for b, y in list(zip(plan.buffers, plan.offsets, strict=True))[:i]:
                assert not a.meets(b) or x + a.bytes <= y or y + b.bytes <= x


@pytest.mark.parametrize("model", ["resnet8", "ds_cnn", "mobilenet_v1", "autoencoder"])
def test_mlperf_tiny_arena_is_within_two_percent_of_what_lives_at_once(model: str, tmp_path: Path) -> None:
    content, least = _mlperf(model, tmp_path)
    program = micro.emit(content)
    assert program.least_bytes == least
    assert program.arena_bytes <= 1.02 * least
    by_rows = {"resnet8": 35_000, "ds_cnn": 9_500, "mobilenet_v1": 28_500, "autoencoder": 768}
    assert micro.emit(content, stream=True).arena_bytes <= by_rows[model]


def _mlperf(name: str, folder: Path) -> tuple[bytes, int]:
    """One of MLPerf Tiny's models, untrained, and the bytes of its tensors that live at once."""
    import tfkd

    shape, classes, least = {
        "resnet8": ((32, 32, 3), 10, 49_152),
        "ds_cnn": ((49, 10, 1), 12, 16_000),
        "mobilenet_v1": ((96, 96, 3), 2, 55_296),
        "autoencoder": ((640,), 2, 768),
    }[name]
    model = tfkd.models.build(name, shape, classes) if name != "autoencoder" else tfkd.models.autoencoder(shape)
    numbers = np.random.default_rng(0)
    x = numbers.integers(0, 256, (40, *shape)).astype("float32")
    np.savez(
        folder / "x.npz", x_train=x, y_train=np.arange(40) % classes, x_test=x[:20] + 1, y_test=np.arange(20) % classes
    )
    split = tfkd.data.load(folder / "x.npz").train
    return tfkd.convert(model, folder / "model.tflite", calibration=split).content, least
