"""SignalRfft and SignalIrfft of int16: Fourier transforms of a power of two of real values."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.custom_options import settings
from tfkd.micro.lowering.layer import Fields, Layer, Unsupported, operand, shape_text, typed

_LENGTHS = (8, 2**15)


def fourier(graph: Graph, op: Op) -> list[Layer]:
    """SignalRfft [..., n <= length] to [..., length + 2], and SignalIrfft back to [..., length]."""
    if operand(graph, op, 0).dtype != "int16":
        raise Unsupported(f"only int16 is supported, not {operand(graph, op, 0).dtype}. Build it with int16 samples")
    source, output = typed(graph, op.inputs[0], "int16"), typed(graph, op.outputs[0], "int16")
    (length,) = settings(op, fft_length=_LENGTHS)
    if length & (length - 1):
        raise Unsupported(f"its option fft_length must be a power of two, is {length}. Use {2 ** length.bit_length()}")
    inverse, spectrum = op.kind == "SignalIrfft", length + 2
    ends = [(tensor.shape[-1] if tensor.shape else 0) for tensor in (source, output)]
    fits = ends == [spectrum, length] if inverse else ends[0] <= length and ends[1] == spectrum
    if not fits or source.shape[:-1] != output.shape[:-1] or source.data is not None:
        raise Unsupported(f"{source.shape} to {output.shape} is no transform of {length} values. The file is damaged")
    size, sign = length // 2, 1 if inverse else -1
    fields: Fields = {
        "rows": source.elements // ends[0],
        "length": ends[0],
        "size": size,
        "turns": _turns([sign * 2 * math.pi * k / size for k in range(size * 3 // 4)]),
        "half_turns": _turns([sign * math.pi * ((k + 1) / size + 0.5) for k in range(size // 2)]),
    }
    return [
        Layer(
            op,
            "fourier_backwards" if inverse else "fourier_forwards",
            "fourier",
            "tfkd_fourier_params",
            fields,
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
        )
    ]


def _turns(angles: list[float]) -> np.ndarray:
    """e^(i angle) as pairs of int16 with 15 fraction bits."""
    pairs = [math.floor(0.5 + 32767 * part(angle)) for angle in angles for part in (math.cos, math.sin)]
    return np.array(pairs, "int16")
