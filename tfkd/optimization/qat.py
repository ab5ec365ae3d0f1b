"""Quantization-aware training: the student trains with the rounding of the .tflite that it will become."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfkd import child, conversion, targets
from tfkd.calibration import choose
from tfkd.optimization import Optimized, int4, rounding
from tfkd.optimization.quantizers import FakeQuantize, QuantizedWeights, channel_axes, freeze, on_grid
from tfkd.tflite import TFLiteModel

if TYPE_CHECKING:
    from tfkd.data import Split

# The share of samples on which the .tflite must answer as the trained model does, and how many are asked.
_AGREEMENT = 0.99
_COMPARED = 512
_ROUNDING = 2.0  # steps between two ways to round; a fault makes more


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
        raise ValueError(f"optimize: weight_bits must be 8 or 4. Received: weight_bits={weight_bits!r}. Use 8.")
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
        raise ValueError(
            f"optimize: qat is for mode 'full_int8'. Received: mode={mode!r}. Use tfkd.convert for others."
        )
    if Path(path).exists() and not overwrite:
        raise ValueError(f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path.")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        fixed = constant(model)
        made = conversion.convert(fixed, Path(folder) / "model.tflite", mode=mode, calibration=calibration, **options)
    if any(layer.bits == 4 for layer in _weighted(model)):
        made = TFLiteModel(int4.pack(made.content), audit=made.audit)
    assert calibration is not None  # or convert would have refused
    compare(model, made, choose(calibration, _COMPARED, seed=1), str(path))
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
                raise ValueError(
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


def compare(model: keras.Model, made: TFLiteModel, split: Split, where: str) -> float:
    """Holds a .tflite against the model that it came from.

    Args:
        model: what `prepare` gave, trained.
        made: its .tflite.
        split: samples to compare on.
        where: what the message begins with.

    Returns:
        The share of samples on which both give the same label.

    Raises:
        ValueError: that is less than 99 %.
    """
    expected = np.concatenate([np.asarray(model(x, training=False)) for x, _ in split.batches(256)])
    run = targets.get("host:plain").run(made, made.quantize_input(split.x), latency=False)
    given = made.dequantize_output(run.outputs[0])
    agreement = float(np.mean(_labels(expected) == _labels(given)))
    if agreement < _AGREEMENT:
        worst, steps = _worst(model, made, split.x[:32])
        remedy = (
            "Build it from other layers, or convert the student without qat (tfkd.convert)."
            if steps > _ROUNDING
            else "That is rounding alone, on labels that the model hardly prefers to others: train it longer."
        )
        raise ValueError(
            f"{where}: the .tflite must give the labels of the trained model on {_AGREEMENT:.0%} of {len(split)} "
            f"samples. Received: {agreement:.1%}. They part at the layer {worst!r}, by {steps:.1f} of 256 steps on "
            f"average. {remedy}"
        )
    return agreement


def _labels(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1, outputs.shape[-1]).argmax(axis=-1)[:, -1]


def _worst(model: keras.Model, made: TFLiteModel, x: np.ndarray) -> tuple[str, float]:
    """The layer where the .tflite goes apart from the model, and its mean error in steps of its range."""
    errors = gaps(model, made, x)
    largest = max(errors.values())
    return next((layer, error) for layer, error in errors.items() if error >= largest / 2)  # later ones inherit it


def gaps(model: keras.Model, made: TFLiteModel, x: np.ndarray) -> dict[str, float]:
    """The mean difference of each layer between a model and its .tflite, in steps, in the order of the layers."""
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    names = {layer.name.removesuffix("_range"): i for i, layer in enumerate(ranges)}
    # Node 0: pooling uses the range of its input a second time.
    inner = keras.Model(model.inputs[0], [layer._inbound_nodes[0].outputs[0] for layer in ranges])
    expected = [np.asarray(one) for one in inner(x.astype("float32"), training=False)]
    got = child.run("tfkd.optimization.qat:_activations", timeout_s=600.0, what="running the .tflite layer by layer",
                    content=made.content, inputs=made.quantize_input(x))  # fmt: skip
    found: dict[int, float] = {}
    for number in (op.outputs[0] for op in made.graph.ops):
        tensor = made.graph.tensors[number]
        parts = re.split(r"[/;:]", tensor.name)
        fits = [names[name] for part in parts for name in (part, re.sub(r"_\d+$", "", part)) if name in names]
        if number in made.graph.outputs:  # it has a name of its own
            fits = [len(ranges) - 1]
        if fits and len(tensor.scales) == 1 and got[tensor.name].size == expected[max(fits)].size:
            values = (got[tensor.name].astype("float64") - tensor.zero_points[0]) * tensor.scales[0]
            difference = values.ravel() - expected[max(fits)].ravel()
            found[max(fits)] = float(np.abs(difference).mean() / tensor.scales[0])
    return {ranges[index].name.removesuffix("_range"): found[index] for index in sorted(found)}


def _activations(content: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:  # runs in a child
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    interpreter.allocate_tensors()
    graph = TFLiteModel.load(content).graph
    made = {graph.tensors[op.outputs[0]].name: op.outputs[0] for op in graph.ops}
    found: dict[str, list[np.ndarray]] = {name: [] for name in made}
    for sample in inputs:
        interpreter.set_tensor(graph.inputs[0], sample[None])
        interpreter.invoke()
        for name, index in made.items():
            found[name].append(interpreter.get_tensor(index))
    return {name: np.concatenate(values) for name, values in found.items()}
