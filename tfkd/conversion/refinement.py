"""Changes that reduce the error of an int8 model: exact changes of the float model, other ranges, weights and biases.

Each is kept only where it reduces the error of the outputs on calibration samples, and is named in the result. It runs
models: call it in a child process.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import (
    bias_correction,
    channel_slices,
    equalization,
    following_errors,
    full_pooling,
    layer_names,
    weight_rounding,
)
from tfkd.conversion.litert import SampleInterpreter, needs_restart, new_interpreter
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

Ranges = Mapping[str, tuple[float, float]]

# Calibration samples on which outputs are compared, fewer of large models: multiply-accumulates of them.
_MOST_COMPARED, _LEAST_COMPARED, _MACS = 128, 16, 3e9
# The mean squared error must fall to this share for a change to be kept: a smaller difference is chance. The largest
# error may grow to this ratio, since what is clipped is rare.
_WORTHWHILE, _LARGEST = 0.95, 1.25
# Names of layers in a sentence.
_NAMED = 4
_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Refined:
    """A quantized model.

    Args:
        content: The quantized .tflite.
        original: The float .tflite that it was made from.
        changes: What was changed, as sentences.
    """

    content: bytes
    original: bytes
    changes: tuple[str, ...] = ()


class _Errors:
    """Errors of quantized models at the outputs of a float model.

    Args:
        content: The float .tflite.
        samples: Samples.
    """

    def __init__(self, content: bytes, samples: Samples) -> None:
        most = int(np.clip(_MACS / max(TFLiteModel(content).macs, 1), _LEAST_COMPARED, _MOST_COMPARED))
        self._samples = samples[:: max(1, len(samples) // most)]
        self._expected = outputs(content, self._samples)

    def of(self, quantized: bytes) -> tuple[float, float]:
        """The mean squared error and the largest error, both relative to the outputs' standard deviations."""
        squares, largest = 0.0, 0.0
        for received, expected in zip(outputs(quantized, self._samples), self._expected, strict=True):
            error = (received - expected) / max(float(expected.std()), _TINY)
            squares, largest = squares + float(np.square(error).mean()), max(largest, float(np.abs(error).max()))
        return squares, largest


def pool_by_mean(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Replaces average pooling of whole images by MEAN, see `full_pooling`: the same in float, and better in int8.

    Args:
        content: A float .tflite.

    Returns:
        The changed file, or `content` where nothing changes; and what was changed, as sentences.
    """
    content, pooled = full_pooling.replace(content)
    if not pooled:
        return content, ()
    return content, (f"Average pooling of the whole image is MEAN, with a scale of its own: {_named(pooled)}.",)


def refine(
    quantize: Callable[[bytes, Ranges], bytes],
    content: bytes,
    samples: Samples,
    *,
    ranges: bool = True,
    rounding: str = "calibrated",
) -> Refined:
    """Quantizes a float model to int8, changed where that reduces the error.

    Args:
        quantize: Quantizes a float .tflite, with other ranges for some activations than those of their values.
        content: A float .tflite, after `pool_by_mean`.
        samples: Calibration samples.
        ranges: Whether ranges may be changed.
        rounding: `calibrated` to round weights for the least error on the samples, see `weight_rounding`; `nearest`.
    """
    quantized = quantize(content, {})
    if len(TFLiteModel(content).subgraphs) > 1:  # LiteRT cannot show the tensors of loops
        return Refined(quantized, content)
    try:
        search = _Search(quantize, quantized, content, samples)
        search.run(ranges=ranges, rounds=rounding == "calibrated")
    except (RuntimeError, ValueError) as error:  # of LiteRT
        return Refined(quantized, content, (f"Ranges, channels and biases were not examined: {error}",))
    return Refined(search.best, search.original, tuple(search.changes))


class _Search:
    """The best conversion so far.

    Args:
        quantize: See `refine`.
        quantized: The first conversion.
        content: The float .tflite that it was made from.
        samples: Calibration samples.

    Attributes:
        best: The quantized .tflite.
        original: The float .tflite that it was made from.
        changes: What makes it better, as sentences.
    """

    def __init__(
        self, quantize: Callable[[bytes, Ranges], bytes], quantized: bytes, content: bytes, samples: Samples
    ) -> None:
        self._quantize, self._samples = quantize, samples
        self._errors = _Errors(content, samples)
        self._rounds, self._corrects = False, False
        self._means = functools.cache(lambda floats: bias_correction.mean_inputs(floats, samples))
        self._products = functools.cache(lambda floats: weight_rounding.products(floats, samples))
        self.best, self.original, self.changes = quantized, content, list[str]()
        self._least, self._largest = self._errors.of(self.best)

    def run(self, *, ranges: bool, rounds: bool) -> None:
        """Tries all changes.

        Args:
            ranges: See `refine`.
            rounds: Whether weights may be rounded by the samples.
        """
        content, samples = self.original, self._samples
        if rounds:
            self.attempt(content, {}, "Weights are rounded for the least error on the samples.", rounds=True)
        self.attempt(content, {}, "Biases cancel the mean error of the rounded weights.", corrects=True)
        narrowed = following_errors.find(content, samples) if ranges else {}
        if narrowed:
            self.attempt(content, narrowed, f"Ranges end where the layers behind lose least: {_named(narrowed)}.")
        equalized, tensors = equalization.equalize(content, samples)
        if tensors:
            narrowed = following_errors.find(equalized, samples) if ranges else {}
            named = _named(tensors)
            self.attempt(equalized, narrowed, f"Channels are equalized by powers of 2, the same in float: {named}.")

    def attempt(
        self, content: bytes, ranges: Ranges, sentence: str, *, rounds: bool = False, corrects: bool = False
    ) -> None:
        """Quantizes a float model in another way, and keeps the result if its outputs have a smaller error.

        Args:
            content: The float .tflite.
            ranges: See `refine`.
            sentence: The difference, for `changes`.
            rounds: Whether weights are rounded by the samples; they are where this has helped before.
            corrects: Whether biases are corrected; they are where this has helped before.
        """
        rounds, corrects = rounds or self._rounds, corrects or self._corrects
        candidate = self._quantize(content, ranges)
        if rounds:
            candidate = weight_rounding.round_weights(candidate, content, self._products(content))
        if corrects:
            candidate = bias_correction.correct(candidate, content, self._means(content))
        squares, largest = self._errors.of(candidate)
        better = squares <= self._least * _WORTHWHILE and largest <= self._largest * _LARGEST  # False for NaN
        if not better or self._least == 0:
            return
        self.changes.append(f"{sentence} The error of the outputs falls by {1 - np.sqrt(squares / self._least):.0%}.")
        self.best, self.original, self._rounds, self._corrects = candidate, content, rounds, corrects
        self._least, self._largest = squares, largest


def refine_as(content: bytes, converted: TFLiteModel) -> bytes:
    """Changes a float model as a conversion to another mode has changed it, so that both have the same ops and weights.

    Args:
        content: A float .tflite.
        converted: The conversion of the same model.
    """
    pooled = full_pooling.replace_as(content, converted)
    return channel_slices.separate_as(equalization.equalize_as(pooled, converted), converted)


def candidates(content: bytes, samples: Samples, *, timeout_s: float = 600.0) -> frozenset[str]:
    """The activations of a float .tflite that another conversion would pool or equalize, by name.

    Args:
        content: The float .tflite.
        samples: Samples.
        timeout_s: Time limit of the child process in seconds, > 0.
    """
    found: frozenset[str] = isolation.run(
        "tfkd.conversion.refinement:_candidates",
        prepare="tfkd.conversion.litert:load",
        timeout_s=timeout_s,
        what="looking for channels to equalize",
        content=content,
        samples=samples,
    )
    return found


def _candidates(content: bytes, samples: Samples) -> frozenset[str]:
    content, pooled = full_pooling.replace(content)
    if len(TFLiteModel(content).subgraphs) > 1:
        return frozenset(pooled)
    return frozenset({*pooled, *equalization.equalize(content, samples.of(content))[1]})


def outputs(content: bytes, samples: Samples) -> list[np.ndarray]:
    """The outputs of a .tflite on LiteRT's plain kernels, float64 [N, size] each.

    Args:
        content: The .tflite.
        samples: Samples.
    """
    model = TFLiteModel(content)
    runner = SampleInterpreter(lambda: new_interpreter(content, "plain"), restart=needs_restart(model.ops))
    arrays = [model.quantize_input(array, index) for index, array in enumerate(samples.arrays)]
    rows = [*map(runner.invoke, Samples(tuple(arrays)))]
    return [
        model.dequantize_output(np.stack(column), index).reshape(len(samples), -1).astype(np.float64)
        for index, column in enumerate(zip(*rows, strict=True))
    ]


def _named(tensors: Mapping[str, object] | Sequence[str]) -> str:
    names = [*dict.fromkeys(layer_names.path_of(tensor) for tensor in tensors)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
