"""C for what surrounds a model in a firmware: bytes of a sensor to inputs, outputs to the answer of the task.

All functions are `static inline` in one header, so that a firmware pays only for those that it calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfkd._internal.suggestion import suggestion
from tfkd.conversion import input_room
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.micro.c_context import CTYPES
from tfkd.micro.emitter import Program
from tfkd.micro.io_tensors import IOTensor

# Ops that change no value of an output, or only its type.
_PASSING = ("QUANTIZE", "DEQUANTIZE", "RESHAPE")
PIXELS = (0.0, 255.0)


@dataclasses.dataclass(frozen=True)
class TaskCode:
    """The header of a task.

    Args:
        text: Text of `<name>_task.h`.
        has_bytes: Whether it has a function from the bytes of a sensor to the input.
        has_decoder: Whether it has a function from the output to the answer.
    """

    text: str
    has_bytes: bool
    has_decoder: bool


def write(model: TFLiteModel, program: Program, task: str, input_range: tuple[float, float] | None = None) -> TaskCode:
    """Writes the header of a task.

    Args:
        model: The model.
        program: The C generated from it.
        task: Key of `DECODERS`.
        input_range: What the model expects for the bytes 0 and 255 of a sensor. None for 0 and 255 themselves, if the
            quantized input has room for them; otherwise there is no function for bytes.

    Raises:
        InputError: Unknown task, one that the number of output values or the last op does not fit, a range whose ends
            are equal or not finite, or one that the quantized input has no room for.
    """
    if task not in DECODERS:
        raise InputError(
            f"export-c: task must be one of {', '.join(DECODERS)}. Received: {task!r}.{suggestion(task, DECODERS)}"
        )
    check_range(input_range)
    preprocessing = _bytes(program.name, program.inputs[0], input_range) if len(program.inputs) == 1 else ""
    decoder = _decoder(model, program, task)
    guard = f"TFKD_{program.name.upper()}_TASK_H"
    text = f"""/* {program.name}: bytes of a sensor to the input, output to the answer of the task {task}. */
#ifndef {guard}
#define {guard}

#include <math.h>

#include "{program.name}.h"

{chr(10).join(f"{part}{chr(10)}" for part in (preprocessing, *decoder) if part)}
#endif
"""
    return TaskCode(text, has_bytes="_from_bytes(" in preprocessing, has_decoder=bool(decoder))


def check_range(input_range: tuple[float, float] | None) -> None:
    """Checks what a model expects for the bytes 0 and 255.

    Raises:
        InputError: The ends are equal or not finite.
    """
    if input_range is not None and not (np.isfinite(input_range).all() and input_range[0] != input_range[1]):
        raise InputError(
            f"export-c: the input range must be two different numbers, got {input_range[0]:g},{input_range[1]:g}. "
            "Use --input-range 0,1 for pixels from 0 to 1."
        )


def _decoder(model: TFLiteModel, program: Program, task: str) -> list[str]:
    """The functions of a task; none for a classification of several outputs, numbers without a scale, or positions."""
    outputs = program.outputs
    if len(outputs) != 1 or not outputs[0].tensor.scales:
        if task == "classification":  # the default
            return []
        raise InputError(
            f"export-c: the task {task} needs a model with one output that has a scale. Received: {len(outputs)} "
            "outputs or integers. Leave --task out, and read the outputs yourself."
        )
    (output,), end = outputs, _end(model)
    count = output.tensor.elements
    if task == "classification" and count != (output.tensor.shape or (1,))[-1]:
        return []
    if task == "classification" and count == 1:
        raise InputError(
            "export-c: the task classification needs a model with two classes or more. Received: one output value. "
            "Pass --task binary or --task regression."
        )
    if task == "binary" and count != 1:
        raise InputError(
            f"export-c: the task binary needs a model with one output value. Received: {count}. Pass --task "
            "classification or --task multi_label."
        )
    if task in ("binary", "multi_label") and end in ("SOFTMAX", "LOG_SOFTMAX"):
        raise InputError(
            f"export-c: the task {task} needs logits or the outputs of a sigmoid, which are decided one by one. "
            f"Received: a model that ends in {end}. Pass --task classification."
        )
    return DECODERS[task](program.name, output, end)


def _end(model: TFLiteModel) -> str:
    """The op that computes the first output: `SOFTMAX`, `LOGISTIC` and so on."""
    index, graph = model.graph.outputs[0], model.graph
    for op in reversed(graph.ops):
        if index in op.outputs:
            if op.name not in _PASSING:
                return op.name
            index = op.inputs[0]
    return ""


def byte_table(io: IOTensor, input_range: tuple[float, float] | None) -> np.ndarray | None:
    """What each of the 256 values of a byte becomes in an input, of its type.

    Args:
        io: The input.
        input_range: What the model expects for the bytes 0 and 255; None for 0 and 255 themselves.

    Returns:
        None where the input has no scale, or no range was given and the input has no room for 0 to 255.

    Raises:
        InputError: The input has no room for the range that was given.
    """
    tensor = io.tensor
    if not tensor.scales or tensor.dtype not in ("int8", "uint8", "int16"):
        return None
    if input_range is not None:
        input_room.check(input_range, tensor.dtype, tensor.scale, tensor.zero_point, "export-c")
    else:
        (least, most), room = held(io), 2 * tensor.scale
        if least > PIXELS[0] + room or most < PIXELS[1] - room:
            return None
    return io.quantize(np.linspace(*(input_range or PIXELS), 256).astype("float32"))


def held(io: IOTensor) -> tuple[float, float]:
    """The least and the largest number that a quantized input holds."""
    return input_room.held(io.tensor.dtype, io.tensor.scale, io.tensor.zero_point)


def _bytes(name: str, io: IOTensor, input_range: tuple[float, float] | None) -> str:
    """The C function from bytes of a sensor to the input: a table of what each of the 256 bytes becomes."""
    tensor, table = io.tensor, byte_table(io, input_range)
    if table is None and not (tensor.scales and tensor.dtype in ("int8", "uint8", "int16")):
        return ""
    if table is None:
        least, most = held(io)
        return (
            f"/* No function for bytes: the input holds {least:.4g} to {most:.4g}. Export with --input-range\n"
            " * LOW,HIGH, the values of the bytes 0 and 255. */"
        )
    low, high = input_range or PIXELS
    upper, value = name.upper(), CTYPES[tensor.dtype]
    values = ", ".join(map(str, table.tolist()))
    return f"""/* Bytes of a sensor, in the order of the input, to the input: byte b stands for
 * {low:g} + b * {(high - low) / 255:g}, which is divided by the scale and moved by the zero point. */
static inline void tfkd_{name}_from_bytes(const uint8_t *bytes, {value} *input) {{
    static const {value} table[256] = {{{values}}};
    int32_t i;
    for (i = 0; i < TFKD_{upper}_INPUT_SIZE; i++) input[i] = table[bytes[i]];
}}"""


def _value(name: str, at: str) -> str:
    """C of the real value of one output."""
    upper = name.upper()
    return f"tfkd_{name}_dequantize(output[{at}], TFKD_{upper}_OUTPUT_SCALE, TFKD_{upper}_OUTPUT_ZERO_POINT)"


def _classification(name: str, io: IOTensor, end: str) -> list[str]:
    value, size = CTYPES[io.tensor.dtype], f"TFKD_{name.upper()}_OUTPUT_SIZE"
    largest = f"""/* The class with the largest output, the first one of equal ones. */
static inline int tfkd_{name}_largest(const {value} *output) {{
    int best = 0, i;
    for (i = 1; i < {size}; i++)
        if (output[i] > output[best]) best = i;
    return best;
}}"""
    known = {"SOFTMAX": _value(name, "i"), "LOGISTIC": _value(name, "i"), "LOG_SOFTMAX": f"expf({_value(name, 'i')})"}
    if end in known:
        return [largest, _number(name, "probability", value, "The probability of class i.", known[end])]
    probability = f"""/* The probability of class i: softmax of the outputs. */
static inline float tfkd_{name}_probability(const {value} *output, int i) {{
    float sum = 0.0f;
    int j;
    for (j = 0; j < {size}; j++) sum += expf((float)(output[j] - output[i]) * TFKD_{name.upper()}_OUTPUT_SCALE);
    return 1.0f / sum;
}}"""
    return [largest, probability]


def _sigmoid(name: str, io: IOTensor, end: str) -> list[str]:
    """Decoders of outputs that are decided one by one, at a threshold."""
    value, logits = CTYPES[io.tensor.dtype], end != "LOGISTIC"
    threshold = f"TFKD_{name.upper()}_THRESHOLD"
    probability = f"1.0f / (1.0f + expf(-{_value(name, 'i')}))" if logits else _value(name, "i")
    limit = f"""/* An output above it is positive; a logit of 0 is a probability of 0.5. */
#ifndef {threshold}
#define {threshold} {"0.0f" if logits else "0.5f"}
#endif"""
    positive = f"""/* Whether label i applies. */
static inline int tfkd_{name}_positive(const {value} *output, int i) {{
    return {_value(name, "i")} > {threshold};
}}"""
    return [limit, positive, _number(name, "probability", value, "The probability of label i.", probability)]


def _regression(name: str, io: IOTensor, _end: str) -> list[str]:
    return [_number(name, "value", CTYPES[io.tensor.dtype], "Number i of the answer.", _value(name, "i"))]


def _number(name: str, function: str, value: str, comment: str, expression: str) -> str:
    """A C function from the outputs and an index to a float."""
    return f"""/* {comment} */
static inline float tfkd_{name}_{function}(const {value} *output, int i) {{
    return {expression};
}}"""


# C of each task from (name of the model, its output, the op that computes it).
DECODERS: dict[str, Callable[[str, IOTensor, str], list[str]]] = {
    "classification": _classification,
    "binary": _sigmoid,
    "multi_label": _sigmoid,
    "regression": _regression,
}
