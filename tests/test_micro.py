"""Generated C against TensorFlow Lite Micro's interpreter, bit for bit, under sanitizers."""

from __future__ import annotations

import dataclasses
import random
import subprocess
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfkd import child, firmware, micro
from tfkd.micro import memory_plan
from tfkd.tflite import TFLiteModel

_STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
_SAMPLES = 3
_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}


@dataclasses.dataclass
class Net:
    """A .tflite put together op by op, with a seeded random choice of everything."""

    random: random.Random

    def __post_init__(self) -> None:
        self.model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], description=b"test")
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self.model.subgraphs = [self.graph]

    def scale(self, low: float = 0.005, high: float = 0.2) -> float:
        return float(np.float32(self.random.uniform(low, high)))

    def tensor(self, shape: tuple[int, ...], dtype: str = "int8", data: Any = None, scales: Any = None,
               zero_points: Any = None, axis: int = 0) -> int:  # fmt: skip
        if scales is None and dtype == "int8":
            scales, zero_points = [self.scale()], [self.random.randint(-128, 127)]
        buffer = 0
        if data is not None:
            self.model.buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(data).tobytes(), "u1")))
            buffer = len(self.model.buffers) - 1
        quantization = None
        if scales is not None:
            quantization = schema.QuantizationParametersT(
                scale=np.array(scales, "f4"), zeroPoint=np.array(zero_points, "i8"), quantizedDimension=axis
            )
        index = len(self.graph.tensors)
        self.graph.tensors.append(
            schema.TensorT(shape=np.array(shape, "i4"), type=_TYPES[dtype], buffer=buffer,
                           name=f"t{index}".encode(), quantization=quantization)
        )  # fmt: skip
        return index

    def input(self, shape: tuple[int, ...]) -> int:
        index = self.tensor(shape)
        self.graph.inputs.append(index)
        return index

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.graph.tensors[index].shape)

    def steps(self, index: int) -> tuple[float, int]:
        quantization = self.graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def ints(self, values: Any) -> int:
        values = np.array(values, "int32")
        return self.tensor(values.shape, "int32", values)

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> int:
        code = getattr(schema.BuiltinOperator, kind)
        self.model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=1)
        )
        operator = schema.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1, inputs=inputs, outputs=outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self.graph.operators.append(operator)
        return outputs[0]

    def bytes(self, *outputs: int) -> bytes:
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # one op on a tensor, with random options; returns its output

    def weights(self, shape: tuple[int, ...], channels: int, axis: int, per_channel: bool) -> tuple[int, list[float]]:
        numbers = np.random.default_rng(self.random.getrandbits(32))
        values = numbers.integers(-127, 128, shape).astype("int8")
        scales = [self.scale(0.001, 0.03) for _ in range(channels if per_channel else 1)]
        return self.tensor(shape, data=values, scales=scales, zero_points=[0] * len(scales), axis=axis), scales

    def bias(self, source: int, scales: list[float], channels: int) -> int:
        step = self.steps(source)[0]
        values = [self.random.randint(-3000, 3000) for _ in range(channels)]
        return self.tensor((channels,), "int32", np.array(values, "int32"), [step * s for s in scales],
                           [0] * len(scales))  # fmt: skip

    def output(self, shape: tuple[int, ...]) -> int:
        return self.tensor(shape, scales=[self.scale(0.02, 0.4)], zero_points=[self.random.choice(
            [-128, 127, 0, self.random.randint(-128, 127)])])  # fmt: skip

    def activation(self) -> int:
        return self.random.choice([0, 0, 1, 3, 2])

    def window(self, size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
        reach = (kernel - 1) * dilation + 1
        return -(-size // stride) if padding == 0 else (size + stride - reach) // stride

    def convolution(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(4, h)), self.random.randint(1, min(4, w))
        sh, sw = self.random.randint(1, 3), self.random.randint(1, 3)
        dh = self.random.randint(1, 2) if (kh - 1) * 2 < h else 1
        dw = self.random.randint(1, 2) if (kw - 1) * 2 < w else 1
        padding, depthwise = self.random.randint(0, 1), self.random.random() < 0.4
        if depthwise:
            kh, kw = self.random.choice([(kh, kw), (min(3, h), min(3, w))])
            sw = sh  # TensorFlow Lite Micro takes any; Keras makes equal ones
        oh, ow = self.window(h, kh, sh, dh, padding), self.window(w, kw, sw, dw, padding)
        if oh < 1 or ow < 1:
            return self.convolution(x)
        per_channel = self.random.random() < 0.8
        if depthwise:
            times = self.random.randint(1, 2)
            weights, scales = self.weights((1, kh, kw, c * times), c * times, 3, per_channel)
            out = self.output((1, oh, ow, c * times))
            options = schema.DepthwiseConv2DOptionsT(
                padding=padding, strideH=sh, strideW=sw, dilationHFactor=dh, dilationWFactor=dw, depthMultiplier=times,
                fusedActivationFunction=self.activation())  # fmt: skip
            return self.op("DEPTHWISE_CONV_2D", [x, weights, self.bias(x, scales, c * times)], [out], options)
        groups = self.random.choice([g for g in (1, 1, 1, 2, 3) if c % g == 0])
        channels = groups * self.random.randint(1, 5)
        weights, scales = self.weights((channels, kh, kw, c // groups), channels, 0, per_channel)
        out = self.output((1, oh, ow, channels))
        options = schema.Conv2DOptionsT(padding=padding, strideH=sh, strideW=sw, dilationHFactor=dh,
                                        dilationWFactor=dw, fusedActivationFunction=self.activation())  # fmt: skip
        return self.op("CONV_2D", [x, weights, self.bias(x, scales, channels)], [out], options)

    def fully_connected(self, x: int) -> int:
        shape = self.shape(x)
        depth, channels = shape[-1], self.random.randint(1, 9)
        rows = int(np.prod(shape)) // depth
        per_channel = self.random.random() < 0.5
        weights, scales = self.weights((channels, depth), channels, 0, per_channel)
        inputs = [x, weights, self.bias(x, scales, channels)]
        if self.random.random() < 0.2:
            inputs[2] = -1
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=self.activation(), keepNumDims=True)
        return self.op("FULLY_CONNECTED", inputs, [self.output((rows, channels))], options)

    def pool(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(4, h)), self.random.randint(1, min(4, w))
        sh, sw, padding = self.random.randint(1, 3), self.random.randint(1, 3), self.random.randint(0, 1)
        oh, ow = self.window(h, kh, sh, 1, padding), self.window(w, kw, sw, 1, padding)
        step, zero = self.steps(x)
        out = self.tensor((1, oh, ow, c), scales=[step], zero_points=[zero])
        options = schema.Pool2DOptionsT(padding=padding, strideH=sh, strideW=sw, filterHeight=kh, filterWidth=kw,
                                        fusedActivationFunction=self.activation())  # fmt: skip
        return self.op(self.random.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), [x], [out], options)

    def binary(self, x: int) -> int:
        shape = self.shape(x)
        kind = self.random.choice(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
        step, zero = self.steps(x)
        plain = kind in ("MAXIMUM", "MINIMUM")
        other_shape = self.random.choice([shape, (1,) * (len(shape) - 1) + shape[-1:], (1,) * len(shape)])
        numbers = np.random.default_rng(self.random.getrandbits(32))
        other = self.tensor(other_shape, data=numbers.integers(-128, 128, other_shape).astype("int8"),
                            scales=[step if plain else self.scale()],
                            zero_points=[zero if plain else self.random.randint(-128, 127)])  # fmt: skip
        inputs = [x, other] if self.random.random() < 0.7 else [x, x]
        out = self.tensor(shape, scales=[step], zero_points=[zero]) if plain else self.output(shape)
        name = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}.get(kind)
        options = schema.MaximumMinimumOptionsT()
        if name:
            options = getattr(schema, f"{name}OptionsT")(fusedActivationFunction=self.activation())
        return self.op(kind, inputs, [out], options)

    def unary(self, x: int) -> int:
        shape, (step, zero) = self.shape(x), self.steps(x)
        kind = self.random.choice(["LOGISTIC", "TANH", "RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "QUANTIZE"])
        options = schema.LeakyReluOptionsT(alpha=self.random.uniform(0.01, 0.9)) if kind == "LEAKY_RELU" else None
        if kind == "LOGISTIC":
            out = self.tensor(shape, scales=[1 / 256], zero_points=[-128])
        elif kind == "TANH":
            out = self.tensor(shape, scales=[1 / 128], zero_points=[0])
        elif kind == "RELU6":
            out = self.tensor(shape, scales=[step], zero_points=[zero])
        else:
            out = self.output(shape)
        return self.op(kind, [x], [out], options)

    def softmax(self, x: int) -> int:
        out = self.tensor(self.shape(x), scales=[1 / 256], zero_points=[-128])
        return self.op("SOFTMAX", [x], [out], schema.SoftmaxOptionsT(beta=self.random.choice([1.0, 1.0, 0.5])))

    def same(self, x: int, shape: tuple[int, ...]) -> int:
        step, zero = self.steps(x)
        return self.tensor(shape, scales=[step], zero_points=[zero])

    def shuffle(self, x: int) -> int:
        """Ops that move values."""
        shape = self.shape(x)
        kind = self.random.choice(["CONCATENATION", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "PAD", "PADV2", "RESHAPE"])
        axis = self.random.randrange(1, len(shape)) if len(shape) > 1 else 0
        if kind == "CONCATENATION":
            out = self.same(x, tuple(d * (2 if i == axis else 1) for i, d in enumerate(shape)))
            return self.op(kind, [x, x], [out], schema.ConcatenationOptionsT(axis=axis))
        if kind == "SPLIT" and shape[axis] % 2 == 0:
            half = tuple(d // (2 if i == axis else 1) for i, d in enumerate(shape))
            outs = [self.same(x, half), self.same(x, half)]
            self.op(kind, [self.ints(axis), x], outs, schema.SplitOptionsT(numSplits=2))
            return outs[self.random.randint(0, 1)]
        if kind == "STRIDED_SLICE":
            begin, end, steps = [], [], []
            for d in shape:
                low = self.random.randrange(d)
                begin.append(low), end.append(self.random.randint(low + 1, d)), steps.append(self.random.randint(1, 2))
            size = tuple(len(range(b, e, s)) for b, e, s in zip(begin, end, steps, strict=True))
            inputs = [x, self.ints(begin), self.ints(end), self.ints(steps)]
            return self.op(kind, inputs, [self.same(x, size)], schema.StridedSliceOptionsT())
        if kind == "TRANSPOSE":
            order = list(range(1, len(shape)))
            self.random.shuffle(order)
            order = [0, *order]
            return self.op(kind, [x, self.ints(order)], [self.same(x, tuple(shape[a] for a in order))],
                           schema.TransposeOptionsT())  # fmt: skip
        if kind in ("PAD", "PADV2"):
            amounts = [(0, 0), *((self.random.randint(0, 2), self.random.randint(0, 2)) for _ in shape[1:])]
            out = self.same(x, tuple(d + a + b for d, (a, b) in zip(shape, amounts, strict=True)))
            inputs = [x, self.ints(amounts)]
            if kind == "PADV2":
                step, zero = self.steps(x)
                value = np.array([self.random.randint(-128, 127)], "int8")
                inputs.append(self.tensor((1,), data=value, scales=[step], zero_points=[zero]))
            options = schema.PadV2OptionsT() if kind == "PADV2" else schema.PadOptionsT()
            return self.op(kind, inputs, [out], options)
        flat = (1, int(np.prod(shape)))
        return self.op("RESHAPE", [x, self.ints(flat)], [self.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))

    def reduction(self, x: int) -> int:
        shape = self.shape(x)
        axes = sorted(self.random.sample(range(1, len(shape)), self.random.randint(1, len(shape) - 1)))
        out = self.output(tuple(1 if i in axes else d for i, d in enumerate(shape)))
        kind = self.random.choice(["MEAN", "MEAN", "SUM"])
        return self.op(kind, [x, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=True))


def net(seed: int) -> bytes:
    """A random graph of one to four ops."""
    made = Net(random.Random(seed))
    x = made.input((1, made.random.randint(1, 9), made.random.randint(1, 9), made.random.randint(1, 8)))
    for _ in range(made.random.randint(1, 4)):
        spatial = len(made.shape(x)) == 4
        x = made.random.choice(
            [made.convolution if spatial else made.fully_connected] * 3
            + [made.pool if spatial else made.softmax, made.fully_connected, made.binary, made.unary, made.softmax]
            + [made.shuffle, made.reduction if len(made.shape(x)) > 1 else made.unary]
        )(x)
    return made.bytes(x)


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


def native(folder: Path, programs: list[micro.Program], inputs: list[np.ndarray], *flags: str) -> list[np.ndarray]:
    """Compiles programs into one executable, with every warning an error, and runs their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    main = ["#include <stdio.h>"]
    for program in programs:
        for name, text in program.files.items():
            (folder / name).write_text(text)
        main.append(f'#include "{program.name}.c"')
    main.append("int main(void) {")
    for program, x in zip(programs, inputs, strict=True):
        n = program.name
        main.append(
            f"{{ static tfkd_{n}_ctx ctx; static int8_t in[TFKD_{n.upper()}_INPUT_SIZE];"
            f"static int8_t out[TFKD_{n.upper()}_OUTPUT_SIZE]; for (int i = 0; i < {len(x)}; i++) {{"
            f"if (fread(in, 1, sizeof in, stdin) != sizeof in || tfkd_{n}_run(&ctx, in, out)) return 1;"
            f"fwrite(out, 1, sizeof out, stdout); }} }}"
        )
    main.append("return 0; }")
    (folder / "main.c").write_text("\n".join(main))
    command = ["cc", *_STRICT, *(flags or _SANITIZED), str(folder / "main.c"), "-o", str(folder / "run")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert compiled.returncode == 0, compiled.stderr[-3000:]
    done = subprocess.run([folder / "run"], input=b"".join(x.tobytes() for x in inputs), capture_output=True,
                          timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    results, at = [], 0
    for program, x in zip(programs, inputs, strict=True):
        size = int(program.files[f"{program.name}.h"].split("OUTPUT_SIZE ")[1].split()[0])
        results.append(np.frombuffer(done.stdout, "int8", len(x) * size, at).reshape(len(x), size))
        at += len(x) * size
    assert at == len(done.stdout)
    return results


@pytest.mark.parametrize("part", range(8))
def test_random_graphs_give_the_bits_of_tflite_micro(part: int, tmp_path: Path) -> None:
    seeds = range(part * 260, part * 260 + 260)
    models = [net(seed) for seed in seeds]
    inputs = []
    for seed, content in zip(seeds, models, strict=True):
        shape = TFLiteModel.load(content).inputs[0].shape[1:]
        inputs.append(np.random.default_rng(seed).integers(-128, 128, (_SAMPLES, *shape)).astype("int8"))
    expected = child.run("tests.test_micro:interpret", models=models, inputs=inputs, timeout_s=300,
                         what="running random graphs on tflm")  # fmt: skip
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
    firmware.write(trained / "digits.tflite", tmp_path / "out", name="digits")
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


@pytest.mark.parametrize("layout", firmware.LAYOUTS)
def test_export_c_layout_holds_its_build_files(layout: str, trained: Path, tmp_path: Path) -> None:
    firmware.write(trained / "digits.tflite", tmp_path / "out", layout=layout)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    expected = {
        "plain": {"model.c", "model.h", "model_selftest.c", "CMakeLists.txt", "Makefile"},
        "arduino": {"library.properties", "src/model.c", "src/model.h", "src/model_selftest.c"},
        "zephyr": {"zephyr/module.yml", "zephyr/CMakeLists.txt", "src/model.c", "src/model.h", "src/model_selftest.c"},
    }[layout]
    assert found == expected | {"report.json"}


def test_export_c_for_tflite_micro_holds_the_model_and_its_ops(trained: Path, tmp_path: Path) -> None:
    firmware.write(trained / "digits.tflite", tmp_path / "out", name="digits", format="tflm")
    source = (tmp_path / "out" / "digits_model.cc").read_text()
    content = bytes(int(word, 16) for word in source.split("{")[1].split("}")[0].replace(",", " ").split())
    assert content == (trained / "digits.tflite").read_bytes()
    header = (tmp_path / "out" / "digits_model.h").read_text()
    assert "resolver.AddConv2D()" in header
    assert "resolver.AddFullyConnected()" in header


def test_export_c_header_compiles_as_cpp(trained: Path, tmp_path: Path) -> None:
    firmware.write(trained / "digits.tflite", tmp_path / "out")
    (tmp_path / "main.cc").write_text('#include "model.h"\nint main() { return TFKD_MODEL_INPUT_SIZE != 64; }\n')
    subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path / 'out'}", str(tmp_path / "main.cc"), "-o",
                    str(tmp_path / "main")], check=True)  # fmt: skip
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_export_c_existing_folder_is_kept(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="must not exist"):
        firmware.write(trained / "digits.tflite", tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()
    firmware.write(trained / "digits.tflite", tmp_path / "out", overwrite=True)
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
            program = micro.emit(content, name=f"n{seed}")
        except ValueError:
            refused += 1
            continue
        assert program.arena_bytes < 1 << 24
        shape = TFLiteModel.load(content).inputs[0].shape
        programs.append(program)
        inputs.append(np.random.default_rng(seed).integers(-128, 128, shape).astype("int8"))
    assert refused > 300
    assert len(programs) > 200
    native(tmp_path, programs, inputs)


def test_emit_float_model_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.tensor((1, 4), "int32")
    made.graph.inputs.append(x)
    with pytest.raises(ValueError, match="inputs and outputs must be int8"):
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


def _mlperf(name: str, folder: Path) -> tuple[bytes, int]:
    """One of MLPerf Tiny's models, untrained, and the bytes of its tensors that live at once."""
    import tfkd

    shape, classes, least = {
        "resnet8": ((32, 32, 3), 10, 49_152), "ds_cnn": ((49, 10, 1), 12, 16_000),
        "mobilenet_v1": ((96, 96, 3), 2, 55_296), "autoencoder": ((640,), 2, 768),
    }[name]  # fmt: skip
    model = tfkd.models.build(name, shape, classes) if name != "autoencoder" else tfkd.models.autoencoder(shape)
    numbers = np.random.default_rng(0)
    x = numbers.integers(0, 256, (40, *shape)).astype("float32")
    np.savez(folder / "x.npz", x_train=x, y_train=np.arange(40) % classes, x_test=x[:20] + 1,
             y_test=np.arange(20) % classes)  # fmt: skip
    split = tfkd.data.load(folder / "x.npz").train
    return tfkd.convert(model, folder / "model.tflite", calibration=split).content, least
