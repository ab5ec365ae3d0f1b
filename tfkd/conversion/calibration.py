"""Calibration samples: drawn from a split, audited, and refused where they would give a model wrong ranges."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd._internal.types import SampleData
from tfkd.conversion import input_samples, input_scale, signatures
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
from tfkd.data import Split, dense_labels, model_inputs
from tfkd.data.model_inputs import ModelInput
from tfkd.data.named_arrays import NamedArrays
from tfkd.data.streams import as_split, form_of
from tfkd.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import numpy.typing as npt

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
        forms: What is known of the inputs, in the same order; empty in the same case.
    """

    folder: Path
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    forms: tuple[ModelInput, ...] = ()

    @property
    def sample_shape(self) -> tuple[int | None, ...] | None:
        """Shape of one sample of a model with one input; None where there are several, or it is unknown."""
        return self.forms[0].shape if len(self.forms) == 1 else None

    def takes_several(self, data: SampleData) -> bool:
        """Whether data are to be read for several inputs: the model has them, or may have them and the data do."""
        return len(self.forms) > 1 if self.forms else input_samples.has_several(data)


def for_model(data: SampleData, source: Source) -> SampleData:
    """Calibration data as they are; of a split of several arrays, for a model with one input, the split of its array.

    Raises:
        InputError: The split has no such array.
    """
    if not isinstance(data, Split) or not isinstance(data.x, NamedArrays) or len(source.forms) != 1:
        return data

    def with_array(split: Split) -> Split:
        assert isinstance(split.x, NamedArrays)
        return dataclasses.replace(split, x=model_inputs.arrays_of(source.forms, split.x, "convert: the model")[0])

    held_out = None if data.held_out is None else with_array(data.held_out)
    return dataclasses.replace(with_array(data), held_out=held_out)


def choose(split: Split, count: int, seed: int) -> Split:
    """Draws `count` samples, stratified by class; returns the split itself where it has no more."""
    return split if len(split) <= count else split.sample(count, seed=seed)


def _advice(source: Source) -> str:
    if len(source.forms) > 1:
        names = ", ".join(one.keys[0] for one in source.forms)
        return (
            f"Pass a dict with an array for each input, {names}, or a tf.data.Dataset of such dicts; on the command "
            "line --calibration, a .npz with these arrays."
        )
    return "Pass the train split of tfkd.data.load; on the command line --calibration, the name or path of a data set."


class Calibration(NamedTuple):
    """Calibration samples.

    Args:
        samples: The samples, float32 where the model has one input.
        audit: Their audit.
        split: The same with their labels; None for a model with several inputs.
    """

    samples: Samples
    audit: CalibrationAudit
    split: Split | None = None


def draw(split: SampleData, source: Source, count: int, seed: int, mode: str) -> Calibration:
    """Draws and audits calibration samples, without running the model.

    Args:
        split: Train or validation split, or another form of data, see `tfkd.data.as_split`; for a model with several
            inputs see `input_samples.read`.
        source: The model to convert.
        count: Number of samples, >= 1, stratified by class where the model has one input.
        seed: Random seed of the draw.
        mode: Conversion mode, for messages.

    Raises:
        InputError: `split` may not be used for calibration, or the samples would give the model wrong ranges.
    """
    split = for_model(split, source)
    if split is not None and source.takes_several(split):
        if count < 1 or (isinstance(split, Split) and not len(split)):
            raise InputError(f"convert: calibration must have samples. Received: {min(count, 0)}. Use 100 or more.")
        chosen = None
        if isinstance(split, Split):
            split.require("train", "val", purpose="calibration")
            split = chosen = choose(split, count, seed)
        samples = input_samples.read(split, source.forms, count)
        where = f"convert: calibration from {form_of(split)}" if chosen is None else _where(chosen)
        return Calibration(samples, _audit_several(samples, where, chosen))
    if isinstance(split, Mapping):
        raise InputError(
            "convert: calibration of a model with one input must be a split, or data in a form that "
            f"tfkd.data.as_split takes. Received: arrays by name, {', '.join(map(str, split))}. Pass (x, y); in a "
            ".npz, x_train, y_train, x_test and y_test."
        )
    if split is None:
        raise InputError(f"convert: mode {mode!r} needs a calibration split. Received: none. {_advice(source)}")
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
    x = chosen.x.astype("float32")  # one array for all that follows
    chosen = dataclasses.replace(chosen, x=x)
    return Calibration(
        Samples((x,)), audit(chosen, of_ids=bool(source.forms) and _are_ids(source.forms[0].dtype)), chosen
    )


def with_accuracy(calibration: Calibration, model: keras.Model) -> Calibration:
    """Adds to the audit what a run of the Keras model on the labelled samples shows, for a model with one input.

    Args:
        calibration: The samples.
        model: The Keras model.

    Raises:
        InputError: The model was trained on another scale.
    """
    if calibration.split is None:
        return calibration
    audited = input_scale.audit(model, calibration.split, _where(calibration.split))
    extended = dataclasses.replace(
        calibration.audit,
        accuracy=audited.accuracy,
        accuracy_samples=audited.samples,
        findings=(*calibration.audit.findings, *audited.findings),
    )
    return calibration._replace(audit=extended)


def _are_ids(dtype: npt.DTypeLike) -> bool:
    """Whether values of a type are ids, such as those of tokens, which may look like noise and be equal by chance.

    Those are integers of more than 8 bits, since uint8 is the type of pixels.
    """
    return np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize > 1


def audit(chosen: Split, *, of_ids: bool = False) -> CalibrationAudit:
    """Computes statistics of calibration samples, and refuses those that would give a model wrong ranges.

    Args:
        chosen: The calibration samples, with their labels.
        of_ids: Whether they are ids of something, which may look like noise.

    Raises:
        InputError: The samples are not finite, constant, noise, in another range than the data, or in the test split.
    """
    x = chosen.x.astype("float32", copy=False)
    where = _where(chosen)
    if not np.isfinite(x).all():
        raise InputError(f"{where} must be finite. Received: NaN or infinity. Clean the data first.")
    if x.min() == x.max() or (len(x) > 1 and (x == x[0]).all()):
        raise InputError(f"{where} must vary. Received: {len(x)} equal samples, or one value. Use real samples.")
    held_out = chosen.held_out
    test_x: np.ndarray | None = None
    if held_out is not None and len(held_out):
        compared = min(_MAX_COMPARED, max(_FEWEST_COMPARED, _COMPARED_VALUES // int(np.prod(chosen.input_shape))))
        test_x = held_out.x[:: max(1, len(held_out) // compared)].astype("float32")
    _check_overlap(chosen)
    _check_range(where, x, test_x)
    if not of_ids and _looks_random(x, test_x):
        raise InputError(
            f"{where} must be real samples. Received: values in {x.min():g}..{x.max():g} that do not correlate with "
            "their neighbours, like noise. Use samples of the training data."
        )
    covered, total = _coverage(chosen)
    return CalibrationAudit(
        samples=len(x),
        minimum=float(x.min()),
        maximum=float(x.max()),
        mean=float(x.mean(dtype="float64")),
        classes_covered=covered,
        classes_total=total,
        digest=hashlib.sha256(np.ascontiguousarray(x).data).hexdigest(),
        overlap=0,
        findings=_findings(len(x), covered, total),
    )


def _check_overlap(chosen: Split) -> None:
    """Refuses samples that are also in the test split."""
    held_out = chosen.held_out
    if held_out is not None and len(chosen.overlap(held_out)):
        raise InputError(
            f"{_where(chosen)} must share no sample with the test split. Received: {chosen.equal_samples(held_out)}. "
            "Remove them from the training data: they make the test accuracy too high."
        )


def _audit_several(samples: Samples, where: str, chosen: Split | None) -> CalibrationAudit:
    """Computes statistics of samples of several inputs, and refuses those that would give a model wrong ranges.

    Args:
        samples: The samples.
        where: Their source, for messages.
        chosen: The same with their labels; None where there are none.
    """
    if len(samples) > 1 and all((array == array[0]).all() for array in samples.arrays):
        raise InputError(f"{where} must vary. Received: {len(samples)} equal samples. Use real samples.")
    overlap = 0
    if chosen is not None and all(_are_ids(array.dtype) for array in samples.arrays):
        overlap = 0 if chosen.held_out is None else len(chosen.overlap(chosen.held_out))
    elif chosen is not None:
        _check_overlap(chosen)
    covered, total = (0, 0) if chosen is None else _coverage(chosen)
    floats = [array for array in samples.arrays if array.dtype.kind == "f"] or samples.arrays
    digest = hashlib.sha256()
    for array in samples.arrays:
        digest.update(array.tobytes())
    return CalibrationAudit(
        samples=len(samples),
        minimum=min(float(array.min()) for array in floats),
        maximum=max(float(array.max()) for array in floats),
        mean=float(np.mean([array.mean(dtype="float64") for array in floats])),
        classes_covered=covered,
        classes_total=total,
        digest=digest.hexdigest(),
        overlap=overlap,
        findings=(*_findings(len(samples), covered, total), *_in_test(overlap), *_noise(samples)),
    )


def _in_test(overlap: int) -> Iterator[str]:
    if overlap:
        yield f"{overlap} samples are in the test split too: its accuracy is too high unless they are equal by chance."


def _noise(samples: Samples) -> Iterator[str]:
    """Findings on inputs whose values look like noise. Of several inputs, one may well be of unrelated features."""
    for name, array in zip(samples.names, samples.arrays, strict=True):
        if array.dtype.kind == "f" and array.min() < array.max() and _looks_random(array, None):
            yield f"The samples of input {name!r} look like noise: use samples of the training data."


def _coverage(chosen: Split) -> tuple[int, int]:
    """The number of classes, or of labels that may apply, with a sample, and of all; 0 for labels that are neither."""
    kind = chosen.label_kind
    if kind in ("abnormal", "identities"):  # training samples are normal, and test samples have other identities
        return 0, 0
    if kind in ("classes", "frames"):
        return len(np.unique(chosen.y[chosen.y >= 0])), chosen.num_classes
    if kind in ("masks", "boxes"):
        return len(dense_labels.classes_of(chosen.y, kind)), chosen.num_classes
    return int(chosen.y.any(axis=0).sum()) if kind == "multi_hot" else chosen.num_classes, chosen.num_classes


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


def saturation(model: TFLiteModel, samples: Samples) -> float | None:
    """The largest share of an input's values outside its quantized range, 0..1; None where no input is quantized.

    Args:
        model: The converted model.
        samples: Calibration samples.
    """
    shares = []
    ordered = samples.ordered(signatures.inputs_in_order(model.content)) if samples.names else samples
    for tensor, array in zip(model.inputs, ordered.arrays, strict=True):
        if tensor.scales:
            limits = np.iinfo(tensor.dtype)
            low, high = ((limit - tensor.zero_points[0]) * tensor.scales[0] for limit in (limits.min, limits.max))
            half_step = tensor.scales[0] / 2
            shares.append(float(np.mean((array < low - half_step) | (array > high + half_step))))
    return max(shares, default=None)
