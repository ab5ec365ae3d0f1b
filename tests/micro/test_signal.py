"""Sound front ends of TensorFlow Lite Micro's signal library in generated C: states, limits, refusals."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import interpret, native
from tests.random_graph import Net
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel

_SAMPLES, _LENGTH, _BINS, _CHANNELS = 48, 64, 33, 6
_RUNS = 5
# Options of the ops, as micro_speech's audio_preprocessor_int8.tflite has them.
_SUBTRACTION = {
    "alternate_one_minus_smoothing": 15401, "alternate_smoothing": 983, "clamping": False, "min_signal_remaining": 819,
    "num_channels": _CHANNELS, "one_minus_smoothing": 15975, "smoothing": 409, "smoothing_bits": 10,
    "spectral_subtraction_bits": 14,
}  # fmt: skip


def front_end() -> bytes:
    """Samples [1, n] to features [c]: a window, a spectrum, filters, noise reduction, gain and logarithm."""
    made, numbers = Net(random.Random(0)), np.random.default_rng(0)
    samples = made.tensor((1, _SAMPLES), "int16")
    made.graph.inputs.append(samples)
    hann = np.rint(4096 * np.sin(np.pi * (np.arange(_SAMPLES) + 0.5) / _SAMPLES) ** 2).astype("int16")
    windowed, flat, scaled = (made.tensor(shape, "int16") for shape in ((1, _SAMPLES), (_SAMPLES,), (_SAMPLES,)))
    made.custom("SignalWindow", [samples, made.tensor((_SAMPLES,), "int16", hann)], [windowed], {"shift": 12})
    made.op("RESHAPE", [windowed, made.ints([_SAMPLES])], [flat], schema.ReshapeOptionsT(newShape=[_SAMPLES]))
    bits, spectrum = made.tensor((), "int32"), made.tensor((_LENGTH + 2,), "int16")
    made.custom("SignalFftAutoScale", [flat], [scaled, bits])
    made.custom("SignalRfft", [scaled], [spectrum], {"T": schema.TensorType.INT16, "fft_length": _LENGTH})
    energies, sums = made.tensor((_BINS,), "uint32"), made.tensor((_CHANNELS,), "uint64")
    made.custom("SignalEnergy", [spectrum], [energies], {"start_index": 0, "end_index": _BINS})
    rising = numbers.integers(0, 4097, 4 * _CHANNELS + 4)
    places = 4 * np.arange(_CHANNELS + 1)
    rows = [np.array(row, "int16") for row in (rising, 4096 - rising, places, places, 4 + 0 * places)]
    constants = [made.tensor(row.shape, "int16", row) for row in rows]
    made.custom("SignalFilterBank", [energies, *constants], [sums], {"num_channels": _CHANNELS})
    roots, quiet, noise, gained = (made.tensor((_CHANNELS,), "uint32") for _ in range(4))
    made.custom("SignalFilterBankSquareRoot", [sums, bits], [roots])
    made.custom("SignalFilterBankSpectralSubtraction", [roots], [quiet, noise], _SUBTRACTION)
    gains = np.sort(numbers.integers(0, 2**15, 125))[::-1].astype("int16")
    made.custom("SignalPCAN", [quiet, noise, made.tensor((125,), "int16", gains)], [gained], {"snr_shift": 6})
    logs = made.tensor((_CHANNELS,), "int16")
    made.custom("SignalFilterBankLog", [gained], [logs], {"input_correction_bits": 3, "output_scale": 64})
    return made.bytes(made.op("CAST", [logs], [made.tensor((_CHANNELS,), "int8")], schema.CastOptionsT()))


def recording(count: int) -> np.ndarray:
    """int16 [count, n]: a tone in noise that grows louder."""
    time = np.arange(count * _SAMPLES).reshape(count, _SAMPLES)
    noise = np.random.default_rng(1).normal(0, 300, time.shape)
    return (time * 20 * np.sin(time * 0.5) + noise).astype("int16")


def test_front_end_computes_the_bits_of_tflite_micro_run_by_run(tmp_path: Path) -> None:
    content, x = front_end(), np.repeat(recording(_RUNS), 2, axis=0)
    program = micro.emit(content)
    assert program.state_bytes == 4 * _CHANNELS
    got = native(tmp_path, [program], [x])[0]
    assert np.array_equal(got, interpret([content], [x])[0])
    assert not np.array_equal(got[0], got[1])  # equal samples: the noise of each channel changes from run to run


def test_front_end_on_a_core_starts_each_sample_without_noise() -> None:
    model, x = TFLiteModel.load(front_end()), np.repeat(recording(3), 2, axis=0)
    outputs = targets.get("cortex-m4").run(model, x, latency=False).outputs[0]
    assert np.array_equal(outputs, targets.get("tflm").run(model, x, latency=False).outputs[0])
    assert np.array_equal(outputs[::2], outputs[1::2])
    assert len({row.tobytes() for row in outputs}) == 3


_EDGES = np.array([-(2**31), -(2**31) + 1, -7, -1, 0, 1, 6, 2**31 - 1])


def _quotients(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of Python's integers, rounded towards zero."""
    return np.asarray(abs(a) // abs(b) * np.where((a < 0) == (b < 0), 1, -1))


def test_arithmetic_of_int32_keeps_the_low_bits(tmp_path: Path) -> None:
    """At limits where the interpreter's sums overflow or its division traps."""
    exact = {
        "ADD": operator.add, "SUB": operator.sub, "MUL": operator.mul, "MAXIMUM": np.maximum, "MINIMUM": np.minimum,
        "DIV": _quotients,
    }  # fmt: skip
    programs, rows, expected = [], _EDGES.astype("int32")[None].repeat(2, axis=0), []
    for kind, function in exact.items():
        made = Net(random.Random(0))
        x, out = made.tensor((1, 8), "int32"), made.tensor((8, 8), "int32")
        made.graph.inputs.append(x)
        second = np.where(_EDGES == 0, 3, _EDGES) if kind == "DIV" else _EDGES
        name = "MaximumMinimum" if kind[:2] in ("MA", "MI") else kind.capitalize()
        made.op(kind, [x, made.ints(second[:, None])], [out], getattr(schema, f"{name}OptionsT")())
        programs.append(micro.emit(made.bytes(out), name=kind.lower()))
        results = function(_EDGES.astype(object)[None], second.astype(object)[:, None])
        expected.append([result % 2**32 for result in results.flat])
    got = native(tmp_path, programs, [rows] * len(programs))
    assert [row[0].view("uint32").tolist() for row in got] == expected


def _samples(made: Net, count: int = 16) -> int:
    x = made.tensor((count,), "int16")
    made.graph.inputs.append(x)
    return x


def _rfft(made: Net, options: dict[str, int], dtype: str = "int16") -> int:
    x = made.tensor((16,), dtype)
    made.graph.inputs.append(x)
    return made.custom("SignalRfft", [x], [made.tensor((18,), dtype)], options)


def _bank(made: Net, last: int) -> int:
    energies = made.op("CAST", [_samples(made)], [made.tensor((16,), "uint32")], schema.CastOptionsT())
    rows = [made.tensor((2,), "int16", np.array(row, "int16")) for row in ([3, 4], [5, 6], [0, last], [0, 1], [1, 1])]
    sums = made.custom("SignalFilterBank", [energies, *rows], [made.tensor((1,), "uint64")], {"num_channels": 1})
    root = made.custom("SignalFilterBankSquareRoot", [sums, made.ints(0)], [made.tensor((1,), "uint32")])
    return made.op("CAST", [root], [made.tensor((1,), "int32")], schema.CastOptionsT())


def _whole(made: Net, kind: str, second: int, options: object) -> int:
    x = made.op("CAST", [_samples(made)], [made.tensor((16,), "int32")], schema.CastOptionsT())
    return made.op(kind, [x, made.ints(second)], [made.tensor((16,), "int32")], options)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda made: _rfft(made, {"T": 7, "fft_length": 24}), r"SignalRfft \(t1\): .* a power of two, is 24\. Use 32"),
        (lambda made: _rfft(made, {"T": 7}), r"SignalRfft \(t1\): its option fft_length must be an integer, is None"),
        (lambda made: _rfft(made, {"T": 2, "fft_length": 16}, "int32"), r"SignalRfft \(t1\): only int16"),
        (lambda made: made.custom("SignalDelay", [_samples(made)], [made.tensor((16,), "int16")],
                                  {"delay_length": 2**21}), r"SignalDelay \(t1\): .* must be in 0 \.\.\. 1048576"),
        (lambda made: made.custom("SignalFramer", [_samples(made)], [made.tensor((2, 9), "int16"),
                                  made.tensor((), "bool")], {"frame_size": 9, "frame_step": 7, "prefill": 0}),
         r"SignalFramer \(t1\): \(16,\) has no frames"),
        (lambda made: _bank(made, 16), r"SignalFilterBank \(t7\): the channels reach beyond 16 bins or 2 weights"),
        (lambda made: _whole(made, "DIV", 0, schema.DivOptionsT()), r"DIV \(t3\): 't2' holds zeros"),
        (lambda made: _whole(made, "ADD", 1, schema.AddOptionsT(fusedActivationFunction=1)),
         r"ADD \(t3\): a fused activation of int32 is not supported"),
    ],
    ids=["odd-length", "no-length", "int32", "long-delay", "frames", "filters", "zero", "activation"],
)  # fmt: skip
def test_signal_op_that_the_c_cannot_compute_is_refused(build: Callable[[Net], int], found: str) -> None:
    made = Net(random.Random(0))
    with pytest.raises(ValueError, match=found):
        micro.emit(made.bytes(build(made)))
