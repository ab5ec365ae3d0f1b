"""From layers and a memory plan to C: one header, one source file, and what a firmware needs around them."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from tfkd.micro.elimination import Elimination
from tfkd.micro.graph import Graph, Tensor
from tfkd.micro.lowering.layer import Layer, identifier
from tfkd.micro.memory_plan import Buffer, MemoryPlan, plan

_CTYPES = {"int8": "int8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t", "int64": "int64_t"}
_LIMITS = {"int8": ("-128", "127"), "int16": ("-32768", "32767")}


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
        state_bytes: of the arena, what is kept from one run to the next; `tfkd_<name>_reset` sets it back.
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
    state_bytes: int

    @property
    def arena_bytes(self) -> int:
        """RAM of the program's context: activations, scratch and what is kept between runs."""
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
        for i in (*(r for r in layer.reads if isinstance(r, int)), *layer.states, layer.writes):
            kept = graph.tensors[find(i)].variable  # from one run to the next
            first.setdefault(find(i), -1 if kept else step)
            last[find(i)] = len(layers) if kept else step
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
    sources = ["arithmetic", *dict.fromkeys(s for files in sorted({x.source for x in layers}) for s in files.split())]
    variants = sorted({(x.kernel, x.struct, x.flags, _types(graph, x)) for x in layers})
    parts = [
        _table(graph, layers, places, name, elimination),
        f'#include "{name}.h"\n\n#include <stddef.h>',
        *(_kernel_text(source) for source in sources),
        "\n".join(_variant(*variant) for variant in variants),
        "\n".join(_array(label, values) for label, values in constants.values()),
        "\n".join(bodies),
        _run(graph, layers, functions, places, name),
        *([_reset(graph, places, name)] if _states(graph, places) else []),
    ]
    steps = tuple(f"{x.op.kind} {x.comment}" for x in layers)
    weights = sum(values.nbytes for _, values in constants.values())
    files = {f"{name}.c": "\n\n".join(parts) + "\n", f"{name}.h": _header(graph, places, name)}
    # An input that no op reads has no place, and may lie anywhere.
    starts = {i: places.tensor(i) if i in places.of_tensor else 0 for i in (*graph.inputs, *graph.outputs)}
    ins, outs = (tuple(map(starts.__getitem__, indices)) for indices in (graph.inputs, graph.outputs))
    state_bytes = sum(tensor.bytes for tensor in _states(graph, places))
    return Program(name, files, places.plan, places.least_bytes, tuple(functions), steps, weights, ins, outs,
                   elimination, state_bytes)  # fmt: skip


def _states(graph: Graph, places: _Place) -> list[Tensor]:
    """What is kept from one run to the next."""
    return [tensor for tensor in graph.tensors if tensor.variable and tensor.index in places.of_tensor]


def _at(places: _Place, tensor: Tensor, arena: str = "arena") -> str:
    """A pointer to a tensor in the arena."""
    where = f"{arena} + {places.tensor(tensor.index)}"
    return where if tensor.dtype == "int8" else f"({_CTYPES[tensor.dtype]} *)(void *)({where})"


def _kernel_text(source: str) -> str:
    of, _, dtype = source.partition("@")
    text = resources.files("tfkd.micro").joinpath("kernels", f"{of}.h").read_text().rstrip()
    if dtype:  # the same for other values
        own = set(re.findall(r"(?:TFKD_INLINE \w+ |^} )(tfkd_\w+)", text, re.M))
        text = re.sub(r"tfkd_\w+", lambda name: f"{name[0]}_{dtype}" if name[0] in own else name[0], text)
        text = text.replace("int8", dtype).replace("INT8", dtype.upper())
    return _once(f"KERNEL_{source.replace('@', '_')}", text)


def _once(label: str, text: str) -> str:
    """Text that several models in one translation unit share."""
    return f"#ifndef TFKD_{label.upper()}\n#define TFKD_{label.upper()}\n{text}\n#endif"


def _types(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """The parameters of a layer's kernel after its struct: their C types and names."""
    reads = [r.dtype.name if isinstance(r, np.ndarray) else graph.tensors[r].dtype for r in layer.reads]
    typed = [f"const {_CTYPES[dtype]} *in{i}" for i, dtype in enumerate(reads)]
    typed += [f"{_CTYPES[graph.tensors[state].dtype]} *state{i}" for i, state in enumerate(layer.states)]
    typed.append(f"{_CTYPES[graph.tensors[layer.writes].dtype]} *out")
    return (*typed, *(["int16_t *scratch"] if layer.scratch_bytes else []))


def _variant(kernel: str, struct: str, flags: int, parameters: Sequence[str]) -> str:
    """A kernel with its choices made, shared by all layers that make them so."""
    values = ["p", *(parameter.split("*")[1] for parameter in parameters), str(flags)]
    text = (
        f"static TFKD_NOINLINE void tfkd_{kernel}_flags{flags}({', '.join([f'const {struct} *p', *parameters])}) {{\n"
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
        _at(places, graph.tensors[r]) if isinstance(r, int) else constant(f"operand{n}", r)
        for n, r in enumerate(layer.reads)
    ]
    tensors = [_at(places, graph.tensors[i]) for i in (*layer.states, layer.writes)]
    scratch = [f"(int16_t *)(void *)(arena + {places.scratch(index)})"] if layer.scratch_bytes else []
    call = ", ".join(["&p", *reads, *tensors, *scratch])
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
            f"#define {prefix}_SIZE {tensor.elements} /* {tensor.dtype}: {_comment(tensor.name)} {tensor.shape} */",
            f"#define {prefix}_SCALE {tensor.scale!r}f",
            f"#define {prefix}_ZERO_POINT ({tensor.zero_point})",
        ]
        if i in places.of_tensor:
            pointer = f"(int8_t *)(void *)(ctx)->arena + {places.tensor(i)}"
            if tensor.dtype != "int8":
                pointer = f"({_CTYPES[tensor.dtype]} *)(void *)({pointer})"
            lines.append(f"#define {prefix}_IN_ARENA(ctx) ({pointer})")
    return "\n".join(lines)


def _signature(graph: Graph, name: str) -> str:
    single = len(graph.inputs) == len(graph.outputs) == 1
    value = _CTYPES[graph.tensors[graph.inputs[0]].dtype]
    io = f"const {value} *in, {value} *out" if single else f"const {value} *const *in, {value} *const *out"
    return f"int tfkd_{name}_run(tfkd_{name}_ctx *ctx, {io})"


def _header(graph: Graph, places: _Place, name: str) -> str:
    guard, upper = f"TFKD_{name.upper()}_H", name.upper()
    dtype = graph.tensors[graph.inputs[0]].dtype
    value, (least, most) = _CTYPES[dtype], _LIMITS[dtype]
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
{_reset_declaration(graph, places, name)}
/* A feature to the input's steps, and an output's steps to a value. */
static inline {value} tfkd_{name}_quantize(float x, float scale, int zero_point) {{
    const float steps = x / scale + (float)zero_point;
    const float rounded = steps < 0 ? steps - 0.5f : steps + 0.5f;
    return rounded >= {most}.0f ? ({value}){most} : rounded <= {least}.0f ? ({value}){least} : ({value})rounded;
}}

static inline float tfkd_{name}_dequantize({value} q, float scale, int zero_point) {{
    return (float)(q - zero_point) * scale;
}}

#ifdef __cplusplus
}}
#endif

#endif
"""


def _reset_declaration(graph: Graph, places: _Place, name: str) -> str:
    if not _states(graph, places):
        return ""
    return (
        "\n/* Forgets what earlier runs left behind. To be called before the first run, and where a sequence starts.\n"
        " * Between runs nothing but the inputs may be written to the context. */\n"
        f"void tfkd_{name}_reset(tfkd_{name}_ctx *ctx);\n"
    )


def _reset(graph: Graph, places: _Place, name: str) -> str:
    lines = [f"void tfkd_{name}_reset(tfkd_{name}_ctx *ctx) {{",
             "    int8_t *arena = (int8_t *)(void *)ctx->arena;"]  # fmt: skip
    for state in _states(graph, places):  # as TensorFlow Lite Micro's ResetVariableTensors
        value = state.zero_point if state.dtype == "int8" and state.zero_points else 0
        lines.append(f"    memset(arena + {places.tensor(state.index)}, {value}, {state.bytes});")
    return "\n".join([*lines, "}"])


def _run(graph: Graph, layers: Sequence[Layer], functions: Sequence[str], places: _Place, name: str) -> str:
    single = len(graph.inputs) == len(graph.outputs) == 1
    lines = [f"{_signature(graph, name)} {{", "    if (!ctx || !in || !out) return -1;",
             "    int8_t *arena = (int8_t *)(void *)ctx->arena;"]  # fmt: skip
    if not single:
        lines += [f"    if (!in[{n}]) return -1;" for n in range(len(graph.inputs))]
        lines += [f"    if (!out[{n}]) return -1;" for n in range(len(graph.outputs))]
    for n, i in enumerate(graph.inputs):
        if i in places.of_tensor:
            source, at = "in" if single else f"in[{n}]", _at(places, graph.tensors[i])
            lines.append(f"    if ({source} != {at}) memcpy({at}, {source}, {graph.tensors[i].bytes});")
    lines += [f"    {function}(arena);" for function in functions]
    for n, i in enumerate(graph.outputs):
        target, at = "out" if single else f"out[{n}]", _at(places, graph.tensors[i])
        lines.append(f"    if ({target} != {at}) memcpy({target}, {at}, {graph.tensors[i].bytes});")
    return "\n".join([*lines, "    return 0;", "}"])
