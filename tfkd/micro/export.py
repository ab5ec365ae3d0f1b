"""Exports a model into a folder that a firmware compiles.

Format `c`: the generated C99, a self-test and build files. Format `tflm`: the model as an array for TensorFlow Lite
Micro, the registration of its ops and build files. Both with `report.json`.

This module runs no model itself: outputs of the self-test and the arena of TensorFlow Lite Micro come from oracles
that the caller passes, since TensorFlow Lite Micro's interpreter exists for Linux on x86-64 only. Without one that runs
the model, the C has no self-test and an unknown arena is null.
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd import micro
from tfkd._internal import atomic
from tfkd._internal.types import InputArrays, JsonObject
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.micro.resolver_names import resolver_names
from tfkd.micro.selftest import Oracle, make_vectors, selftest

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
    inputs: InputArrays | None = None,
    oracle: Oracle | Sequence[Oracle] | None = None,
    overwrite: bool = False,
) -> JsonObject:
    """Writes a folder that a firmware compiles, atomically.

    Args:
        model: Fully quantized .tflite.
        folder: Folder to create.
        name: C identifier in lower case, part of all public names.
        format: `c` for plain C99 without an interpreter, `tflm` for an array to run on TensorFlow Lite Micro.
        layout: `plain` (CMake and Make), `arduino` (a library) or `zephyr` (a module).
        size: Whether to generate the smallest code, which is a little slower; format `c` only.
        stream: Whether layers run row by row where that makes the arena smaller; format `c` only.
        inputs: [N, ...] samples of the self-test, of the model's input dtype; four random samples by default.
        oracle: Engine that computes the expected outputs of the self-test, such as `targets.get("tflm")`, or several
            of which the first that runs the model is taken; None for C without a self-test. For the format `tflm`,
            only `tflm` itself tells the size of the arena.
        overwrite: Whether to replace an existing folder.

    Returns:
        The content of `report.json`: sizes in bytes, the memory plan, the number of test vectors, the engine that
        computed them, and why each engine that was tried before it refused the model.

    Raises:
        InputError: An option is wrong, or the folder exists.
        ModelError: The model is damaged or not supported.
    """
    model, folder = TFLiteModel.load(model), Path(folder)
    for what, value, known in (("format", format, FORMATS), ("layout", layout, LAYOUTS)):
        if value not in known:
            raise InputError(f"export-c: {what} must be one of {', '.join(known)}. Received: {value!r}.")
    if folder.exists() and not overwrite:
        raise InputError(f"{folder} already exists. Pass --overwrite (overwrite=True in Python) or another folder.")
    if (size or stream) and format != "c":
        raise InputError(
            f"export-c: {'size' if size else 'stream'} needs format c, got tflm: TensorFlow Lite Micro brings its own "
            "kernels. Leave the option out."
        )
    oracles = list(oracle) if isinstance(oracle, Sequence) else [oracle] if oracle else []
    if inputs is not None and not oracles:
        raise InputError(
            "export-c: inputs need an oracle that computes their outputs. Pass oracle=targets.get('tflm')."
        )
    if format == "c":
        files, report = _c(model, micro.emit(model, name=name, size=size, stream=stream), oracles, inputs)
    else:
        files, report = _tflm(model, name, _arena_bytes(model, oracles))
    files = _laid_out(files, name, layout, "-Os" if size else "-O2")
    files["report.json"] = json.dumps(report, indent=2) + "\n"
    atomic.write_folder(folder, files)
    return report


def _c(
    model: TFLiteModel, program: micro.Program, oracles: Sequence[Oracle], inputs: InputArrays | None
) -> tuple[dict[str, str], JsonObject]:
    """The files and the report of the format `c`."""
    files, test = dict(program.files), None
    refusals: dict[str, str] = {}
    for oracle in oracles:
        try:
            test = make_vectors(model, program, oracle, inputs)
            break
        except ModelError as error:  # such as an op that only this generator supports
            refusals[oracle.spec] = str(error)
    if test:
        files[f"{program.name}_selftest.c"] = selftest(program, test)
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
        "golden_vectors": test.count if test else 0,
        "golden_source": test.oracle if test else None,
        "golden_refusals": refusals,
    }
    return files, report


def _arena_bytes(model: TFLiteModel, oracles: Sequence[Oracle]) -> int | None:
    """The arena that TensorFlow Lite Micro's interpreter needs; None where no oracle is that interpreter."""
    oracle = next((one for one in oracles if one.spec == "tflm"), None)
    if oracle is None:
        return None
    zeros = [np.zeros((1, *tensor.sample_shape), tensor.dtype) for tensor in model.inputs]
    memory = oracle.run(model, zeros, latency=False).memory
    return memory.arena_bytes if memory else None


def _tflm(model: TFLiteModel, name: str, arena_bytes: int | None) -> tuple[dict[str, str], JsonObject]:
    """The files and the report of the format `tflm`."""
    content = textwrap.fill(", ".join(f"0x{b:02x}" for b in model.content), 118)
    adds = "\n".join(f"  status |= resolver.{method}();" for method in resolver_names(model.ops))
    guard = f"TFKD_{name.upper()}_MODEL_H"
    arena = (
        "/* The arena's size is unknown, since the interpreter was not installed where this file was made. Give it a\n"
        " * large arena, and read the size that it needs from arena_used_bytes(). */"
        if arena_bytes is None
        else "/* Measured with TensorFlow Lite Micro on a 64-bit machine: enough for any 32-bit core. */\n"
        f"constexpr int k_{name}_arena_bytes = {arena_bytes};"
    )
    header = f"""#ifndef {guard}
#define {guard}

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern const unsigned char {name}_tflite[];
extern const unsigned int {name}_tflite_len;

{arena}
constexpr int k_{name}_ops = {len(model.ops)};
{_resource_variables(model, name)}
/* Registers the ops that the model needs, and no others. */
inline int Add_{name}_ops(tflite::MicroMutableOpResolver<k_{name}_ops>& resolver) {{
  int status = 0;
{adds}
  return status;
}}

#endif
"""
    source = (
        f'#include "{name}_model.h"\n\nalignas(16) const unsigned char {name}_tflite[] = {{\n{content}}};\n'
        f"const unsigned int {name}_tflite_len = {model.size_bytes};\n"
    )
    report = {
        "model_sha256": model.sha256,
        "model_bytes": model.size_bytes,
        "macs": model.macs,
        "arena_bytes": arena_bytes,
        "ops": model.ops,
    }
    return {f"{name}_model.h": header, f"{name}_model.cc": source}, report


def _resource_variables(model: TFLiteModel, name: str) -> str:
    """A constant for the interpreter of a model with resource variables: how many it must make room for."""
    root, variables = schema.Model.GetRootAs(model.content, 0), set()
    for number, graph in enumerate(model.subgraphs):
        for i, op in enumerate(graph.ops):
            table = root.Subgraphs(number).Operators(i).BuiltinOptions() if op.name == "VAR_HANDLE" else None
            if table is not None:
                options = schema.VarHandleOptions()
                options.Init(table.Bytes, table.Pos)
                variables.add((options.Container(), options.SharedName()))
    if not variables:
        return ""
    return (
        "\n/* The interpreter needs MicroResourceVariables::Create(allocator, this number) as `resource_variables`. */"
        f"\nconstexpr int k_{name}_resource_variables = {len(variables)};\n"
    )


def _laid_out(files: Mapping[str, str], name: str, layout: str, optimize: str) -> dict[str, str]:
    """The files at their paths in a layout, with its build files."""
    sources = sorted(file for file in files if file.endswith((".c", ".cc")))
    if layout == "arduino":
        properties = (
            f"name=tfkd_{name}\nversion=1.0.0\nauthor=\nmaintainer=\nsentence=A quantized neural network.\nparagraph=\n"
            f"category=Data Processing\nurl=\narchitectures=*\nincludes={name}.h\n"
        )
        return {"library.properties": properties, **{f"src/{file}": text for file, text in files.items()}}
    if layout == "zephyr":
        listed = "\n".join(f"  ${{CMAKE_CURRENT_LIST_DIR}}/../src/{file}" for file in sources)
        return {
            "zephyr/module.yml": f"name: tfkd_{name}\nbuild:\n  cmake: zephyr\n",
            "zephyr/CMakeLists.txt": "zephyr_library()\nzephyr_library_sources(\n" + listed + "\n)\n"
            "zephyr_include_directories(${CMAKE_CURRENT_LIST_DIR}/../src)\n",
            **{f"src/{file}": text for file, text in files.items()},
        }
    return {**files, "CMakeLists.txt": _cmake(sources, name, optimize), "Makefile": _makefile(sources, name, optimize)}


def _cmake(sources: list[str], name: str, optimize: str) -> str:
    return (
        f"# add_subdirectory(this folder), then target_link_libraries(firmware tfkd_{name})\n"
        "cmake_minimum_required(VERSION 3.10)\n"
        f"add_library(tfkd_{name} STATIC {' '.join(sources)})\n"
        f"target_include_directories(tfkd_{name} PUBLIC ${{CMAKE_CURRENT_LIST_DIR}})\n"
        f"target_compile_options(tfkd_{name} PRIVATE {optimize})\n"
    )


def _makefile(sources: list[str], name: str, optimize: str) -> str:
    objects = " ".join(f"{Path(file).stem}.o" for file in sources)
    text = (
        f"# make CC=arm-none-eabi-gcc CFLAGS='-mcpu=cortex-m4 -mthumb {optimize}'\nCFLAGS ?= {optimize}\n\n"
        f"libtfkd_{name}.a: {objects}\n\t$(AR) rcs $@ $^\n"
    )
    if f"{name}_selftest.c" in sources:
        text += (
            f"\nselftest: {' '.join(sources)} {name}.h\n"
            f"\t$(CC) $(CFLAGS) -DTFKD_SELFTEST_MAIN {' '.join(sources)} -o selftest\n"
        )
    return text
