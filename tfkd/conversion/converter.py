"""Student -> .tflite, in a child process, with an audited calibration set."""

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

from tfkd._internal import isolation
from tfkd.conversion import rnn
from tfkd.conversion.calibration import Source, draw, saturation
from tfkd.conversion.quantizer import Quantized, QuantizerSettings, quantize, select
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

MODES = ("float32", "float16", "dynamic_range", "full_int8", "int16x8")
_CALIBRATED = ("full_int8", "int16x8")

# How a refusal of the converter itself starts, then what it prints and what to do about it; the first that fits.
_REFUSED = "the converter refused the model"
_REMEDIES = (
    ("TensorListReserve", "Build LSTM and GRU layers with unroll=True: a loop of open length has no builtin op."),
    ("neither a custom op nor a flex op", "TensorFlow Lite has no builtin op for it: build the model without it."),
    ("not yet supported for op", "Convert with mode='dynamic_range', or pass allow_float=True to mode='full_int8'."),
    ("", "Build the model from layers that TensorFlow Lite has builtin ops for; mode='float32' takes the most."),
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
    """Converts a model to a .tflite of builtin ops at batch 1 and writes it.

    Args:
        model: a Keras model, a `.keras` file or the directory of a SavedModel.
        path: where the .tflite goes; written whole or not at all.
        mode: `float32`; `float16` (weights); `dynamic_range` (int8 weights, float activations); `full_int8` (int8
            throughout, input and output too); `int16x8` (int16 activations, int8 weights).
        quantizer: `tensorflow`, the converter's own; `litert`, or a `tfkd.QuantizerSettings`, which chooses ranges and
            the precision of layers; it takes `dynamic_range`, `full_int8` and `int16x8`.
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
        raise InputError(f"convert: mode must be one of {', '.join(MODES)}. Received: mode={mode!r}. Use 'full_int8'.")
    settings = select(quantizer)
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    what = f"converting {model if isinstance(model, (str, os.PathLike)) else getattr(model, 'name', model)} to {mode}"
    with (
        tempfile.TemporaryDirectory(prefix="tfkd-") as folder,
        isolation.warm("tfkd.conversion.converter:_tensorflow") as run,
    ):
        source = _export(model, Path(folder) / "model", integers=mode in _CALIBRATED)
        samples, audit = None, None
        if mode in _CALIBRATED:
            samples, audit = draw(calibration, source, calibration_samples, seed, mode)
        quantized = _make(run, source, mode, settings, samples, float_io, allow_float, timeout_s, what)
    converted = TFLiteModel.load(quantized.content)
    floats = [op for op in converted.float_ops if not any(f"({name}" in op for name in quantized.kept)]
    if mode in _CALIBRATED and floats and not allow_float:
        raise InputError(
            f"{what}: every op must compute in integers. Received: floating point in {', '.join(floats)}. "
            "Replace these layers, or pass allow_float=True."
        )
    if audit is not None and samples is not None:
        chosen = (settings.words(),) if settings else ()
        findings = (*audit.findings, *quantized.outliers, *chosen)
        audit = dataclasses.replace(audit, saturation=saturation(converted, samples), findings=findings)
    return dataclasses.replace(converted, audit=audit).save(path, overwrite=overwrite)


def _make(
    run: Callable[..., Any],
    source: Source,
    mode: str,
    settings: QuantizerSettings | None,
    samples: np.ndarray | None,
    float_io: bool,
    allow_float: bool,
    timeout_s: float,
    what: str,
) -> Quantized:
    """Converts in a child process, and quantizes in another where the converter is not to."""
    own = settings is None
    try:
        content = run(
            "tfkd.conversion.converter:_convert",
            timeout_s=timeout_s,
            what=what,
            saved_model=str(source.folder),
            names=source.inputs,
            mode=mode if own else "float32",
            samples=samples if own else None,
            float_io=float_io,
            allow_float=allow_float,
        )
    except InputError as error:
        raise InputError(f"{what}: {_explain(str(error))}") from None
    except isolation.ChildCrashed as error:
        loops = own and samples is not None
        hint = "Its quantizer dies on loops: build LSTM and GRU layers with unroll=True. " if loops else ""
        raise isolation.ChildCrashed(f"{what}: the converter crashed. {hint}It left: {error}") from None
    if settings is None:
        return Quantized(content)
    return quantize(content, settings, mode=mode, samples=samples, float_io=float_io, timeout_s=timeout_s, what=what)


def _explain(error: str) -> str:
    """The error with what to do, and the layer, where the converter refused; others say it themselves."""
    if not error.startswith(_REFUSED):
        return error
    remedy = next(remedy for sign, remedy in _REMEDIES if sign in error)
    # A location is a chain of callers; the innermost is the layer's own op: fused["Erf:", "model/dense/Erf@function"].
    layer = re.search(r'fused\["\w+:", "([^"@]+)@', error)
    return f"{_REFUSED}{f' at {layer[1]!r}' if layer else ''}. {remedy} It said{error.removeprefix(_REFUSED)}"


def _export(model: Any, folder: Path, *, integers: bool) -> Source:
    """Writes a SavedModel at batch 1, here: custom layers are known to this process only."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            if not (path / "saved_model.pb").exists():
                raise InputError(
                    f"{path}: must be a SavedModel. Received: a folder without saved_model.pb. "
                    "Give what model.export() wrote, or a .keras file."
                )
            return Source(path)
        from tfkd import models

        model = models.load(path)
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(
            f"convert: model must be a Keras model or a path. Received: {type(model).__name__}. "
            "Give a keras.Model, a .keras file or the folder of a SavedModel."
        )
    half = [layer.name for layer in model.layers if layer.compute_dtype in ("float16", "bfloat16")]
    if half:
        raise InputError(
            f"convert: model {model.name!r} must compute in float32. Received: half precision in {half[0]!r}. Build it "
            "again with dtype policy float32 and copy the weights: new.set_weights(model.get_weights())."
        )
    specs = _input_specs(model)
    flat = keras.tree.flatten(specs)
    for spec in flat:
        if None in spec.shape[1:]:
            raise InputError(
                f"convert: model {model.name!r} must have a fixed sample shape. Received: {spec.shape[1:]} for input "
                f"{spec.name!r}. Rebuild it with keras.Input of the size that the device will see."
            )
    with rnn.exportable(model, integers=integers):
        _save(model, folder, specs)
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    return Source(
        folder,
        inputs=tuple(spec.name for spec in flat),
        sample_shape=flat[0].shape[1:] if len(flat) == 1 else None,
        rescaling=float(np.max(scales[0])) if scales else None,
    )


def _save(model: keras.Model, folder: Path, specs: Any) -> None:
    """Writes a SavedModel whose weights are constants: to save and load variables takes longer than to convert them.

    A model that writes variables itself, as a recurrent layer with `stateful=True` does, keeps them.
    """
    import keras
    import tensorflow as tf

    values = [(variable, keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    writes = False

    def serve(inputs: Any) -> Any:
        nonlocal writes
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in values]) as scope:
            before = dict(scope.state_mapping)
            outputs = model(inputs, training=False)
        writes = any(value is not before.get(key) for key, value in scope.state_mapping.items())
        return outputs

    tensors = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), specs)
    function = tf.function(serve, autograph=False).get_concrete_function(tensors)
    if writes:
        model.export(str(folder), verbose=False, input_signature=[specs])
        return
    holder = tf.Module()
    holder.left = list(function.graph.variables)  # those that a layer made by itself, past Keras
    tf.saved_model.save(holder, str(folder), signatures=function)


def _input_specs(model: keras.Model) -> Any:
    """The model's inputs at batch 1, in the structure in which the model takes them."""
    import keras

    if getattr(model, "inputs", None):
        inputs: Any = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
            raise InputError(
                f"convert: model {model.name!r} must have known input shapes. Received: a model that was built by "
                "code and has not run on one input yet. Call it on a batch, or wrap it: inputs = keras.Input(shape); "
                "keras.Model(inputs, model(inputs))."
            )
        inputs = keras.KerasTensor(tuple(shape), dtype=model.input_dtype, name="input")

    def spec(tensor: Any) -> Any:
        name = re.sub(r"\W", "_", tensor.name)
        return keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(spec, inputs)


def _tensorflow() -> Any:  # runs in the child
    # TensorFlow imports Keras if it can, which takes as long as the rest of it, and nothing here needs it.
    sys.modules.setdefault("keras", None)  # type: ignore[arg-type]
    import tensorflow as tf

    return tf


def _convert(
    saved_model: str, names: tuple[str, ...], mode: str, samples: np.ndarray | None, float_io: bool, allow_float: bool
) -> bytes:  # runs in the child
    tf = _tensorflow()
    loaded = tf.saved_model.load(saved_model)
    if "serving_default" not in loaded.signatures:
        raise InputError(
            f"the SavedModel must have the signature 'serving_default'. Received: {list(loaded.signatures)}. "
            "Write it with model.export() of Keras."
        )
    signature = loaded.signatures["serving_default"]
    given = signature.structured_input_signature[1]
    names = names or tuple(sorted(given))
    specs = [tf.TensorSpec((1, *given[name].shape[1:]), given[name].dtype, name) for name in names]
    for spec in specs:
        if not spec.shape.is_fully_defined():
            raise InputError(
                f"input {spec.name!r} must have a fixed sample shape. Received: {spec.shape[1:]}. "
                "Export the model with the size that the device will see."
            )
    function = tf.function(lambda *x: signature(**dict(zip(names, x, strict=True))), input_signature=specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], loaded)
    ops, dtype = [tf.lite.OpsSet.TFLITE_BUILTINS], tf.float32
    if mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode == "full_int8":
        ops, dtype = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8], tf.int8
    if mode == "int16x8":
        ops, dtype = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8], tf.int16
    if samples is not None:
        if len(specs) != 1 or tuple(specs[0].shape[1:]) != samples.shape[1:]:
            raise InputError(
                f"the model must take one input of the calibration's shape {samples.shape[1:]}. "
                f"Received: {', '.join(str(spec.shape[1:]) for spec in specs)}. Calibrate with its training data."
            )
        samples = samples.astype(specs[0].dtype.as_numpy_dtype)
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        if allow_float:
            ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        if not float_io:
            converter.inference_input_type = converter.inference_output_type = dtype
    converter.target_spec.supported_ops = ops
    try:
        content = converter.convert()
    except Exception as error:  # the converter raises its own types, of many modules
        raise InputError(f"{_REFUSED}: {error}") from None
    return _in_order(content, names)


def _in_order(content: bytes, names: tuple[str, ...]) -> bytes:
    """Puts inputs into the order of `names` and outputs into that of their own, where the converter mixed them."""
    import tflite

    changed = bytearray(content)
    model = tflite.Model.GetRootAs(changed, 0)
    signature, graph = model.SignatureDefs(0), model.Subgraphs(0)
    inputs = {entry.Name().decode(): entry.TensorIndex() for entry in map(signature.Inputs, range(len(names)))}
    outputs = [signature.Outputs(i) for i in range(signature.OutputsLength())]
    outputs.sort(key=lambda entry: _natural(entry.Name().decode()))
    graph.InputsAsNumpy()[:] = [inputs[name] for name in names]
    graph.OutputsAsNumpy()[:] = [entry.TensorIndex() for entry in outputs]
    return bytes(changed)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts output_2 before output_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]
