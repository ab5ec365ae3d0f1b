"""Ranges of activations over calibration samples: all of the values, or what is left without the outliers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfkd.conversion.tflite import TFLiteGraph

CHOICES = ("min_max", "percentile", "mse")

_BINS = 8192
_SHRINKS = np.linspace(1.0, 0.05, 96)  # of a range, tried for the least squared error
_SHOWN = 5
_COMMON = 99.99  # percent of the values that are no outliers
_FAR = 4.0  # times as wide as those: outliers worth a sentence


@dataclasses.dataclass
class _Histogram:
    """The values of one tensor over all samples."""

    low: float = np.inf
    high: float = -np.inf
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(_BINS, np.int64))
    zeros: int = 0

    def widen(self, values: np.ndarray) -> None:
        """The first pass."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def add(self, values: np.ndarray) -> None:
        """The second pass."""
        scale = _BINS / (self.high - self.low) if self.high > self.low else 0.0
        bins = np.minimum(((values.ravel() - self.low) * scale).astype(np.int64), _BINS - 1)
        self.counts += np.bincount(bins, minlength=_BINS)
        self.zeros += int((values == 0).sum())

    @property
    def centres(self) -> np.ndarray:
        return self.low + (np.arange(_BINS) + 0.5) * (self.high - self.low) / _BINS

    def percentile(self, percent: float) -> tuple[float, float]:
        """The range without the values beyond the percentile, at both ends."""
        share = np.cumsum(self.counts) / self.counts.sum()
        edges = np.linspace(self.low, self.high, _BINS + 1)
        low = edges[int(np.searchsorted(share, 1 - percent / 100, side="right"))]
        high = edges[min(int(np.searchsorted(share, percent / 100)) + 1, _BINS)]
        return float(low), float(high)

    def least_error(self, steps: int) -> tuple[float, float]:
        """The range with the least mean squared error of rounding and cutting off."""
        counts, centres = self.counts.astype(np.float64), self.centres
        if self.low <= 0 <= self.high and self.zeros:  # 0 is always on the grid
            counts[int(np.abs(centres).argmin())] -= self.zeros
        best, found = np.inf, (self.low, self.high)
        for shrink in _SHRINKS:
            low, high = min(self.low * shrink, 0.0), max(self.high * shrink, 0.0)
            cut = np.square(centres - np.clip(centres, low, high))
            inside = counts[cut == 0].sum()
            error = float((counts * cut).sum() + inside * ((high - low) / (steps - 1)) ** 2 / 12)
            if error < best:
                best, found = error, (low, high)
        return found


def find(
    content: bytes, graph: TFLiteGraph, samples: np.ndarray, choice: str, percentile: float, steps: Mapping[int, int]
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Finds the range of each activation. It runs the model here: call it in a child process.

    Args:
        content: the float model.
        graph: of it.
        samples: [N, ...], with which it is run twice.
        choice: one of `CHOICES`; the input's range is always `min_max`.
        percentile: for `percentile`, in percent.
        steps: of the tensors, by index, that have others than 256.

    Returns:
        The range by tensor, 0 included, and the farthest outliers in sentences.
    """
    active = sorted(
        {
            i
            for op in graph.ops
            for i in (*op.inputs, *op.outputs)
            if i >= 0 and not graph.constants[i] and graph.tensors[i].dtype == "float32"
        }
        | set(graph.inputs)
    )
    histograms = {index: _Histogram() for index in active}
    for add in (_Histogram.widen, _Histogram.add):
        for values in _activations(content, samples):
            for index, histogram in histograms.items():
                add(histogram, values(index))
    found, outliers = {}, []
    for index, histogram in histograms.items():
        low, high = histogram.low, histogram.high
        if index not in graph.inputs:
            if choice == "percentile":
                low, high = histogram.percentile(percentile)
            elif choice == "mse":
                low, high = histogram.least_error(steps.get(index, 2**8))
            outliers.append(_outlier(graph.tensors[index].name, histogram, low, high))
        found[graph.tensors[index].name] = (min(low, 0.0), max(high, 0.0))
    said = sorted((one for one in outliers if one is not None), reverse=True)
    return found, tuple(sentence for _, sentence in said[:_SHOWN])


def _outlier(name: str, found: _Histogram, low: float, high: float) -> tuple[float, str] | None:
    """How many times as wide as the bulk of the values all of them are, and a sentence on it."""
    layer, width = name.split(";")[0], found.high - found.low
    if (low, high) != (found.low, found.high):
        beyond = float(found.counts[(found.centres < low) | (found.centres > high)].sum() / found.counts.sum())
        return width / max(high - low, 1e-30), (
            f"{layer}: {beyond:.3%} of its values lie beyond {low:.3g}..{high:.3g} and are cut off; all span "
            f"{found.low:.3g}..{found.high:.3g}."
        )
    low, high = found.percentile(_COMMON)
    ratio = width / max(high - low, 1e-30)
    if ratio < _FAR:
        return None
    return ratio, (
        f"{layer}: its range {found.low:.3g}..{found.high:.3g} is {ratio:.0f} times as wide as {low:.3g}..{high:.3g}, "
        f"which holds {_COMMON} % of the values at either end. Try --range percentile."
    )


def _activations(content: bytes, samples: np.ndarray) -> Iterator[Any]:
    """For each sample what reads a tensor by its index."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    for sample in samples:
        interpreter.reset_all_variables()
        interpreter.set_tensor(detail["index"], sample[None].astype(detail["dtype"]))
        interpreter.invoke()
        yield interpreter.get_tensor
