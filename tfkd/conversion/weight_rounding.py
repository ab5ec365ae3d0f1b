"""Rounding of weights for the least error of a layer's output on calibration samples.

With rows x of inputs, weights w and rounded weights v the error of one output is  (v − w)ᵀ H (v − w),  H = mean x xᵀ.
The weights of an output are rounded one after the other, in the order of falling H[k, k]; the error of each is made up
for by those that are not rounded yet:

    v[k] = s · round (w[k] / s)        w[j] −= (w[k] − v[k]) · U[k, j] / U[k, k]   for all j > k

where U is the upper Cholesky factor of H⁻¹. In 4 bits the step s of each output is chosen among some that are smaller
than max |w| / 7: a few clipped weights may cost less than coarse steps.

Reference:
    Frantar et al.: GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers
    (arXiv:2210.17323), section 3; with the aim of Nagel et al.: Up or Down? Adaptive Rounding for Post-Training
    Quantization (arXiv:2004.10568), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfkd.conversion import layer_inputs
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.layer_inputs import Layer
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

# Rows per sample that H is the mean of: pixels beside each other tell little more.
_ROWS, _SAMPLES = 32, 128
# A layer with more inputs per output keeps its weights, since H would take long and much memory.
_MOST_INPUTS = 1536
# Share of the mean of H's diagonal that is added to it, so that rare inputs do not decide.
_DAMPING = 0.01
# Steps that are tried, as shares of the one that clips no weight.
_SHARES = {"int8": (1.0,), "int4": tuple(np.linspace(1.0, 0.5, 21).tolist())}
_LARGEST = {"int8": 127, "int4": 7}
_LARGEST_BIAS = 2**30
_TINY = 1e-30


def products(content: bytes, samples: Samples) -> dict[str, np.ndarray]:
    """H of each layer by the name of its output: [inputs, inputs] with inputs = taps x channels in their order.

    Of a depthwise layer it is [channels, taps, taps].

    Args:
        content: The float .tflite.
        samples: Calibration samples.
    """
    found, rng = layer_inputs.layers(ModelEditor(content)), np.random.default_rng(0)
    found = [one for one in found if one.is_depthwise or int(np.prod(one.shape[1:])) <= _MOST_INPUTS]
    sums: dict[str, np.ndarray] = {}
    recorder = TensorRecorder(content)
    some = samples[:: max(1, len(samples) // _SAMPLES)]
    for sample in some:
        read = recorder.run(sample)
        for layer in found:
            rows = layer_inputs.rows(layer, read(layer.source), _ROWS, rng)
            if layer.is_depthwise:
                rows = np.moveaxis(rows, 2, 0)
                product = np.matmul(rows.transpose(0, 2, 1), rows) / rows.shape[1]
            else:
                rows = rows.reshape(len(rows), -1)
                product = rows.T @ rows / len(rows)
            sums[layer.output] = sums.get(layer.output, 0.0) + product
    return {name: total.astype(np.float64) / len(some) for name, total in sums.items()}


def round_weights(content: bytes, original: bytes, found: Mapping[str, np.ndarray]) -> bytes:
    """Rounds the weights of a quantized .tflite anew.

    Args:
        content: The quantized .tflite.
        original: The float .tflite that it was made from.
        found: Result of `products` of the float .tflite.

    Returns:
        The file with other weights, and with biases in their steps.
    """
    editor, model, source = ModelEditor(content), TFLiteModel(content), ModelEditor(original)
    for layer, twin, weights in layer_inputs.pairs(editor, source):
        product, tensor = found.get(layer.output), model.graph.tensors[int(layer.op.inputs[1])]
        outputs = weights.shape[-1] if layer.is_depthwise else len(weights)
        if product is None or tensor.dtype not in _LARGEST or len(tensor.scales) != outputs:
            continue
        bias, input_scale = _bias(source, twin), float(editor.tensors[layer.source].quantization.scale[0])
        steps = np.asarray(tensor.scales, np.float64)
        least = np.abs(bias) / (_LARGEST_BIAS * input_scale)
        values, steps = _rounded_layer(layer, weights.astype(np.float64), product, steps, least, tensor.dtype)
        if tensor.dtype == "int4":
            editor.replace_int4(layer.op, 1, values, steps)
        else:
            editor.replace_constant(layer.op, 1, values.astype(np.int8), steps)
        biases = np.round(bias / (steps * input_scale)).astype(np.int32)
        editor.replace_constant(layer.op, 2, biases, steps * input_scale)
    return editor.pack()


def _bias(editor: ModelEditor, layer: Layer) -> np.ndarray:
    """The bias of a layer of the float model; 0 where it has none."""
    has_one = len(layer.op.inputs) > 2 and layer.op.inputs[2] >= 0
    return editor.constant(int(layer.op.inputs[2])).astype(np.float64) if has_one else np.zeros(1)


def _rounded_layer(
    layer: Layer, weights: np.ndarray, product: np.ndarray, steps: np.ndarray, least: np.ndarray, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """The integers of a layer in the shape of its weights, and its steps [outputs]; see `_rounded`."""
    least = np.broadcast_to(least, steps.shape)
    if not layer.is_depthwise:
        integers, steps = _rounded(weights.reshape(len(steps), -1), product, steps, least, dtype)
        return integers.reshape(layer.shape), steps
    # Each output reads one channel, with an H of its own.
    parts = [
        _rounded(weights[:, c][None], product[c], steps[c : c + 1], least[c : c + 1], dtype) for c in range(len(steps))
    ]
    integers, steps = (np.concatenate(some) for some in zip(*parts, strict=True))
    return integers.T.reshape(layer.shape), steps


def _rounded(
    weights: np.ndarray, product: np.ndarray, steps: np.ndarray, least: np.ndarray, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the weights of some outputs that read the same inputs.

    Args:
        weights: [outputs, inputs] the weights.
        product: [inputs, inputs] H.
        steps: [outputs] the step that clips no weight.
        least: [outputs] the smallest step, with which the bias fits into 32 bits.
        dtype: `int8` or `int4`.

    Returns:
        The integers [outputs, inputs], and the steps [outputs].
    """
    damped = product + np.eye(len(product)) * max(_DAMPING * float(np.diag(product).mean()), _TINY)
    order = np.argsort(-np.diag(damped), kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    best = np.full(len(weights), np.inf)
    integers, chosen = np.zeros(weights.shape), steps.copy()
    for share in _SHARES[dtype]:
        trial = np.maximum(steps * share, least)
        rounded = _round_in_order(weights[:, order], factor, trial, _LARGEST[dtype])
        error = weights[:, order] - rounded * trial[:, None]
        errors = np.einsum("ok,kl,ol->o", error, damped[np.ix_(order, order)], error, optimize=True)
        better = errors < best
        best[better], chosen[better] = errors[better], trial[better]
        integers[np.ix_(better, order)] = rounded[better]
    return integers, chosen


def _round_in_order(weights: np.ndarray, factor: np.ndarray, steps: np.ndarray, largest: int) -> np.ndarray:
    left, rounded = weights.copy(), np.zeros(weights.shape)
    for k in range(weights.shape[1]):
        rounded[:, k] = np.clip(np.round(left[:, k] / steps), -largest, largest)
        error = (left[:, k] - rounded[:, k] * steps) / factor[k, k]
        left[:, k + 1 :] -= error[:, None] * factor[k, k + 1 :]
    return rounded
