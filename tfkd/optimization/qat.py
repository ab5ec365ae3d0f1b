"""Quantization-aware training: the student is trained with the rounding of its future .tflite."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfkd._internal import keras_compat
from tfkd.conversion import converter
from tfkd.conversion.calibration import choose
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.optimization import agreement, int4, rounding
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.quantizers import FakeQuantize, QuantizedWeights, channel_axes, freeze, on_grid, steps_of

if TYPE_CHECKING:
    from tfkd.data import Split


def prepare(student: keras.Model, *, weight_bits: int = 8, int8_layers: Sequence[str] = ()) -> Optimized:
    """Builds a copy of the student that quantizes weights per channel and activations per tensor while it trains.

    BatchNormalization is folded into the layer before it, and a nested model is expanded: the layer `conv` in
    `backbone` becomes `backbone_conv`. All other layers keep their names, so that feature losses of a `tfkd.Distiller`
    go on working. Activation ranges are frozen in the last quarter of the epochs; a training of one epoch does not
    freeze them.

    Args:
        student: Trained functional or Sequential float32 model with one input.
        weight_bits: 8, or 4 for convolutions and Dense layers (depthwise and transposed convolutions keep 8).
        int8_layers: Regular expressions that are searched in layer names; matching layers keep 8 bits. TensorFlow
            Lite Micro supports 8-bit Dense layers only.

    Returns:
        The model to train, and its `export`.

    Raises:
        InputError: `weight_bits` is another number, or an expression matches no layer.
        ModelError: Some layers are not supported; the message names all of them.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877), section 3.
    """
    if weight_bits not in (4, 8):
        raise InputError(f"optimize: weight_bits must be 8 or 4. Received: weight_bits={weight_bits!r}. Use 8.")
    model = rounding.model(student, weight_bits, int8_layers)
    return Optimized(model, (_Freeze(model),), functools.partial(export, model))


class _Freeze(keras.callbacks.Callback):
    """Freezes activation ranges in the last quarter of the epochs, so that the weights adapt to them."""

    def __init__(self, rounded: keras.Model) -> None:
        super().__init__()
        self.rounded = rounded

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        freeze(self.rounded, epoch >= max(1, int(0.75 * self.params["epochs"])))


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    mode: str = "full_int8",
    calibration: Split | None = None,
    overwrite: bool = False,
    **options: Any,
) -> TFLiteModel:
    """Writes a .tflite with the trained ranges and quantized weights, after comparing it with the model.

    Args:
        model: The trained model that `prepare` built; it may have been saved and loaded.
        path: Path of the .tflite, which is written atomically.
        mode: `full_int8`; int4 weights stay int4.
        calibration: Train or validation split; a sample of it is used for the comparison.
        overwrite: Whether to replace an existing file.
        **options: Options of `tfkd.convert`.

    Raises:
        InputError: The mode is another one, or the file exists.
        ModelError: The model was not trained, or the .tflite predicts other labels; the message names the layer
            at which they diverge.
    """
    if mode != "full_int8":
        raise InputError(
            f"optimize: qat supports mode 'full_int8' only. Received: mode={mode!r}. Use tfkd.convert for others."
        )
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        fixed = constant(model)
        made = converter.convert(fixed, Path(folder) / "model.tflite", mode=mode, calibration=calibration, **options)
    if any(layer.bits == 4 for layer in _weighted(model)):
        made = dataclasses.replace(made, content=int4.pack(made.content))
    assert calibration is not None  # otherwise convert raised
    compare(model, made, np.asarray(choose(calibration, agreement.SAMPLES, seed=1).x), str(path))
    return made.save(path, overwrite=overwrite)


def constant(model: keras.Model) -> keras.Model:
    """A copy of the model with quantized kernels and constant activation ranges, which can be converted.

    Args:
        model: The trained model that `prepare` built.

    Raises:
        ModelError: An activation range was never set.
    """

    def fix(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, QuantizedWeights):
            return type(layer.layer).from_config(layer.layer.get_config())
        if isinstance(layer, FakeQuantize):
            limits = (float(layer.low.numpy()), float(layer.high.numpy()))
            if limits[0] == limits[1]:
                raise ModelError(
                    f"optimize: {layer.name!r} has no activation range, so the model cannot be exported. Train it for "
                    "at least one epoch; a layer that is 0 on all samples has no range either."
                )
            return FakeQuantize(limits, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    fixed = keras.models.clone_model(model, clone_function=fix)
    for layer in _weighted(model):
        kernel, *rest = layer.layer.get_weights()
        rounded = np.asarray(on_grid(kernel, channel_axes(layer.layer), layer.bits))
        fixed.get_layer(layer.name).set_weights([rounded, *rest])
    return fixed


def _weighted(model: keras.Model) -> list[QuantizedWeights]:
    return [layer for layer in model.layers if isinstance(layer, QuantizedWeights)]


def compare(model: keras.Model, made: TFLiteModel, x: np.ndarray, where: str) -> float:
    """Compares a .tflite with the model that it came from; see `tfkd.optimization.agreement.check`.

    Args:
        model: The trained model that `prepare` built.
        made: Its .tflite.
        x: Samples [N, ...] for the comparison.
        where: Beginning of the error message.
    """
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    names = [layer.name.removesuffix("_range") for layer in ranges]
    # The first call: pooling calls the range layer of its input again.
    inner = keras.Model(model.inputs[0], [keras_compat.first_outputs(layer)[0] for layer in ranges])

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(model(x.astype("float32"), training=False))

    def layers(x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, map(np.asarray, inner(x.astype("float32"), training=False)), strict=True))

    with _as_kernels(model):
        return agreement.check(made, x, answers, layers, where)


@contextlib.contextmanager
def _as_kernels(model: keras.Model) -> Iterator[None]:
    """Makes the model round exactly as the kernels of TensorFlow Lite do, beyond what training simulates.

    Biases are rounded to multiples of input scale times weight scale, and an accumulator is multiplied by m * 2^-s,
    1/2 <= m < 1, with two roundings: after the product with m and after the division by 2^s. For small s, as with int4
    weights, about 2 % of the values differ from a single rounding, which changes labels after some layers.
    """
    biases = []
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    for layer in ranges:
        source = _source(layer)
        while isinstance(source, (keras.layers.ReLU, keras.layers.Activation, keras.layers.Identity)):
            source = _source(source)
        if isinstance(source, QuantizedWeights):
            input_range = _source(source)
            while not isinstance(input_range, FakeQuantize):
                input_range = _source(input_range)
            weights = steps_of(np.asarray(source.layer.kernel), channel_axes(source.layer), source.bits)
            steps = np.where(weights > 0, weights, 1e-6) * _step(input_range)
            layer.parts = (2.0 ** -np.minimum(np.frexp(steps / _step(layer))[1], 0)).astype("float32")
            if source.layer.bias is not None:
                biases.append((source.layer.bias, source.layer.bias.numpy()))
                source.layer.bias.assign(np.round(biases[-1][1] / steps) * steps)
    try:
        yield
    finally:
        for layer in ranges:
            layer.parts = None
        for bias, value in biases:
            bias.assign(value)


def _source(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer that computes a layer's first input."""
    return keras_compat.producer(keras_compat.first_inputs(layer)[0])


def _step(layer: FakeQuantize) -> float:
    return float(layer.high.numpy() - layer.low.numpy()) / 255
