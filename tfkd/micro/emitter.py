"""From layers and a memory plan to C: one header, one source file, and what a firmware needs around them."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from tfkd.errors import InputError
from tfkd.micro.elimination import Elimination
from tfkd.micro.ends import End
from tfkd.micro.graph import Graph, Tensor
from tfkd.micro.lowering.layer import Layer, identifier
from tfkd.micro.memory_plan import MemoryPlan
from tfkd.micro.placement import Chain, Placement, place

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
        inputs: in the model's order.
        outputs: in the model's order.
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
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    elimination: Elimination
    state_bytes: int

    @property
    def arena_bytes(self) -> int:
        """RAM of the program's context: activations, scratch and what is kept between runs."""
        return self.plan.bytes


def emit(
    graph: Graph,
    layers: Sequence[Layer],
    aliases: Mapping[int, int],
    name: str,
    elimination: Elimination,
    chains: Sequence[Chain] = (),
) -> Program:
    """Writes the C of lowered layers.

    Args:
        graph: the model.
        layers: from `lowering.lower`.
        aliases: from `lowering.lower`.
        name: a C identifier; public names are `tfkd_<name>_...`.
        elimination: what was taken out of the graph.
        chains: layers that run by rows.
    """
    places = place(graph, layers, aliases, chains)
    for i in graph.outputs:
        if i not in places.of_tensor:
            raise InputError(f"micro: an output must be computed. Received: {graph.tensors[i].name!r}, a constant.")
    chained = {i: chain for chain in chains for i in chain.layers}
    functions = [f"tfkd_{name}_layer_{i}_{identifier(graph.tensors[x.writes].name)}" for i, x in enumerate(layers)]
    constants: dict[bytes, tuple[str, np.ndarray]] = {}
    bodies = [
        _layer(graph, layer, i, functions[i], name, places, constants, chained.get(i)) for i, layer in enumerate(layers)
    ]
    bodies += [_chain(layers, chain, functions, name, places) for chain in chains]
    kernels = dict.fromkeys(s for files in sorted({x.source for x in layers}) for s in files.split())
    sources = ["arithmetic", *(["rows"] if chains else []), *kernels]
    variants = sorted({(x.kernel, x.struct, x.flags, _types(graph, x)) for x in layers})
    parts = [
        _table(layers, chained, places, name, elimination),
        f'#include "{name}.h"\n\n#include <stddef.h>',
        *(_kernel_text(source) for source in sources),
        "\n".join(_variant(*variant) for variant in variants),
        "\n".join(_array(label, values) for label, values in constants.values()),
        "\n".join(bodies),
        _run(graph, _calls(functions, chained, name), places, name),
        *([_reset(graph, places, name)] if _states(graph, places) else []),
    ]
    steps = tuple(f"{x.op.kind} {x.comment}{', by rows' if i in chained else ''}" for i, x in enumerate(layers))
    weights = sum(values.nbytes for _, values in constants.values())
    files = {f"{name}.c": "\n\n".join(parts) + "\n", f"{name}.h": _header(graph, places, name)}
    ins, outs = (
        tuple(End(graph.tensors[i], places.tensor(i)) for i in indices) for indices in (graph.inputs, graph.outputs)
    )
    state_bytes = sum(tensor.bytes for tensor in _states(graph, places))
    return Program(
        name,
        files,
        places.plan,
        places.least_bytes,
        tuple(functions),
        steps,
        weights,
        ins,
        outs,
        elimination,
        state_bytes,
    )


def _states(graph: Graph, places: Placement) -> list[Tensor]:
    """What is kept from one run to the next."""
    return [tensor for tensor in graph.tensors if tensor.variable and tensor.index in places.of_tensor]


def _at(places: Placement, tensor: Tensor, arena: str = "arena") -> str:
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


def _layer(
    graph: Graph,
    layer: Layer,
    index: int,
    function: str,
    name: str,
    places: Placement,
    constants: dict[bytes, tuple[str, np.ndarray]],
    chain: Chain | None,
) -> str:
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
    if chain:
        reads, tensors = [f"{reads[0]} + turn->in"], [f"{tensors[0]} + turn->out"]
    call = ", ".join(["&p", *reads, *tensors, *scratch])
    initial = textwrap.fill(
        ", ".join(fields), 110, initial_indent="        ", subsequent_indent="        ", break_on_hyphens=False
    )
    return (
        f"/* {layer.op.kind} {layer.comment}: {_comment(graph.tensors[layer.writes].name)} */\n"
        f"static TFKD_NOINLINE void {function}(int8_t *arena{', const tfkd_turn *turn' if chain else ''}) {{\n"
        f"    static const {layer.struct} {'whole' if chain else 'p'} = {{\n{initial}}};\n"
        f"{_rows(layer) if chain else ''}    tfkd_{layer.kernel}_flags{layer.flags}({call});\n}}"
    )


def _rows(layer: Layer) -> str:
    """C that makes parameters for some rows of those for all."""
    lines = [
        f"    {layer.struct} p = whole;",
        "    if (turn->first == turn->end) return;",
        "    p.height = turn->height;",
        "    p.pad_top = turn->pad_top;",
        "    p.out_height = (int16_t)(turn->end - turn->first);",
    ]
    if layer.kernel == "depthwise":
        lines.append(
            "    p.plane_height = (int16_t)((p.out_height - 1) * p.stride_height + "
            "(p.kernel_height - 1) * p.dilation_height + 1);"
        )
    return "\n".join(lines) + "\n"


def _chain(layers: Sequence[Layer], chain: Chain, functions: Sequence[str], name: str, places: Placement) -> str:
    """The C function that runs a chain."""
    windows = chain.windows
    table = []
    for i, w in zip(chain.layers, windows, strict=True):
        slab = places.tensor(layers[i - 1].writes) if i > chain.first else 0
        table.append(f"{{{w.stride}, {w.reach}, {w.pad}, {w.height}, {w.row}, {slab}}}")
    table.append(f"{{0, 0, 0, 0, {windows[-1].out_row}, 0}}")
    calls = "\n".join(f"        {functions[i]}(arena, turns + {n});" for n, i in enumerate(chain.layers))
    height, last = windows[-1].out_height, len(windows) - 1
    return (
        f"/* Layers {chain.first} to {chain.last}, {chain.rows} rows of the last at a time. */\n"
        f"static void tfkd_{name}_chain_{chain.first}(int8_t *arena) {{\n"
        f"    static const tfkd_window windows[{len(table)}] = {{\n        {', '.join(table)}}};\n"
        f"    tfkd_turn *turns = (tfkd_turn *)(void *)(arena + {places.scratch(chain.first) + chain.state_at});\n"
        f"    memset(turns, 0, {len(windows)} * sizeof *turns);\n"
        f"    for (int32_t end = 0; end < {height};) {{\n"
        f"        end = end + {chain.rows} < {height} ? end + {chain.rows} : {height};\n"
        f"        tfkd_pull(windows, turns, {last}, end, arena);\n{calls}\n    }}\n}}"
    )


def _comment(text: str) -> str:
    """Text from a file that cannot end a C comment nor leave its line."""
    return "".join(c if c.isprintable() and c.isascii() and c not in "*\\" else "_" for c in text)[:80]


def _table(
    layers: Sequence[Layer], chained: Mapping[int, Chain], places: Placement, name: str, elimination: Elimination
) -> str:
    lines = [f"/* {name}: made by tfkd export-c. Change the model, not this file.", " *",
             *(f" * {text[0].upper()}{text[1:]}." for text in [str(elimination)] if elimination.layers),
             f" * Arena {places.plan.bytes} bytes; whole tensors that live at once need {places.least_bytes}.", " *",
             " *   layer  op                    shape                                arena"]  # fmt: skip
    for i, layer in enumerate(layers):
        by_rows = ", by rows" if i in chained else ""
        lines.append(f" *   {i:5d}  {layer.op.kind:20s}  {layer.comment:36s} {places.live_bytes(i):6d}{by_rows}")
    return "\n".join([*lines, " */"])


def _io(graph: Graph, indices: Sequence[int], name: str, kind: str, places: Placement) -> str:
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


def _header(graph: Graph, places: Placement, name: str) -> str:
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
/* A feature to the input's steps, and an output's steps to a value: exactly as QUANTIZE and DEQUANTIZE in TensorFlow
 * Lite Micro, which a model with float inputs or outputs has at its ends. Halves are rounded away from 0, then the zero
 * point is added, and the sum saturates; NaN gives the least. */
static inline {value} tfkd_{name}_quantize(float x, float scale, int zero_point) {{
    const float steps = x / scale;
    int32_t whole;
    if (!(steps > -65536.0f)) return {least};
    if (steps > 65536.0f) return {most};
    whole = (int32_t)steps;
    if (steps - (float)whole >= 0.5f) whole++;
    else if (steps - (float)whole <= -0.5f) whole--;
    whole += zero_point;
    return ({value})(whole < {least} ? {least} : whole > {most} ? {most} : whole);
}}

static inline float tfkd_{name}_dequantize({value} q, float scale, int zero_point) {{
    return (float)(q - zero_point) * scale;
}}

#ifdef __cplusplus
}}
#endif

#endif
"""


def _reset_declaration(graph: Graph, places: Placement, name: str) -> str:
    if not _states(graph, places):
        return ""
    return (
        "\n/* Forgets what earlier runs left behind. To be called before the first run, and where a sequence starts.\n"
        " * Between runs nothing but the inputs may be written to the context. */\n"
        f"void tfkd_{name}_reset(tfkd_{name}_ctx *ctx);\n"
    )


def _reset(graph: Graph, places: Placement, name: str) -> str:
    lines = [f"void tfkd_{name}_reset(tfkd_{name}_ctx *ctx) {{", "    int8_t *arena = (int8_t *)(void *)ctx->arena;"]
    for state in _states(graph, places):  # as TensorFlow Lite Micro's ResetVariableTensors
        value = state.zero_point if state.dtype == "int8" and state.zero_points else 0
        lines.append(f"    memset(arena + {places.tensor(state.index)}, {value}, {state.bytes});")
    return "\n".join([*lines, "}"])


def _calls(functions: Sequence[str], chained: Mapping[int, Chain], name: str) -> list[str]:
    """The functions that a run calls: of chains, or of layers that run alone."""
    calls = [f"tfkd_{name}_chain_{chained[i].first}" if i in chained else x for i, x in enumerate(functions)]
    return list(dict.fromkeys(calls))


def _run(graph: Graph, functions: Sequence[str], places: Placement, name: str) -> str:
    single = len(graph.inputs) == len(graph.outputs) == 1
    lines = [
        f"{_signature(graph, name)} {{",
        "    if (!ctx || !in || !out) return -1;",
        "    int8_t *arena = (int8_t *)(void *)ctx->arena;",
    ]
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
