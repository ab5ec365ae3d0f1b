"""The ops of a sound front end from TensorFlow Lite Micro's signal library, without a state of their own.

samples [n] int16          SignalWindow, SignalFftAutoScale: times a window, then as large as int16 allows
spectrum [2 k] int16       SignalRfft (lowering/fourier.py), SignalEnergy: squared absolute values
energies [k] uint32        SignalFilterBank: sums under triangles, uint64
channels [c] uint32        SignalFilterBankSquareRoot, SignalFilterBankSpectralSubtraction, SignalPCAN
features [c] int16         SignalFilterBankLog
"""

from __future__ import annotations

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.custom_options import settings
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    operand,
    read_by_kernel,
    shape_text,
    typed,
)

_WORD = (-(2**31), 2**32 - 1)  # options that the library takes as 32 bits, of either sign
_SHIFT = (0, 31)
# Values of the gain function of SignalPCAN: at 0, 1 and 2, and four for each power of two up to 2^31, of which it reads
# three.
_GAINS = 125


def _layer(
    op: Op,
    kernel: str,
    struct: str,
    fields: Fields,
    reads: tuple[Tensor, ...],
    output: Tensor,
    in_place: bool = False,
    states: tuple[int, ...] = (),
) -> Layer:
    """A layer of kernels/signal.h; `in_place`: whether the output may overwrite any of the inputs."""
    return Layer(
        op,
        f"signal_{kernel}",
        "signal",
        f"tfkd_signal_{struct}_params",
        fields,
        tuple(read_by_kernel(tensor) for tensor in reads),
        output.index,
        in_place=tuple(tensor.index for tensor in reads if tensor.data is None) if in_place else (),
        states=states,
        comment=f"{shape_text(reads[0])} -> {shape_text(output)}",
    )


def _vectors(graph: Graph, op: Op, source: str, output: str) -> tuple[Tensor, Tensor]:
    """The first input and the first output, which must have these types and the same number of values on one axis."""
    first, result = typed(graph, op.inputs[0], source), typed(graph, op.outputs[0], output)
    if len(first.shape) != 1 or first.shape != result.shape:
        raise Unsupported(f"{first.shape} and {result.shape} must be one axis of the same size. The file is damaged")
    return first, result


def window(graph: Graph, op: Op) -> list[Layer]:
    """SignalWindow: samples [..., n] times a constant window [n], shifted to the right."""
    source, output = typed(graph, op.inputs[0], "int16"), typed(graph, op.outputs[0], "int16")
    values = constant(graph, op, 1, "int16")
    (shift,) = settings(op, shift=_SHIFT)
    if values.ndim != 1 or source.shape != output.shape or source.shape[-1:] != values.shape:
        raise Unsupported(f"{source.shape} times a window of {values.shape} is not {output.shape}. The file is damaged")
    fields: Fields = {"rows": source.elements // values.size, "size": values.size, "shift": shift, "window": values}
    return [_layer(op, "window", "window", fields, (source,), output, in_place=True)]


def auto_scale(graph: Graph, op: Op) -> list[Layer]:
    """SignalFftAutoScale: the bits by which samples can be shifted to the left, then the shifted samples."""
    source, output = _vectors(graph, op, "int16", "int16")
    bits = typed(graph, op.outputs[1], "int32")
    if bits.elements != 1:
        raise Unsupported(f"{bits.name!r} must be one number, is {bits.shape}. The file is damaged")
    fields: Fields = {"count": source.elements}
    return [
        _layer(op, "scale_bits", "count", fields, (source,), bits),
        _layer(op, "scaled", "count", fields, (source, bits), output),
    ]


def energy(graph: Graph, op: Op) -> list[Layer]:
    """SignalEnergy: a spectrum [2 k] to [k]; bins outside of the options' range are 0."""
    source, output = typed(graph, op.inputs[0], "int16"), typed(graph, op.outputs[0], "uint32")
    if source.elements != 2 * output.elements:
        raise Unsupported(f"a spectrum of {source.shape} is not {output.shape} bins. The file is damaged")
    start, end = settings(op, start_index=(0, output.elements), end_index=(0, output.elements))
    fields: Fields = {"count": output.elements, "start": start, "end": end}
    return [_layer(op, "energy", "energy", fields, (source,), output)]


def filter_bank(graph: Graph, op: Op) -> list[Layer]:
    """SignalFilterBank: energies [k] to sums under triangles [channels], uint64."""
    source, output = typed(graph, op.inputs[0], "uint32"), typed(graph, op.outputs[0], "uint64")
    rising, falling, starts, places, widths = (constant(graph, op, i, "int16").reshape(-1) for i in range(1, 6))
    (channels,) = settings(op, num_channels=(1, 2**15))
    rows = (starts, places, widths)
    if output.shape != (channels,) or any(row.size != channels + 1 for row in rows):
        raise Unsupported(f"{[row.size for row in rows]} values do not describe {channels} channels and one before")
    fits = (starts + widths.astype("int64") <= source.elements) & (places + widths.astype("int64") <= rising.size)
    if any((row < 0).any() for row in rows) or not fits[widths > 0].all() or rising.size != falling.size:
        raise Unsupported(f"the channels reach beyond {source.elements} bins or {rising.size} weights")
    starts, places = (np.where(widths > 0, row, 0).astype("int16") for row in (starts, places))
    fields: Fields = {
        "channels": channels + 1,
        "starts": starts,
        "widths": widths,
        "places": places,
        "rising": rising,
        "falling": falling,
    }
    return [_layer(op, "filter_bank", "filter_bank", fields, (source,), output)]


def square_root(graph: Graph, op: Op) -> list[Layer]:
    """SignalFilterBankSquareRoot: roots of uint64, shifted to the right by the bits of SignalFftAutoScale."""
    source, output = _vectors(graph, op, "uint64", "uint32")
    if source.data is not None:
        raise Unsupported(f"{source.name!r} must be computed from the model's inputs, is a constant")
    bits = typed(graph, operand(graph, op, 1).index, "int32")
    if bits.elements != 1:
        raise Unsupported(f"{bits.name!r} must be one number, is {bits.shape}. The file is damaged")
    return [_layer(op, "square_root", "count", {"count": source.elements}, (source, bits), output)]


def spectral_subtraction(graph: Graph, op: Op) -> list[Layer]:
    """SignalFilterBankSpectralSubtraction: the noise of each channel, a state, then the energies without it."""
    source, output = _vectors(graph, op, "uint32", "uint32")
    noise = typed(graph, op.outputs[1], "uint32")
    names = ("smoothing", "alternate_smoothing", "one_minus_smoothing", "alternate_one_minus_smoothing")
    *factors, remaining, clamping = settings(
        op, **dict.fromkeys(names, _WORD), min_signal_remaining=_WORD, clamping=(0, 1)
    )
    up, bits, _ = settings(
        op,
        smoothing_bits=_SHIFT,
        spectral_subtraction_bits=(0, 63),
        num_channels=(source.elements, source.elements),
    )
    even, odd, even_kept, odd_kept = (factor % 2**32 for factor in factors)
    if noise.shape != source.shape:
        raise Unsupported(f"the noise {noise.shape} must be {source.shape}. The file is damaged")
    shared: Fields = {"count": source.elements, "up": up, "bits": bits}
    smoothed: Fields = {**shared, "clamping": clamping, "smoothing": (even, odd), "kept": (even_kept, odd_kept)}
    return [
        _layer(op, "noise", "noise", smoothed, (source,), noise, states=op.inputs[-1:]),
        _layer(
            op,
            "subtraction",
            "subtraction",
            {**shared, "remaining": remaining % 2**32},
            (source, noise),
            output,
            in_place=True,
        ),
    ]


def pcan(graph: Graph, op: Op) -> list[Layer]:
    """SignalPCAN: per-channel gain by the noise, of which a table gives the function."""
    source, output = _vectors(graph, op, "uint32", "uint32")
    noise, gains = typed(graph, operand(graph, op, 1).index, "uint32"), constant(graph, op, 2, "int16").reshape(-1)
    (shift,) = settings(op, snr_shift=(0, 63))
    if noise.shape != source.shape or gains.size < _GAINS:
        raise Unsupported(
            f"noise {noise.shape} and {gains.size} gains must be {source.shape} and at least {_GAINS}. Convert again"
        )
    fields: Fields = {"count": source.elements, "shift": shift, "gains": gains}
    return [_layer(op, "pcan", "pcan", fields, (source, noise), output, in_place=True)]


def filter_bank_log(graph: Graph, op: Op) -> list[Layer]:
    """SignalFilterBankLog: natural logarithms with a scale."""
    source, output = _vectors(graph, op, "uint32", "int16")
    up, scale = settings(op, input_correction_bits=_SHIFT, output_scale=_WORD)
    part = np.arange(129) / 128
    bend = np.rint(2**16 * (np.log2(1 + part) - part)).astype("uint16")
    fields: Fields = {"count": source.elements, "up": up, "scale": scale % 2**32, "bend": bend}
    return [_layer(op, "log", "log", fields, (source,), output)]
