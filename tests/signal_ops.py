"""Random .tflite graphs around the ops of TensorFlow Lite Micro's signal library, which compute in int16 and uint32.

Each function adds an op between an int8 input and an int8 output, which holds every byte of the op's results.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net

_WORD = 2**31 - 1


def _numbers(made: Net) -> np.random.Generator:
    return np.random.default_rng(made.random.getrandbits(32))


def _cast(made: Net, x: int, dtype: str) -> int:
    return made.op("CAST", [x], [made.tensor(made.shape(x), dtype)], schema.CastOptionsT())


def _whole(made: Net, kind: str, x: int, values: np.ndarray) -> int:
    """Arithmetic of int32 with constants, on some seeds one for all values."""
    name = "MaximumMinimum" if kind in ("MAXIMUM", "MINIMUM") else kind.capitalize()
    out = made.tensor(made.shape(x), "int32")
    return made.op(kind, [x, made.ints(values)], [out], getattr(schema, f"{name}OptionsT")())


def whole(made: Net, shape: tuple[int, ...], reach: int, flat: int = -1) -> int:
    """int32 values up to about 128 * reach in size, from int8 values [1, n], by default an input of the model."""
    numbers, flat = _numbers(made), made.input((1, math.prod(shape))) if flat < 0 else flat
    x = made.same(flat, shape)
    made.op("RESHAPE", [flat, made.ints(shape)], [x], schema.ReshapeOptionsT(newShape=[*shape]))
    x = _cast(made, x, "int32")
    factors = numbers.integers(1, reach + 1, made.random.choice([shape[-1:], (), shape]))
    if made.random.random() < 0.5:
        factors = 2 ** numbers.integers(0, reach.bit_length(), shape[-1:])
    x = _whole(made, "MUL", x, factors)
    for kind in made.random.sample(["ADD", "SUB", "MAXIMUM", "MINIMUM", "DIV"], 2):
        values = numbers.integers(-reach, reach + 1, made.random.choice([shape[-1:], ()]))
        if kind == "DIV":
            values = numbers.choice([-3, -2, 1, 2, 5], shape[-1:])
        x = _whole(made, kind, x, values)
    return x


def _samples(made: Net, shape: tuple[int, ...], flat: int = -1) -> int:
    return _cast(made, whole(made, shape, made.random.choice([1, 40, 256]), flat), "int16")


def _energies(made: Net, count: int, flat: int = -1) -> int:
    return _cast(made, whole(made, (count,), made.random.choice([1, 1000, 2**23]), flat), "uint32")


def _out(made: Net, *results: int) -> int:
    """The bytes of int16, int32, uint32 and bool tensors, as int8 [1, n]."""
    parts, like = [], -1
    for x in results:
        dtype = {code: name for name, code in vars(schema.TensorType).items()}[made.graph.tensors[x].type].lower()
        x, shape = x if dtype == "int32" else _cast(made, x, "int32"), made.shape(x)
        for byte in range({"bool": 1, "int16": 2}.get(dtype, 4)):
            part = _whole(made, "DIV", x, np.array(256**byte))
            small = made.tensor(shape, "int8") if like < 0 else made.same(like, shape)
            like = small if like < 0 else like
            made.op("CAST", [part], [small], schema.CastOptionsT())
            flat = made.same(like, (1, math.prod(shape)))
            options = schema.ReshapeOptionsT(newShape=[*made.shape(flat)])
            parts.append(made.op("RESHAPE", [small, made.ints(made.shape(flat))], [flat], options))
    count = sum(made.shape(part)[1] for part in parts)
    options = schema.ConcatenationOptionsT(axis=1)
    return made.op("CONCATENATION", parts, [made.same(like, (1, count))], options)


def _int16s(made: Net, shape: tuple[int, ...], low: int = -(2**15)) -> int:
    return made.tensor(shape, "int16", _numbers(made).integers(low, 2**15, shape).astype("int16"))


def window(made: Net) -> int:
    x = _samples(made, (1, made.random.randint(1, 3), made.random.randint(1, 20)))
    out = made.tensor(made.shape(x), "int16")
    options = {"shift": made.random.choice([0, 12, 15, 31])}
    return _out(made, made.custom("SignalWindow", [x, _int16s(made, made.shape(x)[-1:])], [out], options))


def auto_scale(made: Net) -> int:
    x = _samples(made, (made.random.randint(1, 20),))
    out, bits = made.tensor(made.shape(x), "int16"), made.tensor((), "int32")
    made.custom("SignalFftAutoScale", [x], [out, bits])
    return _out(made, out, bits)


def _transform(made: Net, name: str, shape: tuple[int, ...], out_shape: tuple[int, ...], length: int) -> int:
    x, out = _samples(made, shape), made.tensor(out_shape, "int16")
    return _out(made, made.custom(name, [x], [out], {"T": schema.TensorType.INT16, "fft_length": length}))


def rfft(made: Net) -> int:
    length, rows = 2 ** made.random.randint(3, 8), made.random.randint(1, 2)
    values = made.random.choice([length, made.random.randint(1, length)])
    return _transform(made, "SignalRfft", (rows, values), (rows, length + 2), length)


def irfft(made: Net) -> int:
    length, rows = 2 ** made.random.randint(3, 7), made.random.randint(1, 2)
    return _transform(made, "SignalIrfft", (rows, length + 2), (rows, length), length)


def energy(made: Net) -> int:
    """The bins in the range of the options; the interpreter does not set the others."""
    bins = made.random.randint(1, 20)
    start = made.random.randint(0, bins - 1)
    end = made.random.randint(start + 1, bins)
    x, out = _samples(made, (2 * bins,)), made.tensor((bins,), "uint32")
    made.custom("SignalEnergy", [x], [out], {"start_index": start, "end_index": end})
    bounds, taken = [made.ints([start]), made.ints([end]), made.ints([1])], made.tensor((end - start,), "int32")
    whole_bins = _cast(made, out, "int32")
    return _out(made, made.op("STRIDED_SLICE", [whole_bins, *bounds], [taken], schema.StridedSliceOptionsT()))


def filter_bank(made: Net) -> int:
    """SignalFilterBank and the roots of its sums, since no other op takes uint64."""
    bins, channels = made.random.randint(4, 30), made.random.randint(1, 6)
    flat, numbers = made.input((1, bins)), _numbers(made)
    x = _energies(made, bins, flat)
    widths = numbers.integers(0, bins // 2, channels + 1)
    starts = [int(numbers.integers(0, bins - width + 1)) for width in widths]
    places = np.cumsum([0, *widths[:-1]])
    low = made.random.choice([0, 0, -(2**15)])
    weights = [_int16s(made, (int(widths.sum()) + 1,), low) for _ in range(2)]
    rows = [made.tensor((channels + 1,), "int16", np.array(row, "int16")) for row in (starts, places, widths)]
    sums, roots = made.tensor((channels,), "uint64"), made.tensor((channels,), "uint32")
    made.custom("SignalFilterBank", [x, *weights, *rows], [sums], {"num_channels": channels})
    bits = made.ints(made.random.randint(0, 8))
    if made.random.random() < 0.7:
        bits, scaled = made.tensor((), "int32"), made.tensor((bins,), "int16")
        made.custom("SignalFftAutoScale", [_samples(made, (bins,), flat)], [scaled, bits])
    return _out(made, made.custom("SignalFilterBankSquareRoot", [sums, bits], [roots]))


def spectral_subtraction(made: Net) -> int:
    x = _energies(made, made.random.randint(1, 12))
    out, noise = (made.tensor(made.shape(x), "uint32") for _ in range(2))
    names = ("smoothing", "alternate_smoothing", "one_minus_smoothing", "alternate_one_minus_smoothing")
    options = {name: made.random.choice([made.random.randint(0, 2**14), _WORD, -5]) for name in names}
    options |= {"min_signal_remaining": made.random.choice([0, 819, 2**14]), "num_channels": made.shape(x)[0]}
    options |= {"smoothing_bits": made.random.choice([0, 4, 10]), "clamping": made.random.random() < 0.5}
    options["spectral_subtraction_bits"] = made.random.choice([0, 14, 20])
    made.custom("SignalFilterBankSpectralSubtraction", [x], [out, noise], options)
    return _out(made, out, noise)


def pcan(made: Net) -> int:
    channels = made.random.randint(1, 12)
    flat = made.input((1, channels))
    x, noise = _energies(made, channels, flat), _energies(made, channels, flat)
    out, gains = made.tensor((channels,), "uint32"), _int16s(made, (125,), made.random.choice([0, -(2**15)]))
    return _out(made, made.custom("SignalPCAN", [x, noise, gains], [out], {"snr_shift": made.random.randint(0, 20)}))


def log(made: Net) -> int:
    x = _energies(made, made.random.randint(1, 20))
    out = made.tensor(made.shape(x), "int16")
    options = {"input_correction_bits": made.random.randint(0, 5), "output_scale": made.random.choice([1, 64, 70000])}
    return _out(made, made.custom("SignalFilterBankLog", [x], [out], options))


def _if_valid(made: Net, x: int, valid: int) -> int:
    """The frames, or a constant where they are not valid: the interpreter does not set them then."""
    none, out = _int16s(made, made.shape(x)), made.tensor(made.shape(x), "int16")
    return made.op("SELECT_V2", [valid, x, none], [out], schema.SelectV2OptionsT())


def framer(made: Net) -> int:
    size, frames, rows = made.random.randint(1, 12), made.random.randint(1, 3), made.random.randint(1, 2)
    step = made.random.randint(1, size + 2)
    x = _samples(made, (rows, frames * step))
    out, valid = made.tensor((rows, frames, size), "int16"), made.tensor((), "bool")
    prefilled = step <= size and made.random.random() < 0.5
    made.custom("SignalFramer", [x], [out, valid], {"frame_size": size, "frame_step": step, "prefill": prefilled})
    return _out(made, _if_valid(made, out, valid), valid)


def stacker(made: Net) -> int:
    channels, left, right = made.random.randint(1, 5), made.random.randint(0, 2), made.random.randint(0, 1)
    x, out = _samples(made, (channels,)), made.tensor((channels * (left + 1 + right),), "int16")
    valid, context = made.tensor((), "bool"), {"stacker_left_context": left, "stacker_right_context": right}
    step = made.random.randint(1, left + 1 + right)
    made.custom("SignalStacker", [x], [out, valid], {"num_channels": channels, **context, "stacker_step": step})
    return _out(made, _if_valid(made, out, valid), valid)


def delay(made: Net) -> int:
    x = _samples(made, (made.random.randint(1, 2), made.random.randint(1, 8)))
    options = {"delay_length": made.random.choice([0, made.random.randint(1, 20)])}
    return _out(made, made.custom("SignalDelay", [x], [made.tensor(made.shape(x), "int16")], options))


def overlap_add(made: Net) -> int:
    size, frames, rows = made.random.randint(1, 10), made.random.randint(1, 3), made.random.randint(1, 2)
    step = made.random.randint(1, size)
    x, out = _samples(made, (rows, frames, size)), made.tensor((rows, frames * step), "int16")
    return _out(made, made.custom("SignalOverlapAdd", [x], [out], {"T": schema.TensorType.INT16, "frame_step": step}))


# For each op a function that adds it, with what it needs around it, and returns the output.
SIGNAL_MAKERS: dict[str, Callable[[Net], int]] = {
    "SignalDelay": delay, "SignalEnergy": energy, "SignalFftAutoScale": auto_scale, "SignalFilterBank": filter_bank,
    "SignalFilterBankLog": log, "SignalFilterBankSpectralSubtraction": spectral_subtraction,
    "SignalFilterBankSquareRoot": filter_bank, "SignalFramer": framer, "SignalIrfft": irfft,
    "SignalOverlapAdd": overlap_add, "SignalPCAN": pcan, "SignalRfft": rfft, "SignalStacker": stacker,
    "SignalWindow": window,
}  # fmt: skip
