"""Biases that cancel the mean error of rounded weights.

A layer with the weights ŵ instead of w is off by (w − ŵ) x. Over the calibration samples its mean, one number per
output channel, is (w − ŵ) E x; with it added to the bias the outputs are right on average.

Reference:
    Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction (arXiv:1906.04721), section
    4.2, with the mean inputs of calibration samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfkd.conversion import layer_inputs
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

_LARGEST = 2**30


def mean_inputs(content: bytes, samples: Samples) -> dict[str, np.ndarray]:
    """The mean of what each layer multiplies, [taps, input channels], by the name of its output.

    Args:
        content: The float .tflite.
        samples: Calibration samples.
    """
    return layer_inputs.mean_rows(content, layer_inputs.layers(ModelEditor(content)), samples)


def correct(content: bytes, original: bytes, means: Mapping[str, np.ndarray]) -> bytes:
    """Corrects the biases of a quantized .tflite.

    Args:
        content: The quantized .tflite.
        original: The float .tflite that it was made from.
        means: Result of `mean_inputs` of the float .tflite.

    Returns:
        The file with other biases, or `content` where no bias changes by a step.
    """
    editor, model, changed = ModelEditor(content), TFLiteModel(content), False
    for layer, _, weights in layer_inputs.pairs(editor, ModelEditor(original)):
        mean, rounded = means.get(layer.output), layer_inputs.dequantized_weights(model, layer)
        if mean is None or rounded is None:
            continue
        error = ((weights - rounded) * mean).sum(axis=0 if layer.is_depthwise else (1, 2))
        index = int(layer.op.inputs[2])
        steps = np.round(error / np.asarray(editor.tensors[index].quantization.scale, np.float64)).astype(np.int64)
        if steps.any():
            biases = np.clip(editor.constant(index) + steps, -_LARGEST, _LARGEST)
            editor.replace_constant(layer.op, 2, biases.astype(np.int32))
            changed = True
    return editor.pack() if changed else content
