"""Quantization-aware training by tensorflow-model-optimization, which keeps a pruned or clustered student so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd._internal import keras_compat
from tfkd.conversion import converter
from tfkd.conversion.calibration import choose
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.optimization import agreement
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.twin import PRUNED, Twin, load_tfmot, refuse

# A kernel counts as clustered up to this many values.
_CLUSTERED = 256
_FOLDED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")
_REPLACED = ("SeparableConv1D", "SeparableConv2D")


def tfmot_qat(student: keras.Model) -> Optimized:
    """Makes a student train as its int8 .tflite will compute, by tensorflow-model-optimization.

    Args:
        student: trained, functional or Sequential; it is left as it is.

    Raises:
        ValueError: layers that it does not take; the message names all. `qat` takes more.

    Reference:
        Jacob et al., arXiv:1712.05877.
    """
    return _prepare(student, "tfmot_qat", None)


def pqat(student: keras.Model) -> Optimized:
    """The same for a pruned student: what is zero stays zero.

    Raises:
        ValueError: see `tfmot_qat`; also where no kernel was pruned.
    """
    _check_structure(student, "pqat", pruned=True, clustered=False)
    load_tfmot()
    from tensorflow_model_optimization.python.core.api import experimental

    return _prepare(student, "pqat", experimental.combine.Default8BitPrunePreserveQuantizeScheme())


def cqat(student: keras.Model) -> Optimized:
    """The same for a clustered student: the weights of a kernel go on sharing few values.

    Raises:
        ValueError: see `tfmot_qat`; also where no kernel was clustered.
    """
    return _clustered(student, "cqat", pruned=False)


def pcqat(student: keras.Model) -> Optimized:
    """The same for a student that was pruned, then clustered: both stay.

    Raises:
        ValueError: see `tfmot_qat`; also where no kernel was clustered, or one was not pruned.
    """
    return _clustered(student, "pcqat", pruned=True)


def _clustered(student: keras.Model, method: str, *, pruned: bool) -> Optimized:
    _check_structure(student, method, pruned=pruned, clustered=True)
    load_tfmot()
    from tensorflow_model_optimization.python.core.api import experimental

    scheme = experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=pruned)
    return _prepare(student, method, scheme)


def _check_structure(student: keras.Model, method: str, *, pruned: bool, clustered: bool) -> None:
    """Refuses a student that has nothing to preserve."""
    kernels = {
        layer.name: np.asarray(layer.kernel)
        for layer in keras_compat.inner_layers(student)
        if type(layer).__name__ in ("Conv2D", "Dense") and layer.built
    }
    zeros = max((float(np.mean(kernel == 0)) for kernel in kernels.values()), default=0.0)
    values = min((len(np.unique(kernel)) for kernel in kernels.values() if kernel.size > _CLUSTERED), default=0)
    if pruned and zeros < PRUNED:
        raise InputError(
            f"{method}: the student must be pruned. Received: at most {zeros:.0%} zeros in a kernel. Prune it first: "
            "tfkd distill --optimize prune --out pruned.keras."
        )
    dense = [name for name, kernel in kernels.items() if kernel.all()]
    if pruned and clustered and dense:  # one quantizer serves all layers, and is told so by the first
        raise InputError(
            f"{method}: all kernels must be pruned, or tensorflow-model-optimization forgets the zeros of all. "
            f"Received: none in {', '.join(dense)}. Prune these too, or use cqat."
        )
    if clustered and values > _CLUSTERED:
        raise InputError(
            f"{method}: the student must be clustered. Received: {values} values or more in each large kernel. Cluster "
            "it first: tfkd distill --optimize cluster --out clustered.keras."
        )


def _prepare(student: keras.Model, method: str, scheme: Any) -> Optimized:
    twin = Twin.of(student, method)
    tf_keras, tfmot = load_tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

    known = registry.Default8BitQuantizeRegistry()
    refuse(
        method,
        student,
        [reason for layer in twin.model.layers if (reason := _refusal(layer, known))],
        "--optimize qat takes more layers, with structure not preserved; or convert the student as it is.",
    )
    # Its table lacks Rescaling, of which the output is to be rounded.
    scaled = registry.Default8BitQuantizeConfig([], [], True)
    annotate = tfmot.quantization.keras.quantize_annotate_layer

    def annotated(layer: Any) -> Any:
        return annotate(layer, scaled) if isinstance(layer, tf_keras.layers.Rescaling) else annotate(layer)

    marked = twin.wrap(dict.fromkeys(twin.layers, annotated))
    try:
        with tfmot.quantization.keras.quantize_scope():
            rounded = tfmot.quantization.keras.quantize_apply(marked, *([scheme] if scheme else []))
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{method}: tensorflow-model-optimization must take {student.name!r}. Received: {error} Use --optimize qat."
        ) from None
    _settle(rounded)
    notes = (f"{method}: all {len(twin.layers)} layers of {student.name!r} are taken.",)

    def export(path: Any, *, mode: str = "full_int8", calibration: Any = None, **options: Any) -> TFLiteModel:
        return _export(rounded, student, method, path, mode, calibration, options)

    return Optimized(twin.trainable(rounded), (), export, notes=notes)


def _refusal(layer: Any, known: Any) -> str | None:
    """Why a layer of the twin is not taken."""
    kind = type(layer).__name__
    if known.supports(layer) or kind in (*_REPLACED, "Rescaling", "InputLayer"):
        return None
    if kind == "BatchNormalization":
        before = type(layer.inbound_nodes[0].inbound_layers).__name__
        if before in _FOLDED:
            return None
        return f"{layer.name} ({kind}): behind {before}, where it is not folded"
    return f"{layer.name} ({kind}): is not in its table of 8-bit layers"


def _settle(model: Any) -> None:
    """Lets the ranges of activations begin with the first batch and follow the last ones.

    They begin at -6..6 and move a thousandth of the way each step: an input of 0..255 would take thousands of steps.
    """
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantizers

    class Settling(quantizers.MovingAverageQuantizer):
        def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:
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
    model: Any, student: keras.Model, method: str, path: Any, mode: str, calibration: Any, options: dict[str, Any]
) -> TFLiteModel:
    """Writes the .tflite with the ranges that were trained, and holds it against the trained model."""
    if mode != "full_int8":
        raise InputError(
            f"{method}: the mode must be full_int8, for which it was trained. Received: {mode!r}. Use tfkd.convert."
        )
    if Path(path).exists() and not options.get("overwrite"):
        raise InputError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    tensor = student.inputs[0]
    spec = tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name="image")
    holder = tf.Module()
    holder.model = model
    answer = tf.function(lambda image: model(image, training=False), input_signature=[spec])
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        tf.saved_model.save(holder, folder, signatures={"serving_default": answer.get_concrete_function()})
        made = converter.convert(folder, Path(folder) / "model.tflite", calibration=calibration, **options)
    _compare(model, made, choose(calibration, agreement.SAMPLES, 0).x, str(path))
    return made.save(path, overwrite=options.get("overwrite", False))


def _compare(model: Any, made: TFLiteModel, x: np.ndarray, where: str) -> None:
    """Holds a .tflite against the trained model; see `tfkd.optimization.agreement.hold`."""
    shown = [layer for layer in model.layers if type(layer).__name__ == "QuantizeWrapperV2"]
    inner = load_tfmot()[0].Model(model.inputs, [layer.get_output_at(-1) for layer in shown])

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(model(tf.cast(x, model.inputs[0].dtype), training=False))

    def layers(x: np.ndarray) -> dict[str, np.ndarray]:
        outputs = inner(tf.cast(x, model.inputs[0].dtype), training=False)
        return {layer.layer.name: np.asarray(output) for layer, output in zip(shown, outputs, strict=True)}

    agreement.hold(made, x, answers, layers, where)
