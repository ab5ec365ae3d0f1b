"""What to tell a user about a finding: one sentence about the cause, and a remedy."""

from __future__ import annotations

import dataclasses

from tfkd.conversion.layer_errors import OpNoise
from tfkd.validation.diagnosis import Cause, Channels, Finding


@dataclasses.dataclass(frozen=True)
class Wording:
    """How remedies name the settings of the quantizer.

    Args:
        int16: Setting that gives a layer 16-bit activations; `{}` is the layer's name.
        keep_float: Setting that keeps a layer in float; `{}` is the layer's name.
        ranges: Setting of the calibration method; `{}` is the method.
        mode16: Setting that gives all layers 16-bit activations.
        refine: How to convert with `refine`.
    """

    int16: str
    keep_float: str
    ranges: str
    mode16: str
    refine: str


COMMAND_LINE = Wording(
    "--int16 '^{}$'",
    "--keep-float '^{}$'",
    "--range {}",
    "--mode int16x8",
    "with --refine",
)
PYTHON = Wording(
    'QuantizerSettings(int16=("^{}$",))',
    'QuantizerSettings(keep_float=("^{}$",))',
    'QuantizerSettings(ranges="{}")',
    "mode='int16x8'",
    "with refine=True",
)


def sentence(finding: Finding) -> str:
    """What the numbers say about the cause."""
    noise = finding.noise
    low, high = noise.limits or (noise.low, noise.high)
    used = f"{noise.steps_used} of {noise.steps} quantization steps"
    match finding.cause:
        case Cause.FLOAT:
            return "It computes in floating point."
        case Cause.INPUT_OUT_OF_RANGE:
            return f"{noise.saturated:.0%} of the input values are outside of {_calibrated(noise)}."
        case Cause.INPUT_RANGE_TOO_WIDE:
            return f"The input uses {used} of {_calibrated(noise)}."
        case Cause.INPUT_OUTLIER_FEATURE:
            return _outlier(noise, high - low).replace("Channel", "Feature").replace("channel", "feature")
        case Cause.CLIPPING:
            return (
                f"{noise.saturated:.1%} of its values are outside of its range {low:.3g}..{high:.3g} and are clipped; "
                f"they span {noise.low:.3g}..{noise.high:.3g}."
            )
        case Cause.SAME_SCALE:
            return f"The op must have the same scale as its input, and it uses {used}."
        case Cause.OUTLIER_CHANNEL:
            return _outlier(noise, high - low)
        case Cause.RANGE_TOO_WIDE:
            return (
                f"It uses {used}: its range {low:.3g}..{high:.3g} comes from rare, large values in the calibration "
                "samples."
            )
        case Cause.CONCATENATED:
            return (
                f"It uses {used}: its range {low:.3g}..{high:.3g} is that of the concatenation that it is a part of, "
                "whose other parts have larger values."
            )
        case Cause.INT4_WEIGHTS:
            return "Most of its noise comes from rounding its weights to 4 bits."
        case Cause.SHARED_WEIGHT_SCALE:
            return f"All its {len(noise.channel_peaks)} channels share one scale for the weights."
        case Cause.WEIGHT_ROUNDING:
            return (
                f"Most of its noise comes from rounding its weights, less from the {noise.steps} steps of its output."
            )
        case Cause.ROUNDING if noise.op == "INPUT":
            return "No fault found: its range is that of the data."
        case Cause.ROUNDING:
            return f"No fault found: the noise is that of rounding to {noise.steps} steps."


def remedy(finding: Finding, wording: Wording) -> str:
    """What to do about the cause.

    Args:
        finding: The layer.
        wording: `COMMAND_LINE` or `PYTHON`.
    """
    int16 = wording.int16.format(finding.layer)
    keep_float = wording.keep_float.format(finding.layer)
    match finding.cause:
        case Cause.FLOAT:
            return "Nothing to do."
        case Cause.INPUT_OUT_OF_RANGE | Cause.INPUT_RANGE_TOO_WIDE:
            return (
                "Calibrate with samples in the input range of the Keras model. The ranges of all other layers come "
                "from the same samples and are wrong too."
            )
        case Cause.INPUT_OUTLIER_FEATURE:
            return (
                "Normalize the features before the model instead of in it, in training, in calibration and on the "
                f"device; or use {wording.mode16}, which has 65,536 steps."
            )
        case Cause.CLIPPING:
            minimum_maximum = wording.ranges.format("min_max")
            return f"Calibrate with more samples, of all classes, and with {minimum_maximum}."
        case Cause.SAME_SCALE if finding.refinable:
            return "Convert it with tfkd: pooling of the whole image becomes MEAN, which has a scale of its own."
        case Cause.SAME_SCALE:
            return f"16-bit activations make the steps finer: {int16}."
        case Cause.OUTLIER_CHANNEL if finding.refinable:
            return (
                f"Convert {wording.refine}: its channels can be equalized in the weights before and behind, which "
                f"changes nothing in float. Otherwise use 16-bit activations ({int16})."
            )
        case Cause.OUTLIER_CHANNEL:
            return (
                f"Use 16-bit activations ({int16}) or float ({keep_float}) for it, or train it with clipped "
                "activations (ReLU6) or quantization-aware."
            )
        case Cause.RANGE_TOO_WIDE:
            percentile, mse = wording.ranges.format("percentile"), wording.ranges.format("mse")
            return f"Calibrate with {percentile} or {mse}, which exclude such values."
        case Cause.CONCATENATED:
            finer = wording.mode16 if finding.noise.op == "INPUT" else f"16-bit activations: {int16}"
            return (
                "Bring the parts of the concatenation into similar ranges, in the data or by BatchNormalization; or "
                f"use {finer}."
            )
        case Cause.INT4_WEIGHTS:
            return (
                f"Convert {wording.refine}, which rounds weights by the calibration samples; otherwise train it "
                "quantization-aware with 4 bits, or use 8-bit weights."
            )
        case Cause.SHARED_WEIGHT_SCALE:
            return "Convert it with one weight scale per channel."
        case Cause.WEIGHT_ROUNDING:
            return (
                f"Convert {wording.refine}, which rounds weights by the calibration samples; otherwise train it "
                f"quantization-aware, or keep it in float: {keep_float}."
            )
        case Cause.ROUNDING if finding.noise.op == "INPUT":
            return "Nothing to do."
        case Cause.ROUNDING:
            return f"16-bit activations reduce it: {int16}."


def _calibrated(noise: OpNoise) -> str:
    low, high = noise.limits or (noise.low, noise.high)
    return f"the calibrated range {low:g}..{high:g}; the data spans {noise.low:g}..{noise.high:g}"


def _outlier(noise: OpNoise, width: float) -> str:
    channels = Channels.of(noise.channel_peaks)
    if channels is None or noise.steps is None:
        return "One channel has much larger values than the others."
    steps = (noise.steps - 1) * channels.median_peak / width
    return (
        f"Channel {channels.largest} reaches {channels.peak:.3g}, {channels.ratio:.0f} times the median channel, to "
        f"which {steps:.1f} of {noise.steps} quantization steps are left."
    )
