"""Conversion of a Keras model to a .tflite, in a child process, with an audited calibration set."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal import isolation, keras_compat
from tfkd.conversion import rnn
from tfkd.conversion.calibration import Source, draw, saturation
from tfkd.conversion.quantizer import Quantized, QuantizerSettings, quantize, select
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

MODES = ("float32", "float16", "dynamic_range", "full_int8", "int16x8")
_CALIBRATED = ("full_int8", "int16x8")

# The beginning of the message where TensorFlow's converter itself refuses a model.
_REFUSED = "the converter refused the model"
# A part of the converter's output and the remedy for it. The first match is used; the last one matches always.
_REMEDIES = (
    ("TensorListReserve", "Build LSTM and GRU layers with unroll=True: a loop of variable length has no builtin op."),
    ("neither a custom op nor a flex op", "TensorFlow Lite has no builtin op for it: build the model without it."),
    ("not yet supported for op", "Convert with mode='dynamic_range', or pass allow_float=True to mode='full_int8'."),
    ("", "Use layers that TensorFlow Lite has builtin ops for; mode='float32' supports the most."),
)


def convert(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    mode: str = "full_int8",
    quantizer: str | QuantizerSettings = "tensorflow",
    calibration: Split | None = None,
    calibration_samples: int = 256,
    float_io: bool = False,
    allow_float: bool = False,
    overwrite: bool = False,
    timeout_s: float = 600.0,
    seed: int = 0,
) -> TFLiteModel:
    """Converts a model to a .tflite of builtin ops at batch size 1 and writes it atomically.

    Args:
        model: A Keras model, the path of a `.keras` file or the folder of a SavedModel.
        path: Path of the .tflite.
        mode: Precision. `float32`; `float16` (weights); `dynamic_range` (int8 weights, float activations);
            `full_int8` (int8 weights, activations, input and output); `int16x8` (int16 activations, int8 weights).
        quantizer: `tensorflow`, the converter's own quantizer; or `litert` or a `tfkd.QuantizerSettings`, which offer
            a choice of activation ranges and of precision per layer in the modes `dynamic_range`, `full_int8` and
            `int16x8`.
        calibration: Train or validation split for `full_int8` and `int16x8`; the test split is refused.
        calibration_samples: Number of samples drawn from it, >= 1, stratified by class.
        float_io: Whether input and output stay in float in `full_int8` and `int16x8`.
        allow_float: Whether ops may stay in floating point in `full_int8` and `int16x8`.
        overwrite: Whether an existing file is replaced.
        timeout_s: Time limit of the converter in seconds, > 0.
        seed: Random seed of the draw of calibration samples.

    Returns:
        The converted model with the audit of its calibration set.

    Raises:
        InputError: An argument is wrong, or the calibration set does not fit the model.
        ModelError: The model does not convert; the message holds the converter's output.
        DeviceError: The converter crashed or timed out.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877).
    """
    if mode not in MODES:
        raise InputError(f"convert: mode must be one of {', '.join(MODES)}. Received: mode={mode!r}. Use 'full_int8'.")
    settings = select(quantizer)
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    what = f"converting {model if isinstance(model, (str, os.PathLike)) else getattr(model, 'name', model)} to {mode}"
    with (
        tempfile.TemporaryDirectory(prefix="tfkd-") as folder,
        isolation.prepared("tfkd.conversion.converter:_tensorflow") as run,
    ):
        source = _export(model, Path(folder) / "model", integers=mode in _CALIBRATED)
        samples, audit = None, None
        if mode in _CALIBRATED:
            samples, audit = draw(calibration, source, calibration_samples, seed, mode)
        job = _Job(what, mode, settings, samples, float_io, allow_float, timeout_s)
        quantized = _run(run, source, job)
    converted = TFLiteModel.load(quantized.content)
    if mode in _CALIBRATED and not allow_float:
        _check_no_float_ops(converted, quantized, what)
    if audit is not None and samples is not None:
        summary = (settings.summary(),) if settings else ()
        findings = (*audit.findings, *quantized.outliers, *summary)
        audit = dataclasses.replace(audit, saturation=saturation(converted, samples), findings=findings)
    return dataclasses.replace(converted, audit=audit).save(path, overwrite=overwrite)


@dataclasses.dataclass(frozen=True)
class _Job:
    """Arguments of one conversion; see `convert`. `what` describes it in messages."""

    what: str
    mode: str
    settings: QuantizerSettings | None
    samples: np.ndarray | None
    float_io: bool
    allow_float: bool
    timeout_s: float


def _check_no_float_ops(converted: TFLiteModel, quantized: Quantized, what: str) -> None:
    floats = [op for op in converted.float_ops if not any(f"({name}" in op for name in quantized.kept_float)]
    if floats:
        raise ModelError(
            f"{what}: every op must compute in integers. Received: floating point in {', '.join(floats)}. "
            "Replace these layers, or pass allow_float=True."
        )


def _run(run: Callable[..., Any], source: Source, job: _Job) -> Quantized:
    """Converts in the child process `run`, and quantizes in another one where litert-quantizer is selected."""
    by_converter = job.settings is None
    try:
        content: bytes = run(
            "tfkd.conversion.converter:_convert",
            timeout_s=job.timeout_s,
            what=job.what,
            saved_model=str(source.folder),
            names=source.inputs,
            mode=job.mode if by_converter else "float32",
            samples=job.samples if by_converter else None,
            float_io=job.float_io,
            allow_float=job.allow_float,
        )
    except InputError as error:
        raise ModelError(f"{job.what}: {_explain(str(error))}") from None
    except isolation.ChildCrashed as error:
        calibrated = by_converter and job.samples is not None
        hint = "Its quantizer crashes on loops: build LSTM and GRU layers with unroll=True. " if calibrated else ""
        raise isolation.ChildCrashed(f"{job.what}: the converter crashed. {hint}Details: {error}") from None
    if job.settings is None:
        return Quantized(content)
    return quantize(
        content,
        job.settings,
        mode=job.mode,
        samples=job.samples,
        float_io=job.float_io,
        timeout_s=job.timeout_s,
        what=job.what,
    )


def _explain(error: str) -> str:
    """Adds the layer and the remedy where TensorFlow's converter refused the model; other errors have their own."""
    if not error.startswith(_REFUSED):
        return error
    remedy = next(remedy for part, remedy in _REMEDIES if part in error)
    # The converter prints a chain of call locations; the innermost is the layer's own op, as in
    # fused["Erf:", "model/dense/Erf@function"].
    layer = re.search(r'fused\["\w+:", "([^"@]+)@', error)
    return f"{_REFUSED}{f' at {layer[1]!r}' if layer else ''}. {remedy} Its message{error.removeprefix(_REFUSED)}"


def _export(model: Any, folder: Path, *, integers: bool) -> Source:
    """Writes a SavedModel at batch size 1. It runs in this process, which alone knows the user's custom layers."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            _check_saved_model(path)
            return Source(path)
        from tfkd import models

        model = models.load(path)
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(
            f"convert: model must be a Keras model or a path. Received: {type(model).__name__}. "
            "Give a keras.Model, a .keras file or the folder of a SavedModel."
        )
    _check_float32(model)
    specs = _input_specs(model)
    flat = keras.tree.flatten(specs)
    for spec in flat:
        if None in spec.shape[1:]:
            raise ModelError(
                f"convert: model {model.name!r} must have a fixed sample shape. Received: {spec.shape[1:]} for input "
                f"{spec.name!r}. Rebuild it with keras.Input of the size used on the device."
            )
    with rnn.exportable(model, integers=integers), keras_compat.scopes_by_path():
        _save(model, folder, specs)
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    return Source(
        folder,
        inputs=tuple(spec.name for spec in flat),
        sample_shape=flat[0].shape[1:] if len(flat) == 1 else None,
        rescaling=float(np.max(scales[0])) if scales else None,
    )


def _check_saved_model(folder: Path) -> None:
    if not (folder / "saved_model.pb").exists():
        raise ModelError(
            f"{folder}: must be a SavedModel. Received: a folder without saved_model.pb. "
            "Give the folder that model.export() wrote, or a .keras file."
        )


def _check_float32(model: keras.Model) -> None:
    half = [layer.name for layer in model.layers if layer.compute_dtype in ("float16", "bfloat16")]
    if half:
        raise ModelError(
            f"convert: model {model.name!r} must compute in float32. Received: half precision in {half[0]!r}. Build it "
            "again with dtype policy float32 and copy the weights: new.set_weights(model.get_weights())."
        )


def _save(model: keras.Model, folder: Path, specs: Any) -> None:
    """Writes a SavedModel with the weights as constants, since saving and loading variables is slower than converting.

    A model that assigns to its variables, such as a recurrent layer with `stateful=True`, keeps them as variables.
    """
    import keras
    import tensorflow as tf

    values = [(variable, keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    assigns = False

    def serve(inputs: Any) -> Any:
        nonlocal assigns
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in values]) as scope:
            before = dict(scope.state_mapping)
            outputs = model(inputs, training=False)
        assigns = any(value is not before.get(key) for key, value in scope.state_mapping.items())
        return outputs

    tensors = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), specs)
    function = tf.function(serve, autograph=False).get_concrete_function(tensors)
    if assigns:
        model.export(str(folder), verbose=False, input_signature=[specs])
        return
    module = tf.Module()
    module.variables_outside_keras = list(function.graph.variables)  # a layer may create tf.Variable objects itself
    tf.saved_model.save(module, str(folder), signatures=function)


def _input_specs(model: keras.Model) -> Any:
    """The specs of the model's inputs at batch size 1, in the structure in which the model takes them."""
    import keras

    if getattr(model, "inputs", None):
        inputs: Any = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
            raise ModelError(
                f"convert: model {model.name!r} must have known input shapes. Received: a subclassed model that has "
                "not been called on a single input yet. Call it on a batch, or wrap it: inputs = keras.Input(shape); "
                "keras.Model(inputs, model(inputs))."
            )
        inputs = keras.KerasTensor(tuple(shape), dtype=model.input_dtype, name="input")

    def spec(tensor: Any) -> Any:
        name = re.sub(r"\W", "_", tensor.name)
        return keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(spec, inputs)


# The functions below run in the child process.


def _tensorflow() -> Any:
    # TensorFlow imports Keras where it can, which takes as long as the rest of its import and is not needed here.
    sys.modules.setdefault("keras", None)  # type: ignore[arg-type]
    import tensorflow as tf

    return tf


def _convert(
    saved_model: str, names: tuple[str, ...], mode: str, samples: np.ndarray | None, float_io: bool, allow_float: bool
) -> bytes:
    tf = _tensorflow()
    try:
        loaded = tf.saved_model.load(saved_model)
    except OSError as error:
        raise ModelError(f"cannot load the SavedModel: {error}. Write it again with model.export() of Keras.") from None
    if "serving_default" not in loaded.signatures:
        raise ModelError(
            f"the SavedModel must have the signature 'serving_default'. Received: {list(loaded.signatures)}. "
            "Write it with model.export() of Keras."
        )
    signature = loaded.signatures["serving_default"]
    signature_specs = signature.structured_input_signature[1]
    names = names or tuple(sorted(signature_specs))
    specs = [tf.TensorSpec((1, *signature_specs[name].shape[1:]), signature_specs[name].dtype, name) for name in names]
    for spec in specs:
        if not spec.shape.is_fully_defined():
            raise ModelError(
                f"input {spec.name!r} must have a fixed sample shape. Received: {spec.shape[1:]}. "
                "Export the model with the size used on the device."
            )
    function = tf.function(lambda *x: signature(**dict(zip(names, x, strict=True))), input_signature=specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], loaded)
    _set_mode(converter, mode, samples is not None and not float_io)
    if samples is not None:
        if len(specs) != 1 or tuple(specs[0].shape[1:]) != samples.shape[1:]:
            raise ModelError(
                f"the model must take one input of the calibration's shape {samples.shape[1:]}. "
                f"Received: {', '.join(str(spec.shape[1:]) for spec in specs)}. Calibrate with its training data."
            )
        samples = samples.astype(specs[0].dtype.as_numpy_dtype)
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        if allow_float:
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
    try:
        content = converter.convert()
    except Exception as error:  # the converter raises exceptions of many modules, without a common base class
        raise isolation.ChildRefused(f"{_REFUSED}: {error}") from None
    return _in_order(content, names)


def _set_mode(converter: Any, mode: str, integer_io: bool) -> None:
    tf = _tensorflow()
    ops, dtype = tf.lite.OpsSet.TFLITE_BUILTINS, tf.float32
    if mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode == "full_int8":
        ops, dtype = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8
    if mode == "int16x8":
        ops, dtype = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, tf.int16
    converter.target_spec.supported_ops = [ops]
    if integer_io:
        converter.inference_input_type = converter.inference_output_type = dtype


def _in_order(content: bytes, names: tuple[str, ...]) -> bytes:
    """Restores the order of inputs (that of `names`) and outputs (output_0, output_1, ...), which the converter mixes.

    Both vectors of tensor indices are overwritten in place, so that the rest of the file stays as it is.
    """
    reordered = bytearray(content)
    model = schema.Model.GetRootAs(reordered, 0)
    signature, graph = model.SignatureDefs(0), model.Subgraphs(0)
    inputs = {entry.Name().decode(): entry.TensorIndex() for entry in map(signature.Inputs, range(len(names)))}
    outputs = [signature.Outputs(i) for i in range(signature.OutputsLength())]
    outputs.sort(key=lambda entry: _natural_key(entry.Name().decode()))
    graph.InputsAsNumpy()[:] = [inputs[name] for name in names]
    graph.OutputsAsNumpy()[:] = [entry.TensorIndex() for entry in outputs]
    return bytes(reordered)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """A sort key that puts output_2 before output_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]
