"""Conversion of a SavedModel by TensorFlow's converter. Everything here runs in a child process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfkd._internal import isolation
from tfkd.conversion import half_constants, op_forms, reference, refusals, rewriting, rnn, signatures
from tfkd.conversion.quantizer import Quantized
from tfkd.conversion.reference import Reference
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

if TYPE_CHECKING:
    import tensorflow as tf


def load() -> ModuleType:
    """Imports TensorFlow."""
    # It imports Keras where it can, which takes as long as the rest of its import and is not needed here.
    sys.modules.setdefault("keras", None)  # type: ignore[arg-type]
    import tensorflow as tf

    return tf


def convert(
    saved_model: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    mode: str,
    samples: Samples | None,
    float_io: bool,
    allow_float: bool,
    refine: bool,
    rounding: str,
) -> Quantized:
    """Converts a SavedModel; see `tfkd.convert` for the arguments from `mode` on.

    Args:
        saved_model: Folder of the SavedModel.
        inputs: Names of its inputs in the order of the .tflite; empty to take that of the Keras model it was made from.
        outputs: Names of its outputs in the order of the .tflite; empty likewise.
        mode: Precision.
        samples: Calibration samples, for `full_int8` and `int16x8`.
        float_io: Whether input and output stay in float.
        allow_float: Whether ops may stay in float.
        refine: Whether the model may be changed where that reduces the error.
        rounding: How `refine` rounds weights.

    Raises:
        ModelError: The SavedModel is damaged, has open shapes or other inputs than the samples, or is refused by the
            converter.
    """
    tf, changes, findings = load(), list[str](), list[str]()
    try:
        loaded = tf.saved_model.load(saved_model)
    except Exception as error:  # TensorFlow raises exceptions without a common base class
        raise ModelError(
            f"TensorFlow cannot load the SavedModel ({type(error).__name__}): it is damaged, or has ops of another "
            "version or library. Write it again with model.export() of Keras."
        ) from None
    if "serving_default" not in loaded.signatures:
        raise ModelError(
            f"the SavedModel must have the signature 'serving_default'. Received: {list(loaded.signatures)}. "
            "Write it with model.export() of Keras."
        )
    signature = loaded.signatures["serving_default"]
    signature_specs = signature.structured_input_signature[1]
    if not inputs:
        inputs, outputs = signatures.orders(loaded, signature, saved_model)
    specs = [tf.TensorSpec((1, *signature_specs[name].shape[1:]), signature_specs[name].dtype, name) for name in inputs]
    for spec in specs:
        if not spec.shape.is_fully_defined():
            raise ModelError(
                f"input {spec.name!r} must have a fixed sample shape. Received: {spec.shape[1:]}. "
                "Export the model with the size used on the device."
            )
    function = tf.function(lambda *x: signature(**dict(zip(inputs, x, strict=True))), input_signature=specs)
    converter = _converter(loaded, function, mode, samples is not None and not float_io)
    if samples is not None:
        samples = samples.ordered(inputs)
        if samples.shapes != [tuple(spec.shape[1:]) for spec in specs]:
            wanted = f"one input of the calibration's shape {samples.shapes[0]}"
            if len(samples.shapes) > 1:
                wanted = f"inputs of the calibration's shapes {', '.join(map(str, samples.shapes))}"
            raise ModelError(
                f"the model must take {wanted}. Received: {', '.join(str(spec.shape[1:]) for spec in specs)}. "
                "Calibrate with its training data."
            )
        if allow_float:
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        changes, findings = rewriting.install(converter, mode, samples, refines=refine, rounding=rounding)
    try:
        content = converter.convert()
        if mode == "float16" and half_constants.are_lost(content):
            content = half_constants.restore(content, _converter(loaded, function, "float32", False).convert())
    except Exception as error:  # the converter raises exceptions of many modules, without a common base class
        if refusals.is_ours(error):
            raise
        raise isolation.ChildRefused(f"{refusals.REFUSED}: {error}") from None
    if samples is None:  # otherwise the converter has quantized the rewritten model
        content = op_forms.replace_softplus(rnn.correct_lstms(content))
    content = rnn.align_lstm_scales(signatures.reorder(content, inputs, outputs))
    return Quantized(content, findings=tuple(findings), changes=tuple(changes))


def convert_and_evaluate(
    mode: str, samples: Samples | None, arguments: Mapping[str, Any]
) -> tuple[Quantized, Reference]:
    """Converts a SavedModel, and computes its outputs on a few samples."""
    converted = convert(**arguments)
    folder = arguments["saved_model"]
    loaded = load().saved_model.load(folder)  # anew, since a calibration changes the state of the model
    signature = loaded.signatures["serving_default"]
    inputs, outputs = signatures.orders(loaded, signature, folder)
    number = reference.count(TFLiteModel.load(converted.content), mode)
    return converted, reference.of_signature(signature, inputs, outputs, samples, number)


def _converter(
    loaded: tf.Module, function: tf.types.experimental.PolymorphicFunction, mode: str, integer_io: bool
) -> tf.lite.TFLiteConverter:
    """A converter of a function of a SavedModel to a mode."""
    tf = load()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], loaded)
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
    return converter
