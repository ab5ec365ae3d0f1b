"""The work of `tfkd convert`: a .tflite in one precision or a mix of precisions, and golden vectors."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd import data, models
from tfkd._internal.types import JsonObject, SampleData
from tfkd.conversion import converter
from tfkd.conversion.quantizer import QuantizerSettings, select
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data.sources import npz
from tfkd.errors import InputError
from tfkd.optimization import mixed_precision
from tfkd.optimization.mixed_precision import Trial
from tfkd.recipes.model_input import ModelInput
from tfkd.validation import golden

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = ["Job", "convert", "parse_shape", "select"]


@dataclasses.dataclass(frozen=True)
class Job:
    """One conversion.

    Args:
        model: .keras or .h5 file, or folder of a SavedModel.
        out: .tflite file to write.
        mode: Precision, see `tfkd.convert`.
        output: `logits` or `softmax`: what the .tflite returns; None for what the model returns.
        input_shape: Shape of one sample, for a model that leaves dimensions open; None for the model's own.
        model_input: What the model expects for the pixels of images; the .tflite scales them itself.
        calibration: Data set whose train split calibrates, or a .npz with an array for each of several inputs; None
            for none.
        calibration_samples: Number of calibration samples, >= 1.
        float_io: Whether a quantized model keeps float32 inputs and outputs.
        allow_float: Whether ops may stay in float in a quantized model.
        check: Whether the .tflite is compared with the model.
        allow_mismatch: Whether a .tflite that computes something else is written, with a finding.
        refine: Whether int8 may change ranges, channels and biases where that reduces the error.
        rounding: How weights are rounded, `nearest` or `calibrated`.
        settings: Settings of the LiteRT quantizer; None for TensorFlow's converter.
        accuracy_drop: Percentage points of accuracy that a mix of precisions may lose; None for no search.
        target: Target on which the search measures accuracy.
        golden: Number of golden vectors to write, >= 0.
        seed: Seed of the draw of samples, >= 0.
        overwrite: Whether existing files are replaced.
    """

    model: Path | keras.Model
    out: Path
    mode: str = "full_int8"
    output: str | None = None
    input_shape: tuple[int, ...] | None = None
    model_input: ModelInput = ModelInput()
    calibration: str | data.Request | None = None
    calibration_samples: int = 256
    float_io: bool = False
    allow_float: bool = False
    check: bool = True
    allow_mismatch: bool = False
    refine: bool = False
    rounding: str = "calibrated"
    settings: QuantizerSettings | None = None
    accuracy_drop: float | None = None
    target: str = "host:plain"
    golden: int = 0
    seed: int = 0
    overwrite: bool = False

    @property
    def stem(self) -> str:
        """The path of the golden vectors, without suffix."""
        return f"{self.out.with_suffix('')}.golden"


def convert(job: Job, *, on_trial: Callable[[str], None] = lambda line: None) -> JsonObject:
    """Converts a model, and writes golden vectors if there are to be some.

    Args:
        job: The conversion.
        on_trial: Called with a line on each model that the search tries.

    Returns:
        `tfkd.TFLiteModel.to_json`, findings, trials, files, seconds and peak memory, as JSON values.

    Raises:
        InputError: Options that exclude each other; see also `tfkd.convert`.
    """
    _check(job)
    started = time.monotonic()
    arrays = _arrays(job)
    splits = None if job.calibration is None or arrays is not None else data.load(job.calibration)
    job = dataclasses.replace(job, model=_model(job))
    trials: tuple[Trial, ...] = ()
    if job.accuracy_drop is not None and splits is not None:
        model, trials = _search(job, job.accuracy_drop, splits, on_trial)
    else:
        model = _convert(job, arrays if splits is None else splits.train)
    written: tuple[Path, ...] = ()
    if job.golden and splits:
        vectors = golden.record(model, splits.test, samples=job.golden, seed=job.seed)
        written = vectors.save(job.stem, overwrite=job.overwrite)
    return {
        **model.to_json(),
        "findings": [*model.findings, *(model.audit.findings if model.audit else ())],
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "golden": [*map(str, written)],
        "seconds": round(time.monotonic() - started, 2),
        "peak_bytes": _peak_bytes(),
    }


def _check(job: Job) -> None:
    """Checks the options, and that no output exists, before the work."""
    if job.output not in (None, "logits", "softmax"):
        raise InputError(f"convert: --output must be logits or softmax. Received: {job.output!r}. Leave it out.")
    if job.golden and job.calibration is None:
        raise InputError("convert: --golden needs a data set. Received: no --calibration. Add --calibration digits.")
    precision = job.settings or job.mode != "full_int8" or job.float_io or job.allow_float or job.refine
    if job.accuracy_drop is not None and (job.calibration is None or precision):
        raise InputError(
            "convert: --accuracy-drop needs --calibration, and chooses quantizer and precisions itself. Received: no "
            "--calibration, or other options of precision. Add --calibration digits and leave the others out."
        )
    if job.golden:
        golden.files(job.stem, overwrite=job.overwrite)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """The shape of a command line, SIZE,SIZE,...

    Raises:
        InputError: It is another text.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise InputError(
            f"convert: --input-shape must be numbers > 0 with commas. Received: {text!r}. Use 96,96,3 for color images."
        )
    return tuple(map(int, text.split(",")))


def _model(job: Job) -> keras.Model | Path:
    """The model that is converted: the file as it is, or a Keras model with the input and output that the job names."""
    if job.output is None and job.input_shape is None and job.model_input == ModelInput():
        return job.model
    model = job.model_input.load(job.model, logits=job.output is not None)
    if job.input_shape is not None:
        model = models.with_input_shape(model, job.input_shape)
    return models.with_softmax(model) if job.output == "softmax" else model


def _arrays(job: Job) -> dict[str, np.ndarray] | None:
    """The calibration samples of a .npz with an array for each input of the model; None for any other data set."""
    path = None if job.calibration is None else data.Request.of(job.calibration).path
    arrays = npz.read_inputs(path) if path is not None and path.suffix == ".npz" and path.is_file() else None
    if arrays is not None and (job.golden or job.accuracy_drop is not None):
        raise InputError(
            f"convert: --golden and --accuracy-drop need a data set with labels and a test part. Received: {path} with "
            f"{', '.join(arrays)}. Leave them out, or give a .npz with {', '.join(npz.KEYS)}; of several "
            "inputs x_train/NAME and x_test/NAME."
        )
    return arrays


def _convert(job: Job, calibration: SampleData) -> TFLiteModel:
    return converter.convert(
        job.model,
        job.out,
        mode=job.mode,
        quantizer=job.settings or "tensorflow",
        calibration=calibration,
        calibration_samples=job.calibration_samples,
        float_io=job.float_io,
        allow_float=job.allow_float,
        check=job.check,
        allow_mismatch=job.allow_mismatch,
        refine=job.refine,
        rounding=job.rounding,
        overwrite=job.overwrite,
        seed=job.seed,
    )


def _search(
    job: Job, accuracy_drop: float, splits: data.Splits, on_trial: Callable[[str], None]
) -> tuple[TFLiteModel, tuple[Trial, ...]]:
    return mixed_precision.search(
        job.model,
        job.out,
        splits,
        accuracy_drop=accuracy_drop,
        target=job.target,
        overwrite=job.overwrite,
        seed=job.seed,
        calibration_samples=job.calibration_samples,
        report=lambda trial: on_trial(str(trial)),
    )


def _peak_bytes() -> int | None:
    """Peak memory of this process and its children so far, in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
