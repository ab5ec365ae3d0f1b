"""The samples that a quantized model's ranges come from: drawn, audited, refused where they would mislead."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
from tfkd.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tfkd.data import Split


class Source(NamedTuple):
    """A SavedModel to convert."""

    folder: Path
    # The inputs in the model's own order, which a SavedModel forgets; empty where there was none.
    inputs: tuple[str, ...] = ()
    # The shape of one sample of a model with one input, where it is known.
    sample_shape: tuple[int, ...] | None = None
    # The factor of the model's own Rescaling of its input, if it has one.
    rescaling: float | None = None


def choose(split: Split, count: int, seed: int) -> Split:
    """So many samples, stratified; all where there are not more."""
    return split if len(split) <= count else split.sample(count, seed=seed)


def draw(split: Any, source: Source, count: int, seed: int, mode: str) -> tuple[np.ndarray, CalibrationAudit]:
    """Draws `count` samples, stratified, and audits them.

    Raises:
        ValueError: no split that may calibrate, or samples that would give the model wrong ranges.
    """
    if not hasattr(split, "require"):
        raise InputError(
            f"convert: mode {mode!r} needs a calibration split. Received: calibration={type(split).__name__}. "
            "Pass the train split of tfkd.data.load."
        )
    split.require("train", "val", purpose="calibration")
    if len(split) == 0 or count < 1:
        raise InputError(
            f"convert: calibration must have samples. Received: {min(len(split), count)}. Use 100 or more."
        )
    if len(source.inputs) > 1:
        raise InputError(
            f"convert: mode {mode!r} needs a model with one input. Received: {len(source.inputs)} inputs, "
            f"{', '.join(source.inputs)}. Use mode='dynamic_range'."
        )
    if source.sample_shape is not None and tuple(split.input_shape) != source.sample_shape:
        raise InputError(
            f"convert: calibration samples must have the model's input shape {source.sample_shape}. "
            f"Received: {tuple(split.input_shape)} from {split.name!r}. Give the data that the model was trained on."
        )
    chosen = choose(split, count, seed)
    return chosen.x.astype("float32"), audit(chosen, source.rescaling)


# Of the data that the model was made for, so many samples are enough to compare with.
_COMPARED = 1000


def audit(chosen: Split, rescaling: float | None) -> CalibrationAudit:
    """What the samples are; refuses those that would give the model wrong ranges."""
    x = chosen.x.astype("float32")
    where = f"convert: calibration from {chosen.name!r}"
    if not np.isfinite(x).all():
        raise InputError(f"{where} must be finite. Received: NaN or infinity. Clean the data first.")
    if x.min() == x.max() or (len(x) > 1 and (x == x[0]).all()):
        raise InputError(f"{where} must vary. Received: {len(x)} equal samples, or one value. Give real samples.")
    overlap = 0 if chosen.held_out is None else len(chosen.overlap(chosen.held_out))
    if overlap:
        raise InputError(
            f"{where} must share no sample with the test split. Received: {overlap} equal samples. "
            "Remove them from the training data: the test accuracy would not be honest."
        )
    held_out = None
    if chosen.held_out is not None and len(chosen.held_out):
        held_out = chosen.held_out.x[:: max(1, len(chosen.held_out) // _COMPARED)].astype("float32")
    _check_range(where, x, held_out, rescaling)
    if _looks_random(x, held_out):
        raise InputError(
            f"{where} must be real samples. Received: values in {x.min():g}..{x.max():g} that are unrelated to their "
            "neighbours, as noise is. Give samples of the training data."
        )
    covered = len(np.unique(chosen.y))
    findings = []
    if len(x) < 100:
        findings.append(f"{len(x)} samples are few: 100 or more give steadier ranges.")
    if covered < chosen.num_classes:
        findings.append(f"{chosen.num_classes - covered} of {chosen.num_classes} classes have no sample.")
    return CalibrationAudit(
        samples=len(x),
        minimum=float(x.min()),
        maximum=float(x.max()),
        mean=float(x.mean(dtype="float64")),
        classes_covered=covered,
        classes_total=chosen.num_classes,
        digest=hashlib.sha256(x.tobytes()).hexdigest(),
        overlap=overlap,
        findings=tuple(findings),
    )


def _check_range(where: str, x: np.ndarray, held_out: np.ndarray | None, rescaling: float | None) -> None:
    """Refuses samples of another scale than the test split's, or than the model's own Rescaling expects."""
    fix = "Give samples in the range that the model takes."
    if rescaling is not None and float(x.max() - x.min()) * rescaling < 1 / 32:
        raise InputError(
            f"{where} must suit the model, which multiplies its input by {rescaling:g} itself. "
            f"Received: {x.min():g}..{x.max():g}, which were scaled before. {fix}"
        )
    if held_out is None:
        return
    low, high = held_out.min(), held_out.max()
    beyond = float(np.mean((x < low) | (x > high)))
    # The deviation, not the span: one outlier makes a span.
    if beyond > 0.05 or x.std() < held_out.std() / 8:
        raise InputError(
            f"{where} must span the range of the data, {low:g}..{high:g}. Received: {x.min():g}..{x.max():g}, "
            f"{beyond:.0%} of it beyond. {fix}"
        )


def _looks_random(x: np.ndarray, held_out: np.ndarray | None) -> bool:
    """Whether values are unrelated to their neighbours, where those of the data are not.

    Neighbours are the next pixel, moment or band; images, sound and spectra correlate with them. Where the data itself
    has no such structure (tables, one-hot codes), uniform values are what gives noise away.
    """
    if x[0].size < 4 or _structure(x) > 0.1:
        return False
    if held_out is None:
        return _is_uniform(x)
    return _structure(held_out) > 0.3 or (_is_uniform(x) and not _is_uniform(held_out))


def _structure(x: np.ndarray) -> float:
    """The largest absolute correlation of neighbours along an axis of a sample; of images, not along the channels."""
    largest = 0.0
    for axis in range(1, x.ndim - (x.ndim == 4)):
        length = x.shape[axis]
        if length > 1:
            first, second = (np.take(x, np.arange(a, b), axis=axis).ravel() for a, b in ((0, length - 1), (1, length)))
            if first.std() > 0 and second.std() > 0:
                largest = max(largest, abs(float(np.corrcoef(first, second)[0, 1])))
    return largest


def _is_uniform(x: np.ndarray) -> bool:
    """Whether the values are spread evenly, by their Kolmogorov-Smirnov distance from the uniform distribution."""
    values = np.sort((x.ravel() - x.min()) / (x.max() - x.min()))
    return float(np.abs(values - np.linspace(0, 1, len(values))).max()) < 0.05


def saturation(model: TFLiteModel, samples: np.ndarray) -> float | None:
    """The share of input values beyond the input's quantized range; None where the input is not quantized."""
    tensor = model.inputs[0]
    if not tensor.scales:
        return None
    limits = np.iinfo(tensor.dtype)
    low, high = ((limit - tensor.zero_points[0]) * tensor.scales[0] for limit in (limits.min, limits.max))
    half_step = tensor.scales[0] / 2
    return float(np.mean((samples < low - half_step) | (samples > high + half_step)))
