"""From layers and a memory plan to C: one header and one source file."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.errors import ModelError
from tfkd.micro.c_context import CTYPES, Context, array_text, comment, float_text, include_guard
from tfkd.micro.elimination import Elimination
from tfkd.micro.graph import Graph
from tfkd.micro.interface import header
from tfkd.micro.io_tensors import IOTensor
from tfkd.micro.kernel_text import kernel_texts, struct_fields
from tfkd.micro.lowering.control import CONTROL
from tfkd.micro.lowering.layer import Layer, identifier
from tfkd.micro.memory_plan import MemoryPlan
from tfkd.micro.placement import Chain, place


@dataclasses.dataclass(frozen=True)
class Program:
    """C generated from a model.

    Args:
        name: C identifier in all public names.
        files: Text by file name.
        plan: Memory plan of the arena.
        least_bytes: Largest sum of the model's own tensors that are in use at once, each with memory of its own.
        layers: C functions in the order in which they run.
        steps: What each of these functions computes.
        weight_bytes: Bytes of all constants.
        layer_weight_bytes: Bytes of the constants that each layer adds; equal ones count for the first layer.
        inputs: Inputs in the model's order.
        outputs: Outputs in the model's order.
        elimination: What was removed from the model because it cannot change the outputs.
        state_bytes: Bytes of the arena that keep their values between runs; `tfkd_<name>_reset` initializes them.
        float_layers: What those functions compute that compute in floats.
    """

    name: str
    files: Mapping[str, str]
    plan: MemoryPlan
    least_bytes: int
    layers: tuple[str, ...]
    steps: tuple[str, ...]
    weight_bytes: int
    layer_weight_bytes: tuple[int, ...]
    inputs: tuple[IOTensor, ...]
    outputs: tuple[IOTensor, ...]
    elimination: Elimination
    state_bytes: int
    float_layers: tuple[str, ...]

    @property
    def arena_bytes(self) -> int:
        """RAM of the program's context: activations, scratch buffers and states."""
        return self.plan.bytes


class _Constants:
    """The constant arrays of a program. Equal arrays are emitted once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._labels: dict[tuple[bool, str, bytes], str] = {}
        self._packed: set[str] = set()
        self.arrays: dict[str, np.ndarray] = {}

    def label(self, field: str, index: int, values: np.ndarray, packed: bool = False) -> str:
        """C name of an array: `field` of layer `index`, or of the layer that has an equal one already.

        Args:
            field: Field of the layer's struct.
            index: Number of the layer.
            values: The array.
            packed: See `array_text`.
        """
        values = np.ascontiguousarray(values)
        key = packed, values.dtype.name, values.tobytes()
        label = self._labels.setdefault(key, f"tfkd_{self._name}_{field}_{index}")
        self.arrays.setdefault(label, values)
        if packed:
            self._packed.add(label)
        return label

    @property
    def bytes(self) -> int:
        return sum(values.nbytes for values in self.arrays.values())

    def text(self) -> str:
        section = f"TFKD_{self._name.upper()}_WEIGHTS"
        defaults = f"#ifndef {section}\n#define {section} TFKD_WEIGHTS\n#endif"
        arrays = (array_text(label, values, section, label in self._packed) for label, values in self.arrays.items())
        return "\n".join([defaults, *arrays])


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
        graph: The model.
        layers: Result of `lowering.lower`.
        aliases: Result of `lowering.lower`.
        name: C identifier; public names are `tfkd_<name>_...`.
        elimination: What was removed from the graph.
        chains: Layers that are computed by rows.

    Raises:
        ModelError: An output of the model is a constant.
    """
    context = Context(graph, place(graph, layers, aliases, chains), name)
    places = context.places
    for i in graph.outputs:
        if i not in places.of_tensor:
            raise ModelError(
                f"micro: output {graph.tensors[i].name!r} is a constant, which no layer computes. "
                "Remove it from the model's outputs."
            )
    chained = {i: chain for chain in chains for i in chain.layers}
    functions = [f"tfkd_{name}_layer_{i}_{identifier(graph.tensors[x.writes].name)}" for i, x in enumerate(layers)]
    constants = _Constants(name)
    bodies, sizes = [], [0]
    for i, layer in enumerate(layers):
        if layer.kernel:
            bodies.append(_layer(context, layer, i, functions[i], constants, i in chained))
        sizes.append(constants.bytes)
    bodies += [_chain(context, layers, chain, functions) for chain in chains]
    reset = [_reset(context, constants)] if context.states else []
    parts = [
        _summary(context, layers, chained, elimination),
        f'#include "{name}.h"\n\n#include <stddef.h>',
        *kernel_texts(_sources(layers, chains)),
        _variants(graph, layers),
        constants.text(),
        "\n".join(bodies),
        _run(context, _calls(context, layers, functions, chained)),
        *reset,
    ]
    calls = [i for i, layer in enumerate(layers) if layer.kernel]
    inputs, outputs = (
        tuple(IOTensor(graph.tensors[i], places.tensor(i)) for i in indices)
        for indices in (graph.inputs, graph.outputs)
    )
    return Program(
        name,
        files={f"{name}.c": "\n\n".join(parts) + "\n", f"{name}.h": header(context)},
        plan=places.plan,
        least_bytes=places.least_bytes,
        layers=tuple(functions[i] for i in calls),
        steps=tuple(f"{layers[i].op.kind} {layers[i].comment}{', by rows' if i in chained else ''}" for i in calls),
        weight_bytes=constants.bytes,
        layer_weight_bytes=tuple(sizes[i + 1] - sizes[i] for i in calls),
        inputs=inputs,
        outputs=outputs,
        elimination=elimination,
        state_bytes=sum(tensor.bytes for tensor in context.states),
        float_layers=tuple(f"{x.op.kind} {x.comment}" for x in layers if x.kernel.startswith("float_")),
    )


def _sources(layers: Sequence[Layer], chains: Sequence[Chain]) -> list[str]:
    """Names of the kernel headers that layers and chains need, in a fixed order."""
    kernels = [name for source in sorted({layer.source for layer in layers}) for name in source.split()]
    return ["arithmetic", *(["rows"] if chains else []), *kernels]


def _variants(graph: Graph, layers: Sequence[Layer]) -> str:
    """One C function for each combination of kernel and flags, shared by all layers that have it."""
    variants = sorted({(x.kernel, x.struct, x.flags, _parameters(graph, x)) for x in layers if x.kernel})
    return "\n".join(_variant(*variant) for variant in variants)


def _parameters(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """C types and names of a kernel's parameters after its struct."""
    reads = [r.dtype.name if isinstance(r, np.ndarray) else graph.tensors[r].dtype for r in layer.reads]
    parameters = [f"const {CTYPES[dtype]} *in{i}" for i, dtype in enumerate(reads)]
    parameters += [f"{CTYPES[graph.tensors[state].dtype]} *state{i}" for i, state in enumerate(layer.states)]
    parameters.append(f"{CTYPES[graph.tensors[layer.writes].dtype]} *out")
    return (*parameters, *(["int16_t *scratch"] if layer.scratch_bytes else []))


def _variant(kernel: str, struct: str, flags: int, parameters: Sequence[str]) -> str:
    arguments = ["p", *(parameter.split("*")[1] for parameter in parameters), str(flags)]
    text = (
        f"static TFKD_KERNEL void tfkd_{kernel}_flags{flags}({', '.join([f'const {struct} *p', *parameters])}) {{\n"
        f"    tfkd_{kernel}({', '.join(arguments)});\n}}"
    )
    return include_guard(f"VARIANT_{kernel}_{flags}", text)


def _layer(context: Context, layer: Layer, index: int, function: str, constants: _Constants, by_rows: bool) -> str:
    """The C function of a layer: its parameters, and a call of its kernel."""
    tensors = [
        context.pointer(r) if isinstance(r, int) else constants.label(f"operand{n}", index, r)
        for n, r in enumerate(layer.reads)
    ]
    tensors += [context.pointer(i) for i in (*layer.states, layer.writes)]
    if by_rows:
        tensors = [f"{tensors[0]} + turn->in", f"{tensors[-1]} + turn->out"]
    if layer.scratch_bytes:
        tensors.append(f"(int16_t *)(void *)(arena + {context.places.scratch(index)})")
    fields = textwrap.fill(
        ", ".join(f"/*{field}*/ {_value(layer, field, index, constants)}" for field in _order(layer)),
        110,
        initial_indent="        ",
        subsequent_indent="        ",
        break_on_hyphens=False,
    )
    return (
        f"/* {layer.op.kind} {layer.comment}: {comment(context.graph.tensors[layer.writes].name)} */\n"
        f"static TFKD_NOINLINE void {function}(int8_t *arena{', const tfkd_turn *turn' if by_rows else ''}) {{\n"
        f"    static const {layer.struct} {'whole' if by_rows else 'p'} = {{\n{fields}}};\n"
        f"{_row_parameters(layer) if by_rows else ''}"
        f"    tfkd_{layer.kernel}_flags{layer.flags}({', '.join(['&p', *tensors])});\n}}"
    )


def _order(layer: Layer) -> tuple[str, ...]:
    """The fields of a layer's struct in the struct's order: C++ before 2020 has no initializers by name.

    Raises:
        ValueError: The layer has other fields than the struct.
    """
    base = re.sub("_(u?int|float)[0-9]+$", "", layer.struct)
    order = struct_fields()[base if base in struct_fields() else layer.struct]
    if set(order) != set(layer.fields):
        raise ValueError(f"{layer.struct} has the fields {order}, the layer {tuple(layer.fields)}")
    return order


def _value(layer: Layer, field: str, index: int, constants: _Constants) -> str:
    """C initializer of a field of a layer's struct."""
    value = layer.fields[field]
    if isinstance(value, np.ndarray):
        packed = field == "weights" and layer.kernel in ("convolution", "fully_connected")
        return constants.label(field, index, value, packed)
    if isinstance(value, np.float32):
        return float_text(value)
    return f"{{{', '.join(map(str, value))}}}" if isinstance(value, tuple) else str(value)


def _row_parameters(layer: Layer) -> str:
    """C that derives a kernel's parameters for some rows from those for all rows."""
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


def _chain(context: Context, layers: Sequence[Layer], chain: Chain, functions: Sequence[str]) -> str:
    """The C function that runs a chain of layers by rows."""
    places, windows = context.places, chain.windows
    table = []
    for i, w in zip(chain.layers, windows, strict=True):
        slab = places.tensor(layers[i - 1].writes) if i > chain.first else 0
        table.append(f"{{{w.stride}, {w.reach}, {w.pad}, {w.height}, {w.row}, {slab}}}")
    table.append(f"{{0, 0, 0, 0, {windows[-1].out_row}, 0}}")
    calls = "\n".join(f"        {functions[i]}(arena, turns + {n});" for n, i in enumerate(chain.layers))
    height, last = windows[-1].out_height, len(windows) - 1
    return (
        f"/* Layers {chain.first} to {chain.last}, {chain.rows} rows of the last one at a time. */\n"
        f"static void tfkd_{context.name}_chain_{chain.first}(int8_t *arena) {{\n"
        f"    static const tfkd_window windows[{len(table)}] = {{\n        {', '.join(table)}}};\n"
        f"    tfkd_turn *turns = (tfkd_turn *)(void *)(arena + {places.scratch(chain.first) + chain.state_at});\n"
        f"    memset(turns, 0, {len(windows)} * sizeof *turns);\n"
        f"    for (int32_t end = 0; end < {height};) {{\n"
        f"        end = end + {chain.rows} < {height} ? end + {chain.rows} : {height};\n"
        f"        tfkd_pull(windows, turns, {last}, end, arena);\n{calls}\n    }}\n}}"
    )


def _summary(context: Context, layers: Sequence[Layer], chained: Mapping[int, Chain], elimination: Elimination) -> str:
    """The comment at the top of the source file: what was removed, the arena, and a table of the layers."""
    places, removed = context.places, str(elimination)
    lines = [f"/* {context.name}: generated by tfkd export-c. Change the model, not this file.", " *"]
    if elimination.layers:
        lines.append(f" * {removed[0].upper()}{removed[1:]}.")
    lines += [
        f" * Arena {places.plan.bytes} bytes; the model's tensors that are in use at once need {places.least_bytes}.",
        " *",
        " *   layer  op                    shape                                arena",
    ]
    for i, layer in enumerate(layers):
        by_rows = ", by rows" if i in chained else ""
        lines.append(f" *   {i:5d}  {layer.op.kind:20s}  {layer.comment:36s} {places.live_bytes(i):6d}{by_rows}")
    return "\n".join([*lines, " */"])


def _reset(context: Context, constants: _Constants) -> str:
    name = context.name
    lines = [f"void tfkd_{name}_reset(tfkd_{name}_ctx *ctx) {{", "    int8_t *arena = (int8_t *)(void *)ctx->arena;"]
    for n, state in enumerate(context.states):  # as TensorFlow Lite Micro's ResetVariableTensors
        place = f"arena + {context.places.tensor(state.index)}"
        default = state.zero_point if state.dtype == "int8" and state.zero_points else 0
        values = np.full(state.shape, default, state.dtype) if state.initial is None else state.initial
        if values.dtype == np.int8 and (values == values.flat[0]).all() or not values.any():
            lines.append(f"    memset({place}, {values.flat[0]}, {state.bytes});")
        else:
            lines.append(f"    memcpy({place}, {constants.label('initial', n, values.reshape(-1))}, {state.bytes});")
    return "\n".join([*lines, "}"])


def _calls(
    context: Context, layers: Sequence[Layer], functions: Sequence[str], chained: Mapping[int, Chain]
) -> list[str]:
    """The statements of a run: calls of chains and of layers outside of chains, and control flow between them."""
    lines, indent = [], " " * 4
    for i, layer in enumerate(layers):
        if not layer.kernel:
            line = CONTROL[layer.op.kind].format(*map(context.places.tensor, layer.op.inputs))
            indent = indent[4:] if line.startswith("}") else indent
            lines.append(indent + line)
            indent += " " * 4 if line.endswith("{") else ""
        elif i not in chained:
            lines.append(f"{indent}{functions[i]}(arena);")
        elif i == chained[i].first:
            lines.append(f"{indent}tfkd_{context.name}_chain_{i}(arena);")
    return lines


def _run(context: Context, calls: Sequence[str]) -> str:
    """The public C function that runs the model: copies the inputs, calls the layers, copies the outputs."""
    graph, single = context.graph, context.has_single_io
    lines = [
        f"{context.signature()} {{",
        "    if (!ctx || !in || !out) return -1;",
        "    int8_t *arena = (int8_t *)(void *)ctx->arena;",
    ]
    if not single:
        lines += [f"    if (!in[{n}]) return -1;" for n in range(len(graph.inputs))]
        lines += [f"    if (!out[{n}]) return -1;" for n in range(len(graph.outputs))]
    for n, i in enumerate(graph.inputs):
        if i in context.places.of_tensor:
            source, at = "in" if single else f"in[{n}]", context.pointer(i)
            lines.append(f"    if ({source} != {at}) memcpy({at}, {source}, {graph.tensors[i].bytes});")
    lines += calls
    for n, i in enumerate(graph.outputs):
        target, at = "out" if single else f"out[{n}]", context.pointer(i)
        lines.append(f"    if ({target} != {at}) memcpy({target}, {at}, {graph.tensors[i].bytes});")
    return "\n".join([*lines, "    return 0;", "}"])
