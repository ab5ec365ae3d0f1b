"""Outputs of a .tflite on the engines of this machine, and of copies whose constants are moved by rounding errors.

The engines run native code on the model, which may crash: everything here but `constants` runs in a child process.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import litert, tflite_writer
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.micro_interpreter import MicroInterpreter
from tfkd.conversion.tflite import TFLiteModel

PLAIN, XNNPACK, MICRO = "LiteRT's plain kernels", "XNNPACK", "TensorFlow Lite Micro"
_KERNELS = {PLAIN: "plain", XNNPACK: "xnnpack"}

# The error of rounding to steps has a variance of 1/12 step². So has a constant of which one in 24 moves up by a step,
# and one in 24 down.
_CHOICES = 24
# Largest magnitude of a constant: converters use symmetric ranges.
_LARGEST = {"INT4": 7, "INT8": 127, "INT16": 2**15 - 1}
# Engines that compute the same differ by less in each tensor, as a share of its range.
_DIVERGENCE = 0.05

Sample = Sequence[np.ndarray]  # one array [1, ...] per input or output
Rows = list[list[np.ndarray]]  # one Sample each


def has_micro() -> bool:
    """Whether TensorFlow Lite Micro is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


class Constant(NamedTuple):
    """A constant of a .tflite.

    Args:
        name: Name of the tensor.
        type: Name of its type in the schema, such as `INT8`.
        quantized: Whether it has scales.
        is_kernel: Whether at least two of its dimensions are larger than 1.
        values: [N] its values, int4 as packed bytes; a view that can be written where the buffer can be.
    """

    name: str
    type: str
    quantized: bool
    is_kernel: bool
    values: np.ndarray


def constants(content: bytes | bytearray) -> Iterator[Constant]:
    """The numeric constants of all subgraphs; a buffer that several tensors share comes once."""
    names = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    dtypes = {"INT4": "uint8", "INT8": "int8", "INT16": "int16", "FLOAT16": "float16", "FLOAT32": "float32"}
    model, seen = schema.Model.GetRootAs(content, 0), {0}
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            number, kind, quantization = tensor.Buffer(), names[tensor.Type()], tensor.Quantization()
            if number in seen or kind not in dtypes or not (data := model.Buffers(number)).DataLength():
                continue
            seen.add(number)
            quantized = quantization is not None and quantization.ScaleLength() > 0
            is_kernel = sum(tensor.Shape(axis) > 1 for axis in range(tensor.ShapeLength())) > 1
            yield Constant(tensor.Name().decode(), kind, quantized, is_kernel, data.DataAsNumpy().view(dtypes[kind]))


def perturbed(content: bytes, seed: int) -> bytes:
    """A copy of a .tflite whose constants are moved by errors of the size of rounding errors.

    Of the constants in floating point only kernels are moved: the error that float16 adds to an offset or a scale can
    be avoided, so it does not count as explained.

    Args:
        content: The .tflite file.
        seed: Random seed of the errors.
    """
    changed, rng = bytearray(content), np.random.default_rng(seed)
    for constant in constants(changed):
        if constant.quantized if constant.type in _LARGEST else constant.is_kernel:
            _move(constant.values, constant.type, rng)
    return bytes(changed)


def _move(values: np.ndarray, kind: str, rng: np.random.Generator) -> None:
    """Moves values by rounding errors, in place."""

    def moved(steps: np.ndarray) -> np.ndarray:
        drawn = rng.integers(0, _CHOICES, steps.shape, "uint8")
        return steps + ((drawn == 0).view("int8") - (drawn == 1).view("int8"))

    largest = _LARGEST.get(kind)
    if largest is None:  # as integers, the bits of floats of one sign are in the order of the floats
        bits = values.view(f"int{8 * values.itemsize}")
        changed = moved(bits.astype("int64")).astype(bits.dtype).view(values.dtype)
        limits = np.finfo(values.dtype)
        inside = (np.abs(values) > limits.tiny) & (np.abs(values) < limits.max)
        values[:] = np.where(inside, changed, values)
    elif kind == "INT4":  # two in a byte, the first in the lower half
        low, high = (
            np.clip(moved(half >> 4), -largest, largest) for half in ((values << 4).view("int8"), values.view("int8"))
        )
        values[:] = (low & 15 | (high & 15) << 4).astype("uint8")
    else:
        values[:] = np.clip(moved(values.astype("int16" if kind == "INT8" else "int32")), -largest, largest)


# Entry points of child processes.


def compute(
    content: bytes, engines: Sequence[str], samples: Sequence[Sample], moved: Sequence[Sample], files: int
) -> dict[str, tuple[Rows, Rows] | str]:
    """Runs a .tflite and its perturbed copies on engines.

    Args:
        content: The .tflite file.
        engines: Names of the engines.
        samples: Inputs of each sample.
        moved: The same with rounding errors added; empty for no perturbed copies.
        files: Number of perturbed copies, which share the samples.

    Returns:
        For each engine the outputs of the file and of the copies, or the message with which it refused the file.
    """
    files = min(files, len(moved))
    copies = [perturbed(content, seed) for seed in range(files)]
    model = TFLiteModel(content)
    results: dict[str, tuple[Rows, Rows] | str] = {}
    for engine in engines:
        try:
            parts = [run(model, engine, moved[index::files], one) for index, one in enumerate(copies)]
            own = run(model, engine, samples)
        except (RuntimeError, ValueError) as error:
            results[engine] = str(error)
        else:
            results[engine] = own, [parts[i % files][i // files] for i in range(len(moved))]
    return results


def diverge(content: bytes, engine: str, samples: Sequence[Sample]) -> tuple[str, str] | None:
    """The first op whose outputs differ between an engine and the plain kernels: its name and output tensor, or None.

    Args:
        content: The .tflite file.
        engine: The other engine.
        samples: Inputs of each sample.
    """
    graph = TFLiteModel.load(content).graph
    # The last op that writes a tensor; TensorFlow Lite Micro cannot have more outputs than it has ops.
    ops = [op for op in graph.ops if op.outputs]
    exposed = TFLiteModel(_with_outputs(content, [op.outputs[0] for op in ops]))
    expected, received = (run(exposed, name, samples) for name in (PLAIN, engine))
    for index, op in enumerate(ops):
        a, b = (np.stack([row[index].astype("float64") for row in rows]) for rows in (expected, received))
        if np.abs(a - b).max() > _DIVERGENCE * max(float(np.ptp(a)), 1e-30):
            return op.name, graph.tensors[op.outputs[0]].name
    return None


class Written(NamedTuple):
    """A tensor that an op writes: the op, the names of the tensor and of the op's first constant, and the values."""

    op: str
    name: str
    constant: str
    values: np.ndarray


def written(content: bytes, sample: Sample) -> list[Written]:
    """The tensors that the ops of a .tflite write, on the plain kernels.

    Args:
        content: A .tflite whose activations are floats.
        sample: Inputs of one sample.
    """
    graph = TFLiteModel.load(content).graph
    read = TensorRecorder(content).run(sample)
    found = []
    for op in graph.ops:
        constant = next((graph.tensors[i].name for i in op.inputs if i >= 0 and graph.constants[i]), "")
        found += [Written(op.name, graph.tensors[index].name, constant, read(index)) for index in op.outputs]
    return found


def first_non_finite(content: bytes, samples: Sequence[Sample]) -> tuple[str, str] | None:
    """The first op whose output has NaN or infinity: its name and output tensor, or None.

    Args:
        content: The .tflite file.
        samples: Inputs of each sample.
    """
    graph, recorder = TFLiteModel.load(content).graph, TensorRecorder(content)
    found: list[int] = []
    for sample in samples:
        read = recorder.run(sample)
        places = range(len(graph.ops))
        floats = (
            i for i in places if graph.ops[i].outputs and graph.tensors[graph.ops[i].outputs[0]].dtype == "float32"
        )
        found += [i for i in floats if not np.isfinite(read(graph.ops[i].outputs[0])).all()][:1]
    op = graph.ops[min(found)] if found else None
    return (op.name, graph.tensors[op.outputs[0]].name) if op else None


def run(model: TFLiteModel, engine: str, samples: Sequence[Sample], copy: bytes | None = None) -> Rows:
    """The outputs of each sample, computed from the initial state.

    Args:
        model: The .tflite.
        engine: `PLAIN`, `XNNPACK` or `MICRO`.
        samples: Inputs of each sample, of the types of the model's inputs.
        copy: A .tflite that differs from `model` in the values of its constants only; it runs instead. To read the
            ops of a large model takes as long as to run it.
    """
    if engine == MICRO:
        return [*map(MicroInterpreter(model, copy).invoke, samples)]
    content = copy or model.content
    restart = litert.needs_restart(model.ops)
    runner = litert.SampleInterpreter(lambda: litert.new_interpreter(content, _KERNELS[engine]), restart=restart)
    return [*map(runner.invoke, samples)]


def _with_outputs(content: bytes, outputs: list[int]) -> bytes:
    """The .tflite with other outputs."""
    model = tflite_writer.read(content)
    model.subgraphs[0].outputs, model.signatureDefs = outputs, []
    return tflite_writer.write(model)
