"""Ranges of activations over calibration samples, from their minimum and maximum or without outliers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteGraph, TFLiteModel

METHODS = ("min_max", "percentile", "mse")

_BINS = 8192
# Fractions of the full range that `mse` tries.
_SHRINK_FACTORS = np.linspace(1.0, 0.05, 96)
_MAX_FINDINGS = 5
# A tensor has outliers when its full range is at least so many times as wide as this central share of its values.
_CENTRAL_PERCENT = 99.99
_OUTLIER_RATIO = 4.0
# Least range of a sum in shares of its operands' range, and of a squared difference in shares of the range's square.
# Kernels abort where it is 2⁻¹⁹ (int8) or 2⁻¹⁴ (int16), and 2⁻²⁰; with a margin.
_LEAST_SUM, _LEAST_SQUARE = 2.0**-12, 2.0**-18
_LARGEST = np.finfo("float32").max


@dataclasses.dataclass
class _Histogram:
    """Histogram of one tensor's values over all samples, filled in two passes: `widen`, then `add`."""

    low: float = np.inf
    high: float = -np.inf
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(_BINS, np.int64))
    zeros: int = 0

    def widen(self, values: np.ndarray) -> None:
        """Extends the limits to the values of one sample."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def add(self, values: np.ndarray) -> None:
        """Counts the values of one sample."""
        scale = _BINS / (self.high - self.low) if self.high > self.low else 0.0
        bins = np.minimum(((values.ravel() - self.low) * scale).astype(np.int64), _BINS - 1)
        self.counts += np.bincount(bins, minlength=_BINS)
        self.zeros += int((values == 0).sum())

    @property
    def centres(self) -> np.ndarray:
        return self.low + (np.arange(_BINS) + 0.5) * (self.high - self.low) / _BINS

    def percentile(self, percent: float) -> tuple[float, float]:
        """The range between the percentiles 100 - percent and percent."""
        share = np.cumsum(self.counts) / self.counts.sum()
        edges = np.linspace(self.low, self.high, _BINS + 1)
        low = edges[int(np.searchsorted(share, 1 - percent / 100, side="right"))]
        high = edges[min(int(np.searchsorted(share, percent / 100)) + 1, _BINS)]
        return float(low), float(high)

    def least_error(self, steps: int) -> tuple[float, float]:
        """The range with the smallest mean squared quantization error.

        The error of a value is its distance to the range where it lies outside (clipping), and step² / 12 where it
        lies inside (rounding).

        Args:
            steps: Number of quantization steps of the type, 256 or 65,536.
        """
        counts, centres = self.counts.astype(np.float64), self.centres
        if self.low <= 0 <= self.high and self.zeros:
            # 0 is always represented exactly, so that zeros have no error.
            counts[int(np.abs(centres).argmin())] -= self.zeros
        smallest, best = np.inf, (self.low, self.high)
        for shrink in _SHRINK_FACTORS:
            low, high = min(self.low * shrink, 0.0), max(self.high * shrink, 0.0)
            clipping = np.square(centres - np.clip(centres, low, high))
            inside = counts[clipping == 0].sum()
            error = float((counts * clipping).sum() + inside * ((high - low) / (steps - 1)) ** 2 / 12)
            if error < smallest:
                smallest, best = error, (low, high)
        return best


def find(
    content: bytes, graph: TFLiteGraph, samples: Samples, method: str, percentile: float, steps: Mapping[int, int]
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Computes the range of each activation. It runs the model in this process: call it in a child process.

    Args:
        content: The float .tflite.
        graph: Graph of the .tflite.
        samples: Calibration samples. The model runs on each twice.
        method: One of `METHODS`; the range of the input is always `min_max`.
        percentile: Upper percentile of the method `percentile`, in percent.
        steps: Number of quantization steps by tensor index, for tensors that do not have 256.

    Returns:
        The range (low <= 0, high >= 0) by tensor name, and sentences on a layer with NaN and on the tensors with the
        farthest outliers.
    """
    histograms, undefined = {index: _Histogram() for index in _float_activations(graph)}, Counter[int]()
    for accumulate, counted in ((_Histogram.widen, undefined), (_Histogram.add, Counter[int]())):
        for read in _runs(content, samples, counted):
            for index, histogram in histograms.items():
                accumulate(histogram, read(index))
    ranges: dict[int, tuple[float, float]] = {}
    findings = []
    for index, histogram in histograms.items():
        low, high = histogram.low, histogram.high
        if low > high:  # no value is finite
            low = high = 0.0
        elif index not in graph.inputs:
            if method == "percentile":
                low, high = histogram.percentile(percentile)
            elif method == "mse":
                low, high = histogram.least_error(steps.get(index, 2**8))
            findings.append(_outlier(graph.tensors[index].name, histogram, low, high))
        ranges[index] = (min(low, 0.0), max(high, 0.0))
    _widen_small_sums(graph, ranges)
    widest = sorted((finding for finding in findings if finding is not None), reverse=True)
    named = {graph.tensors[index].name: limits for index, limits in ranges.items()}
    return named, (*on_nan(graph, undefined, samples), *(sentence for _, sentence in widest[:_MAX_FINDINGS]))


def on_nan(graph: TFLiteGraph, undefined: Mapping[int, int], samples: Samples) -> Iterator[str]:
    """A finding on the first op that gives NaN, which has no place in a range; none where no op does.

    Args:
        graph: Graph of the .tflite.
        undefined: Number of samples on which a tensor has NaN, by its index.
        samples: Calibration samples.
    """
    for op in graph.ops:
        if op.outputs and (count := undefined.get(op.outputs[0])):
            layer = graph.tensors[op.outputs[0]].name.split(";")[0]
            yield (
                f"{layer}: {op.name} gives NaN on {count} of {len(samples)} calibration samples. Its range leaves them "
                "out. Where no layer behind it replaces them, repair the model or these samples."
            )
            return


def extremes(
    content: bytes, graph: TFLiteGraph, samples: Samples, undefined: Counter[int] | None = None
) -> dict[int, tuple[float, float]]:
    """The range (low <= 0, high >= 0) of each float input and output of an op, by tensor index.

    It runs the model in this process: call it in a child process.

    Args:
        content: The float .tflite.
        graph: Graph of the .tflite.
        samples: Calibration samples.
        undefined: Takes the number of samples on which a tensor has NaN, by its index, where it is given.
    """
    written = {*graph.inputs, *(index for op in graph.ops for index in op.outputs)}
    wanted = [index for index in sorted(written) if graph.tensors[index].dtype == "float32"]
    low, high = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    for read in _runs(content, samples, Counter[int]() if undefined is None else undefined):
        for index in wanted:
            values = read(index)
            low[index] = min(low[index], float(values.min(initial=0.0)))
            high[index] = max(high[index], float(values.max(initial=0.0)))
    ranges = {index: (low[index], high[index]) for index in wanted}
    _widen_small_sums(graph, ranges)
    return ranges


def known_extremes(content: bytes, samples: Samples) -> tuple[dict[int, tuple[float, float]], tuple[str, ...]]:
    """The result of `extremes` and `on_nan`; empty where LiteRT cannot show all tensors, as in models with loops."""
    graph, undefined = TFLiteModel.load(content).graph, Counter[int]()
    with contextlib.suppress(RuntimeError, ValueError):
        return extremes(content, graph, samples, undefined), tuple(on_nan(graph, undefined, samples))
    return {}, ()


def _widen_small_sums(graph: TFLiteGraph, ranges: dict[int, tuple[float, float]]) -> None:
    """Widens the ranges of sums whose terms cancel, such as x - mean(x) of one value: kernels abort on their scale."""
    for op in graph.ops:
        output = op.outputs[0] if op.outputs else -1
        if op.name not in ("ADD", "SUB", "SQUARED_DIFFERENCE") or output not in ranges:
            continue
        width = max((ranges[i][1] - ranges[i][0] for i in op.inputs if i in ranges), default=0.0)
        least = width**2 * _LEAST_SQUARE if op.name == "SQUARED_DIFFERENCE" else width * _LEAST_SUM
        low, high = ranges[output]
        if high - low < least:
            ranges[output] = (low, low + least)


def _float_activations(graph: TFLiteGraph) -> list[int]:
    used = {i for op in graph.ops for i in (*op.inputs, *op.outputs) if i >= 0}
    floats = {i for i in used if not graph.constants[i] and graph.tensors[i].dtype == "float32"}
    return sorted(floats | set(graph.inputs))


def _runs(content: bytes, samples: Samples, undefined: Counter[int]) -> Iterator[Callable[[int], np.ndarray]]:
    """For each sample, a function that reads the finite values of a tensor by its index, in any order.

    It counts the samples on which a tensor has NaN in `undefined`.

    An infinite value has no place in a range, and may be right inside of a model: min(1 / x, 10) at x = 0. LiteRT gives
    the largest float32 there.
    """
    recorder = TensorRecorder(content)
    for sample in samples:
        yield functools.partial(_finite, recorder.run(sample), undefined)


def _finite(read: Callable[[int], np.ndarray], undefined: Counter[int], index: int) -> np.ndarray:
    values = read(index)
    finite = values[np.abs(values) < _LARGEST]
    undefined[index] += bool(finite.size < values.size and np.isnan(values).any())
    return finite


def _outlier(name: str, histogram: _Histogram, low: float, high: float) -> tuple[float, str] | None:
    """A finding on the outliers of a tensor, if it has any.

    Args:
        name: Name of the tensor.
        histogram: Histogram of its values.
        low: Lower end of the range that was chosen for it.
        high: Upper end of that range.

    Returns:
        The width of the full range over that of the range without outliers, and a sentence.
    """
    layer, width = name.split(";")[0], histogram.high - histogram.low
    if (low, high) != (histogram.low, histogram.high):
        outside = (histogram.centres < low) | (histogram.centres > high)
        share = float(histogram.counts[outside].sum() / histogram.counts.sum())
        return width / max(high - low, 1e-30), (
            f"{layer}: {share:.3%} of its values lie outside {low:.3g}..{high:.3g} and are clipped; the full range is "
            f"{histogram.low:.3g}..{histogram.high:.3g}."
        )
    low, high = histogram.percentile(_CENTRAL_PERCENT)
    ratio = width / max(high - low, 1e-30)
    if ratio < _OUTLIER_RATIO:
        return None
    return ratio, (
        f"{layer}: its range {histogram.low:.3g}..{histogram.high:.3g} is {ratio:.0f} times as wide as "
        f"{low:.3g}..{high:.3g}, which lies between its percentiles {100 - _CENTRAL_PERCENT:.2f} and "
        f"{_CENTRAL_PERCENT}. Try --range percentile."
    )
