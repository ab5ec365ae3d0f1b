"""Messages for models that TensorFlow's converter does not convert: the layer, the op and the remedy.

The converter's own output is long and in the language of its compiler (MLIR). It stays in the error from which ours is
raised: Python shows both, the command line shows ours.
"""

from __future__ import annotations

import re
import traceback

# The beginning of the message where TensorFlow's converter itself refuses a model.
REFUSED = "the converter refused the model"

_LOOPS = (
    "a loop of variable length has no builtin op. Give the Keras model or its .keras file instead of a SavedModel, or "
    "build LSTM and GRU layers with unroll=True."
)
# What Keras or the user called, and the remedy, by the op that TensorFlow Lite lacks.
_MISSING = {
    "BitwiseAnd": "It comes from keras.ops.argmax or argmin: end the model before it and take the argmax outside.",
    "DenseBincount": "It comes from CategoryEncoding or bincount: encode the data before the model.",
    "ResizeBicubic": "Resize with interpolation='bilinear' or 'nearest'.",
    "Unpack": "The size of a tensor depends on its values: use layers of fixed output shape.",
}
_ELSE = "Replace it, or end the model before it and compute the rest outside of the model."


def explain(error: str) -> str:
    """The message for an error of the child process; errors of tfkd itself are returned unchanged.

    >>> explain("the converter refused the model: ... op: 'CUMSUM'. ... not yet supported for op: 'CUMSUM'.")[33:83]
    'CUMSUM cannot be quantized to int16. Convert with '
    """
    if not error.startswith(REFUSED):
        return error
    # The converter prints a chain of call locations; the innermost is the layer's own op, as in
    # fused["Erf:", "model/dense/Erf@function"].
    layer = re.search(r'fused\["\w+:", "([^"@]+)@', error)
    return f"{REFUSED}{f' at {layer[1]!r}' if layer else ''}. {_cause(error)}"


def _cause(error: str) -> str:
    if "TensorListReserve" in error:
        return f"TensorListReserve: {_LOOPS}"
    if missing := [*dict.fromkeys(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", error))]:
        doubles = " on float64" if re.search(rf"tf\.{missing[0]}\([^)]*f64", error) else ""
        remedy = "Compute in float32." if doubles else _MISSING.get(missing[0], _ELSE)
        return f"TensorFlow Lite has no builtin op for {', '.join(missing)}{doubles}. {remedy}"
    if unquantized := [*dict.fromkeys(re.findall(r"not yet supported for op: '(\w+)'", error))]:
        return (
            f"{', '.join(unquantized)} cannot be quantized to int16. Convert with mode='dynamic_range', or pass "
            "allow_float=True to mode='full_int8'."
        )
    if "Max and min for dynamic tensors should be recorded" in error:
        return "mode='int16x8' needs an input of real numbers, such as no token ids. Use mode='full_int8'."
    first = re.search(r"error: (.+)", error) or re.search(r": (.+)", error)
    return (
        f"Use layers that TensorFlow Lite has builtin ops for; mode='float32' supports the most. Its message begins: "
        f"{first[1][:200] if first else error!r}"
    )


def is_ours(error: Exception) -> bool:
    """Whether tfkd itself raised an error that a library passed on: a bug, not a model that does not convert."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith("tfkd.")


def crash(error: str, *, integers: bool) -> str:
    """The message for a crash of the converter.

    Args:
        error: Message of the crash.
        integers: Whether the model was to be quantized to integers.
    """
    signal = re.search(r"\((signal \w+|exit status \d+)\)", error)
    hint = f"Its quantizer crashes on loops: {_LOOPS}" if integers else "Replace layers one by one to find the cause."
    return f"the converter crashed{f' ({signal[1]})' if signal else ''}. {hint}"
