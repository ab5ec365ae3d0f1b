"""Student -> .tflite, in a child process, with an audited calibration set."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd import child
from tfkd.tflite import CalibrationAudit, TFLiteModel

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

MODES = ("float32", "float16", "dynamic_range", "full_int8", "int16x8")
_CALIBRATED = ("full_int8", "int16x8")

# What the converter prints, and what to do about it.
_REMEDIES = (
    ("TensorListReserve", "Build LSTM and GRU layers with unroll=True: a loop of open length has no builtin op."),
    ("neither a custom op nor a flex op", "Replace the op, or keep it out of the exported model."),
    ("Quantization not yet supported for op", "Convert with mode='dynamic_range', or pass allow_float=True."),
    ("quantized", "Pass allow_float=True, or convert with mode='dynamic_range'."),
)


def convert(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    mode: str = "full_int8",
    calibration: Split | None = None,
    calibration_samples: int = 256,
    float_io: bool = False,
    allow_float: bool = False,
    overwrite: bool = False,
    timeout_s: float = 600.0,
    seed: int = 0,
) -> TFLiteModel:
    """Converts a model to a .tflite of builtin ops at batch 1 and writes it.

    Args:
        model: a Keras model, a `.keras` file or the directory of a SavedModel.
        path: where the .tflite goes; written whole or not at all.
        mode: `float32`; `float16` (weights); `dynamic_range` (int8 weights, float activations); `full_int8` (int8
            throughout, input and output too); `int16x8` (int16 activations, int8 weights).
        calibration: train or validation split for `full_int8` and `int16x8`; the test split is refused.
        calibration_samples: samples drawn from it, stratified.
        float_io: keep float input and output in `full_int8` and `int16x8`.
        allow_float: accept ops that stay in floating point in `full_int8` and `int16x8`.
        overwrite: replace an existing file.
        timeout_s: seconds that the converter may take.
        seed: of the draw of calibration samples.

    Returns:
        The model, with the audit of its calibration.

    Raises:
        ValueError: a bad argument, an unsuited calibration set, or a model that does not convert; the message holds
            what the converter printed.
        RuntimeError: the converter died or took too long.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877).
    """
    if mode not in MODES:
        raise ValueError(f"convert: mode must be one of {', '.join(MODES)}. Received: mode={mode!r}. Use 'full_int8'.")
    if Path(path).exists() and not overwrite:
        raise ValueError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        saved_model, input_shape = _export(model, Path(folder) / "model")
        samples, audit = None, None
        if mode in _CALIBRATED:
            samples, audit = _calibrate(calibration, input_shape, calibration_samples, seed, mode)
        what = f"converting {model if isinstance(model, (str, os.PathLike)) else model.name} to {mode}"
        try:
            content = child.run(
                "tfkd.conversion:_convert", timeout_s=timeout_s, what=what, saved_model=str(saved_model), mode=mode,
                samples=samples, float_io=float_io, allow_float=allow_float,
            )  # fmt: skip
        except child.ChildRefused as error:
            remedy = next((remedy for sign, remedy in _REMEDIES if sign in str(error)), "Try mode='float32' first.")
            raise ValueError(f"{what}: the converter refused. Received: {error}\n{remedy}") from None
    converted = TFLiteModel.load(content)
    if mode in _CALIBRATED and converted.float_ops and not allow_float:
        raise ValueError(
            f"{what}: every op must compute in integers. Received: floating point in {', '.join(converted.float_ops)}. "
            "Replace these layers, or pass allow_float=True."
        )
    if audit is not None and samples is not None:
        audit = dataclasses.replace(audit, saturation=_saturation(converted, samples))
    return dataclasses.replace(converted, audit=audit).save(path, overwrite=overwrite)


def _export(model: Any, folder: Path) -> tuple[Path, tuple[int | None, ...] | None]:
    """A SavedModel of the model, and the shape of a sample where it is known and single."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            if not (path / "saved_model.pb").exists():
                raise ValueError(f"{path}: must be a SavedModel. Received: a folder without saved_model.pb. Check it.")
            return path, None
        from tfkd import models

        model = models.load(path)
    import keras
    import tensorflow as tf

    if not isinstance(model, keras.Model):
        raise ValueError(f"convert: model must be a Keras model or a path. Received: {type(model).__name__}.")
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"convert: model {model.name!r} must have known input shapes. Received: a model that was built by code. "
            "Wrap it: inputs = keras.Input(shape); keras.Model(inputs, model(inputs))."
        )
    for tensor in inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"convert: model {model.name!r} must have a fixed sample shape. Received: {tuple(tensor.shape)} for "
                f"{tensor.name!r}. Rebuild it with keras.Input of the size that the device will see."
            )
    signature = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, tensor.name), model._inputs_struct
    )
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[signature])
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        archive.write_out(str(folder), verbose=False)
    return folder, tuple(inputs[0].shape[1:]) if len(inputs) == 1 else ()


def _calibrate(
    split: Any, input_shape: tuple[int | None, ...] | None, count: int, seed: int, mode: str
) -> tuple[np.ndarray, CalibrationAudit]:
    if split is None or not hasattr(split, "require"):
        raise ValueError(
            f"convert: mode {mode!r} needs a calibration split. Received: calibration={split!r}. "
            "Pass the train split of tfkd.data.load."
        )
    if input_shape == ():
        raise ValueError(f"convert: mode {mode!r} needs a model with one input. Received: several. Use dynamic_range.")
    split.require("train", "val", purpose="calibration")
    if len(split) == 0 or count < 1:
        raise ValueError(
            f"convert: calibration must have samples. Received: {min(len(split), count)}. Use 100 or more."
        )
    if input_shape is not None and tuple(split.input_shape) != input_shape:
        raise ValueError(
            f"convert: calibration samples must have the model's input shape {input_shape}. "
            f"Received: {tuple(split.input_shape)} from {split.name!r}. Give the data that the model was trained on."
        )
    chosen = split if len(split) <= count else split.sample(count, seed=seed)
    return chosen.x.astype("float32"), _audit(chosen)


def _audit(chosen: Split) -> CalibrationAudit:
    """What the samples are; refuses those that would give the model wrong ranges."""
    x = chosen.x.astype("float32")
    where = f"convert: calibration from {chosen.name!r}"
    if not np.isfinite(x).all():
        raise ValueError(f"{where} must be finite. Received: NaN or infinity. Clean the data first.")
    if x.min() == x.max():
        raise ValueError(f"{where} must vary. Received: {x.min():g} everywhere. Give real samples.")
    overlap = 0 if chosen.held_out is None else len(chosen.overlap(chosen.held_out))
    if overlap:
        raise ValueError(
            f"{where} must share no sample with the test split. Received: {overlap} equal samples. "
            "Remove them from the training data: the test accuracy would not be honest."
        )
    span = float(x.max() - x.min())
    if chosen.held_out is not None and len(chosen.held_out):
        held_out = chosen.held_out.x
        expected = float(held_out.max()) - float(held_out.min())
        if not expected / 4 <= span <= expected * 4:
            raise ValueError(
                f"{where} must span the range of the data, {held_out.min():g}..{held_out.max():g}. "
                f"Received: {x.min():g}..{x.max():g}. Give samples in the range that the model takes."
            )
    if _looks_random(x) and not (chosen.held_out is not None and _looks_random(chosen.held_out.x[:256])):
        raise ValueError(
            f"{where} must be real samples. Received: values that are uniform over {x.min():g}..{x.max():g} and "
            "unrelated to their neighbours, as noise is. Give samples of the training data."
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
        mean=float(x.mean()),
        classes_covered=covered,
        classes_total=chosen.num_classes,
        digest=hashlib.sha256(x.tobytes()).hexdigest(),
        overlap=overlap,
        findings=tuple(findings),
    )


def _looks_random(x: np.ndarray) -> bool:
    """Whether values are uniform over their range and uncorrelated along every axis of a sample.

    Images, sound and spectra correlate with their neighbours; one-hot and normalised features are far from uniform.
    """
    x = np.asarray(x, "float32")
    values = np.sort((x.ravel() - x.min()) / max(float(x.max() - x.min()), 1e-30))
    # Kolmogorov-Smirnov distance from the uniform distribution.
    distance = np.abs(values - np.linspace(0, 1, len(values))).max()
    if distance > 0.05 or x[0].size < 4:
        return False
    for axis in range(1, x.ndim):
        length = x.shape[axis]
        if length > 1:
            first, second = (np.take(x, np.arange(a, b), axis=axis).ravel() for a, b in ((0, length - 1), (1, length)))
            if abs(np.corrcoef(first, second)[0, 1]) > 0.1:
                return False
    return True


def _saturation(model: TFLiteModel, samples: np.ndarray) -> float | None:
    tensor = model.inputs[0]
    if not tensor.scales:
        return None
    limits = np.iinfo(tensor.dtype)
    low, high = ((limit - tensor.zero_points[0]) * tensor.scales[0] for limit in (limits.min, limits.max))
    half_step = tensor.scales[0] / 2
    return float(np.mean((samples < low - half_step) | (samples > high + half_step)))


def _convert(
    saved_model: str, mode: str, samples: np.ndarray | None, float_io: bool, allow_float: bool
) -> bytes:  # runs in the child
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    signature = loaded.signatures["serving_default"]
    specs = {
        name: tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, name)
        for name, spec in signature.structured_input_signature[1].items()
    }
    for name, spec in specs.items():
        if not spec.shape.is_fully_defined():
            raise ValueError(f"input {name!r} has the open shape {spec.shape}: export it with a fixed sample shape")
    function = tf.function(lambda **inputs: signature(**inputs)).get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)
    ops, dtype = [tf.lite.OpsSet.TFLITE_BUILTINS], tf.float32
    if mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode == "full_int8":
        ops, dtype = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8], tf.int8
    if mode == "int16x8":
        ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
        dtype = tf.int16
    if mode in _CALIBRATED:
        if len(specs) != 1:
            raise ValueError(f"mode {mode!r} needs a model with one input, this has {len(specs)}")
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        if allow_float:
            ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        if not float_io:
            converter.inference_input_type = converter.inference_output_type = dtype
    converter.target_spec.supported_ops = ops
    try:
        return converter.convert()
    except Exception as error:  # the converter raises its own types, of many modules
        raise ValueError(str(error)) from None
