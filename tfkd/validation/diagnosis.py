"""The most likely cause of the quantization noise of each layer, from the numbers of `conversion.layer_errors`.

The thresholds come from planted faults: a sound int8 layer has a signal-to-quantization-noise ratio (SQNR) of 30 dB and
more. The texts for a user are in `diagnosis_texts`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Container, Mapping, Sequence

import numpy as np

from tfkd.conversion import layer_errors
from tfkd.conversion.layer_errors import OpNoise

# Below this SQNR (median over the channels) a layer is at fault.
_FAULT_SQNR_DB = 25.0
# From this share of values outside of the quantized range, the range was calibrated too narrow.
_CLIPPED_SHARE = 0.01
# From this ratio between the peak of a channel and the median peak, the channel is an outlier.
_OUTLIER_RATIO = 16.0
# From this share of the noise that the step size of the output explains, the output range is the cause.
_ROUNDING_SHARE = 0.3
# Below these shares of the quantization steps in use, a range is too wide.
_USED_STEPS = 1 / 4
_USED_INPUT_STEPS = 1 / 16
# Ops whose output must have the scale of their input.
_SAME_SCALE_OPS = frozenset(
    {
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "RESHAPE",
        "PAD",
        "TRANSPOSE",
        "STRIDED_SLICE",
        "RESIZE_NEAREST_NEIGHBOR",
    }
)
# Ops that TensorFlow Lite supports with one weight scale per channel.
_PER_CHANNEL_OPS = frozenset({"CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


class Cause(enum.StrEnum):
    """Why a layer has quantization noise."""

    FLOAT = "float"
    """It computes in floating point."""
    ROUNDING = "rounding"
    """Nothing but the rounding that every quantized layer has."""
    INPUT_OUT_OF_RANGE = "input_out_of_range"
    """Values of the model's input lie outside of the range that it was calibrated for."""
    INPUT_RANGE_TOO_WIDE = "input_range_too_wide"
    """The model's input uses a small part of the range that it was calibrated for."""
    INPUT_OUTLIER_FEATURE = "input_outlier_feature"
    """One feature of the model's input is much larger than the others and determines the common step size."""
    CLIPPING = "clipping"
    """Values of the output lie outside of its quantized range."""
    OUTLIER_CHANNEL = "outlier_channel"
    """One channel has much larger values than the others and determines the common step size."""
    RANGE_TOO_WIDE = "range_too_wide"
    """The output uses a small part of its quantized range."""
    CONCATENATED = "concatenated"
    """The output uses a small part of the range of a concatenation, which its parts share."""
    SAME_SCALE = "same_scale"
    """The op must keep the scale of its input."""
    INT4_WEIGHTS = "int4_weights"
    """Weights are rounded to 4 bits."""
    SHARED_WEIGHT_SCALE = "shared_weight_scale"
    """All channels share one scale of the weights."""
    WEIGHT_ROUNDING = "weight_rounding"
    """The rounding of the weights, more than that of the output."""


_INPUT = frozenset({Cause.INPUT_OUT_OF_RANGE, Cause.INPUT_RANGE_TOO_WIDE, Cause.INPUT_OUTLIER_FEATURE})
_ALWAYS_AT_FAULT = _INPUT | {Cause.CLIPPING, Cause.OUTLIER_CHANNEL}
# The fault of a range that is kept is that of the layer it comes from.
_NEVER_AT_FAULT = frozenset({Cause.FLOAT, Cause.ROUNDING, Cause.SAME_SCALE})
# Noise of these causes arises in the layer itself, whatever its inputs are.
_INDEPENDENT = frozenset({Cause.FLOAT, Cause.ROUNDING, Cause.CLIPPING})


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channel with the largest values of a layer, compared with the others.

    Args:
        largest: Index of the channel.
        peak: Largest magnitude in it.
        median_peak: Median over all channels with non-zero values of their largest magnitude.
    """

    largest: int
    peak: float
    median_peak: float

    @property
    def ratio(self) -> float:
        """The peak relative to the median peak."""
        return self.peak / self.median_peak

    @classmethod
    def of(cls, peaks: Sequence[float]) -> Channels | None:
        """The channels with these peaks; None for fewer than three channels with non-zero values."""
        nonzero = [peak for peak in peaks if peak > 0]
        if len(nonzero) < 3:
            return None
        return cls(int(np.argmax(peaks)), max(peaks), float(np.median(nonzero)))


@dataclasses.dataclass(frozen=True)
class Finding:
    """One layer with its quantization noise and the most likely cause.

    Args:
        layer: Name of the Keras layer, or of the tensor where no layer is known; `input` for the model's input, of
            several `input NAME`.
        cause: The most likely cause.
        noise: The measured noise of the op.
        affected: Names of later layers whose noise comes from this one.
        refinable: Whether `tfkd.convert`, of channels with `refine`, takes away the noise without a change of the float
            model.
    """

    layer: str
    cause: Cause
    noise: OpNoise
    affected: tuple[str, ...] = ()
    refinable: bool = False

    @property
    def at_fault(self) -> bool:
        """Whether the layer has more noise than the rounding of a sound quantized layer."""
        if self.cause in _NEVER_AT_FAULT:
            return False
        return self.cause in _ALWAYS_AT_FAULT or self.noise.channel_sqnr_db < _FAULT_SQNR_DB


def diagnose(
    measured: Sequence[OpNoise],
    layers: Mapping[str, str],
    refinable: Container[str] = (),
    inputs: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """One finding for each input and for each op, in the order of execution.

    Args:
        measured: Result of `layer_errors.measure`.
        layers: Layer by tensor name of the reference, from `layer_names.by_tensor`.
        refinable: Names of the reference's tensors from `refinement.candidates`.
        inputs: Names of the inputs of a model with several.
    """
    named = iter([f"input {name}" for name in inputs] or ["input"])
    joined = _joined(measured)
    by_tensor: dict[str, Finding] = {}
    # An outlier channel widens the ranges of the ops behind it: here each such tensor, with the tensor where it began.
    outlier_origin: dict[str, str] = {}
    for noise in measured:
        layer = next(named) if noise.op == "INPUT" else layers.get(noise.reference, noise.tensor)
        cause = find_cause(noise)
        if cause in (Cause.RANGE_TOO_WIDE, Cause.INPUT_RANGE_TOO_WIDE) and joined.get(noise.tensor) == noise.limits:
            cause = Cause.CONCATENATED
        outlier = next((outlier_origin[source] for source in noise.sources if source in outlier_origin), None)
        kept = next((source for source in noise.sources if source in by_tensor), None)
        origin = outlier or (kept if cause == Cause.SAME_SCALE else None)
        if origin and cause not in _INDEPENDENT:
            first = by_tensor[origin]
            by_tensor[origin] = dataclasses.replace(first, affected=(*first.affected, layer))
        if cause in (Cause.OUTLIER_CHANNEL, Cause.INPUT_OUTLIER_FEATURE) or (cause == Cause.SAME_SCALE and outlier):
            outlier_origin[noise.tensor] = outlier or noise.tensor
        by_tensor[noise.tensor] = Finding(layer, cause, noise, refinable=noise.reference in refinable)
    return tuple(by_tensor.values())


def _joined(measured: Sequence[OpNoise]) -> dict[str, tuple[float, float] | None]:
    """The range of the concatenation that each of its parts shares, by the name of the tensor."""
    found: dict[str, tuple[float, float] | None] = {}
    for noise in reversed(measured):
        if noise.op == "CONCATENATION" or (noise.tensor in found and noise.op in _SAME_SCALE_OPS):
            found |= dict.fromkeys(noise.sources, noise.limits)
    return found


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, the most important first: causes before the layers that they affect."""
    sqnr_db = {finding.layer: finding.noise.channel_sqnr_db for finding in findings}
    affected = {layer for finding in findings for layer in finding.affected}

    def key(finding: Finding) -> tuple[bool, bool, bool, float]:
        # A wrong input range spoils all other ranges, which were calibrated with the same samples. A cause counts as
        # much as the worst layer that it affects.
        worst = min(sqnr_db[layer] for layer in (finding.layer, *finding.affected))
        return finding.cause not in _INPUT, finding.layer in affected, not finding.at_fault, worst

    return sorted(findings, key=key)


def find_cause(noise: OpNoise) -> Cause:
    """The most likely cause of the noise of one op."""
    if noise.steps is None or noise.steps_used is None or noise.limits is None:
        return Cause.FLOAT
    exact = noise.sqnr_db >= layer_errors.EXACT_DB
    clipped = (noise.saturated or 0) > _CLIPPED_SHARE
    if noise.op == "INPUT":
        if clipped:
            return Cause.INPUT_OUT_OF_RANGE
        if noise.steps_used < noise.steps * _USED_INPUT_STEPS and not exact:
            return Cause.INPUT_RANGE_TOO_WIDE
        # A table that the model itself normalizes: features of one tensor in different units.
        features = Channels.of(noise.channel_peaks)
        unequal = features is not None and features.ratio >= _OUTLIER_RATIO
        return Cause.INPUT_OUTLIER_FEATURE if unequal and noise.channel_sqnr_db < _FAULT_SQNR_DB else Cause.ROUNDING
    if clipped:
        return Cause.CLIPPING
    if (noise.rounding or 0.0) > _ROUNDING_SHARE:
        return _range_cause(noise, noise.steps_used / noise.steps)
    if noise.weight_dtype in (None, "float32", "int32") or exact:  # int32: axes and shapes, such as those of MEAN
        return Cause.ROUNDING
    if noise.weight_dtype == "int4":
        return Cause.INT4_WEIGHTS
    if noise.weight_scales == 1 and len(noise.channel_peaks) > 1 and noise.op in _PER_CHANNEL_OPS:
        return Cause.SHARED_WEIGHT_SCALE
    return Cause.WEIGHT_ROUNDING


def _range_cause(noise: OpNoise, used_steps: float) -> Cause:
    """The cause where the step size of the output explains the noise."""
    if noise.op in _SAME_SCALE_OPS:
        return Cause.SAME_SCALE
    channels = Channels.of(noise.channel_peaks)
    if channels and channels.ratio >= _OUTLIER_RATIO:
        return Cause.OUTLIER_CHANNEL
    return Cause.RANGE_TOO_WIDE if used_steps < _USED_STEPS else Cause.ROUNDING
