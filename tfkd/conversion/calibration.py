"""Calibration samples: drawn from a split, audited, and refused where they would give a model wrong ranges."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd._internal.types import SampleData
from tfkd.conversion import input_scale
from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
from tfkd.data.streams import as_split
from tfkd.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from tfkd.data import Split

# Number of test samples that the calibration samples are compared with.
_MAX_COMPARED = 1000
# Fewer of large samples: about as many values.
_FEWEST_COMPARED, _COMPARED_VALUES = 32, 10_000_000
# The correlation of neighbouring values is that of about as many.
_CORRELATED_VALUES = 5_000_000
# Fewer samples than this are a finding of the audit.
_FEW_SAMPLES = 100
# Limits of the checks, chosen so that data of the right kind passes with a wide margin.
_MAX_OUTSIDE = 0.05  # share of values outside the range of the test split
_MIN_DEVIATION_RATIO = 1 / 8  # standard deviation over that of the test split
_NOISE_CORRELATION = 0.1  # neighbouring values of noise correlate less
_DATA_CORRELATION = 0.3  # neighbouring values of images, sound and spectra correlate more
_UNIFORM_DISTANCE = 0.05  # largest Kolmogorov-Smirnov distance of uniform noise


class Source(NamedTuple):
    """A SavedModel to convert.

    Args:
        folder: Folder of the SavedModel.
        inputs: Names of the inputs in the order of the Keras model, which a SavedModel does not keep; empty where the
            user gave a SavedModel.
        outputs: Names of the outputs in the same order; empty in the same case.
        sample_shape: Shape of one sample of a model with one input, or None where it is unknown.
    """

    folder: Path
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    sample_shape: tuple[int, ...] | None = None


def choose(split: Split, count: int, seed: int) -> Split:
    """Draws `count` samples, stratified by class; returns the split itself where it has no more."""
    return split if len(split) <= count else split.sample(count, seed=seed)


def draw(split: SampleData, source: Source, count: int, seed: int, mode: str) -> tuple[Split, CalibrationAudit]:
    """Draws and audits calibration samples, without running the model.

    Args:
        split: Train or validation split, or another form of data, see `tfkd.data.as_split`.
        source: The model to convert.
        count: Number of samples, >= 1, stratified by class.
        seed: Random seed of the draw.
        mode: Conversion mode, for messages.

    Returns:
        The samples and their audit.

    Raises:
        InputError: `split` may not be used for calibration, or the samples would give the model wrong ranges.
    """
    if len(source.inputs) > 1:
        raise InputError(
            f"convert: mode {mode!r} needs a model with one input. Received: {len(source.inputs)} inputs, "
            f"{', '.join(source.inputs)}. Use mode='dynamic_range'."
        )
    if isinstance(split, np.ndarray):
        raise InputError(
            f"convert: calibration must be a split, or data in a form that tfkd.data.as_split takes. Received: an "
            f"array of shape {split.shape}. Pass (x, y) with its labels, or lambda: ([sample[None]] for sample in x)."
        )
    if split is None:
        raise InputError(
            f"convert: mode {mode!r} needs a calibration split. Received: calibration={type(split).__name__}. "
            "Pass the train split of tfkd.data.load; on the command line, the name or path of a data set."
        )
    split = as_split(split, "train", draw=max(1, count), labelled=False)
    split.require("train", "val", purpose="calibration")
    if len(split) == 0 or count < 1:
        raise InputError(
            f"convert: calibration must have samples. Received: {min(len(split), count)}. Use 100 or more."
        )
    if source.sample_shape is not None and tuple(split.input_shape) != source.sample_shape:
        raise InputError(
            f"convert: calibration samples must have the model's input shape {source.sample_shape}. "
            f"Received: {tuple(split.input_shape)} from {split.name!r}. Use the data that the model was trained on."
        )
    chosen = choose(split, count, seed)
    return chosen, audit(chosen)


def with_accuracy(result: CalibrationAudit, model: keras.Model, chosen: Split) -> CalibrationAudit:
    """Adds to an audit what a run of the Keras model on the labelled samples shows.

    Args:
        result: The audit.
        model: The Keras model.
        chosen: The calibration samples.

    Raises:
        InputError: The model was trained on another scale.
    """
    accuracy, findings = input_scale.audit(model, chosen, _where(chosen))
    return dataclasses.replace(result, accuracy=accuracy, findings=(*result.findings, *findings))


def audit(chosen: Split) -> CalibrationAudit:
    """Computes statistics of calibration samples, and refuses those that would give a model wrong ranges.

    Args:
        chosen: The calibration samples, with their labels.

    Raises:
        InputError: The samples are not finite, constant, noise, in another range than the data, or in the test split.
    """
    x = chosen.x.astype("float32")
    where = _where(chosen)
    if not np.isfinite(x).all():
        raise InputError(f"{where} must be finite. Received: NaN or infinity. Clean the data first.")
    if x.min() == x.max() or (len(x) > 1 and (x == x[0]).all()):
        raise InputError(f"{where} must vary. Received: {len(x)} equal samples, or one value. Use real samples.")
    held_out, overlap = chosen.held_out, 0
    test_x: np.ndarray | None = None
    if held_out is not None:
        overlap = len(chosen.overlap(held_out))
        if len(held_out):
            compared = min(_MAX_COMPARED, max(_FEWEST_COMPARED, _COMPARED_VALUES // int(np.prod(chosen.input_shape))))
            test_x = held_out.x[:: max(1, len(held_out) // compared)].astype("float32")
    if held_out is not None and overlap:
        raise InputError(
            f"{where} must share no sample with the test split. Received: {chosen.equal_samples(held_out)}. "
            "Remove them from the training data: they make the test accuracy too high."
        )
    _check_range(where, x, test_x)
    if _looks_random(x, test_x):
        raise InputError(
            f"{where} must be real samples. Received: values in {x.min():g}..{x.max():g} that do not correlate with "
            "their neighbours, like noise. Use samples of the training data."
        )
    covered = _covered(chosen)
    return CalibrationAudit(
        samples=len(x),
        minimum=float(x.min()),
        maximum=float(x.max()),
        mean=float(x.mean(dtype="float64")),
        classes_covered=covered,
        classes_total=chosen.num_classes,
        digest=hashlib.sha256(x.tobytes()).hexdigest(),
        overlap=overlap,
        findings=_findings(len(x), covered, chosen.num_classes),
    )


def _covered(chosen: Split) -> int:
    """The number of classes, or of labels that may apply, that have a sample; of values all outputs are covered."""
    if chosen.label_kind == "classes":
        return len(np.unique(chosen.y))
    return int(chosen.y.any(axis=0).sum()) if chosen.label_kind == "multi_hot" else chosen.num_classes


def _findings(samples: int, covered: int, classes: int) -> tuple[str, ...]:
    findings = []
    if samples < _FEW_SAMPLES:
        findings.append(f"Only {samples} samples: use {_FEW_SAMPLES} or more for stable ranges.")
    if covered < classes:
        findings.append(f"{classes - covered} of {classes} classes have no sample.")
    return tuple(findings)


def _where(chosen: Split) -> str:
    return f"convert: calibration from {chosen.name!r}"


def _check_range(where: str, x: np.ndarray, test_x: np.ndarray | None) -> None:
    """Refuses samples in another range than the test split."""
    if test_x is None:
        return
    low, high = test_x.min(), test_x.max()
    outside = float(np.mean((x < low) | (x > high)))
    # The standard deviation rather than the span, since one outlier is enough to widen a span.
    if outside > _MAX_OUTSIDE or x.std() < test_x.std() * _MIN_DEVIATION_RATIO:
        raise InputError(
            f"{where} must span the range of the data, {low:g}..{high:g}. Received: {x.min():g}..{x.max():g}, "
            f"{outside:.0%} of it outside. Use samples in the range that the model takes."
        )


def _looks_random(x: np.ndarray, test_x: np.ndarray | None) -> bool:
    """Whether neighbouring values of the samples do not correlate although those of the data do.

    Neighbours are adjacent pixels, time steps or frequency bands. Where the data itself has no such correlation
    (tables, one-hot codes), the samples are random if they are uniformly distributed and the data is not.
    """
    if x[0].size < 4 or _neighbour_correlation(x) > _NOISE_CORRELATION:
        return False
    if test_x is None:
        return _is_uniform(x)
    return _neighbour_correlation(test_x) > _DATA_CORRELATION or (_is_uniform(x) and not _is_uniform(test_x))


def _neighbour_correlation(x: np.ndarray) -> float:
    """The largest absolute correlation of neighbours along any axis of a sample but the channels of an image."""
    largest = 0.0
    x = x[:: max(1, x.size // _CORRELATED_VALUES)]  # the arrays below take ten times the memory of x
    for axis in range(1, x.ndim - (x.ndim == 4)):
        length = x.shape[axis]
        if length > 1:
            first, second = (np.take(x, np.arange(a, b), axis=axis).ravel() for a, b in ((0, length - 1), (1, length)))
            if first.std() > 0 and second.std() > 0:
                largest = max(largest, abs(float(np.corrcoef(first, second)[0, 1])))
    return largest


def _is_uniform(x: np.ndarray) -> bool:
    """Whether the values are uniformly distributed, by their Kolmogorov-Smirnov distance."""
    values = np.sort((x.ravel() - x.min()) / (x.max() - x.min()))
    return float(np.abs(values - np.linspace(0, 1, len(values))).max()) < _UNIFORM_DISTANCE


def saturation(model: TFLiteModel, samples: np.ndarray) -> float | None:
    """The share of input values outside the input's quantized range, 0..1; None where the input is not quantized.

    Args:
        model: The converted model.
        samples: [N, ...] calibration samples.
    """
    tensor = model.inputs[0]
    if not tensor.scales:
        return None
    limits = np.iinfo(tensor.dtype)
    low, high = ((limit - tensor.zero_points[0]) * tensor.scales[0] for limit in (limits.min, limits.max))
    half_step = tensor.scales[0] / 2
    return float(np.mean((samples < low - half_step) | (samples > high + half_step)))
