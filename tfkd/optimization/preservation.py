"""Quantization-aware training by tensorflow-model-optimization that preserves zeros and clusters."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfkd._internal import keras_compat
from tfkd._internal.types import SampleData
from tfkd.conversion import converter
from tfkd.conversion.calibration import choose
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.optimization import agreement
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.twin import PRUNED, Twin, load_tfmot, refuse

if TYPE_CHECKING:
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

# A kernel with at most so many different values counts as clustered.
_CLUSTERED = 256
_FOLDED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")
_REPLACED = ("SeparableConv1D", "SeparableConv2D")


def tfmot_qat(student: keras.Model) -> Optimized:
    """Quantization-aware training by tensorflow-model-optimization.

    Args:
        student: Trained functional or Sequential model; it is not changed.

    Raises:
        ModelError: Some layers are not supported; the message names all of them. `qat` supports more.

    Reference:
        Jacob et al., arXiv:1712.05877.
    """
    return _prepare(student, "tfmot_qat", None)


def pqat(student: keras.Model) -> Optimized:
    """The same for a pruned student: zeros stay zero.

    Args:
        student: See `tfmot_qat`.

    Raises:
        ModelError: See `tfmot_qat`; or no kernel is pruned.
    """
    _check_structure(student, "pqat", pruned=True, clustered=False)
    load_tfmot()
    from tensorflow_model_optimization.python.core.api import experimental

    return _prepare(student, "pqat", experimental.combine.Default8BitPrunePreserveQuantizeScheme())


def cqat(student: keras.Model) -> Optimized:
    """The same for a clustered student: the weights of a kernel keep sharing few values.

    Args:
        student: See `tfmot_qat`.

    Raises:
        ModelError: See `tfmot_qat`; or no kernel is clustered.
    """
    return _clustered(student, "cqat", pruned=False)


def pcqat(student: keras.Model) -> Optimized:
    """The same for a student that was pruned, then clustered: zeros and clusters stay.

    Args:
        student: See `tfmot_qat`.

    Raises:
        ModelError: See `tfmot_qat`; or no kernel is clustered, or a kernel is not pruned.
    """
    return _clustered(student, "pcqat", pruned=True)


def _clustered(student: keras.Model, method: str, *, pruned: bool) -> Optimized:
    _check_structure(student, method, pruned=pruned, clustered=True)
    load_tfmot()
    from tensorflow_model_optimization.python.core.api import experimental

    scheme = experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=pruned)
    return _prepare(student, method, scheme)


def _check_structure(student: keras.Model, method: str, *, pruned: bool, clustered: bool) -> None:
    """Raises when the student has no zeros or clusters to preserve."""
    kernels = {
        layer.name: np.asarray(layer.kernel)
        for layer in keras_compat.inner_layers(student)
        if type(layer).__name__ in ("Conv2D", "Dense") and layer.built
    }
    zeros = max((float(np.mean(kernel == 0)) for kernel in kernels.values()), default=0.0)
    values = min((len(np.unique(kernel)) for kernel in kernels.values() if kernel.size > _CLUSTERED), default=0)
    if pruned and zeros < PRUNED:
        raise ModelError(
            f"{method}: the student must be pruned. Received: at most {zeros:.0%} zeros in a kernel. Prune it first: "
            "tfkd distill --optimize prune --out pruned.keras."
        )
    dense = [name for name, kernel in kernels.items() if kernel.all()]
    if pruned and clustered and dense:  # one quantizer object serves all layers and is configured by the first
        raise ModelError(
            f"{method}: all kernels must be pruned, otherwise tensorflow-model-optimization preserves no zeros. "
            f"Received: none in {', '.join(dense)}. Prune these too, or use cqat."
        )
    if clustered and values > _CLUSTERED:
        raise ModelError(
            f"{method}: the student must be clustered. Received: {values} values or more in each large kernel. Cluster "
            "it first: tfkd distill --optimize cluster --out clustered.keras."
        )


def _prepare(student: keras.Model, method: str, scheme: object) -> Optimized:
    twin = Twin.of(student, method)
    keras_2, tfmot = load_tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

    known = registry.Default8BitQuantizeRegistry()
    refuse(
        method,
        student,
        [reason for layer in twin.model.layers if (reason := _refusal(layer, known))],
        "--optimize qat supports more layers but does not preserve zeros and clusters.",
    )
    # Rescaling is not in its table; only its output is to be quantized.
    scaled = registry.Default8BitQuantizeConfig([], [], True)
    annotate = tfmot.quantization.keras.quantize_annotate_layer

    def annotated(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        return annotate(layer, scaled) if isinstance(layer, keras_2.layers.Rescaling) else annotate(layer)

    marked = twin.wrap(dict.fromkeys(twin.layers, annotated))
    try:
        with tfmot.quantization.keras.quantize_scope():
            rounded = tfmot.quantization.keras.quantize_apply(marked, *([scheme] if scheme else []))
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{method}: tensorflow-model-optimization does not support {student.name!r}: {error} Use --optimize qat."
        ) from None
    _settle(rounded)
    notes = (f"{method}: all {len(twin.layers)} layers of {student.name!r} are quantized.",)

    def export(
        path: str | os.PathLike[str], *, mode: str = "full_int8", calibration: SampleData = None, **options: Any
    ) -> TFLiteModel:
        return _export(rounded, student, method, path, mode, calibration, options)

    return Optimized(twin.trainable(rounded), (), export, notes=notes)


def _refusal(layer: tf_keras.layers.Layer, known: registry.Default8BitQuantizeRegistry) -> str | None:
    """Why a layer of the tf_keras copy is not supported; None if it is."""
    kind = type(layer).__name__
    if known.supports(layer) or kind in (*_REPLACED, "Rescaling", "InputLayer"):
        return None
    if kind == "BatchNormalization":
        before = type(layer.inbound_nodes[0].inbound_layers).__name__
        if before in _FOLDED:
            return None
        return f"{layer.name} ({kind}): cannot be folded into {before}"
    return f"{layer.name} ({kind}): not in its table of 8-bit layers"


def _settle(model: tf_keras.Model) -> None:
    """Initializes activation ranges with the first batch and lets them follow later batches faster.

    By default they start at -6..6 and move by 0.1 % per step, which takes thousands of steps for inputs of 0..255.
    """
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantizers

    class Settling(quantizers.MovingAverageQuantizer):
        def __call__(
            self, inputs: tf.Tensor, training: bool | tf.Tensor, weights: dict[str, tf.Variable], **_: object
        ) -> tf.Tensor:
            fresh = tf.logical_and(tf.equal(weights["min_var"], -6.0), tf.equal(weights["max_var"], 6.0))
            return quant_ops.MovingAvgQuantize(
                inputs,
                weights["min_var"],
                weights["max_var"],
                ema_decay=tf.where(fresh, 0.0, 0.95),
                is_training=training,
                num_bits=self.num_bits,
                per_channel=self.per_axis,
                symmetric=self.symmetric,
                narrow_range=self.narrow_range,
            )

    for layer in model.layers:
        for owner in (layer, *getattr(layer, "_quantize_activations", ())):
            if isinstance(getattr(owner, "quantizer", None), quantizers.MovingAverageQuantizer):
                owner.quantizer = Settling(**owner.quantizer.get_config())
        if getattr(layer, "_output_quantizers", None):
            layer._output_quantizers = [Settling(**one.get_config()) for one in layer._output_quantizers]


def _export(
    model: tf_keras.Model,
    student: keras.Model,
    method: str,
    path: str | os.PathLike[str],
    mode: str,
    calibration: SampleData,
    options: dict[str, Any],
) -> TFLiteModel:
    """Writes the .tflite with the trained ranges, after comparing it with the trained model."""
    if mode != "full_int8":
        raise InputError(f"{method}: the mode must be full_int8. Received: {mode!r}. Use tfkd.convert for other modes.")
    if Path(path).exists() and not options.get("overwrite"):
        raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    tensor = student.inputs[0]
    spec = tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name="image")
    holder = tf.Module()
    holder.model = model
    answer = tf.function(lambda image: model(image, training=False), input_signature=[spec])
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        tf.saved_model.save(holder, folder, signatures={"serving_default": answer.get_concrete_function()})
        made = converter.convert(folder, Path(folder) / "model.tflite", calibration=calibration, **options)
    _compare(model, made, np.asarray(choose(calibration, agreement.SAMPLES, 0).x), str(path))
    return made.save(path, overwrite=options.get("overwrite", False))


def _compare(model: tf_keras.Model, made: TFLiteModel, x: np.ndarray, where: str) -> None:
    """Compares a .tflite with the trained model; see `tfkd.optimization.agreement.check`."""
    wrapped = [layer for layer in model.layers if type(layer).__name__ == "QuantizeWrapperV2"]
    inner = load_tfmot()[0].Model(model.inputs, [layer.get_output_at(-1) for layer in wrapped])

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(model(tf.cast(x, model.inputs[0].dtype), training=False))

    def layers(x: np.ndarray) -> dict[str, np.ndarray]:
        outputs = inner(tf.cast(x, model.inputs[0].dtype), training=False)
        return {layer.layer.name: np.asarray(output) for layer, output in zip(wrapped, outputs, strict=True)}

    agreement.check(made, x, answers, layers, where)
