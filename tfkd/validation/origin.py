"""Whether a .tflite was converted from a Keras model: its ops and weights are compared with a new float conversion."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.types import JsonObject
from tfkd.conversion.op_pairs import Pair, Pairs, pair_ops
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

# Weights that were rounded for the least error of the layer's output differ by more steps: their root mean square.
_MOST_CALIBRATED_STEPS = 1.5
# Quantization rounds a weight by half a step; the rest is room for the rounding of scales and of float16.
_MOST_STEPS = 0.55
_MOST_RELATIVE = 2e-3
# A bias may cancel the mean error of the rounded weights: of n weights with errors of up to half a step, times inputs
# of up to 255 steps. Errors of both signs add up to as many steps of the bias as the root of n, times 255.
_INPUT_STEPS = 255
# From this share of weights with a larger difference, they are other weights.
_DIFFERENT_SHARE = 0.02
# Options of an op that a conversion to integers may change.
_FREE_OPTIONS = ("asymmetricQuantizeInputs", "quantizedBiasType", "potScaleInt16", "weightsFormat", "keepNumDims")
# Ops that the conversion to integer activations replaces by each other, and one that other converters leave in place
# and that computes nothing.
_REPLACED = ("MEAN", "MUL", "NEG", "RESHAPE", "SUM")


def check(quantized: TFLiteModel, reference: TFLiteModel, layers: Mapping[str, str], model_name: str) -> None:
    """Refuses a .tflite that was not converted from a Keras model.

    Args:
        quantized: The .tflite, of any mode.
        reference: The Keras model converted to float32.
        layers: Result of `layer_names.by_tensor`.
        model_name: Name of the Keras model, for the message.

    Raises:
        ModelError: An op lacks a counterpart or has other options, or its weights differ by more than quantization
            explains.
    """
    paired = pair_ops(quantized.graph, reference.graph)
    other_ops = next(_other_ops(quantized, reference, paired, layers), None)
    if difference := other_ops or next(_other_weights(quantized, reference, paired, layers), None):
        raise ModelError(
            f"explain: {quantized.path or 'the .tflite'} was not converted from {model_name!r}"
            f"{' by tfkd' if other_ops else ''}: {difference}. Pass the .keras file that was converted: after "
            "quantization-aware training the trained model, and after pruning or clustering what `Optimized.student` "
            "returns, not the student that it started from."
            f"{' Convert it with tfkd where another converter wrote the .tflite.' if other_ops else ''}"
        )


def _other_ops(
    quantized: TFLiteModel, reference: TFLiteModel, paired: Pairs, layers: Mapping[str, str]
) -> Iterator[str]:
    for owner, model, places in (
        ("the .keras", quantized, paired.unmatched),
        ("the .tflite", reference, paired.missing),
    ):
        for op in (model.graph.ops[place] for place in places):
            if op.name in _REPLACED:
                continue
            tensor = model.graph.tensors[op.outputs[0]]
            # A fused op has joined the names of its ops by semicolons; the first is enough.
            name = layers.get(tensor.name, tensor.name).split(";")[0]
            yield f"{owner} has no {op.name} with an output of shape {tensor.shape}, which is {name!r} of the other"


def _other_weights(
    quantized: TFLiteModel, reference: TFLiteModel, paired: Pairs, layers: Mapping[str, str]
) -> Iterator[str]:
    for pair in paired.pairs:
        layer = layers.get(reference.graph.tensors[pair.reference_output].name, pair.op)
        if difference := _option_difference(quantized, reference, pair):
            yield f"{pair.op} of {layer!r} has {difference}"
        for index, counterpart in pair.constants:
            corrected = _corrected_steps(quantized, pair.weights) if index != pair.weights else 0.0
            if share := _different_share(quantized, reference, index, counterpart, corrected):
                yield f"{share:.0%} of the weights of {layer!r} differ by more than quantization explains"


def _option_difference(quantized: TFLiteModel, reference: TFLiteModel, pair: Pair) -> str:
    """An option of an op that differs, such as its strides or fused activation; empty without one."""
    a, b = _options(quantized, pair.place), _options(reference, pair.reference_place)
    for name, value in a.items():
        if name not in _FREE_OPTIONS and name in b and value != b[name]:
            return f"{name} {value} in the .tflite and {b[name]} in the .keras"
    return ""


def _options(model: TFLiteModel, place: int) -> JsonObject:
    op = schema.Model.GetRootAs(model.content, 0).Subgraphs(0).Operators(place)
    try:
        options = schema.OperatorT.InitFromObj(op).builtinOptions
    except (ValueError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{model.path}: the .tflite file is damaged: {error}. Copy or convert it again.") from None
    return {name: value for name, value in vars(options).items() if np.isscalar(value)} if options else {}


def _corrected_steps(quantized: TFLiteModel, weights: int | None) -> float:
    """How many of its steps the bias of a layer with these weights may be moved by its correction."""
    if weights is None or quantized.graph.tensors[weights].dtype not in ("int8", "int4"):
        return 0.0
    shape = quantized.graph.tensors[weights].shape
    return _INPUT_STEPS * float(np.sqrt(np.prod(shape) / max(len(quantized.graph.tensors[weights].scales), 1)))


def _different_share(
    quantized: TFLiteModel, reference: TFLiteModel, index: int, counterpart: int, corrected: float
) -> float:
    """The share of a constant's values that differ by more than quantization explains; 0 below the limit.

    Args:
        quantized: The quantized .tflite.
        reference: The float .tflite.
        index: Tensor index of the constant.
        counterpart: Its tensor index in the float .tflite.
        corrected: How many steps an int32 constant may differ by.
    """
    values, expected = quantized.constant(index), reference.constant(counterpart)
    if values is None or expected is None or expected.dtype != np.float32:
        return 0.0
    if values.size != expected.size:
        return 1.0
    tensor, expected = quantized.graph.tensors[index], expected.reshape(values.shape).astype("float64")
    steps: np.ndarray | float = 0.0
    if tensor.scales:
        shape = [-1 if axis == tensor.quantized_dimension else 1 for axis in range(values.ndim)]
        if len(tensor.scales) not in (1, values.shape[shape.index(-1)] if -1 in shape else 1):
            return 1.0
        steps, zeros = (np.reshape(one, shape if len(one) > 1 else ()) for one in (tensor.scales, tensor.zero_points))
        values = (values.astype("float64") - zeros) * steps
    most = max(_MOST_STEPS, corrected if tensor.dtype == "int32" else 0.0)
    tolerance = most * steps + _MOST_RELATIVE * np.abs(expected).max()
    difference = np.abs(values - expected)
    share = float(np.mean(difference > tolerance))
    if tensor.dtype in ("int8", "int4") and np.sqrt(np.mean(np.square(difference / steps))) < _MOST_CALIBRATED_STEPS:
        return 0.0
    return share if share > _DIFFERENT_SHARE else 0.0
