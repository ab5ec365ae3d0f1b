"""What the layers of a float .tflite multiply with their weights, as the rows of a matrix product.

It runs the model: call it in a child process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class Layer(NamedTuple):
    """A layer with constant weights.

    Args:
        op: The op.
        name: One of `LAYERS`.
        source: Tensor index of its input.
        output: Name of its output.
        shape: Shape of the weights.
    """

    op: schema.OperatorT
    name: str
    source: int
    output: str
    shape: tuple[int, ...]

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.name == "DEPTHWISE_CONV_2D"

    def by_rows(self, weights: np.ndarray) -> np.ndarray:
        """Weights in the order of `rows`: [output channels, taps, input channels]; depthwise [taps, channels]."""
        if self.is_depthwise:
            return weights.reshape(-1, self.shape[-1])
        return weights.reshape(self.shape[0], -1, self.shape[-1])


def layers(editor: ModelEditor) -> list[Layer]:
    """The layers whose rows can be read: without groups, and with constant weights and biases."""
    found = []
    for op in editor.graph.operators:
        name = editor.name(op)
        if name not in LAYERS or any(editor.is_activation(int(i)) for i in op.inputs[1:] if i >= 0):
            continue
        source, weights = int(op.inputs[0]), editor.tensors[int(op.inputs[1])]
        if not editor.is_activation(source):
            continue
        if name != "FULLY_CONNECTED" and weights.shape[-1] != editor.tensors[source].shape[-1]:
            continue  # groups, or several outputs per channel
        output = editor.tensors[int(op.outputs[0])].name.decode()
        found.append(Layer(op, name, source, output, tuple(map(int, weights.shape))))
    return found


def mean_rows(content: bytes, found: Sequence[Layer], samples: Samples) -> dict[str, np.ndarray]:
    """The mean over samples and positions of the rows of each layer, [taps, input channels], by its output.

    The mean of the windows is the mean of the windows of the mean image.

    Args:
        content: The float .tflite.
        found: Its layers.
        samples: Samples.
    """
    sums: dict[int, np.ndarray] = {}
    recorder = TensorRecorder(content)
    for sample in samples:
        read = recorder.run(sample)
        for index in {layer.source for layer in found}:
            sums[index] = sums.get(index, 0.0) + read(index).astype(np.float64)
    return {layer.output: rows(layer, sums[layer.source] / len(samples)).mean(axis=0) for layer in found}


def rows(
    layer: Layer, values: np.ndarray, most: int | None = None, rng: np.random.Generator | None = None
) -> np.ndarray:
    """The windows of an image, or the vectors of a FULLY_CONNECTED, as [positions, taps, input channels].

    Args:
        layer: The layer.
        values: [1, height, width, channels], or any shape for a FULLY_CONNECTED, whose rows are those that it makes.
        most: Largest number of positions, drawn at random; None for all.
        rng: Generator of the draw.
    """
    if layer.name == "FULLY_CONNECTED":
        return values.reshape(-1, 1, layer.shape[-1])
    options, (_, height, width, _) = layer.op.builtinOptions, values.shape
    steps, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    spans = [(k - 1) * d + 1 for k, d in zip(layer.shape[1:3], dilations, strict=True)]
    if options.padding == schema.Padding.SAME:
        totals = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, step, span in zip((height, width), steps, spans, strict=True)
        ]
        values = np.pad(values, [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(values[0], spans, axis=(0, 1))
    windows = windows[:: steps[0], :: steps[1], :, :: dilations[0], :: dilations[1]]
    count = windows.shape[0] * windows.shape[1]
    if most is not None and rng is not None and most < count:
        places = rng.choice(count, most, replace=False)
        windows = windows[places // windows.shape[1], places % windows.shape[1]]
    return np.moveaxis(windows, -3, -1).reshape(-1, layer.shape[1] * layer.shape[2], windows.shape[-3])


def dequantized_weights(model: TFLiteModel, layer: Layer) -> np.ndarray | None:
    """The real values of a layer's weights in a quantized .tflite, as `Layer.by_rows`; None where they are floats."""
    index = int(layer.op.inputs[1])
    tensor, values = model.graph.tensors[index], model.constant(index)
    if values is None or not tensor.scales:
        return None
    shape = [-1 if axis == tensor.quantized_dimension else 1 for axis in range(values.ndim)]
    steps = np.reshape(tensor.scales, shape if len(tensor.scales) > 1 else [1] * values.ndim)
    return layer.by_rows(values * steps)


def pairs(quantized: ModelEditor, original: ModelEditor) -> Iterator[tuple[Layer, Layer, np.ndarray]]:
    """The layers of a quantized .tflite that have a bias of 32 bits, each with that of the float .tflite.

    Args:
        quantized: The quantized .tflite.
        original: The float .tflite that it was made from.

    Yields:
        The quantized layer, the float layer, and the weights of the latter as `Layer.by_rows`.
    """
    floats = {layer.output: layer for layer in layers(original)}
    for layer in layers(quantized):
        twin = floats.get(layer.output)
        if twin is not None and twin.name == layer.name and _has_int32_bias(quantized, layer):
            yield layer, twin, twin.by_rows(original.constant(int(twin.op.inputs[1])))


def _has_int32_bias(editor: ModelEditor, layer: Layer) -> bool:
    """Whether a layer of a quantized .tflite has a quantized bias of 32 bits, as beside activations of 8 bits."""
    if len(layer.op.inputs) < 3 or layer.op.inputs[2] < 0:
        return False
    bias = editor.tensors[int(layer.op.inputs[2])]
    return bool(bias.type == schema.TensorType.INT32 and bias.quantization is not None)
