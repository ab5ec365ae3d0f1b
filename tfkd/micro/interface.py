"""The header of the generated C: sizes, scales, the context and the functions that a firmware calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfkd.micro.c_context import CTYPES, Context, comment, quantizer

_LIMITS = {"int8": ("-128", "127"), "int16": ("-32768", "32767"), "uint8": ("0", "255")}


def header(context: Context) -> str:
    """Text of `<name>.h`."""
    graph, name = context.graph, context.name
    guard, upper = f"TFKD_{name.upper()}_H", name.upper()
    pointers = "" if context.has_single_io else " `in` and `out` point to one pointer per input and output, in order."
    if "void" in context.signature():
        pointers += " Each points to\n * values of the type that stands beside its size above."
    return f"""#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{_io_macros(context, graph.inputs, "INPUT")}
{_io_macros(context, graph.outputs, "OUTPUT")}
#define TFKD_{upper}_ARENA_BYTES {max(4, context.places.plan.bytes)}

/* All RAM of a run but the stack. The caller provides it; runs with separate contexts may overlap in time. */
typedef struct {{
    int32_t arena[TFKD_{upper}_ARENA_BYTES / 4];
}} tfkd_{name}_ctx;

/* Runs the model once.{pointers}
 * To save RAM and a copy, fill TFKD_{upper}_INPUT_IN_ARENA(ctx) and pass it as the input; the same for the output.
 * Returns 0, or -1 if a pointer is null. */
{context.signature()};
{_reset_declaration(context)}
{_conversions(context)}

#ifdef __cplusplus
}}
#endif

#endif
"""


def with_facts(text: str, name: str, facts: Mapping[str, str | int]) -> str:
    """A header with macros that say what it was made from.

    Args:
        text: Text of `<name>.h`.
        name: C identifier of the model.
        facts: Values by the end of their macros' names; they follow the size of the arena.
    """
    at = text.index("\n", text.index(f"#define TFKD_{name.upper()}_ARENA_BYTES "))
    lines = (
        f"\n#define TFKD_{name.upper()}_{key} " + (f'"{comment(value)}"' if isinstance(value, str) else str(value))
        for key, value in facts.items()
    )
    return text[:at] + "".join(lines) + text[at:]


def _io_macros(context: Context, indices: Sequence[int], kind: str) -> str:
    """Macros with size, scale, zero point and address of each input or output."""
    lines = []
    for n, i in enumerate(indices):
        tensor, suffix = context.graph.tensors[i], str(n) if len(indices) > 1 else ""
        prefix = f"TFKD_{context.name.upper()}_{kind}{suffix}"
        lines += [
            f"#define {prefix}_SIZE {tensor.elements} /* {tensor.dtype}: {comment(tensor.name)} {tensor.shape} */",
        ]
        if tensor.scales:
            lines += [
                f"#define {prefix}_SCALE {tensor.scale!r}f",
                f"#define {prefix}_ZERO_POINT ({tensor.zero_point})",
            ]
        if i in context.places.of_tensor:
            lines.append(f"#define {prefix}_IN_ARENA(ctx) ({context.pointer(i, '(int8_t *)(void *)(ctx)->arena')})")
    return "\n".join(lines)


def _reset_declaration(context: Context) -> str:
    if not context.states:
        return ""
    return (
        "\n/* Sets the states to their initial values. Call it before the first run and where a sequence starts.\n"
        " * Between the runs of a sequence only the inputs may be written to the context. */\n"
        f"void tfkd_{context.name}_reset(tfkd_{context.name}_ctx *ctx);\n"
    )


def _conversions(context: Context) -> str:
    """C functions between floats and quantized values."""
    name = context.name
    inputs, outputs = (
        [context.graph.tensors[i] for i in ends] for ends in (context.graph.inputs, context.graph.outputs)
    )
    dtypes = dict.fromkeys(tensor.dtype for tensor in inputs if tensor.scales and tensor.dtype in _LIMITS)
    functions = [_quantize(quantizer(name, inputs, dtype), dtype) for dtype in dtypes]
    if any(tensor.scales for tensor in outputs):
        functions.append(
            f"static inline float tfkd_{name}_dequantize(int32_t q, float scale, int zero_point) {{\n"
            "    return (float)(q - zero_point) * scale;\n}"
        )
    if not functions:
        return ""
    return "\n\n".join([_CONVERSIONS + functions[0], *functions[1:]])


_CONVERSIONS = """\
/* A float to a quantized value and back, exactly as QUANTIZE and DEQUANTIZE in TensorFlow Lite Micro, which convert
 * the inputs and outputs of a model with float inputs or outputs. Halves are rounded away from 0, then the zero point
 * is added, and the sum saturates; NaN becomes the least value. */
"""


def _quantize(function: str, dtype: str) -> str:
    value, (least, most) = CTYPES[dtype], _LIMITS[dtype]
    return f"""\
static inline {value} {function}(float x, float scale, int zero_point) {{
    const float steps = x / scale;
    int32_t whole;
    if (!(steps > -65536.0f)) return {least};
    if (steps > 65536.0f) return {most};
    whole = (int32_t)steps;
    if (steps - (float)whole >= 0.5f) whole++;
    else if (steps - (float)whole <= -0.5f) whole--;
    whole += zero_point;
    return ({value})(whole < {least} ? {least} : whole > {most} ? {most} : whole);
}}"""
