"""From layers and a memory plan to C: one header, one source file, and what a firmware needs around them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from tfkd.micro.elimination import Elimination
from tfkd.micro.graph import Graph
from tfkd.micro.lowering.layer import Layer, identifier
from tfkd.micro.memory_plan import Buffer, MemoryPlan, plan

_CTYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t"}


@dataclasses.dataclass(frozen=True)
class Program:
    """C made from a model.

    Args:
        name: in all of its public names.
        files: text by file name.
        plan: of the arena.
        least_bytes: the largest sum of the model's own tensors that live at once, each in a place of its own.
        layers: the C functions, in the order in which they run.
        steps: for each of them, what it computes.
        weight_bytes: of all constants.
        inputs: where each input lies in the arena.
        outputs: where each output lies there.
        elimination: what was taken out of the model because it cannot change the outputs.
    """

    name: str
    files: Mapping[str, str]
    plan: MemoryPlan
    least_bytes: int
    layers: tuple[str, ...]
    steps: tuple[str, ...]
    weight_bytes: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    elimination: Elimination

    @property
    def arena_bytes(self) -> int:
        """RAM of the program's context: activations and scratch."""
        return self.plan.bytes


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where tensors lie: the buffer of each, and the buffer of each layer's scratch."""

    of_tensor: Mapping[int, int]
    of_scratch: Mapping[int, int]
    plan: MemoryPlan
    least_bytes: int

    def tensor(self, index: int) -> int:
        return self.plan.offsets[self.of_tensor[index]]

    def scratch(self, layer: int) -> int:
        return self.plan.offsets[self.of_scratch[layer]]


def place(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int]) -> _Place:
    """Plans the arena: views share their tensor's bytes, and an output takes its input's where that is exact."""
    root = {t.index: t.index for t in graph.tensors}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for view, of in aliases.items():
        if graph.tensors[of].data is None:
            root[view] = find(of)
    first: dict[int, int] = {find(i): -1 for i in graph.inputs}
    last: dict[int, int] = dict(first)
    for step, layer in enumerate(layers):
        for i in (*(r for r in layer.reads if isinstance(r, int)), layer.writes):
            first.setdefault(find(i), step)
            last[find(i)] = step
    for i in graph.outputs:
        if find(i) in last:
            last[find(i)] = len(layers)
    size = {i: max(t.bytes for t in graph.tensors if find(t.index) == i) for i in first}
    apart = [Buffer(graph.tensors[i].name, size[i], first[i], last[i]) for i in first]
    for step, layer in enumerate(layers):
        out = find(layer.writes)
        for i in layer.in_place:
            source = find(i)
            if source != out and last[source] == step and first[out] == step and size[source] == size[out]:
                root[out], last[source] = source, last[out]
                break
    roots = [i for i in first if find(i) == i]
    buffers = [Buffer(graph.tensors[i].name, size[i], first[i], last[i]) for i in roots]
    scratch = {step: len(buffers) + n for n, step in enumerate(s for s, x in enumerate(layers) if x.scratch_bytes)}
    buffers += [Buffer(f"scratch of layer {step}", layers[step].scratch_bytes, step, step) for step in scratch]
    numbers = {i: n for n, i in enumerate(roots)}
    found = {i: numbers[find(i)] for i in root if find(i) in numbers}
    return _Place(found, scratch, plan(buffers), MemoryPlan(tuple(apart), (0,) * len(apart)).lower_bound)


def emit(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int], name: str,
         elimination: Elimination) -> Program:  # fmt: skip
    """Writes the C of lowered layers.

    Args:
        graph: the model.
        layers: from `lowering.lower`.
        aliases: from `lowering.lower`.
        name: a C identifier; public names are `tfkd_<name>_...`.
        elimination: what was taken out of the graph.
    """
    places = place(graph, layers, aliases)
    functions = [f"tfkd_{name}_layer_{i}_{identifier(graph.tensors[x.writes].name)}" for i, x in enumerate(layers)]
    constants: dict[bytes, tuple[str, np.ndarray]] = {}
    bodies = [_layer(graph, layer, i, functions[i], name, places, constants) for i, layer in enumerate(layers)]
    sources = ["arithmetic", *sorted({layer.source for layer in layers})]
    variants = sorted({(x.kernel, x.struct, x.flags, len(x.reads), bool(x.scratch_bytes)) for x in layers})
    parts = [
        _table(graph, layers, places, name, elimination),
        f'#include "{name}.h"\n\n#include <stddef.h>',
        *(_kernel_text(source) for source in sources),
        "\n".join(_variant(*variant) for variant in variants),
        "\n".join(_array(label, values) for label, values in constants.values()),
        "\n".join(bodies),
        _run(graph, layers, functions, places, name),
    ]
    steps = tuple(f"{x.op.kind} {x.comment}" for x in layers)
    weights = sum(values.nbytes for _, values in constants.values())
    files = {f"{name}.c": "\n\n".join(parts) + "\n", f"{name}.h": _header(graph, places, name)}
    # An input that no op reads has no place, and may lie anywhere.
    starts = {i: places.tensor(i) if i in places.of_tensor else 0 for i in (*graph.inputs, *graph.outputs)}
    ins, outs = (tuple(map(starts.__getitem__, indices)) for indices in (graph.inputs, graph.outputs))
    return Program(
        name, files, places.plan, places.least_bytes, tuple(functions), steps, weights, ins, outs, elimination
    )


def _kernel_text(source: str) -> str:
    text = resources.files("tfkd.micro").joinpath("kernels", f"{source}.h").read_text().rstrip()
    return _once(f"KERNEL_{source}", text)


def _once(label: str, text: str) -> str:
    """Text that several models in one translation unit share."""
    return f"#ifndef TFKD_{label.upper()}\n#define TFKD_{label.upper()}\n{text}\n#endif"


def _variant(kernel: str, struct: str, flags: int, reads: int, scratch: bool) -> str:
    """A kernel with its choices made, shared by all layers that make them so."""
    inputs = [f"const int8_t *in{i}" for i in range(reads)]
    parameters = [f"const {struct} *p", *inputs, "int8_t *out", *(["int16_t *scratch"] if scratch else [])]
    values = ["p", *(f"in{i}" for i in range(reads)), "out", *(["scratch"] if scratch else []), str(flags)]
    text = (
        f"static TFKD_NOINLINE void tfkd_{kernel}_flags{flags}({', '.join(parameters)}) {{\n"
        f"    tfkd_{kernel}({', '.join(values)});\n}}"
    )
    return _once(f"VARIANT_{kernel}_{flags}", text)


def _array(label: str, values: np.ndarray) -> str:
    text = textwrap.fill(", ".join(map(str, values.reshape(-1).tolist())), 118, break_on_hyphens=False)
    aligned = "TFKD_ALIGNED " if values.dtype.name == "int16" else ""  # read by words
    return f"static const {_CTYPES[values.dtype.name]} {aligned}{label}[{values.size}] = {{\n{text}}};"


def _layer(graph: Graph, layer: Layer, index: int, function: str, name: str, places: _Place,
           constants: dict[bytes, tuple[str, np.ndarray]]) -> str:  # fmt: skip
    def constant(field: str, values: np.ndarray) -> str:
        values = np.ascontiguousarray(values)
        key = values.dtype.name.encode() + values.tobytes()  # equal constants are kept once
        return constants.setdefault(key, (f"tfkd_{name}_{field}_{index}", values))[0]

    fields = []
    for field, value in layer.fields.items():
        if isinstance(value, np.ndarray):
            fields.append(f".{field} = {constant(field, value)}")
        elif isinstance(value, tuple):
            fields.append(f".{field} = {{{', '.join(map(str, value))}}}")
        else:
            fields.append(f".{field} = {value}")
    reads = [
        f"arena + {places.tensor(r)}" if isinstance(r, int) else constant(f"operand{n}", r)
        for n, r in enumerate(layer.reads)
    ]
    scratch = [f"(int16_t *)(void *)(arena + {places.scratch(index)})"] if layer.scratch_bytes else []
    call = ", ".join(["&p", *reads, f"arena + {places.tensor(layer.writes)}", *scratch])
    initial = textwrap.fill(", ".join(fields), 110, initial_indent="        ", subsequent_indent="        ",
                            break_on_hyphens=False)  # fmt: skip
    return (
        f"/* {layer.op.kind} {layer.comment}: {_comment(graph.tensors[layer.writes].name)} */\n"
        f"static TFKD_NOINLINE void {function}(int8_t *arena) {{\n"
        f"    static const {layer.struct} p = {{\n{initial}}};\n"
        f"    tfkd_{layer.kernel}_flags{layer.flags}({call});\n}}"
    )


def _comment(text: str) -> str:
    """Text from a file that cannot end a C comment nor leave its line."""
    return "".join(c if c.isprintable() and c.isascii() and c not in "*\\" else "_" for c in text)[:80]


def _table(graph: Graph, layers: Sequence[Layer], places: _Place, name: str, elimination: Elimination) -> str:
    lines = [f"/* {name}: made by tfkd export-c. Change the model, not this file.", " *",
             *(f" * {text[0].upper()}{text[1:]}." for text in [str(elimination)] if elimination.layers),
             f" * Arena {places.plan.bytes} bytes; the tensors that live at once need {places.least_bytes}.", " *",
             " *   layer  op                    shape                                arena"]  # fmt: skip
    for i, layer in enumerate(layers):
        live = places.plan.live_bytes(i)
        lines.append(f" *   {i:5d}  {layer.op.kind:20s}  {layer.comment:36s} {live:6d}")
    return "\n".join([*lines, " */"])


def _io(graph: Graph, indices: Sequence[int], name: str, kind: str, places: _Place) -> str:
    lines = []
    for n, i in enumerate(indices):
        tensor, suffix = graph.tensors[i], str(n) if len(indices) > 1 else ""
        prefix = f"TFKD_{name.upper()}_{kind}{suffix}"
        lines += [
            f"#define {prefix}_SIZE {tensor.elements} /* int8: {_comment(tensor.name)} {tensor.shape} */",
            f"#define {prefix}_SCALE {tensor.scale!r}f",
            f"#define {prefix}_ZERO_POINT ({tensor.zero_point})",
        ]
        if i in places.of_tensor:
            lines.append(f"#define {prefix}_IN_ARENA(ctx) ((int8_t *)(void *)(ctx)->arena + {places.tensor(i)})")
    return "\n".join(lines)


def _signature(graph: Graph, name: str) -> str:
    single = len(graph.inputs) == len(graph.outputs) == 1
    io = "const int8_t *in, int8_t *out" if single else "const int8_t *const *in, int8_t *const *out"
    return f"int tfkd_{name}_run(tfkd_{name}_ctx *ctx, {io})"


def _header(graph: Graph, places: _Place, name: str) -> str:
    guard, upper = f"TFKD_{name.upper()}_H", name.upper()
    many = "" if len(graph.inputs) == len(graph.outputs) == 1 else " Pointers to each input and output, in order."
    return f"""#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{_io(graph, graph.inputs, name, "INPUT", places)}
{_io(graph, graph.outputs, name, "OUTPUT", places)}
#define TFKD_{upper}_ARENA_BYTES {max(4, places.plan.bytes)}

/* All the RAM that a run needs; the caller's, so that several may run at once. */
typedef struct {{
    int32_t arena[TFKD_{upper}_ARENA_BYTES / 4];
}} tfkd_{name}_ctx;

/* Runs the model once.{many}
 * To save RAM and a copy, pass TFKD_{upper}_INPUT_IN_ARENA(ctx) and fill it before, and the same for the output.
 * Returns 0, or -1 where a pointer is null. */
{_signature(graph, name)};

/* A feature to the input's steps, and an output's steps to a value. */
static inline int8_t tfkd_{name}_quantize(float x, float scale, int zero_point) {{
    const float steps = x / scale + (float)zero_point;
    const float rounded = steps < 0 ? steps - 0.5f : steps + 0.5f;
    return rounded >= 127.0f ? (int8_t)127 : rounded <= -128.0f ? (int8_t)-128 : (int8_t)rounded;
}}

static inline float tfkd_{name}_dequantize(int8_t q, float scale, int zero_point) {{
    return (float)(q - zero_point) * scale;
}}

#ifdef __cplusplus
}}
#endif

#endif
"""


def _run(graph: Graph, layers: Sequence[Layer], functions: Sequence[str], places: _Place, name: str) -> str:
    single = len(graph.inputs) == len(graph.outputs) == 1
    lines = [f"{_signature(graph, name)} {{", "    if (!ctx || !in || !out) return -1;",
             "    int8_t *arena = (int8_t *)(void *)ctx->arena;"]  # fmt: skip
    if not single:
        lines += [f"    if (!in[{n}]) return -1;" for n in range(len(graph.inputs))]
        lines += [f"    if (!out[{n}]) return -1;" for n in range(len(graph.outputs))]
    for n, i in enumerate(graph.inputs):
        if i in places.of_tensor:
            source, at = "in" if single else f"in[{n}]", f"arena + {places.tensor(i)}"
            lines.append(f"    if ({source} != {at}) memcpy({at}, {source}, {graph.tensors[i].bytes});")
    lines += [f"    {function}(arena);" for function in functions]
    for n, i in enumerate(graph.outputs):
        target, at = "out" if single else f"out[{n}]", f"arena + {places.tensor(i)}"
        lines.append(f"    if ({target} != {at}) memcpy({target}, {at}, {graph.tensors[i].bytes});")
    return "\n".join([*lines, "    return 0;", "}"])
