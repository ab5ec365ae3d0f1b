"""The layer at which a .tflite departs from the Keras model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import channel_slices, engines, layer_errors, layer_names
from tfkd.conversion.layer_errors import OpNoise
from tfkd.conversion.reference import Reference
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import TfkdError

_SAMPLES = 8
# Largest float16, and the magnitude below which it rounds to 0.
_LARGEST_HALF, _SMALLEST_HALF = 65504.0, 2.0**-25
# An op with a larger ratio of signal to noise of its own is not at fault.
_CLEAN_DB = 40.0
_SATURATED = 0.001

_REMEDIES = {
    "float32": "Build the layer of other operations.",
    "float16": "Convert with mode='float32' or mode='dynamic_range', or rescale the layer's constants.",
    "dynamic_range": "Convert with mode='float16', or build the layer of other operations.",
    "full_int8": "Try quantizer={other!r}, mode='int16x8' or mode='dynamic_range', or build it of other operations.",
    "int16x8": "Try quantizer={other!r}, mode='full_int8' or mode='dynamic_range', or build it of other operations.",
}


class Conversion(NamedTuple):
    """What is known of a conversion.

    Args:
        what: Description for messages: "converting m to full_int8".
        mode: Precision.
        quantizer: `tensorflow` or `litert`.
        layers: Result of `tfkd.conversion.layer_names.layers`; empty for a SavedModel.
        float32: Converts the same model to float32 and returns the .tflite.
        timeout_s: Time limit of each child process in seconds, > 0.
        clips: Whether outliers of activations are clipped on purpose.
    """

    what: str
    mode: str
    quantizer: str
    layers: Mapping[str, bool]
    float32: Callable[[], bytes]
    timeout_s: float
    clips: bool = False


def locate(model: TFLiteModel, reference: Reference, engine: str, conversion: Conversion) -> str:
    """Sentences on the layer at fault, as far as it is found, and on what to try.

    Args:
        model: The .tflite.
        reference: Samples and the Keras model's outputs, which differ from the .tflite's.
        engine: Engine with the largest difference.
        conversion: How the .tflite was made.
    """
    remedy = _REMEDIES[conversion.mode].format(other="litert" if conversion.quantizer == "tensorflow" else "tensorflow")
    try:
        place = _non_finite(model, reference, conversion) or (
            _between_engines(model, reference, engine, conversion) if engine != engines.PLAIN else ""
        )
        if not place and conversion.mode != "float32":
            place = _by_op(model, reference, conversion)
    except TfkdError as error:
        # The conversion to float32 or an engine failed; the mismatch itself is known.
        place = f"It could not be located ({error})."
    place = place or "No single layer causes it."
    return f"{place[0].upper()}{place[1:]} {remedy}"


def _non_finite(model: TFLiteModel, reference: Reference, conversion: Conversion) -> str:
    """A sentence on the first op that gives NaN or infinity; empty without one."""
    found = isolation.run(
        "tfkd.conversion.engines:first_non_finite",
        timeout_s=conversion.timeout_s,
        what=conversion.what,
        content=model.content,
        samples=_inputs(model, reference),
    )
    if found is None:
        return ""
    for constant in engines.constants(model.content):
        if constant.type == "FLOAT16" and not np.isfinite(constant.values).all():
            layer = _layer(constant.name, "", conversion)
            return f"{layer} has constants beyond {_LARGEST_HALF:,.0f}, the largest float16: {constant.name!r}."
    return f"The first NaN or infinity arises in {_op(found[0], found[1], conversion)}."


def _between_engines(model: TFLiteModel, reference: Reference, engine: str, conversion: Conversion) -> str:
    """A sentence on the first op that an engine computes unlike the plain kernels; empty without one."""
    found = isolation.run(
        "tfkd.conversion.engines:diverge",
        timeout_s=conversion.timeout_s,
        what=conversion.what,
        content=model.content,
        engine=engine,
        samples=_inputs(model, reference),
    )
    return f"{engine} and {engines.PLAIN} differ first in {_op(found[0], found[1], conversion)}." if found else ""


def _by_op(model: TFLiteModel, reference: Reference, conversion: Conversion) -> str:
    """A sentence on the op that adds the largest error of its own that rounding does not explain."""
    float32 = TFLiteModel.load(channel_slices.separate_as(conversion.float32(), model))
    if conversion.mode == "float16" and (cause := _lost_constants(float32, conversion)):
        return cause
    if len(model.inputs) != 1:
        return ""
    x = np.concatenate([sample[0] for sample in reference.inputs[:_SAMPLES]])
    noises, _ = layer_errors.measure(model, float32, x, timeout_s=conversion.timeout_s)
    worst = max(noises, key=_unexplained)
    if worst.sqnr_db > _CLEAN_DB:
        return ""
    sentence = (
        f"The largest error of its own has {_op(worst.op, worst.tensor, conversion, worst.weights)}: "
        f"{10 ** (-worst.sqnr_db / 20):.1%} of its signal"
    )
    if worst.limits and (worst.saturated or 0) > _SATURATED:
        low, high = worst.limits
        return (
            f"{sentence}; {worst.saturated:.1%} of its values lie outside of its quantized range {low:.3g}..{high:.3g}."
        )
    return f"{sentence}."


def _unexplained(noise: OpNoise) -> float:
    """The ratio of an op's own noise to its signal, without the part that rounding of its output explains."""
    return 10 ** (-noise.sqnr_db / 10) * (1 - (noise.rounding or 0.0))


def _lost_constants(float32: TFLiteModel, conversion: Conversion) -> str:
    """A sentence on constants that float16 cannot hold; empty without any."""
    for constant in engines.constants(float32.content):
        if constant.type != "FLOAT32":
            continue
        largest, nonzero = float(np.abs(constant.values).max()), np.abs(constant.values[constant.values != 0])
        layer = _layer(constant.name, "", conversion)
        if largest > _LARGEST_HALF:
            return f"{layer} has constants up to {largest:.3g}, beyond {_LARGEST_HALF:,.0f}, the largest float16."
        lost = float(np.mean(nonzero <= _SMALLEST_HALF)) if nonzero.size else 0.0
        if lost > 0.5:
            return f"{layer} has constants below 6e-8, the smallest float16: {lost:.0%} of them become 0."
    return ""


def _inputs(model: TFLiteModel, reference: Reference) -> list[list[np.ndarray]]:
    samples = reference.inputs[:_SAMPLES]
    return [[model.quantize_input(array, index) for index, array in enumerate(sample)] for sample in samples]


def _op(op: str, tensor: str, conversion: Conversion, weights: str = "") -> str:
    return f"{_layer(tensor, weights, conversion)} ({op}, tensor {tensor!r})"


def _layer(tensor: str, weights: str, conversion: Conversion) -> str:
    return f"layer {layer_names.layer_of(tensor, weights, conversion.layers)!r}"
