"""Layers of floats inside a quantized model, in generated C, against TensorFlow Lite Micro's interpreter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import system_packages
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import SANITIZED, differing, interpret, native
from tests.random_graph import samples
from tests.random_ops import Ops
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.lowering import FLOATS

_GCC_MISSING = system_packages.skip_reason("arm-none-eabi-gcc")
_VALUES = ("ABS", "EXP", "LOGISTIC", "NEG", "RELU", "RELU6", "RSQRT", "SQRT", "SQUARE")
_PAIRS = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB")
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")


class Floats(Ops):
    """Adds ops of floats; each method takes and returns the index of a float32 tensor [1, rows, columns]."""

    def floats(self, shape: tuple[int, ...]) -> int:
        return self.tensor(shape, "float32")

    def constants(self, shape: tuple[int, ...]) -> int:
        numbers = np.random.default_rng(self.random.getrandbits(32))
        return self.tensor(shape, "float32", numbers.uniform(0.3, 2, shape).astype("float32"))

    def pair(self, x: int, kind: str) -> int:
        shape = self.shape(x)
        second = self.random.choice(
            [x, self.constants(shape[-1:]), self.constants((1, shape[1], 1)), self.float_mean(x)]
        )
        first = self.op("ADD", [x, self.constants(shape[-1:])], [self.floats(shape)], schema.AddOptionsT())
        tables = {
            "ADD": schema.AddOptionsT,
            "DIV": schema.DivOptionsT,
            "MUL": schema.MulOptionsT,
            "SUB": schema.SubOptionsT,
        }
        options = None
        if kind in tables:
            options = tables[kind](fusedActivationFunction=self.random.choice([0, 1, 2, 3]))
        return self.op(kind, [first, second], [self.floats(shape)], options)

    def float_mean(self, x: int, kind: str = "MEAN", axes: Sequence[int] = (-1,)) -> int:
        shape = self.shape(x)
        kept = tuple(1 if d in [a % len(shape) for a in axes] else n for d, n in enumerate(shape))
        return self.op(kind, [x, self.ints(list(axes))], [self.floats(kept)], schema.ReducerOptionsT(keepDims=True))

    def float_reduced(self, x: int, kind: str) -> int:
        return self.pair(self.float_mean(x, kind, self.random.choice([(1,), (2,), (1, 2)])), "ADD")

    def softmax(self, x: int) -> int:
        return self.op("SOFTMAX", [x], [self.floats(self.shape(x))], schema.SoftmaxOptionsT(beta=0.7))

    def dense(self, x: int) -> int:
        _, rows, depth = self.shape(x)
        weights, bias = self.constants((3, depth)), self.random.choice([-1, self.constants((3,))])
        options = schema.FullyConnectedOptionsT(keepNumDims=True, fusedActivationFunction=1)
        return self.op("FULLY_CONNECTED", [x, weights, bias], [self.floats((1, rows, 3))], options)

    def moved(self, x: int, kind: str) -> int:
        _, rows, columns = self.shape(x)
        if kind == "TRANSPOSE":
            return self.op(
                kind, [x, self.ints([0, 2, 1])], [self.floats((1, columns, rows))], schema.TransposeOptionsT()
            )
        if kind == "CONCATENATION":
            out = self.floats((1, rows * 2, columns))
            return self.op(kind, [x, x], [out], schema.ConcatenationOptionsT(axis=1))
        if kind in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            options = schema.VarHandleOptionsT(container=b"", sharedName=b"x")
            handle = self.op("VAR_HANDLE", [], [self.tensor((), "resource")], options)
            old = self.op("READ_VARIABLE", [handle], [self.floats((1, rows, columns))])
            self.op("ASSIGN_VARIABLE", [handle, x], [])
            return self.op("SUB", [x, old], [self.floats((1, rows, columns))], schema.SubOptionsT())
        if kind in ("SPLIT", "UNPACK", "PACK"):
            parts = [self.floats((1, columns)) for _ in range(rows)]
            self.op("UNPACK", [x], parts, schema.UnpackOptionsT(num=rows, axis=1))
            packed = self.op(
                "PACK", parts, [self.floats((1, rows, columns))], schema.PackOptionsT(valuesCount=rows, axis=1)
            )
            halves = [self.floats((1, rows, columns))]
            return self.op("SPLIT", [self.ints(1), packed], halves, schema.SplitOptionsT(numSplits=1))
        if kind == "STRIDED_SLICE":
            bounds = [self.ints([0, 0, 1]), self.ints([1, rows, columns]), self.ints([1, 1, 1])]
            out = self.floats((1, rows, columns - 1))
            return self.op(kind, [x, *bounds], [out], schema.StridedSliceOptionsT())
        shape = {"RESHAPE": (1, columns, rows), "EXPAND_DIMS": (1, 1, rows, columns), "SQUEEZE": (1, 1, rows, columns)}
        inner = self.ints(shape[kind]) if kind == "RESHAPE" else self.ints(1)
        made = "EXPAND_DIMS" if kind == "SQUEEZE" else kind
        x = self.op(made, [x, inner], [self.floats(shape[kind])])
        if kind == "RESHAPE":
            return x
        return self.op("SQUEEZE", [x], [self.floats((1, rows, columns))], schema.SqueezeOptionsT(squeezeDims=[1]))

    def any(self, x: int, kind: str) -> int:
        """An op of a kind, with values for which it has a result."""
        if kind in ("RSQRT", "SQRT"):  # of values above 0: the interpreter's QUANTIZE of NaN is undefined
            x = self.op("SQUARE", [self.pair(x, "ADD")], [self.floats(self.shape(x))])
            above = self.constants(self.shape(x)[-1:])
            x = self.op("ADD", [x, above], [self.floats(self.shape(x))], schema.AddOptionsT())
        if kind in _VALUES:
            return self.op(kind, [x], [self.floats(self.shape(x))])
        if kind in _PAIRS:
            return self.pair(x, kind)
        if kind in _REDUCTIONS:
            return self.float_reduced(x, kind)
        return {"SOFTMAX": self.softmax, "FULLY_CONNECTED": self.dense}.get(kind, lambda x: self.moved(x, kind))(x)


def island(seed: int) -> bytes:
    """An int8 or int16 model that computes in floats between DEQUANTIZE and QUANTIZE."""
    kinds = [kind for kind in FLOATS if kind not in ("QUANTIZE", "DEQUANTIZE")]
    made = Floats(random.Random(seed), "int16" if seed % 4 == 3 else "int8")
    x = made.input((1, made.random.randint(2, 4), made.random.randint(2, 5)))
    if made.dtype == "int16":
        made.graph.tensors[x].quantization.scale = np.array([0.0002], "f4")
    y = made.op("DEQUANTIZE", [x], [made.floats(made.shape(x))])
    y = made.any(y, kinds[seed % len(kinds)])
    y = made.any(y, made.random.choice(("ADD", "SOFTMAX", "MEAN")))
    y = made.op("LOGISTIC", [y], [made.floats(made.shape(y))])
    out = made.tensor(made.shape(y), scales=[2.0**-8 if made.dtype == "int8" else 2.0**-15], zero_points=[-128])
    return made.bytes(made.op("QUANTIZE", [y], [out]))


def check_bits(seeds: Sequence[int], folder: Path, *flags: str) -> None:
    models = [island(seed) for seed in seeds]
    inputs = [samples(content, 4, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = interpret(models, inputs)
    assert [seed for seed, rows in zip(seeds, expected, strict=True) if not rows.size] == []
    programs = [micro.emit(content, name=f"n{i}") for i, content in enumerate(models)]
    assert differing(seeds, native(folder, programs, inputs, *flags), expected) == []


def test_floats_inside_compute_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    check_bits(range(2 * len(FLOATS)), tmp_path)


def beyond(kind: str) -> bytes:
    """A model with an op whose result is beyond float32, such as 1 / 0, or is -0 for a 0."""
    made = Floats(random.Random(0))
    shape = (1, 2, 8)
    x = made.input(shape)
    made.graph.tensors[x].quantization = schema.QuantizationParametersT(
        scale=np.array([0.5], "f4"), zeroPoint=np.array([0])
    )
    y = made.op("DEQUANTIZE", [x], [made.floats(shape)])

    def op(kind: str, a: float | int, b: float | int, fused: int = 0) -> int:
        inputs = [made.tensor((1,), "float32", np.array([i], "f4")) if isinstance(i, float) else i for i in (a, b)]
        options = getattr(schema, f"{kind.capitalize()}OptionsT")(fusedActivationFunction=fused)
        return made.op(kind, inputs, [made.floats(shape)], options)

    if kind in ("RELU", "MAXIMUM"):
        found = made.op("EXP", [op("MUL", y, 100.0)], [made.floats(shape)])
        if kind == "RELU":
            found = made.op(kind, [found], [made.floats(shape)])
        least = made.tensor((1,), "float32", np.array([1e38], "f4"))
        found = op("DIV", 1e38, made.op("MAXIMUM", [found, least], [made.floats(shape)]))
    elif kind == "ABS":
        found = op("MUL", op("DIV", 1.0, made.op("ABS", [op("MUL", y, -0.0)], [made.floats(shape)])), 1e-37)
    elif kind == "FULLY_CONNECTED":
        weights = made.tensor((8, 8), "float32", np.full((8, 8), 3e38, "f4"))
        options = schema.FullyConnectedOptionsT(keepNumDims=True)
        found = op("MUL", made.op(kind, [y, weights, -1], [made.floats(shape)], options), 1e-38)
    else:
        found = op("MUL", op("DIV", 1.0, y, fused=kind == "DIV RELU"), y)
    out = made.tensor(shape, scales=[0.25], zero_points=[3])
    return made.bytes(made.op("QUANTIZE", [found], [out]))


def test_results_beyond_float32_are_those_of_tflite_micro(tmp_path: Path) -> None:
    kinds = ("ABS", "DIV", "DIV RELU", "FULLY_CONNECTED", "MAXIMUM", "RELU")
    models = [beyond(kind) for kind in kinds]
    inputs = [np.random.default_rng(0).integers(-2, 3, (20, 2, 8)).astype("int8")] * len(models)
    expected = interpret(models, inputs)
    assert [kind for kind, rows in zip(kinds, expected, strict=True) if not rows.size] == []
    programs = [micro.emit(content, name=f"n{i}") for i, content in enumerate(models)]
    assert differing(kinds, native(tmp_path, programs, inputs), expected) == []


@pytest.mark.campaign
@pytest.mark.parametrize("flags", [SANITIZED, ("-O3", "-march=native")], ids=["sanitized", "fused"])
def test_many_floats_inside_compute_the_bits_of_tflite_micro(flags: tuple[str, ...], tmp_path: Path) -> None:
    check_bits(range(1_000, 1_000 + 20 * len(FLOATS)), tmp_path, *flags)


def check_core(core: str, cc: str) -> None:
    model = TFLiteModel.load(island(list(FLOATS).index("SOFTMAX")))
    x = samples(model.content, 3)
    run = targets.get(core, cc=cc).run(model, x, latency=False)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(model, x, latency=False).outputs[0])


@pytest.mark.skipif(_GCC_MISSING is not None, reason=str(_GCC_MISSING))
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_floats_inside_on_a_core_compute_the_bits_of_tflite_micro(core: str) -> None:
    check_core(core, "arm-none-eabi-gcc")


@pytest.mark.campaign  # zig first compiles its runtime for each core
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-m55", "riscv32"])
def test_floats_inside_with_the_runtime_of_zig(core: str) -> None:
    check_core(core, "")


def test_constants_that_are_not_finite_are_refused() -> None:
    made = Floats(random.Random(0))
    x = made.op("DEQUANTIZE", [made.input((1, 2, 2))], [made.floats((1, 2, 2))])
    infinite = made.tensor((2,), "float32", np.array([1, np.inf], "float32"))
    y = made.op("ADD", [x, infinite], [made.floats((1, 2, 2))], schema.AddOptionsT())
    with pytest.raises(ValueError, match="not finite"):
        micro.emit(made.bytes(made.op("QUANTIZE", [y], [made.output((1, 2, 2))])))
