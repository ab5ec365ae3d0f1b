"""C that computes the features of sounds, log-mel or MFCC, as `tfkd.data.sound_features.definition` defines them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from tfkd._internal.types import JsonRecord
from tfkd.data import sound_features
from tfkd.errors import InputError
from tfkd.micro.c_context import CTYPES, array_text
from tfkd.micro.emitter import Program
from tfkd.micro.io_tensors import IOTensor
from tfkd.micro.kernel_text import kernel_texts
from tfkd.micro.rendering import rendered

# Lengths of the Fourier transform. A longer one would lose quiet bands in the rounding of its 32 bits.
SHORTEST, LONGEST = 16, 4096
_LEVEL_BITS = 20  # fraction bits of a logarithm
_LOUDEST = 24.0  # no binary logarithm of an energy is larger in magnitude: (32768 / 32768 * 4096 / 2)^2 = 2^22
_TYPES = ("int8", "uint8", "int16")


@dataclasses.dataclass(frozen=True)
class SoundCode:
    """The C of the features of a sound.

    Args:
        files: Text of `<name>_sound.h` and `<name>_sound.c`.
        how: Definition of the features, see `tfkd.data.sound_features.definition`.
        rows: Frames of an input.
        dtype: Type of the input.
        ram_bytes: Bytes of the struct `tfkd_<name>_sound`.
    """

    files: Mapping[str, str]
    how: JsonRecord
    rows: int
    dtype: str
    ram_bytes: int

    @property
    def samples(self) -> int:
        """Samples of an input."""
        return int(self.how["frame"] + (self.rows - 1) * self.how["hop"])

    @property
    def columns(self) -> int:
        """Features of a frame."""
        return int(self.how.get("coefficients", self.how["bands"]))

    @property
    def input_bytes(self) -> int:
        """Bytes of an input, which lies outside of the model's context."""
        return self.rows * self.columns * np.dtype(self.dtype).itemsize


def write(program: Program, how: JsonRecord) -> SoundCode:
    """Writes the C of features.

    Samples are int16, where 32768 stands for 1. The transform computes in 32 bits; energies have 64 bits, the bands
    80, so that neither loud nor quiet sounds need a scaling.

    Args:
        program: The C of the model, whose only input is int8, uint8 or int16 [1, frames, columns] or [1, frames,
            columns, 1].
        how: Definition of the features.

    Raises:
        InputError: The features are not those that tfkd defines, or do not fit the input, or their transform has a
            length outside of 16..4096.
    """
    sound_features.options_of(how)
    io, (rows, columns) = _input(program, how)
    if not SHORTEST <= how["fft"] <= LONGEST:
        raise InputError(
            f"export-c: frames of sounds must have {SHORTEST // 2 + 1} to {LONGEST} samples. Received: {how['frame']}. "
            "Train with another frame_ms or sample_rate."
        )
    mfcc = how["kind"] == "mfcc"
    cosines, cosine_bits = _cosines(how) if mfcc else (np.zeros(0, np.int16), 0)
    value_bits = _LEVEL_BITS + (cosine_bits - 16 if mfcc else 0)
    multiplier, shift = _scaling(io.tensor.scale, value_bits)
    unit_bits = 74 - 2 * int(math.log2(how["fft"] // 2))
    edges, weights = _bands(how)
    prefix, values = f"tfkd_{program.name}_sound", CTYPES[io.tensor.dtype]
    sines = np.round(-(2.0**31) * np.sin(2 * np.pi * np.arange(how["fft"] // 4 + 1) / how["fft"]))
    n = np.arange(how["frame"] // 2 + 1)
    window = np.minimum(2.0**31 - 1, np.round(2.0**30 * (1 - np.cos(2 * np.pi * n / how["frame"]))))
    limits = np.iinfo(io.tensor.dtype)
    variables = {
        **{key: how[key] for key in ("frame", "hop", "fft", "bands")},
        "name": program.name,
        "upper": program.name.upper(),
        "value": values,
        "rate": how["sample_rate"],
        "kind": "MFCC" if mfcc else "log-mel bands",
        "mfcc": mfcc,
        "rows": rows,
        "columns": columns,
        "platform": "\n".join(kernel_texts(["platform"])),
        "window": array_text(f"{prefix}_window", window.astype(np.int32)),
        "sines": array_text(f"{prefix}_sines", sines.astype(np.int32)),
        "edges": array_text(f"{prefix}_edges", edges),
        "weights": array_text(f"{prefix}_weights", weights),
        "logarithms": array_text(
            f"{prefix}_logarithms", np.round(32768 * np.log2(1 + np.arange(65) / 64)).astype(np.uint16)
        ),
        "cosines": array_text(f"{prefix}_cosines", cosines),
        "cosine_bits": cosine_bits,
        "offset": round(how["offset"] * 2.0**unit_bits),
        "unit_bits": unit_bits,
        "value_bits": value_bits,
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": io.tensor.zero_point,
        "least": int(limits.min),
        "most": int(limits.max),
    }
    return SoundCode(
        {f"{program.name}_sound.{end}": rendered(__package__, f"sound{kind}.jinja", variables) for end, kind in _FILES},
        how,
        rows,
        io.tensor.dtype,
        ram_bytes=4 * how["fft"] + 4 * how["bands"] * mfcc + 2 * (how["frame"] + how["frame"] % 2) + 4,
    )


_FILES = (("h", "_header"), ("c", ""))


def _input(program: Program, how: JsonRecord) -> tuple[IOTensor, tuple[int, int]]:
    """The input that takes the features, and its frames and columns.

    Raises:
        InputError: The model has several inputs, or one of another shape or type.
    """
    columns = how.get("coefficients", how["bands"])
    tensors = [one.tensor for one in program.inputs]
    shape = tuple(tensors[0].sample_shape)
    fits = len(shape) in (2, 3) and shape[1] == columns and shape[2:] in ((), (1,))
    if len(tensors) != 1 or not fits or tensors[0].dtype not in _TYPES or not tensors[0].scales:
        found = ", ".join(f"{one.dtype} {list(one.shape)}" for one in tensors)
        raise InputError(
            f"export-c: the features of sounds need a model with one quantized input [1, frames, {columns}, 1], int8, "
            f"uint8 or int16. Received: {found}. Pass the features.json of the run that trained it."
        )
    return program.inputs[0], (shape[0], shape[1])


def _bands(how: JsonRecord) -> tuple[np.ndarray, np.ndarray]:
    """The first bin above each edge of the bands, uint16 [bands + 2], and the weights of those bins, uint16 [bins]."""
    mel = sound_features.mel
    low, high = mel(np.array([how["lowest_hz"], how["highest_hz"]]))
    bins = np.arange(how["fft"] // 2 + 1)
    places = (mel(bins * how["sample_rate"] / how["fft"]) - low) / (high - low) * (how["bands"] + 1)
    edges = np.searchsorted(places[: how["fft"] // 2], np.arange(how["bands"] + 2))
    used = places[edges[0] : edges[-1]]
    return edges.astype(np.uint16), np.minimum(65535, np.round((used - np.floor(used)) * 65536)).astype(np.uint16)


def _cosines(how: JsonRecord) -> tuple[np.ndarray, int]:
    """The matrix of the cosine transform, int16 [coefficients * bands], and its fraction bits."""
    matrix = sound_features.cosines(how["bands"], how["coefficients"]).T
    # As many bits as an int16 has room for, and the sum of a transform in 31 bits.
    bits = min(
        math.floor(math.log2(32767 / np.abs(matrix).max())),
        math.floor(math.log2(2.0**31 / (_LOUDEST * np.abs(matrix).sum(axis=1).max()))) - _LEVEL_BITS + 16,
    )
    return np.round(matrix * 2.0**bits).astype(np.int16).reshape(-1), bits


def _scaling(scale: float, value_bits: int) -> tuple[int, int]:
    """Multiplier of 15 bits and right shift that divide a feature, a binary logarithm, by the scale of the input.

    Raises:
        InputError: The scale is not that of logarithms.
    """
    mantissa, exponent = math.frexp(math.log(2) / scale)
    shift = value_bits - exponent - 1  # the product with the multiplier has shifted by 16 of mantissa * 2^15
    if not 1 <= shift <= 30:
        raise InputError(
            f"export-c: the scale of the input must be that of features, such as 0.1. Received: {scale:g}. Convert the "
            "model with calibration samples of these features."
        )
    return min(32767, round(mantissa * 2**15)), shift
