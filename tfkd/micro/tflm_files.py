"""A model as an array for TensorFlow Lite Micro, with the registration of its ops."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.types import JsonObject
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.resolver_names import resolver_names
from tfkd.micro.selftest import Oracle


def _arena_bytes(model: TFLiteModel, oracles: Sequence[Oracle]) -> int | None:
    """The arena that TensorFlow Lite Micro's interpreter needs; None where no oracle is that interpreter."""
    oracle = next((one for one in oracles if one.spec == "tflm"), None)
    if oracle is None:
        return None
    zeros = [np.zeros((1, *tensor.sample_shape), tensor.dtype) for tensor in model.inputs]
    memory = oracle.run(model, zeros, latency=False).memory
    return memory.arena_bytes if memory else None


def tflm_files(model: TFLiteModel, name: str, oracles: Sequence[Oracle]) -> tuple[dict[str, str], JsonObject]:
    """The files and the report of the format `tflm`.

    Args:
        model: The model.
        name: C identifier in lower case.
        oracles: Engines; TensorFlow Lite Micro among them tells the size of the arena, which is None otherwise.
    """
    needed = _arena_bytes(model, oracles)
    content = textwrap.fill(", ".join(f"0x{b:02x}" for b in model.content), 118)
    adds = "\n".join(f"  status |= resolver.{method}();" for method in resolver_names(model.ops))
    guard = f"TFKD_{name.upper()}_MODEL_H"
    arena = (
        "/* The arena's size is unknown, since the interpreter was not installed where this file was made. Give it a\n"
        " * large arena, and read the size that it needs from arena_used_bytes(). */"
        if needed is None
        else "/* Measured with TensorFlow Lite Micro on a 64-bit machine: enough for any 32-bit core. */\n"
        f"constexpr int k_{name}_arena_bytes = {needed};"
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
        "arena_bytes": needed,
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
