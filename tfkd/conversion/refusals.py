"""Messages for models that TensorFlow's converter refuses: the layer and the remedy, found in its output."""

from __future__ import annotations

import re

# The beginning of the message where TensorFlow's converter itself refuses a model.
REFUSED = "the converter refused the model"
# A part of the converter's output and the remedy for it. The first match is used; the last one matches always.
_REMEDIES = (
    ("TensorListReserve", "Build LSTM and GRU layers with unroll=True: a loop of variable length has no builtin op."),
    ("neither a custom op nor a flex op", "TensorFlow Lite has no builtin op for it: build the model without it."),
    ("not yet supported for op", "Convert with mode='dynamic_range', or pass allow_float=True to mode='full_int8'."),
    ("", "Use layers that TensorFlow Lite has builtin ops for; mode='float32' supports the most."),
)


def explain(error: str) -> str:
    """Adds the layer and the remedy where TensorFlow's converter refused the model; other errors have their own."""
    if not error.startswith(REFUSED):
        return error
    remedy = next(remedy for part, remedy in _REMEDIES if part in error)
    # The converter prints a chain of call locations; the innermost is the layer's own op, as in
    # fused["Erf:", "model/dense/Erf@function"].
    layer = re.search(r'fused\["\w+:", "([^"@]+)@', error)
    return f"{REFUSED}{f' at {layer[1]!r}' if layer else ''}. {remedy} Its message{error.removeprefix(REFUSED)}"
