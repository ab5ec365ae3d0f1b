"""Generates plain C99 from an int8 or int16x8 .tflite, bit for bit equal to TensorFlow Lite Micro's reference kernels.

The passes, in order:

1. `graph.read` checks a .tflite and reads its tensors and ops.
2. `control_flow.flatten` puts the subgraphs of IF and WHILE into one graph; `resources.resolve` replaces resource
   variables by tensors that keep their values between runs; `hidden_states.add` adds such tensors for the values that
   signal ops keep.
3. `folding.fold_shapes` replaces arithmetic on shapes by constants.
4. `unsigned.to_int8` replaces uint8 by int8 in a model that computes in uint8.
5. `io_tensors.remove_float_io` removes the QUANTIZE and DEQUANTIZE ops of float inputs and outputs.
6. `padding.fold_padding` folds PAD into the convolution after it.
7. `elimination.eliminate` removes channels that cannot change the outputs.
8. `lowering.lower` turns each op into calls of C kernels with their constants.
9. `streaming.choose` selects layers that run row by row, and `merging.merge` lets layers share one copy of a kernel;
   both are optional.
10. `one_product.choose` finds numbers for convolutions that need fewer instructions for each output.
11. `placement.place` gives each tensor an offset in the arena, with `memory_plan.plan`.
12. `emitter.emit` writes the C. `export.write` adds a self-test and build files.

LiteRT's reference kernels (ai-edge-litert 2.3, on the random graphs of the tests) compute the same for all ops except:

- FULLY_CONNECTED differs by one quantization step at most, since it requantizes with a rounded double (int8) or
  otherwise (int16).
- SUM differs nearly everywhere.
- SVDF differs with an int8 state and is equal with an int16 state.
- UNIDIRECTIONAL_SEQUENCE_LSTM differs by one quantization step at most; it also needs the `intermediates` that a
  converter writes.

Layers of floats between DEQUANTIZE and QUANTIZE, such as a LayerNormalization, are C of floats with the same bits,
without a library; see `lowering.floats`. Inputs and outputs of the generated C are integers, each of its own type.
QUANTIZE and DEQUANTIZE of a float model's inputs and outputs are left to the caller, with helpers in the header that
round as these ops do.
"""

from __future__ import annotations

import os
import re

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.micro import graph as _graph
from tfkd.micro.emitter import Program
from tfkd.micro.io_tensors import IOTensor, check_io, remove_float_io

__all__ = ["IOTensor", "Program", "emit"]


def emit(
    model: str | os.PathLike[str] | bytes | TFLiteModel,
    *,
    name: str = "model",
    size: bool = False,
    stream: bool = False,
    keep_dead: bool = False,
) -> Program:
    """Generates C for a model.

    Args:
        model: Fully quantized .tflite of batch size 1. Inputs and outputs, each of its own type, are int8, int16,
            uint8, int32, bool, or float32 that QUANTIZE and DEQUANTIZE convert.
        name: C identifier in lower case; the public names are `tfkd_<name>_run` and so on.
        size: Whether to generate one copy of each kernel instead of one for each combination of compile-time options
            that layers need: half the code, a little slower.
        stream: Whether layers run row by row where that makes the arena smaller: less RAM, a little slower.
        keep_dead: Whether channels that cannot change the outputs stay: the program is then as large and as slow as
            that of any other weights.

    Returns:
        The program's files and its memory plan.

    Raises:
        InputError: `name` is not a C identifier in lower case.
        ModelError: The file is damaged, or has ops, types or options that are not supported; the message names all of
            them.
    """
    from tfkd.micro.control_flow import flatten, has_control_flow
    from tfkd.micro.elimination import eliminate
    from tfkd.micro.emitter import emit as write
    from tfkd.micro.folding import fold_shapes
    from tfkd.micro.hidden_states import add as add_states
    from tfkd.micro.lowering import OPS, lower
    from tfkd.micro.merging import merge
    from tfkd.micro.one_product import choose as choose_numbers
    from tfkd.micro.padding import fold_padding
    from tfkd.micro.resources import resolve
    from tfkd.micro.streaming import choose
    from tfkd.micro.unsigned import to_int8

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise InputError(f"micro.emit: name must be a C identifier in lower case. Received: {name!r}. Use 'model'.")
    model = TFLiteModel.load(model)
    _graph.check_custom_ops(model, OPS)
    if "QUANTIZE" not in model.ops:  # a float model: one message instead of one for each of its ops
        check_io(model.inputs)
    graph = _graph.read(model)
    keep_dead |= has_control_flow(graph)  # a channel may change from one turn to the next
    graph = remove_float_io(to_int8(fold_shapes(add_states(resolve(flatten(graph))))))
    check_io([graph.tensors[i] for i in (*graph.inputs, *graph.outputs)], graph.ops)
    graph = fold_padding(graph)
    layers, _ = lower(graph)
    keep_dead |= any(graph.tensors[i].dtype == "float32" for op in graph.ops for i in op.outputs)  # no steps to count
    graph, elimination = eliminate(graph, layers, keep_dead=keep_dead)
    layers, aliases = lower(graph)
    chains = choose(graph, layers, aliases) if stream else ()
    numbered = choose_numbers(merge(layers) if size else layers, alike=size)
    return write(graph, numbered, aliases, name, elimination, chains)
