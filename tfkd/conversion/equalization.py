"""Equalization of the channels of activations, so that each of them uses more of the 256 steps that they share.

All channels of an int8 tensor share one scale. A channel of ±1 beside one of ±100 is left with three steps. Where a
factor per channel does not change the model (`channel_scales`), the narrow channels are widened, and the weights that
read them shrink by the same factor. Weights have a scale per output channel, so that a layer before loses nothing; in a
layer behind, unlike input channels share a scale, which limits the factors. They are chosen for the least expected
noise of both roundings at the outputs of the layers that read the channels:

    activations  Σ range² / 255² / 12 · Σ (w / s)²        weights  Σ (max |w / s| / 127)² / 12 · Σ E (s x)²

Factors are powers of 2: the float model computes the same bits as before, and `equalize_as` finds the factors again by
a look at the weights.

Reference:
    Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction (arXiv:1906.04721), section
    4.1, there with other factors, for weights with one scale per tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from tfkd.conversion import op_pairs
from tfkd.conversion.channel_scales import ChannelScales, Layer
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

# Samples whose activations are read.
_SAMPLES = 64
# How far ranges are made equal, and how far the weights behind.
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Largest factor between two channels, as an exponent of 2.
_MOST = 16
# The expected noise must fall at least to this share: below it, the rounding of another grid decides by chance.
_WORTHWHILE = 0.8
_TINY = 1e-30


@dataclasses.dataclass
class _Statistics:
    """Per channel of one tensor over the samples: smallest (<= 0) and largest value (>= 0), and mean square."""

    low: np.ndarray
    high: np.ndarray
    squares: np.ndarray


def equalize(content: bytes, samples: Samples) -> tuple[bytes, tuple[str, ...]]:
    """Equalizes the channels of those activations where the expected noise falls.

    Args:
        content: A float .tflite.
        samples: Calibration samples.

    Returns:
        The changed file, or `content` where nothing changes; and the names of the activations whose channels change.
    """
    editor = ModelEditor(content)
    if any(editor.name(op) in ("QUANTIZE", "DEQUANTIZE") for op in editor.graph.operators):
        return content, ()  # the model was trained for certain ranges and steps
    scales = ChannelScales(editor)
    _fix_dead_channels(scales)
    groups = list(_groups(scales))
    if not groups:
        return content, ()
    statistics = _measure(content, [index for group in groups for index in group], samples[:_SAMPLES])
    factors = np.ones(len(scales.free))
    changed: list[str] = []
    for group in groups:
        chosen = _choose(scales, group, statistics)
        if chosen is not None:
            factors *= chosen
            changed += [editor.tensors[index].name.decode() for index in group]
    if not changed:
        return content, ()
    scales.apply(factors)
    return editor.pack(), tuple(changed)


def equalize_as(content: bytes, converted: TFLiteModel) -> bytes:
    """Applies the factors that a conversion to another mode has applied.

    Args:
        content: A float .tflite.
        converted: The conversion of the same model.

    Returns:
        The changed file; or `content` where there are no factors that bring weights nearer to those of the conversion,
        and none farther away. A kernel that is twice as large without another that is half as large is a fault.
    """
    if all(tensor.dtype != "int8" for tensor in converted.graph.tensors):
        return content
    editor = ModelEditor(content)
    scales = ChannelScales(editor)
    _fix_dead_channels(scales)
    exponents = np.zeros(len(scales.free))
    known = np.zeros(len(scales.free), bool)
    pairs = op_pairs.pair_ops(converted.graph, TFLiteModel(content).graph).pairs
    weights = {pair.reference_output: pair.weights for pair in pairs}
    wanted = {
        layer.output: values
        for layer in scales.layers
        if (values := _converted_weights(converted, weights.get(layer.output), scales, layer)) is not None
    }
    before_all = _distances(scales, wanted)
    for layer in scales.layers:  # in the order of execution, so that the factors of a layer's input are known
        stored, numbers = wanted.get(layer.output), scales.ids[layer.output]
        if stored is None or not scales.free[numbers].any():
            continue
        values = scales.weights(layer)
        inputs = exponents[scales.ids[layer.source]]
        before = np.exp2(
            inputs[:, None, None] if layer.name == "DEPTHWISE_CONV_2D" else np.resize(inputs, values.shape[-1])
        )
        expected = (values / before).reshape(len(values), -1)
        stored = stored.reshape(len(values), -1)
        ratios = (stored * expected).sum(axis=1) / np.maximum(np.square(expected).sum(axis=1), _TINY)
        found = np.round(np.log2(np.maximum(ratios, _TINY)))
        usable = scales.free[numbers] & ~known[numbers] & (ratios > 0)
        exponents[numbers[usable]] = found[usable]
        known[numbers[usable]] = True
    if not exponents.any():
        return content
    scales.apply(np.exp2(exponents))
    distances = zip(before_all, _distances(scales, wanted), strict=True)
    return content if any(after > before * (1 + 1e-6) for before, after in distances) else editor.pack()


def _converted_weights(
    converted: TFLiteModel, index: int | None, scales: ChannelScales, layer: Layer
) -> np.ndarray | None:
    """The real values of a layer's weights in the conversion, in the order of `ChannelScales.weights`."""
    stored = None if index is None else _dequantized(converted, index)
    if stored is None or stored.size != scales.weights(layer).size:
        return None
    return np.moveaxis(stored, 3, 0) if layer.name == "DEPTHWISE_CONV_2D" else stored


def _distances(scales: ChannelScales, wanted: Mapping[int, np.ndarray]) -> list[float]:
    """The squared distance of the weights of each layer from wanted ones."""
    layers = [layer for layer in scales.layers if layer.output in wanted]
    return [float(np.square(wanted[layer.output].ravel() - scales.weights(layer).ravel()).sum()) for layer in layers]


def _dequantized(model: TFLiteModel, index: int) -> np.ndarray | None:
    """The real values of quantized weights; None for an activation or other weights."""
    tensor, values = model.graph.tensors[index], model.constant(index)
    if values is None or not tensor.scales:
        return None
    shape = [-1 if axis == tensor.quantized_dimension else 1 for axis in range(values.ndim)]
    steps = np.reshape(tensor.scales, shape if len(tensor.scales) > 1 else [1] * values.ndim)
    return np.asarray(values.astype(np.float64) * steps)


def _fix_dead_channels(scales: ChannelScales) -> None:
    """Keeps the factor 1 where the weights of a producing layer are 0, since no factor could be found in them again."""
    for layer in scales.layers:
        dead = np.abs(scales.weights(layer)).max(axis=(1, 2)) < _TINY
        scales.free[scales.ids[layer.output][dead]] = False


def _groups(scales: ChannelScales) -> Iterator[list[int]]:
    """The activations whose channels are tied to each other, with at least one free channel that a layer reads."""
    numbers = {layer.source: scales.ids[layer.source] for layer in scales.layers}
    members: dict[int, list[int]] = {}
    for index, some in scales.ids.items():
        for number in np.unique(some[scales.free[some]]).tolist():
            members.setdefault(number, []).append(index)
    left, of_tensor = set(members), {index: np.unique(some).tolist() for index, some in scales.ids.items()}
    while left:
        group: set[int] = set()
        waiting = [left.pop()]
        while waiting:
            for index in members[waiting.pop()]:
                if index not in group:
                    group.add(index)
                    new = [number for number in of_tensor[index] if number in left]
                    left.difference_update(new)
                    waiting += new
        if group & set(numbers):
            yield sorted(group)


def _measure(content: bytes, indices: list[int], samples: Samples) -> dict[int, _Statistics]:
    recorder, found = TensorRecorder(content), dict[int, _Statistics]()
    for sample in samples:
        read = recorder.run(sample)
        for index in indices:
            values = read(index)
            values = values.reshape(-1, values.shape[-1] if values.ndim else 1)
            low, high = np.minimum(values.min(axis=0), 0), np.maximum(values.max(axis=0), 0)
            squares = np.square(values, dtype=np.float64).mean(axis=0)
            if index in found:
                one = found[index]
                low, high, squares = np.minimum(one.low, low), np.maximum(one.high, high), one.squares + squares
            found[index] = _Statistics(low, high, squares)
    for one in found.values():
        one.squares = one.squares / len(samples)
    return found


def _choose(scales: ChannelScales, group: list[int], statistics: dict[int, _Statistics]) -> np.ndarray | None:
    """The factors with the least expected noise, float [numbers]; None where they would not reduce it enough."""
    readers = [layer for index in group for layer in scales.readers(index)]
    count = len(scales.free)
    ranges, largest = np.zeros(count), np.zeros(count)
    for index in group:
        one = statistics[index]
        np.maximum.at(ranges, scales.ids[index], np.maximum(one.high, -one.low))
    for layer in readers:
        if layer.name != "DEPTHWISE_CONV_2D":  # there each channel has a weight scale of its own
            peaks = np.abs(scales.weights(layer)).max(axis=(0, 1))
            ids = scales.ids[layer.source]
            np.maximum.at(largest, np.resize(ids, len(peaks)), peaks / max(peaks.max(), _TINY))
    free = scales.free & (ranges > 0)
    if not free.any():
        return None
    best, least = None, _noise(scales, group, readers, statistics, np.ones(count)) * _WORTHWHILE
    middle = np.median(ranges[free])
    for a in _EXPONENTS:
        for b in _EXPONENTS:
            factors = np.ones(count)
            wanted = a * np.log2(middle / ranges[free]) + b * np.log2(np.maximum(largest[free], 2.0**-_MOST))
            factors[free] = np.exp2(np.clip(np.round(wanted), -_MOST, _MOST))
            noise = _noise(scales, group, readers, statistics, factors)
            if noise < least:
                best, least = factors, noise
    return best


def _noise(
    scales: ChannelScales,
    group: list[int],
    readers: list[Layer],
    statistics: dict[int, _Statistics],
    factors: np.ndarray,
) -> float:
    """The expected noise at the outputs of the layers that read a group, relative to their signals."""
    variances = [
        float((one.high * scale).max() - (one.low * scale).min()) ** 2 / 255**2 / 12
        for index in group
        for one, scale in [(statistics[index], factors[scales.ids[index]])]
    ]
    total = 0.0
    for layer in readers:
        weights = scales.weights(layer)
        ids = scales.ids[layer.source]
        scale, squares = factors[ids], statistics[layer.source].squares
        if layer.name == "DEPTHWISE_CONV_2D":
            energy = np.square(weights).sum(axis=(1, 2))
            signal = (energy * squares).sum()
            total += float(sum(variances) * (energy / scale**2).sum() / max(signal, _TINY))
            continue
        scale, squares = np.resize(scale, weights.shape[-1]), np.resize(squares, weights.shape[-1])
        energy = np.square(weights).sum(axis=(0, 1))
        signal = max(float((energy * squares).sum()), _TINY)
        steps = np.abs(weights / scale).max(axis=(1, 2)) / 127
        rounding = np.square(steps).sum() / 12 * weights.shape[1] * (squares * scale**2).sum()
        total += float((sum(variances) * (energy / scale**2).sum() + rounding) / signal)
    return total
