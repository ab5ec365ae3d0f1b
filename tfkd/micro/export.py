"""What a firmware needs of a model: its C with a self-test, or its array for TensorFlow Lite Micro; build files."""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfkd import micro, targets
from tfkd._internal import atomic
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

FORMATS = ("c", "tflm")
LAYOUTS = ("plain", "arduino", "zephyr")


def write(
    model: str | os.PathLike[str] | TFLiteModel,
    folder: str | os.PathLike[str],
    *,
    name: str = "model",
    format: str = "c",
    layout: str = "plain",
    size: bool = False,
    stream: bool = False,
    inputs: Any = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a folder to compile into a firmware.

    Args:
        model: a fully quantized .tflite.
        folder: to make; it appears whole or not at all.
        name: a C identifier in lower case.
        format: `c` for plain C99 without an interpreter, `tflm` for an array to run on TensorFlow Lite Micro.
        layout: `plain` (CMake and Make), `arduino` (a library) or `zephyr` (a module).
        size: C and compiler options for the smallest code, a little slower; of the format `c`.
        stream: layers run by rows in turn where that makes the arena smaller; of the format `c`.
        inputs: [N, ...] samples of the self-test, of the model's dtype; four random ones by default. Their outputs come
            from the target `tflm`.
        overwrite: whether an existing folder may be replaced.

    Returns:
        Sizes, as in the `report.json` that is written too.

    Raises:
        ValueError: the model is not supported, or the folder exists.
        RuntimeError: the target `tflm` is missing on this machine.
    """
    model, folder = TFLiteModel.load(model), Path(folder)
    for what, value, known in (("format", format, FORMATS), ("layout", layout, LAYOUTS)):
        if value not in known:
            raise InputError(f"export-c: {what} must be {', '.join(known)}. Received: {value!r}.")
    if folder.exists() and not overwrite:
        raise InputError(f"{folder}: must not exist. Received: an existing folder. Pass --overwrite or another path.")
    if (size or stream) and format != "c":
        option = "size" if size else "stream"
        raise InputError(
            f"export-c: {option} must go with the format c. Received: tflm, whose kernels are not made here."
        )
    files, report = _c(model, name, inputs, size, stream) if format == "c" else _tflm(model, name)
    files = _laid_out(files, name, layout, "-Os" if size else "-O2")
    files["report.json"] = json.dumps(report, indent=2) + "\n"
    atomic.write_folder(folder, files)
    return report


def _samples(model: TFLiteModel, ends: Sequence[micro.End]) -> list[np.ndarray]:
    """Four random samples over all steps of a model's inputs; of float ones values between them too."""
    numbers, samples = np.random.default_rng(0), []
    for described, end in zip(model.inputs, ends, strict=True):
        limits = np.iinfo(end.tensor.dtype)
        steps = numbers.integers(limits.min, limits.max + 1, (4, *end.tensor.shape[1:])).astype(end.tensor.dtype)
        between = numbers.uniform(-0.5, 0.5, steps.shape).astype("float32")
        samples.append(end.dequantize(steps + between) if described.dtype == "float32" else steps)
    return samples


def _c(model: TFLiteModel, name: str, inputs: Any, size: bool, stream: bool) -> tuple[dict[str, str], dict[str, Any]]:
    program = micro.emit(model, name=name, size=size, stream=stream)
    samples = _samples(model, program.inputs) if inputs is None else targets.check_inputs(model, inputs, "export-c")
    outputs = targets.get("tflm").run(model, samples, latency=False).outputs
    files = {**program.files, f"{name}_selftest.c": _selftest(program, samples, outputs)}
    report = {
        "model_sha256": model.sha256,
        "model_bytes": model.size_bytes,
        "macs": model.macs,
        "removed": {"summary": str(program.elimination), **dataclasses.asdict(program.elimination)},
        "weight_bytes": program.weight_bytes,
        "arena_bytes": program.arena_bytes,
        "state_bytes": program.state_bytes,
        "least_live_bytes": program.least_bytes,
        "arena": [
            {"buffer": buffer.name, "offset": offset, "bytes": buffer.bytes, "first": buffer.first, "last": buffer.last}
            for buffer, offset in zip(program.plan.buffers, program.plan.offsets, strict=True)
        ],
        "layers": list(program.steps),
        "golden_vectors": len(samples[0]),
    }
    return files, report


def _selftest(program: micro.Program, inputs: list[np.ndarray], outputs: tuple[np.ndarray, ...]) -> str:
    """C that compares golden vectors; floats go through the header's helpers, as they do in a firmware."""
    name, count, stateful = program.name, len(inputs[0]), bool(program.state_bytes)
    value = f"{program.inputs[0].tensor.dtype}_t"
    one = len(inputs) == len(outputs) == 1
    arrays = [_array(f"in{i}", x) for i, x in enumerate(inputs)]
    arrays += [_array(f"expected{i}", y) for i, y in enumerate(outputs)]
    buffers = [f"    static {value} out{i}[{y[0].size}];" for i, y in enumerate(outputs)]
    before = [f"tfkd_{name}_reset(ctx);"] if stateful else []  # each vector starts anew
    ins, checks = [], []
    for i, x in enumerate(inputs):
        at, size = f"i * {x[0].size}", x[0].size
        if x.dtype == "float32":
            buffers.append(f"    static {value} steps{i}[{size}];")
            call = f"tfkd_{name}_quantize(in{i}[{at} + j], {_steps(name, 'INPUT', i, len(inputs))})"
            before.append(f"for (j = 0; j < {size}; j++) steps{i}[j] = {call};")
        ins.append(f"steps{i}" if x.dtype == "float32" else f"in{i} + {at}")
    for i, y in enumerate(outputs):
        got, size = f"out{i}[j]", y[0].size
        if y.dtype == "float32":
            got = f"tfkd_{name}_dequantize({got}, {_steps(name, 'OUTPUT', i, len(outputs))})"
        checks.append(f"for (j = 0; j < {size}; j++) bad |= {got} != expected{i}[i * {size} + j];")
    if not one:
        buffers += [f"    const {value} *in[{len(inputs)}];", f"    {value} *out[{len(outputs)}];"]
        before += [f"in[{i}] = {part};" for i, part in enumerate(ins)]
        before += [f"out[{i}] = out{i};" for i in range(len(outputs))]
    call = f"tfkd_{name}_run(ctx, {ins[0]}, out0)" if one else f"tfkd_{name}_run(ctx, in, out)"
    lines = ["int bad = 0;", *before, f"if ({call}) return -1;", *checks, "failures += bad;"]
    newline = "\n"
    return f"""/* {count} golden vectors: inputs, and what TensorFlow Lite Micro's reference kernels give for them. */
#include "{name}.h"

int tfkd_{name}_selftest(tfkd_{name}_ctx *ctx);

{newline.join(arrays)}

/* Returns how many vectors differ; 0 is right. */
int tfkd_{name}_selftest(tfkd_{name}_ctx *ctx) {{
{newline.join(buffers)}
    int failures = 0, i, j;
    for (i = 0; i < {count}; i++) {{
{newline.join(f"        {line}" for line in lines)}
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


def _steps(name: str, kind: str, index: int, count: int) -> str:
    """The header's scale and zero point of an input or an output."""
    prefix = f"TFKD_{name.upper()}_{kind}{index if count > 1 else ''}"
    return f"{prefix}_SCALE, {prefix}_ZERO_POINT"


def _array(label: str, values: np.ndarray) -> str:
    kind, end = ("float", "f") if values.dtype == "float32" else (f"{values.dtype}_t", "")
    text = textwrap.fill(", ".join(f"{v!r}{end}" for v in values.reshape(-1).tolist()), 118, break_on_hyphens=False)
    return f"static const {kind} {label}[{values.size}] = {{\n{text}}};"


def _tflm(model: TFLiteModel, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    zeros = [np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]  # the arena's size is asked for
    run = targets.get("tflm").run(model, zeros, latency=False)
    arena = run.memory.arena_bytes
    bytes_ = textwrap.fill(", ".join(f"0x{b:02x}" for b in model.content), 118)
    adds = "\n".join(f"  status |= resolver.Add{_resolver_name(op)}();" for op in model.ops)
    guard = f"TFKD_{name.upper()}_MODEL_H"
    header = f"""#ifndef {guard}
#define {guard}

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern const unsigned char {name}_tflite[];
extern const unsigned int {name}_tflite_len;

/* Measured with TensorFlow Lite Micro on a 64-bit machine: enough for any 32-bit core. */
constexpr int k_{name}_arena_bytes = {arena};
constexpr int k_{name}_ops = {len(model.ops)};

/* The ops that the model needs, and no others. */
inline int Add_{name}_ops(tflite::MicroMutableOpResolver<k_{name}_ops>& resolver) {{
  int status = 0;
{adds}
  return status;
}}

#endif
"""
    source = (
        f'#include "{name}_model.h"\n\nalignas(16) const unsigned char {name}_tflite[] = {{\n{bytes_}}};\n'
        f"const unsigned int {name}_tflite_len = {model.size_bytes};\n"
    )
    report = {
        "model_sha256": model.sha256,
        "model_bytes": model.size_bytes,
        "macs": model.macs,
        "arena_bytes": arena,
        "ops": model.ops,
    }
    return {f"{name}_model.h": header, f"{name}_model.cc": source}, report


def _resolver_name(op: str) -> str:
    """The resolver's method for an op: `CONV_2D` is added by AddConv2D."""
    special = {
        "CONV_2D": "Conv2D",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
        "AVERAGE_POOL_2D": "AveragePool2D",
        "MAX_POOL_2D": "MaxPool2D",
        "PADV2": "PadV2",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
        "BATCH_MATMUL": "BatchMatMul",
    }
    return special.get(op, "".join(word.capitalize() for word in op.split("_")))


def _laid_out(files: Mapping[str, str], name: str, layout: str, optimize: str) -> dict[str, str]:
    sources = sorted(f for f in files if f.endswith((".c", ".cc")))
    if layout == "arduino":
        properties = (
            f"name=tfkd_{name}\nversion=1.0.0\nauthor=\nmaintainer=\nsentence=A quantized neural network.\nparagraph=\n"
            f"category=Data Processing\nurl=\narchitectures=*\nincludes={name}.h\n"
        )
        return {"library.properties": properties, **{f"src/{f}": text for f, text in files.items()}}
    if layout == "zephyr":
        listed = "\n".join(f"  ${{CMAKE_CURRENT_LIST_DIR}}/../src/{f}" for f in sources)
        return {
            "zephyr/module.yml": f"name: tfkd_{name}\nbuild:\n  cmake: zephyr\n",
            "zephyr/CMakeLists.txt": "zephyr_library()\nzephyr_library_sources(\n" + listed + "\n)\n"
            "zephyr_include_directories(${CMAKE_CURRENT_LIST_DIR}/../src)\n",
            **{f"src/{f}": text for f, text in files.items()},
        }
    cmake = (
        f"# add_subdirectory(this folder), then target_link_libraries(firmware tfkd_{name})\n"
        "cmake_minimum_required(VERSION 3.10)\n"
        f"add_library(tfkd_{name} STATIC {' '.join(sources)})\n"
        f"target_include_directories(tfkd_{name} PUBLIC ${{CMAKE_CURRENT_LIST_DIR}})\n"
        f"target_compile_options(tfkd_{name} PRIVATE {optimize})\n"
    )
    objects = " ".join(f"{Path(f).stem}.o" for f in sources)
    make = (
        f"# make CC=arm-none-eabi-gcc CFLAGS='-mcpu=cortex-m4 -mthumb {optimize}'\nCFLAGS ?= {optimize}\n\n"
        f"libtfkd_{name}.a: {objects}\n\t$(AR) rcs $@ $^\n\nselftest: {' '.join(sources)} {name}.h\n"
        f"\t$(CC) $(CFLAGS) -DTFKD_SELFTEST_MAIN {' '.join(sources)} -o selftest\n"
    )
    return {**files, "CMakeLists.txt": cmake, "Makefile": make}
