"""The layer at which a .tflite departs from the Keras model that it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import engines, keras_calls, layer_errors, layer_names, refinement
from tfkd.conversion.engines import Sample, Written
from tfkd.conversion.keras_calls import Call
from tfkd.conversion.layer_errors import OpNoise
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.reference import Reference
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import TfkdError

_SAMPLES = 8
# Largest float16, and the magnitude below which it rounds to 0.
_LARGEST_HALF, _SMALLEST_HALF = 65504.0, 2.0**-25
# An op with a larger ratio of signal to noise of its own is not at fault.
_CLEAN_DB = 40.0
# Below this ratio in the median channel, and so far below the ratio of all values, large values hide small ones.
_HIDDEN_DB, _HIDING_DB = 20.0, 20.0
_SATURATED = 0.001


class Alternative(NamedTuple):
    """Another way to convert the same model.

    Args:
        mode: Precision.
        quantizer: `tensorflow` or `litert`.
        int16: Name of a layer with int16 activations, for `litert`; empty for none.
    """

    mode: str
    quantizer: str
    int16: str = ""

    @property
    def settings(self) -> QuantizerSettings | None:
        """The settings of litert-quantizer, or None for TensorFlow's own quantizer."""
        layers = (f"^{re.escape(self.int16)}$",) if self.int16 else ()
        return QuantizerSettings(int16=layers) if self.quantizer == "litert" else None

    def __str__(self) -> str:
        layer = f" and int16={self.settings.int16[0]!r}" if self.settings and self.int16 else ""
        return f"mode={self.mode!r} with quantizer={self.quantizer!r}{layer}"


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
        calls: Records the calls of the layers of the Keras model on one sample, see `tfkd.conversion.keras_calls`; None
            for a SavedModel.
        agrees: Converts the model in another way and returns whether the result agrees with the model; None where
            nothing else is to be tried.
    """

    what: str
    mode: str
    quantizer: str
    layers: Mapping[str, bool]
    float32: Callable[[], bytes]
    timeout_s: float
    clips: bool = False
    calls: Callable[[Sample], list[Call]] | None = None
    agrees: Callable[[Alternative], bool] | None = None


class _Place(NamedTuple):
    """Where an error arises: a sentence on it, and the name of the layer where it is one."""

    text: str
    layer: str = ""


def locate(model: TFLiteModel, reference: Reference, engine: str, conversion: Conversion) -> str:
    """Sentences on the layer at fault, as far as it is found, and on what helps.

    Args:
        model: The .tflite.
        reference: Samples and the Keras model's outputs, which differ from the .tflite's.
        engine: Engine with the largest difference.
        conversion: How the .tflite was made.
    """
    try:
        place = _non_finite(model, reference, conversion) or (
            _between_engines(model, reference, engine, conversion) if engine != engines.PLAIN else None
        )
        if not place and conversion.mode != "float32":
            place = _by_op(model, reference, conversion)
        place = place or _by_layer(model, reference, conversion)
    except TfkdError as error:
        # The conversion to float32 or an engine failed; the mismatch itself is known.
        place = _Place(f"It could not be located ({error}).")
    place = place or _Place("No single layer causes it.")
    return f"{place.text[0].upper()}{place.text[1:]} {remedy(conversion, place.layer)}"


def refused(model: TFLiteModel, error: TfkdError, conversion: Conversion) -> str:
    """Sentences on a .tflite that an engine does not run: the layer, where the engine names the op, and what helps."""
    place, graph = "", model.graph
    if (found := re.search(r"Node number (\d+) \((\w+)\)", str(error))) and int(found[1]) < len(graph.ops):
        op = graph.ops[int(found[1])]
        if op.name == found[2]:
            place = f" It is {_op(op.name, graph.tensors[op.outputs[0]].name, conversion)}."
    return f"{str(error).rstrip('.')}.{place} {remedy(conversion, '')}"


def remedy(conversion: Conversion, layer: str = "") -> str:
    """A sentence on the first other conversion that agrees with the model.

    Args:
        conversion: How the .tflite was made, or was to be made.
        layer: Name of the layer at fault; empty where it is not known.
    """
    others = _alternatives(conversion, layer) if conversion.agrees else []
    for other in others:
        if conversion.agrees and conversion.agrees(other):
            return f"Use {other}: it was tried, and agrees with the model."
    tried = f" {'; '.join(map(str, others))}: tried, and no better." if others else ""
    return f"Build the layer of other operations, or rescale its weights and inputs.{tried}"


def _alternatives(conversion: Conversion, layer: str) -> list[Alternative]:
    """Other conversions, those that change the file's size and speed least first."""
    same, other = conversion.quantizer, "litert" if conversion.quantizer == "tensorflow" else "tensorflow"
    if conversion.mode == "float32":
        return []
    if conversion.mode == "float16":
        return [Alternative("dynamic_range", "tensorflow"), Alternative("float32", "tensorflow")]
    last = [Alternative("float16", "tensorflow"), Alternative("float32", "tensorflow")]
    if conversion.mode == "dynamic_range":
        return [Alternative("dynamic_range", other), *last]
    integers = [Alternative(conversion.mode, other)]
    if conversion.mode == "full_int8":
        integers += [Alternative("full_int8", "litert", layer)] if layer else []
        integers += [Alternative("int16x8", one) for one in (same, other)]
    return [*integers, Alternative("dynamic_range", "tensorflow"), *last]


def _non_finite(model: TFLiteModel, reference: Reference, conversion: Conversion) -> _Place | None:
    """The first op that gives NaN or infinity."""
    found = isolation.run(
        "tfkd.conversion.engines:first_non_finite",
        prepare="tfkd.conversion.litert:load",
        timeout_s=conversion.timeout_s,
        what=conversion.what,
        content=model.content,
        samples=_inputs(model, reference),
    )
    if found is None:
        return None
    for constant in engines.constants(model.content):
        if constant.type == "FLOAT16" and not np.isfinite(constant.values).all():
            layer = _layer(constant.name, "", conversion)
            return _Place(f"{layer} has constants beyond {_LARGEST_HALF:,.0f}, the largest float16: {constant.name!r}.")
    return _Place(f"The first NaN or infinity arises in {_op(found[0], found[1], conversion)}.")


def _between_engines(model: TFLiteModel, reference: Reference, engine: str, conversion: Conversion) -> _Place | None:
    """The first op that an engine computes unlike the plain kernels."""
    found = isolation.run(
        "tfkd.conversion.engines:diverge",
        prepare="tfkd.conversion.litert:load",
        timeout_s=conversion.timeout_s,
        what=conversion.what,
        content=model.content,
        engine=engine,
        samples=_inputs(model, reference),
    )
    if not found:
        return None
    return _Place(f"{engine} and {engines.PLAIN} differ first in {_op(found[0], found[1], conversion)}.")


def _by_op(model: TFLiteModel, reference: Reference, conversion: Conversion) -> _Place | None:
    """The op that adds the largest error of its own that rounding does not explain."""
    float32 = TFLiteModel.load(refinement.refine_as(conversion.float32(), model))
    if conversion.mode == "float16" and (cause := _lost_constants(float32, conversion)):
        return _Place(cause)
    arrays = map(np.concatenate, zip(*reference.inputs[:_SAMPLES], strict=True))
    noises, _ = layer_errors.measure(model, float32, Samples(tuple(arrays)), timeout_s=conversion.timeout_s)
    worst = max(noises, key=_unexplained)
    hidden = _hidden(noises, conversion)
    if worst.sqnr_db > _CLEAN_DB:
        return hidden
    sentence = (
        f"The largest error of its own has {_op(worst.op, worst.tensor, conversion, worst.weights)}: "
        f"{10 ** (-worst.sqnr_db / 20):.1%} of its signal"
    )
    if worst.limits and (worst.saturated or 0) > _SATURATED:
        low, high = worst.limits
        sentence += f"; {worst.saturated:.1%} of its values lie outside of its quantized range {low:.3g}..{high:.3g}"
    doubt = f" Or {hidden.text[0].lower()}{hidden.text[1:]}" if hidden and hidden.layer not in sentence else ""
    return _Place(f"{sentence}.{doubt}", layer_names.layer_of(worst.tensor, worst.weights, conversion.layers))


def _hidden(noises: Sequence[OpNoise], conversion: Conversion) -> _Place | None:
    """The op whose rounding takes most from its small channels, which the ratio of all values does not show."""
    hiding = [
        one for one in noises if one.channel_sqnr_db < min(_HIDDEN_DB, one.sqnr_db - _HIDING_DB) and one.op != "INPUT"
    ]
    if not hiding:
        return None
    most = min(hiding, key=lambda one: one.channel_sqnr_db)
    return _Place(
        f"The cause is {_op(most.op, most.tensor, conversion, most.weights)}: some of its channels are so much larger "
        f"than the others that rounding changes half of them by {10 ** (-most.channel_sqnr_db / 20):.1%} of their "
        "signal or more.",
        layer_names.layer_of(most.tensor, most.weights, conversion.layers),
    )


def _by_layer(model: TFLiteModel, reference: Reference, conversion: Conversion) -> _Place | None:
    """The first layer that the float .tflite does not compute as Keras does."""
    if conversion.calls is None:
        return None
    content = model.content if conversion.mode == "float32" else conversion.float32()
    tensors: list[Written] = isolation.run(
        "tfkd.conversion.engines:written",
        prepare="tfkd.conversion.litert:load",
        timeout_s=conversion.timeout_s,
        what=conversion.what,
        content=content,
        sample=reference.inputs[0],
    )
    wrong = keras_calls.different(conversion.calls(reference.inputs[0]), [one.values for one in tensors])
    if not wrong:
        return None
    first, share = wrong[0]
    # The first layers may have no op of their own, since the converter joins them with the next.
    ops = {
        path: one
        for one in reversed(tensors)
        for names in (one.constant, one.name)
        for path in layer_names.known_layers(names, conversion.layers)
    }
    call, share = next(((call, share) for call, share in wrong if call.path in ops), (first, share))
    joined = f", computed together with {first.path!r}" if call.path != first.path else ""
    size = f"by {share:.2%} of its range" if np.isfinite(share) else "there is no tensor of its size"
    op = f" ({ops[call.path].op}, tensor {ops[call.path].name!r})" if call.path in ops else ""
    return _Place(
        f"The first that the float32 .tflite computes in another way is layer {call.path!r}{op}{joined}: {size}.",
        call.path,
    )


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
