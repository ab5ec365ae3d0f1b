"""Messages for models that TensorFlow's converter does not convert: the layer, the op and the remedy.

The converter's own output is long and in the language of its compiler (MLIR). It stays in the error from which ours is
raised: Python shows both, the command line shows ours.
"""

from __future__ import annotations

import re
import traceback

from tfkd.conversion import layer_names
from tfkd.conversion.tflite import TFLiteModel

# The beginning of the message where TensorFlow's converter itself refuses a model.
REFUSED = "the converter refused the model"

_NO_OP = "TensorFlow Lite has no builtin op for"
_LOOPS = (
    "a loop of variable length has no builtin op. Give the Keras model or its .keras file instead of a SavedModel, or "
    "build LSTM and GRU layers with unroll=True."
)
# What Keras or the user called, and the remedy, by the op that TensorFlow Lite lacks.
_MISSING = {
    "BitwiseAnd": "It comes from keras.ops.argmax or argmin: end the model before it and take the argmax outside.",
    "DenseBincount": "It comes from CategoryEncoding or bincount: encode the data before the model.",
    "ExtractImagePatches": "Use keras.ops.image.extract_patches, a convolution, instead of tf.image.extract_patches.",
    "FFT2D": "Multiply by the constant matrices of the transform instead, one for each axis and for each part.",
    "ResizeBicubic": "Resize with interpolation='bilinear' or 'nearest'.",
    "Unpack": "The size of a tensor depends on its values: use layers of fixed output shape.",
}
_WITHOUT_INT16 = re.compile(r"not yet supported for op: '(\w+)'")
_FLOAT_END = re.compile(r"Unsupported (input|output) type INT16 for \w+ tensor (\d+) of type FLOAT32")
_MOST_LAYERS = 3
_ELSE = "Replace it, or end the model before it and compute the rest outside of the model."


def explain(error: str) -> str:
    """The message for an error of the child process; errors of tfkd itself are returned unchanged.

    >>> explain("the converter refused the model: not yet supported for op: 'CUMSUM' <CUMSUM: m/sums/Cumsum>")[33:61]
    "CUMSUM (layer 'sums') cannot"
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
        return f"{_NO_OP} {', '.join(missing)}{doubles}. {remedy}"
    if unquantized := [*dict.fromkeys(_WITHOUT_INT16.findall(error))]:
        ops = ", ".join(f"{op}{_layers(op, error)}" for op in unquantized)
        return (
            f"{ops} cannot be quantized to int16. Convert with mode='dynamic_range', which leaves all activations in "
            "float, or with mode='full_int8' and allow_float=True, which leave only such ops in float."
        )
    if end := _FLOAT_END.search(error):
        return (
            f"{end[1]} {end[2]} stays in floating point, since an op on it, such as the comparison of Masking, has no "
            "form of 16 bits. Pass float_io=True, or convert with mode='dynamic_range'."
        )
    if unknown := re.search(
        r"Max and min for dynamic tensors should be recorded.*?Failed for tensor (\S+)", error, re.S
    ):
        return (
            f"mode='int16x8' needs a range of real numbers for {unknown[1]!r}. Received: none, as for token ids and "
            "the state of a random generator. Use mode='full_int8'."
        )
    first = re.search(r"error: (.+)", error) or re.search(r": (.+)", error)
    return (
        f"Use layers that TensorFlow Lite has builtin ops for; mode='float32' supports the most. Its message begins: "
        f"{first[1][:200] if first else error!r}"
    )


def add_layers(error: Exception, content: bytes) -> None:
    """Adds the tensors of the ops that an error says to have no int16 form to its text, which names the ops only.

    Args:
        error: Error of TensorFlow's quantizer; changed in place.
        content: The float .tflite that it refused.
    """
    graph = TFLiteModel.load(content).graph
    for name in dict.fromkeys(_WITHOUT_INT16.findall(str(error))):
        ops = [op for op in graph.ops if op.name == name]
        # The converter gives the outputs of the model a name without a layer; the op's input has one.
        inputs = ([graph.tensors[i].name for i in op.inputs if i >= 0] for op in ops)
        names = [[*layer_names.following(graph, op), *before] for op, before in zip(ops, inputs, strict=True)]
        places = [next(filter(layer_names.layer_part, tensors), tensors[0]) for tensors in names]
        error.args = (f"{error} <{name}: {' '.join(places)}>",)


def is_of_all_modes(message: str) -> bool:
    """Whether a message of `explain` is on an op that no mode and no quantizer has."""
    return _NO_OP in message or _LOOPS in message


def _layers(op: str, error: str) -> str:
    """The layers of an op, in brackets, as far as `add_layers` has added them."""
    places = re.search(rf"<{op}: ([^>]+)>", error)
    layers = [*dict.fromkeys(layer_names.path_of(place) for place in places[1].split(" "))] if places else []
    listed = ", ".join(repr(layer) for layer in layers[:_MOST_LAYERS])
    return f" (layer {listed}{', ...' if len(layers) > _MOST_LAYERS else ''})" if layers else ""


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
