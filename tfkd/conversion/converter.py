"""Conversion of a Keras model to a .tflite, in a child process, with an audited calibration set."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkd._internal import isolation, keras_compat
from tfkd._internal.types import SampleData
from tfkd.conversion import (
    fault_location,
    layer_names,
    parity,
    precision,
    reference,
    refinement,
    refusals,
    rnn,
)
from tfkd.conversion.calibration import Calibration, Source, draw, saturation, with_accuracy
from tfkd.conversion.export import export, input_specs, load
from tfkd.conversion.fault_location import Alternative, Conversion
from tfkd.conversion.quantizer import Quantized, QuantizerSettings, quantize, select
from tfkd.conversion.reference import Reference
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
from tfkd.errors import InputError, ModelError, TfkdError

if TYPE_CHECKING:
    import keras

MODES = ("float32", "float16", "dynamic_range", "full_int8", "int16x8")
_CALIBRATED = ("full_int8", "int16x8")
_PREPARE = "tfkd.conversion.tensorflow_converter:load"
_CONVERT = "tfkd.conversion.tensorflow_converter:convert"
_EVALUATE = "tfkd.conversion.tensorflow_converter:convert_and_evaluate"


def convert(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    mode: str = "full_int8",
    quantizer: str | QuantizerSettings = "tensorflow",
    calibration: SampleData = None,
    calibration_samples: int = 256,
    float_io: bool = False,
    allow_float: bool = False,
    check: bool = True,
    allow_mismatch: bool = False,
    refine: bool = False,
    rounding: str = "calibrated",
    overwrite: bool = False,
    timeout_s: float = 600.0,
    seed: int = 0,
) -> TFLiteModel:
    """Converts a model to a .tflite of builtin ops at batch size 1, compares both and writes the .tflite atomically.

    Keras is changed meanwhile, so that conversions in several threads wait for each other; a model should not be
    trained in another thread.

    Args:
        model: A Keras model, the path of a `.keras` file or the folder of a SavedModel.
        path: Path of the .tflite.
        mode: Precision. `float32`; `float16` (weights); `dynamic_range` (int8 weights, float activations);
            `full_int8` (int8 weights, activations, input and output); `int16x8` (int16 activations, int8 weights).
        quantizer: `tensorflow`, the converter's own quantizer; or `litert` or a `tfkd.QuantizerSettings`, which offer
            a choice of activation ranges and of precision per layer in the modes `dynamic_range`, `full_int8` and
            `int16x8`.
        calibration: Train or validation split for `full_int8` and `int16x8`; the test split is refused. Or another
            form of training data, with or without labels, such as an array of samples, a `tf.data.Dataset` or a
            `representative_dataset`, see `tfkd.data.as_split`. For a model with several inputs, a dict of arrays
            [N, ...] by the names of the inputs, a tuple of arrays in their order, or a data set of such dicts, see
            `tfkd.conversion.input_samples.read`. Other modes need none; the samples of a split then serve only to
            compare the .tflite with the model.
        calibration_samples: Number of samples drawn from it, >= 1, stratified by class for one input.
        float_io: Whether input and output stay in float in `full_int8` and `int16x8`.
        allow_float: Whether ops may stay in floating point in `full_int8` and `int16x8`.
        check: Whether the outputs of the .tflite are compared with those of the model before it is written, see
            `tfkd.conversion.parity`; and whether calibration samples are refused that the model, run on them, does
            not fit, see `tfkd.conversion.input_scale`.
        allow_mismatch: Whether a .tflite that computes something else is written, with the mismatch in its `findings`.
        refine: Whether `full_int8` may change the model where this reduces the error of the outputs on the calibration
            samples, see `tfkd.conversion.refinement`. What was changed is in `changes`.
        rounding: How `refine` rounds weights: `calibrated`, for the least error of each layer's output on the
            calibration samples, see `tfkd.conversion.weight_rounding`; or each to its `nearest` step.
        overwrite: Whether an existing file is replaced.
        timeout_s: Time limit of the converter in seconds, > 0.
        seed: Random seed of the draw of calibration samples.

    Returns:
        The converted model with the audit of its calibration set.

    Raises:
        InputError: An argument is wrong, or the calibration set does not fit the model.
        ModelError: The model does not convert, or the .tflite computes something else; the message names layer, op
            and remedy.
        DeviceError: The converter crashed or timed out.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877).
    """
    if mode not in MODES:
        raise InputError(f"convert: mode must be one of {', '.join(MODES)}. Received: mode={mode!r}. Use 'full_int8'.")
    if rounding not in ("nearest", "calibrated"):
        raise InputError(
            f"convert: rounding must be 'calibrated' or 'nearest'. Received: rounding={rounding!r}. Use 'calibrated'."
        )
    if refine and mode != "full_int8":
        raise InputError(
            f"convert: refine changes full_int8 only. Received: refine=True with mode={mode!r}. Leave it out, or use "
            "mode='full_int8'."
        )
    settings = select(quantizer)
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    what = f"converting {model if isinstance(model, (str, os.PathLike)) else getattr(model, 'name', model)} to {mode}"
    calibrated = None
    with (
        keras_compat.REPLACING,
        precision.in_float32(load(model)) as loaded,
        tempfile.TemporaryDirectory(prefix="tfkd-") as folder,
        futures.ThreadPoolExecutor(1) as thread,
        isolation.prepared(_PREPARE) as run,
    ):
        source = _exported(loaded, Path(folder) / "model", mode, settings)
        if mode in _CALIBRATED:
            calibrated = draw(calibration, source, calibration_samples, seed, mode)
        samples = None if calibrated is None else calibrated.samples
        job = _Job(what, mode, settings, samples, float_io, allow_float, check, refine, rounding, timeout_s)
        conversion = thread.submit(_run, run, source, job)
        expected = None
        if check and not isinstance(loaded, Path):  # the Keras model runs here while the child process converts it
            if calibrated is not None:
                calibrated = with_accuracy(calibrated, loaded)
            some = reference.usable(calibration, source, seed) if samples is None else samples
            expected = reference.of_keras(loaded, input_specs(loaded), some, reference.most(loaded))
        try:
            quantized, of_saved_model = conversion.result()
            converted = dataclasses.replace(TFLiteModel.load(quantized.content), changes=quantized.changes)
            if mode in _CALIBRATED and not allow_float:
                _check_no_float_ops(converted, quantized, job, _layers(loaded))
        except ModelError as error:
            if not expected or expected.obstacle or mode not in _CALIBRATED or refusals.is_of_all_modes(str(error)):
                raise
            remedy = fault_location.remedy(_conversion(loaded, source, job, expected))
            raise ModelError(f"{error} {remedy}") from error.__cause__
        if compared := expected or of_saved_model:
            findings = parity.check(
                converted,
                compared.reduced(reference.count(converted, mode)),
                _conversion(loaded, source, job, compared),
                allow_mismatch=allow_mismatch,
            )
            converted = dataclasses.replace(converted, findings=findings)
        converted = dataclasses.replace(converted, findings=(*converted.findings, *rnn.kept_state(converted)))
    audit = None if calibrated is None else _completed_audit(calibrated, converted, quantized, settings)
    return dataclasses.replace(converted, audit=audit).save(path, overwrite=overwrite)


def _completed_audit(
    calibrated: Calibration, converted: TFLiteModel, quantized: Quantized, settings: QuantizerSettings | None
) -> CalibrationAudit:
    """The audit of the calibration samples, with what the conversion showed about them."""
    summary = (settings.summary(),) if settings else ()
    return dataclasses.replace(
        calibrated.audit,
        saturation=saturation(converted, calibrated.samples),
        findings=(*calibrated.audit.findings, *quantized.findings, *summary),
    )


def float_counterpart(
    model: keras.Model | str | os.PathLike[str], converted: TFLiteModel, *, timeout_s: float = 600.0
) -> TFLiteModel:
    """Converts a Keras model to float32 with the ops that its conversion to another mode has.

    Args:
        model: See `convert`.
        converted: The conversion to the other mode: whether it has loops, or ops of an LSTM, decides how recurrent
            layers are exported.
        timeout_s: Time limit of the converter in seconds, > 0.
    """
    what = f"converting {getattr(model, 'name', model)} to float32"
    with (
        keras_compat.REPLACING,
        precision.in_float32(load(model)) as loaded,
        tempfile.TemporaryDirectory(prefix="tfkd-") as folder,
        isolation.prepared(_PREPARE) as run,
    ):
        lstm_op = "UNIDIRECTIONAL_SEQUENCE_LSTM" in converted.ops
        source = export(loaded, Path(folder) / "model", integers="WHILE" not in converted.ops, lstm_op=lstm_op)
        job = _Job(what, "float32", None, None, timeout_s=timeout_s)
        content = _run(run, source, job)[0].content
        return TFLiteModel.load(refinement.refine_as(content, converted))


@dataclasses.dataclass(frozen=True)
class _Job:
    """Arguments of one conversion; see `convert`. `what` describes it in messages."""

    what: str
    mode: str
    settings: QuantizerSettings | None
    samples: Samples | None
    float_io: bool = False
    allow_float: bool = False
    check: bool = False
    refine: bool = False
    rounding: str = "nearest"
    timeout_s: float = 600.0


def _exported(model: keras.Model, folder: Path, mode: str, settings: QuantizerSettings | None) -> Source:
    """Exports the model in the form that the mode and the quantizer take."""
    lstm_op = mode != "int16x8" and (mode != "full_int8" or settings is None)
    return export(model, folder, integers=mode in _CALIBRATED, lstm_op=lstm_op, halves=mode == "float16")


def _conversion(model: keras.Model, source: Source, job: _Job, expected: Reference) -> Conversion:
    layers = _layers(model)

    @functools.cache
    def float32() -> bytes:
        with isolation.prepared(_PREPARE) as run:
            converted: Quantized = run(_CONVERT, timeout_s=job.timeout_s, what=job.what, **_arguments(source))
        return converted.content

    def agrees(other: Alternative) -> bool:
        """Whether a conversion in another way succeeds and computes what the model computes."""
        if other.mode in _CALIBRATED and job.samples is None:
            return False
        samples = job.samples if other.mode in _CALIBRATED else None
        changed = dataclasses.replace(job, mode=other.mode, settings=other.settings, samples=samples, check=False)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="tfkd-") as folder,
                isolation.prepared(_PREPARE) as run,
            ):
                exported = _exported(model, Path(folder) / "model", other.mode, other.settings)
                quantized, _ = _run(run, exported, changed)
            converted = TFLiteModel.load(quantized.content)
            if samples is not None and not job.allow_float:
                _check_no_float_ops(converted, quantized, changed, layers)
            some = expected.reduced(reference.count(converted, other.mode))
            return all(one.excess <= 1 for one in parity.compare(converted, some, other.mode, job.timeout_s))
        except TfkdError:
            return False

    return Conversion(
        job.what,
        job.mode,
        "tensorflow" if job.settings is None else "litert",
        layers,
        float32,
        job.timeout_s,
        clips=job.settings is not None and job.settings.ranges != "min_max",
        calls=None if isinstance(model, Path) else functools.partial(reference.calls_of, model, input_specs(model)),
        agrees=agrees,
    )


def _arguments(source: Source) -> dict[str, object]:
    """Arguments of `_CONVERT` for mode float32."""
    arguments = {"saved_model": str(source.folder), "inputs": source.inputs, "outputs": source.outputs}
    off = {"float_io": False, "allow_float": False, "refine": False, "rounding": "nearest"}
    return {**arguments, "mode": "float32", "samples": None, **off}


def _layers(model: keras.Model | Path) -> dict[str, bool]:
    """The layers by which messages name ops, see `layer_names.layers`; those of a SavedModel are not known."""
    return {} if isinstance(model, Path) else layer_names.layers(model)


def _check_no_float_ops(converted: TFLiteModel, quantized: Quantized, job: _Job, layers: Mapping[str, bool]) -> None:
    floats = [op for op in converted.float_ops if not any(f"({name}" in op for name in quantized.kept_float)]
    if floats:
        raise ModelError(
            f"{job.what}: every op must compute in integers. Received: floating point in "
            f"{', '.join(_with_layers(floats, converted, layers))}. Replace these ops, or pass allow_float=True."
        )


def _with_layers(floats: Collection[str], converted: TFLiteModel, layers: Mapping[str, bool]) -> Iterable[str]:
    """Some of `TFLiteModel.float_ops`, each once, with the layer instead of the tensor where the layer is known."""
    named: dict[str, None] = {}
    for graph in converted.subgraphs:
        for op in graph.ops:
            tensors = op.outputs or op.inputs  # CALL_ONCE has neither
            text = f"{op.name} ({graph.tensors[tensors[0]].name})" if tensors else ""
            if text in floats:
                known = [layer_names.known_layers(name, layers) for name in layer_names.following(graph, op)]
                layer = next(filter(None, known), None)
                # An op that no layer made, such as keras.ops.sign(x), is before the layer found; so is that of a mask.
                after = "" if any(known[: len(op.outputs)]) else " or before it"
                named[f"{op.name} (layer {layer[0]!r}{after})" if layer else text] = None
    return named


def _run(run: Callable[..., Any], source: Source, job: _Job) -> tuple[Quantized, Reference | None]:
    """Converts in the child process `run`, and quantizes in another one where litert-quantizer is selected.

    The second result is what a SavedModel of the user computes, which only the child process can run.
    """
    arguments, expected = _arguments(source), None
    if job.settings is None:
        names = ("mode", "samples", "float_io", "allow_float", "refine", "rounding")
        arguments |= {name: getattr(job, name) for name in names}
    try:
        if job.check and not source.inputs:
            limits = {"timeout_s": job.timeout_s, "what": job.what}
            converted, expected = run(_EVALUATE, mode=job.mode, samples=job.samples, arguments=arguments, **limits)
        else:
            converted = run(_CONVERT, timeout_s=job.timeout_s, what=job.what, **arguments)
    except InputError as error:
        raise ModelError(f"{job.what}: {refusals.explain(str(error))}") from error
    except isolation.ChildCrashed as error:
        message = refusals.crash(str(error), integers=arguments["samples"] is not None)
        raise isolation.ChildCrashed(f"{job.what}: {message}") from error
    if job.settings is None:
        return converted, expected
    quantized = quantize(
        converted.content,
        job.settings,
        mode=job.mode,
        samples=job.samples,
        float_io=job.float_io,
        refine=job.refine,
        rounding=job.rounding,
        timeout_s=job.timeout_s,
        what=job.what,
    )
    return quantized, expected
