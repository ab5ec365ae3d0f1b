"""From an int8 or int16x8 .tflite to plain C99, bit-exact to TensorFlow Lite Micro's reference kernels.

LiteRT's reference kernels (ai-edge-litert 2.3, on the random graphs of the tests) give the same for all other ops, but:

- FULLY_CONNECTED: one step more or less, since it requantizes with a rounded double (int8) or differently (int16).
- SUM: other values, nearly everywhere.
- SVDF with an int8 state: other values; with an int16 state the same.
- UNIDIRECTIONAL_SEQUENCE_LSTM: one step more or less; it also needs the `intermediates` that a converter leaves.

Inputs and outputs are integers: a float tensor has no place in the generated C. QUANTIZE and DEQUANTIZE at the ends of
a float model are left to the caller, and to helpers in the header that round as these ops do.
"""

from __future__ import annotations

import os
import re

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.micro import graph as _graph
from tfkd.micro.emitter import Program
from tfkd.micro.ends import End, check_ends, integer_ends

__all__ = ["End", "Program", "emit"]


def emit(
    model: str | os.PathLike[str] | bytes | TFLiteModel,
    *,
    name: str = "model",
    size: bool = False,
    stream: bool = False,
) -> Program:
    """Generates C for a model.

    Args:
        model: a fully quantized .tflite of batch size 1, with int8 or int16 inputs and outputs, or with float32 ones
            that QUANTIZE and DEQUANTIZE convert.
        name: a C identifier in lower case; the public names are `tfkd_<name>_run` and so on.
        size: one copy of each kernel instead of one for each case that layers need: half the code, a little slower.
        stream: layers run by rows in turn where that makes the arena smaller: less RAM, a little slower.

    Returns:
        The program's files and its memory plan.

    Raises:
        ValueError: the file is damaged, or has ops, types or options that are not supported: all of them are named.
    """
    from tfkd.micro.elimination import eliminate
    from tfkd.micro.emitter import emit as write
    from tfkd.micro.lowering import lower
    from tfkd.micro.merging import merge
    from tfkd.micro.padding import fold_padding
    from tfkd.micro.streaming import choose

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise InputError(f"micro.emit: name must be a C identifier in lower case. Received: {name!r}. Use 'model'.")
    model = TFLiteModel.load(model)
    if "QUANTIZE" not in model.ops:  # of a float model nothing else is worth a word
        check_ends(model.inputs)
    graph = integer_ends(_graph.read(model))
    check_ends([graph.tensors[i] for i in (*graph.inputs, *graph.outputs)])
    graph = fold_padding(graph)
    layers, _ = lower(graph)
    graph, elimination = eliminate(graph, layers)
    layers, aliases = lower(graph)
    chains = choose(graph, layers, aliases) if stream else ()
    return write(graph, merge(layers) if size else layers, aliases, name, elimination, chains)
