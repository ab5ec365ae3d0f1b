"""Quantization-aware training: the student trains with the rounding of the .tflite that it will become."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfkd._internal import keras_compat
from tfkd.conversion import converter
from tfkd.conversion.calibration import choose
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.optimization import agreement, int4, rounding
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.quantizers import FakeQuantize, QuantizedWeights, channel_axes, freeze, on_grid, steps_of

if TYPE_CHECKING:
    from tfkd.data import Split


def prepare(student: keras.Model, *, weight_bits: int = 8, int8_layers: Sequence[str] = ()) -> Optimized:
    """Makes a student round as its .tflite will: weights by channel, activations by ranges that training finds.

    BatchNorm is folded into the layer before it, and a nested model is opened: its layer `conv` in `backbone` is
    called `backbone_conv`. All other layers keep their names, for the features of a `tfkd.Distiller`. From three
    quarters of the epochs on the ranges stay as they are; a training of one epoch does not hold them.

    Args:
        student: trained, functional or Sequential, in float32, with one input.
        weight_bits: 8, or 4 for convolutions and Dense layers (depthwise and transposed convolutions keep 8).
        int8_layers: regular expressions, searched in names; layers that they fit keep 8 bits. TensorFlow Lite Micro
            takes Dense layers in 8 bits only.

    Returns:
        The model to train, and `export` for mode `full_int8`, see there.

    Raises:
        ValueError: `weight_bits` is another number, an expression fits no layer, or there are layers that it does not
            take; the message names all.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877), section 3.
    """
    if weight_bits not in (4, 8):
        raise InputError(f"optimize: weight_bits must be 8 or 4. Received: weight_bits={weight_bits!r}. Use 8.")
    model = rounding.model(student, weight_bits, int8_layers)
    return Optimized(model, (_Freeze(model),), functools.partial(export, model))


class _Freeze(keras.callbacks.Callback):
    """Holds the ranges of activations in the last quarter of the epochs, so that the weights settle in them."""

    def __init__(self, rounded: keras.Model) -> None:
        super().__init__()
        self.rounded = rounded

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
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
    """Writes a .tflite with the ranges and the rounded weights that were trained, and holds it against the model.

    Args:
        model: what `prepare` gave, trained; it may have been saved and loaded since.
        path: where the .tflite goes; written whole or not at all.
        mode: `full_int8`; weights of 4 bits stay so.
        calibration: train or validation split, on a sample of which both are compared.
        overwrite: replace an existing file.
        **options: of `tfkd.convert`.

    Raises:
        ValueError: the model was not trained, or the .tflite does not answer as it does; the message names the layer
            where they part.
    """
    if mode != "full_int8":
        raise InputError(
            f"optimize: qat is for mode 'full_int8'. Received: mode={mode!r}. Use tfkd.convert for others."
        )
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        fixed = constant(model)
        made = converter.convert(fixed, Path(folder) / "model.tflite", mode=mode, calibration=calibration, **options)
    if any(layer.bits == 4 for layer in _weighted(model)):
        made = TFLiteModel(int4.pack(made.content), audit=made.audit)
    assert calibration is not None  # or convert would have refused
    compare(model, made, choose(calibration, agreement.SAMPLES, seed=1).x, str(path))
    return made.save(path, overwrite=overwrite)


def constant(model: keras.Model) -> keras.Model:
    """The model with its weights and ranges as they are: rounded kernels, ranges as constants, which convert.

    Args:
        model: what `prepare` gave, trained.

    Raises:
        ValueError: a range was never set.
    """

    def fix(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, QuantizedWeights):
            return type(layer.layer).from_config(layer.layer.get_config())
        if isinstance(layer, FakeQuantize):
            limits = (float(layer.low.numpy()), float(layer.high.numpy()))
            if limits[0] == limits[1]:
                raise InputError(
                    f"optimize: the model must be trained before it is exported. Received: {layer.name!r} without a "
                    "range. Fit it for an epoch or more; a layer that is 0 on all samples has none either."
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
    """Holds a .tflite against the model that it came from; see `tfkd.optimization.agreement.hold`.

    Args:
        model: what `prepare` gave, trained.
        made: its .tflite.
        x: [N, ...], samples to compare on.
        where: what the message begins with.
    """
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    names = [layer.name.removesuffix("_range") for layer in ranges]
    # Node 0: pooling uses the range of its input a second time.
    inner = keras.Model(model.inputs[0], [keras_compat.first_outputs(layer)[0] for layer in ranges])

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(model(x.astype("float32"), training=False))

    def layers(x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, map(np.asarray, inner(x.astype("float32"), training=False)), strict=True))

    with _as_kernels(model):
        return agreement.hold(made, x, answers, layers, where)


@contextlib.contextmanager
def _as_kernels(model: keras.Model) -> Iterator[None]:
    """Lets a model round as the kernels of TensorFlow Lite do beyond what training simulates.

    Biases are whole numbers of the steps of input times weight, and a sum is multiplied by 2^-s m, 1/2 <= m < 1, in two
    roundings: the product with m, then the division by 2^s. Where s is small, as for weights of 4 bits, one value of 50
    is another than rounded once; through some layers that flips labels.
    """
    biases = []
    given = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    for layer in given:
        giver = _giver(layer)
        while isinstance(giver, (keras.layers.ReLU, keras.layers.Activation, keras.layers.Identity)):
            giver = _giver(giver)
        if isinstance(giver, QuantizedWeights):
            source = _giver(giver)
            while not isinstance(source, FakeQuantize):
                source = _giver(source)
            weights = steps_of(np.asarray(giver.layer.kernel), channel_axes(giver.layer), giver.bits)
            steps = np.where(weights > 0, weights, 1e-6) * _step(source)
            layer.parts = (2.0 ** -np.minimum(np.frexp(steps / _step(layer))[1], 0)).astype("float32")
            if giver.layer.bias is not None:
                biases.append((giver.layer.bias, giver.layer.bias.numpy()))
                giver.layer.bias.assign(np.round(biases[-1][1] / steps) * steps)
    try:
        yield
    finally:
        for layer in given:
            layer.parts = None
        for bias, value in biases:
            bias.assign(value)


def _giver(layer: keras.layers.Layer) -> keras.layers.Layer:
    """What computes a layer's first input."""
    return keras_compat.producer(keras_compat.first_inputs(layer)[0])


def _step(layer: FakeQuantize) -> float:
    return float(layer.high.numpy() - layer.low.numpy()) / 255
