"""The self-test of a generated program: a C file that runs it on known inputs and compares the outputs bit for bit.

The expected outputs come from an oracle: an engine other than this program, TensorFlow Lite Micro where it is
installed. Float inputs and outputs pass through the helpers of the C header, as they do in a firmware.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tfkd._internal.types import InputArrays
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.c_context import CTYPES, quantizer, value_type
from tfkd.micro.emitter import Program
from tfkd.micro.graph import Tensor
from tfkd.micro.io_tensors import IOTensor

_SAMPLES = 4


class OracleMemory(Protocol):
    """Memory that an engine uses for a model."""

    @property
    def arena_bytes(self) -> int | None:
        """Size of the tensor arena in bytes, or None where it is unknown."""


class OracleRun(Protocol):
    """Result of an engine's run."""

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """One array [N, ...] for each output of the model."""

    @property
    def memory(self) -> OracleMemory | None:
        """Memory of the run, or None where it is unknown."""


class Oracle(Protocol):
    """An engine that computes a model's outputs bit for bit as TensorFlow Lite Micro does; the targets are such."""

    @property
    def spec(self) -> str:
        """Name of the engine, such as `tflm` or `cortex-m4`."""

    def run(self, model: TFLiteModel, inputs: InputArrays, *, latency: bool = True) -> OracleRun:
        """Runs a model on a list of arrays [N, ...], one for each input."""


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Test vectors: inputs and the outputs that are expected for them.

    Args:
        inputs: Arrays [N, ...], one for each input of the model.
        outputs: Arrays [N, ...], one for each output of the model.
        oracle: Name of the engine that computed the outputs.
    """

    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    oracle: str

    @property
    def count(self) -> int:
        """Number of vectors."""
        return len(self.inputs[0])


def make_vectors(model: TFLiteModel, program: Program, oracle: Oracle, inputs: InputArrays | None = None) -> Vectors:
    """Computes test vectors.

    Args:
        model: The model.
        program: The C generated from it.
        oracle: Engine that computes the outputs.
        inputs: [N, ...] samples of the model's input dtype, or a sequence of such arrays for several inputs; None for
            four random samples.

    Raises:
        InputError: The samples do not fit the model.
        ModelError: The oracle does not support the model.
    """
    if inputs is None:
        inputs = _random_samples(model, program.inputs)
    arrays = [np.asarray(x) for x in (inputs if isinstance(inputs, list | tuple) else [inputs])]
    return Vectors(arrays, oracle.run(model, arrays, latency=False).outputs, oracle.spec)


def _random_samples(model: TFLiteModel, tensors: Sequence[IOTensor]) -> list[np.ndarray]:
    """Random samples over the whole range of quantized inputs; for float inputs, values between the steps too."""
    generator, samples = np.random.default_rng(0), []
    for described, io in zip(model.inputs, tensors, strict=True):
        low, high = _range(io.tensor)
        quantized = generator.integers(low, high, (_SAMPLES, *io.tensor.sample_shape)).astype(io.tensor.dtype)
        between = generator.uniform(-0.5, 0.5, quantized.shape).astype("float32")
        samples.append(io.dequantize(quantized + between) if described.dtype == "float32" else quantized)
    return samples


def _range(tensor: Tensor) -> tuple[int, int]:
    """The smallest value of an input, and the largest plus one; int32 without a scale is a count or an index."""
    if tensor.scales or tensor.dtype in ("int8", "int16", "uint8"):
        limits = np.iinfo(tensor.dtype)
        return int(limits.min), int(limits.max) + 1
    return 0, 2


def selftest(program: Program, vectors: Vectors) -> str:
    """The C source of the self-test: `tfkd_<name>_selftest`, and a `main` where TFKD_SELFTEST_MAIN is defined."""
    name, newline = program.name, "\n"
    arrays = [_array(f"in{i}", x) for i, x in enumerate(vectors.inputs)]
    arrays += [_array(f"expected{i}", y) for i, y in enumerate(vectors.outputs)]
    buffers, statements = _one_vector(program, vectors)
    return f"""/* Self-test: {vectors.count} inputs, and the outputs that {engine(vectors.oracle)} computes. */
#include "{name}_selftest.h"

{newline.join(arrays)}

/* Returns the number of vectors whose outputs differ, 0 if none do, or -1 if the model does not run. */
int tfkd_{name}_selftest(tfkd_{name}_ctx *ctx) {{
{newline.join(buffers)}
    int failures = 0, i, j;
    for (i = 0; i < {vectors.count}; i++) {{
{newline.join(f"        {line}" for line in statements)}
    }}
    return failures;
}}

#ifdef TFKD_SELFTEST_MAIN
int main(void) {{
    static tfkd_{name}_ctx ctx;
    return tfkd_{name}_selftest(&ctx);
}}
#endif
"""


def selftest_header(program: Program, vectors: Vectors) -> str:
    """The C header of the self-test."""
    name, upper = program.name, program.name.upper()
    return f"""#ifndef TFKD_{upper}_SELFTEST_H
#define TFKD_{upper}_SELFTEST_H

#include "{name}.h"

#define TFKD_{upper}_SELFTEST_VECTORS {vectors.count}

#ifdef __cplusplus
extern "C" {{
#endif

/* Returns the number of vectors whose outputs differ, 0 if none do, or -1 if the model does not run. */
int tfkd_{name}_selftest(tfkd_{name}_ctx *ctx);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _one_vector(program: Program, vectors: Vectors) -> tuple[list[str], list[str]]:
    """The C declarations, and the statements that run vector i and compare its outputs."""
    name, inputs, outputs = program.name, vectors.inputs, vectors.outputs
    sources, targets = ([end.tensor for end in ends] for ends in (program.inputs, program.outputs))
    buffers = [f"    static {CTYPES[t.dtype]} out{i}[{t.elements}];" for i, t in enumerate(targets)]
    before = [f"tfkd_{name}_reset(ctx);"] if program.state_bytes else []  # each vector starts from the initial state
    pointers, checks = [], []
    for i, x in enumerate(inputs):
        size, at = x[0].size, f"i * {x[0].size}"
        if x.dtype == "float32":
            dtype = sources[i].dtype
            buffers.append(f"    static {CTYPES[dtype]} quantized{i}[{size}];")
            steps = _quantization(name, "INPUT", i, len(inputs))
            call = f"{quantizer(name, sources, dtype)}(in{i}[{at} + j], {steps})"
            before.append(f"for (j = 0; j < {size}; j++) quantized{i}[j] = {call};")
        pointers.append(f"quantized{i}" if x.dtype == "float32" else f"in{i} + {at}")
    for i, y in enumerate(outputs):
        got, size = f"out{i}[j]", y[0].size
        if y.dtype == "float32":
            got = f"tfkd_{name}_dequantize({got}, {_quantization(name, 'OUTPUT', i, len(outputs))})"
        checks.append(f"for (j = 0; j < {size}; j++) bad |= {got} != expected{i}[i * {size} + j];")
    call = f"tfkd_{name}_run(ctx, {pointers[0]}, out0)"
    if len(inputs) > 1 or len(outputs) > 1:
        buffers += [f"    const {value_type(sources)} *in[{len(inputs)}];"]
        buffers += [f"    {value_type(targets)} *out[{len(outputs)}];"]
        before += [f"in[{i}] = {pointer};" for i, pointer in enumerate(pointers)]
        before += [f"out[{i}] = out{i};" for i in range(len(outputs))]
        call = f"tfkd_{name}_run(ctx, in, out)"
    return buffers, ["int bad = 0;", *before, f"if ({call}) return -1;", *checks, "failures += bad;"]


def _quantization(name: str, direction: str, index: int, count: int) -> str:
    """The header's scale and zero point of an input or an output."""
    prefix = f"TFKD_{name.upper()}_{direction}{index if count > 1 else ''}"
    return f"{prefix}_SCALE, {prefix}_ZERO_POINT"


def engine(spec: str) -> str:
    """What computed expected outputs, in words."""
    if spec == "tflm":
        return "TensorFlow Lite Micro's reference kernels"
    return f"this program, run on an emulated core ({spec}),"


def _array(label: str, values: np.ndarray) -> str:
    ctype, suffix = CTYPES[values.dtype.name], "f" if values.dtype == "float32" else ""
    values = values.astype("uint8") if values.dtype == "bool" else values
    text = textwrap.fill(", ".join(f"{v!r}{suffix}" for v in values.reshape(-1).tolist()), 118, break_on_hyphens=False)
    return f"static const {ctype} {label}[{values.size}] = {{\n{text}}};"
