"""Comparison of a .tflite with the Keras model that it was made from, before the file is written.

Both compute a few samples; the .tflite does so on LiteRT's plain kernels, on XNNPACK and, in integer modes, on
TensorFlow Lite Micro where it accepts the file. How large an error may be is derived from the file, for any
architecture and any op, by a second set of rounding errors. In several copies of the file each constant moves by one
step of its type with probability 1/12, since rounding to steps of size s gives an error of variance s²/12; so do the
quantized inputs. Each such change also changes how every later activation is rounded. With y the outputs of the file,
y' those of the copies, f those of the Keras model, and sums over samples and elements of one output,

    expected² = mean (y' − y)² + max(range / 256, step of the output)²      error² = mean (y − f)²

In the modes `dynamic_range`, `full_int8` and `int16x8` an output is wrong where

    error > 6 · expected,  the error of one channel > 8 · expected,  or
    max |y − f| > 15 · expected and > 4 · max |y' − y|.

A fault, such as a tensor with a range that is too narrow, does not vary with the rounding: it makes the error large,
and the expected error not. `expected` counts twice for weights of 4 bits, and four times for activation ranges that
clip outliers. In the float modes an output is wrong where

    max |y − f| > 0.001 · range + 0.00001 · max |f| + 20 · rms(y' − y)     float32
    max |y − f| > 0.02 · range + 0.002 · max |f| + 6 · rms(y' − y)         float16
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import engines, fault_location
from tfkd.conversion.engines import MICRO, PLAIN, XNNPACK, Sample
from tfkd.conversion.fault_location import Conversion
from tfkd.conversion.reference import HUGE, MOST, Reference
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, ModelError

# Largest error in shares of the output's range, of its largest magnitude and of the rounding noise.
_FLOATS = {"float32": (1e-3, 1e-5, 20.0), "float16": (2e-2, 2e-3, 6.0)}
_STEPS = 256  # of the range: each quantized output is expected to have an error of one step
_TINY = 1e-30  # makes quotients of zeros 0
_ERROR_RATIO, _CHANNEL_RATIO, _LARGEST_RATIO, _LARGEST_NOISE_RATIO = 6.0, 8.0, 15.0, 4.0
# With weights of 4 bits activations leave their ranges, so that errors no longer add up as small ones do.
_INT4_FACTOR = 2.0
# Clipping of outliers on purpose is an error that rounding does not have.
_CLIPPING_FACTOR = 4.0
# Time limit of TensorFlow Lite Micro in seconds, which hangs on some models.
_MICRO_S = 60.0
# Share of different values of an integer output, such as labels: nearly equal logits change places.
_MOST_DIFFERENT = {"float32": 0.05}
_MOST_DIFFERENT_LABELS = 0.25
# Root mean square of an error that rounding explains, as a share of the range, from which on it is a finding; and from
# which on it is one where the largest values of so few samples stay at their place.
_COARSE, _COARSE_LABELS, _FEW_LABELS = 0.1, 0.02, 0.7
# An odd number, so that the two passes over the samples use different copies.
_COPIES = 7
# TensorFlow Lite Micro's reference kernels are slow: multiply-accumulates of one sample, and of all.
_MICRO_SAMPLE, _MICRO_BUDGET = 1e8, 1.2e8
_COMPUTE = "tfkd.conversion.engines:compute"
_PREPARE = ("tfkd.conversion.litert:load", "tfkd.conversion.micro_interpreter:load")  # by whether it is the latter
_REFUSED = "LiteRT does not accept it"


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far one output of the .tflite is from that of the model, on one engine.

    Args:
        engine: Name of the engine.
        output: Index of the output.
        error: Root mean square of the error.
        largest: Largest error; infinite where the .tflite gives NaN or infinity.
        expected: Root mean square of the error that rounding explains.
        span: Range of the model's output over the samples.
        labels: Share of samples with equal argmax, 0..1.
        excess: Error over the limit; above 1 the output is wrong.
    """

    engine: str
    output: int
    error: float
    largest: float
    expected: float
    span: float
    labels: float
    excess: float


def check(model: TFLiteModel, reference: Reference, conversion: Conversion, *, allow_mismatch: bool) -> tuple[str, ...]:
    """Compares a .tflite with the model that it was made from.

    Args:
        model: The .tflite.
        reference: Samples and the model's outputs.
        conversion: How the .tflite was made.
        allow_mismatch: Whether a mismatch is returned instead of raised.

    Returns:
        Findings, as sentences.

    Raises:
        ModelError: The .tflite computes something else, or an engine of LiteRT cannot run it.
    """
    if reference.obstacle:
        finding = f"Not compared with the Keras model: {reference.obstacle[0].lower()}{reference.obstacle[1:]}"
        if reference.is_fault and not allow_mismatch:
            raise ModelError(f"{conversion.what}: {reference.obstacle} Repair the model, or pass allow_mismatch=True.")
        return (finding,)
    try:
        differences = compare(
            model, reference, conversion.mode, conversion.timeout_s, conversion.what, clips=conversion.clips
        )
        wrong = [one for one in differences if one.excess > 1]
        if not wrong:
            return (*filter(None, [reference.left_out]), *_coarse(differences, conversion.mode))
        finding = _described(wrong, differences, len(reference.inputs), conversion.mode)
        finding += " " + fault_location.locate(model, reference, _engine_at_fault(wrong), conversion)
    except (ModelError, DeviceError) as error:
        aborts = _REFUSED in str(error) or isinstance(error, isolation.ChildCrashed)
        reason = fault_location.refused(model, error, conversion) if aborts else error
        finding = f"the .tflite cannot be compared with the Keras model: {reason}"
    if allow_mismatch:
        return (f"{finding[0].upper()}{finding[1:]}",)
    raise ModelError(
        f"{conversion.what}: {finding} Nothing was written. Pass allow_mismatch=True to write the file with this "
        "finding, or check=False to skip the comparison."
    )


def compare(
    model: TFLiteModel,
    reference: Reference,
    mode: str,
    timeout_s: float = 600.0,
    what: str = "comparing",
    *,
    clips: bool = False,
) -> list[Difference]:
    """The differences of all outputs on all engines.

    Args:
        model: The .tflite.
        reference: Samples and the model's outputs, see `tfkd.conversion.reference`.
        mode: Precision that the model was converted to.
        timeout_s: Time limit of each child process in seconds.
        what: The work, for messages.
        clips: Whether outliers of activations are clipped on purpose.

    Raises:
        ModelError: LiteRT does not accept the model, or the outputs have other shapes.
        DeviceError: LiteRT crashed or timed out.
    """
    if len(model.outputs) != len(reference.outputs[0]):
        raise ModelError(f"it must have {len(reference.outputs[0])} outputs. Received: {len(model.outputs)}.")
    samples = [_quantized(model, sample) for sample in reference.inputs]
    passes = 2 if len(samples) == MOST else 1
    moved = [_quantized(model, sample) for sample in _moved(model, [*reference.inputs] * passes, mode)]
    # XNNPACK has no int16 kernels: LiteRT runs the plain ones.
    names = [PLAIN] if mode == "int16x8" else [PLAIN, XNNPACK]
    large = model.macs > _MICRO_SAMPLE
    micro = mode in ("full_int8", "int16x8") and not large and engines.has_micro()
    # The engine that runs at the same time, in another process.
    beside = MICRO if micro else XNNPACK if large and XNNPACK in names else None
    few = max(2, int(_MICRO_BUDGET // max(model.macs, 1))) if micro else len(moved)
    # To move all constants of a huge model takes as long as to run it; they are so many that one copy tells enough.
    options = {"what": what, "content": model.content, "files": 1 if model.macs > HUGE else _COPIES}
    results: dict[str, tuple[engines.Rows, engines.Rows] | str] = {}
    with contextlib.ExitStack() as children:
        run = children.enter_context(isolation.prepared("tfkd.conversion.litert:load"))
        other = children.enter_context(isolation.prepared(_PREPARE[micro])) if beside else None
        pool = children.enter_context(futures.ThreadPoolExecutor(1))
        some = {"samples": samples[:few], "moved": moved[:few]}
        limit = min(timeout_s, _MICRO_S) if micro else timeout_s
        done = pool.submit(other, _COMPUTE, engines=[beside], timeout_s=limit, **some, **options) if other else None
        here = [name for name in names if name != beside]
        results |= run(_COMPUTE, timeout_s=timeout_s, engines=here, samples=samples, moved=moved, **options)
        if done is not None:
            # On some models that LiteRT accepts TensorFlow Lite Micro aborts the process; the target tflm reports that.
            with contextlib.suppress(DeviceError) if micro else contextlib.nullcontext():
                results |= done.result()
    for name in names:
        if isinstance(results[name], str):
            raise ModelError(f"{name}: {_REFUSED}: {results[name]}.")
    factor = (_CLIPPING_FACTOR if clips else 1.0) * (
        _INT4_FACTOR if any(tensor.dtype == "int4" for tensor in model.graph.tensors) else 1.0
    )
    runs = {name: result for name, result in results.items() if not isinstance(result, str)}
    return [
        one for output in range(len(model.outputs)) for one in _of_output(model, reference, output, runs, mode, factor)
    ]


def _quantized(model: TFLiteModel, sample: Sample) -> list[np.ndarray]:
    return [model.quantize_input(array, index) for index, array in enumerate(sample)]


def _moved(model: TFLiteModel, samples: Sequence[Sample], mode: str) -> list[list[np.ndarray]]:
    """The samples with an error of up to half a quantization step of the input."""
    if mode in _FLOATS:
        return [[*sample] for sample in samples]
    rng, graph = np.random.default_rng(0), model.graph
    steps = [tensor.scales[:1] for tensor in model.inputs]
    for op in graph.ops:
        if op.name == "QUANTIZE" and op.inputs[0] in graph.inputs:
            steps[graph.inputs.index(op.inputs[0])] = graph.tensors[op.outputs[0]].scales[:1]

    def moved(array: np.ndarray, step: tuple[float, ...]) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        size = step[0] if step else np.ptp(array) / 255  # without a scale, the step of dynamic_range
        return (array + rng.uniform(-size / 2, size / 2, array.shape)).astype(array.dtype)

    return [[moved(array, step) for array, step in zip(sample, steps, strict=True)] for sample in samples]


def _of_output(
    model: TFLiteModel,
    reference: Reference,
    output: int,
    runs: Mapping[str, tuple[engines.Rows, engines.Rows]],
    mode: str,
    factor: float,
) -> list[Difference]:
    """The differences of one output on all engines."""
    expected = np.stack([row[output] for row in reference.outputs])

    def values(rows: Sequence[Sample]) -> np.ndarray:
        received = np.stack([row[output] for row in rows])
        if received[0].size != expected[0].size:
            raise ModelError(
                f"output {output} must have the shape {expected[0].shape} of the Keras model's. "
                f"Received: {received[0].shape}."
            )
        received = received.reshape(len(rows), *expected.shape[1:])
        return received if expected.dtype.kind in "iub" else model.dequantize_output(received, output).astype("float64")

    own = {engine: values(rows) for engine, (rows, _) in runs.items()}
    copies = {engine: values(rows) for engine, (_, rows) in runs.items()}
    originals = {engine: own[engine][np.arange(len(copies[engine])) % len(own[engine])] for engine in own}
    if expected.dtype.kind in "iub":
        moved = {engine: float(np.mean(copies[engine] != originals[engine])) for engine in own}
        return [_of_labels(engine, output, expected, own[engine], moved[engine], mode) for engine in own]
    changes = {engine: copies[engine] - originals[engine] for engine in own}
    scale = _Scale(
        span=float(np.ptp(expected)),
        magnitude=float(np.abs(expected).max()),
        step=max(model.outputs[output].scales, default=0.0),
        # A fault of one engine may also make its outputs vary more, or not at all.
        noise=min(map(_rms, changes.values())),
        largest_noise=min(float(np.abs(change).max()) for change in changes.values()),
        factor=factor,
    )
    return [_of_engine(engine, output, expected[: len(own[engine])], own[engine], scale, mode) for engine in own]


class _Scale(NamedTuple):
    """Magnitudes of an output: range and largest magnitude, quantization step, changes by rounding and their factor."""

    span: float
    magnitude: float
    step: float
    noise: float
    largest_noise: float
    factor: float


def _of_engine(
    engine: str, output: int, expected: np.ndarray, received: np.ndarray, scale: _Scale, mode: str
) -> Difference:
    error, span = received - expected, scale.span or scale.magnitude or 1.0
    labels = float(np.mean(_labels(received) == _labels(expected)))
    if not np.isfinite(error).all():
        return Difference(engine, output, np.inf, np.inf, scale.noise, span, labels, np.inf)
    rms, largest = _rms(error), float(np.abs(error).max())
    if mode in _FLOATS:
        shares = zip(_FLOATS[mode], (scale.span, scale.magnitude, scale.noise), strict=True)
        noise, excess = scale.noise, largest / (sum(share * value for share, value in shares) + _TINY)
    else:
        noise = scale.factor * float(np.hypot(scale.noise, max(span / _STEPS, scale.step)))
        channels = error.reshape(-1, error.shape[-1] if error.ndim > 2 else 1)
        excess = max(
            rms / (_ERROR_RATIO * noise),
            float(np.sqrt(np.square(channels).mean(axis=0).max())) / (_CHANNEL_RATIO * noise),
            largest / max(_LARGEST_RATIO * noise, _LARGEST_NOISE_RATIO * scale.largest_noise),
        )
    return Difference(engine, output, rms, largest, noise, span, labels, excess)


def _of_labels(
    engine: str, output: int, expected: np.ndarray, received: np.ndarray, noise: float, mode: str
) -> Difference:
    """The difference of an output of integers or booleans, such as labels or token ids: the share that differs."""
    share = float(np.mean(received != expected[: len(received)]))
    limit = _MOST_DIFFERENT.get(mode, _MOST_DIFFERENT_LABELS) + noise
    return Difference(engine, output, share, share, noise, 1.0, 1 - share, share / limit)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _labels(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(-1, outputs.shape[-1]).argmax(axis=-1)


def _engine_at_fault(wrong: Sequence[Difference]) -> str:
    """The engine with the largest error, or the plain kernels if their error is at least half of it.

    An error of the plain kernels means that the file is wrong, not the engine.
    """
    worst = max(wrong, key=lambda one: one.excess)
    plain = max((one.excess for one in wrong if one.engine == PLAIN), default=0.0)
    return PLAIN if 2 * plain >= worst.excess else worst.engine


def _coarse(differences: Sequence[Difference], mode: str) -> tuple[str, ...]:
    """A finding on outputs that are far off although rounding explains it."""
    worst = max(differences, key=lambda one: one.error / one.span)
    limit = _COARSE_LABELS if worst.labels < _FEW_LABELS else _COARSE
    if mode in _FLOATS or worst.error <= limit * worst.span:
        return ()
    share = f"{worst.error / worst.span:.0%} of its range (root mean square, on {worst.engine})"
    labels = f"the labels agree on {worst.labels:.0%} of the samples"
    return (f"Rounding to {mode} alone changes output {worst.output} by {share}; {labels}.",)


def _described(wrong: Sequence[Difference], differences: Sequence[Difference], samples: int, mode: str) -> str:
    """A sentence on the worst output."""
    worst = max(wrong, key=lambda one: one.excess)
    by_engine = [one for one in differences if one.output == worst.output]
    errors = ", ".join(f"{one.largest / one.span:.2%} on {one.engine}" for one in by_engine)
    sentence = (
        f"output {worst.output} of the .tflite must agree with the Keras model's on {samples} samples. Received: "
        f"errors of up to {errors}, in shares of the output's range"
    )
    if mode not in _FLOATS:
        ratio = f"{worst.error / worst.expected:.1f} times what rounding explains"
        sentence += f"; the root mean square error, {worst.error / worst.span:.2%}, is {ratio}"
    return f"{sentence}. The labels agree on {worst.labels:.0%}."
