"""A layer of the generated program, and what all lowerings check and compute of an op's tensors.

Quantization parameters are computed as TensorFlow Lite Micro's kernels compute them when they prepare, in the same
precision (float32 where they use float), so that the integers come out equal.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor

# Flags of the kernels, as in kernels/arithmetic.h
ANY_SHIFT, SIGNED, CLAMP, WIDE, ONE_SHIFT, BY_ROWS, BY_PLANE = 1, 2, 4, 8, 16, 32, 64


class Unsupported(ValueError):
    """An op that the generator does not take: what was found, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a kernel.

    Args:
        op: the op that it is of.
        kernel: the C function without its prefix `tfkd_`.
        source: the kernel's file, without `.h`, after those that it needs; `pool@int16` is `pool`, made for int16.
        struct: the C struct of its parameters.
        fields: the struct's values: numbers, tuples of numbers, or arrays that become constants of their own.
        reads: tensors, or constant arrays, that the kernel takes as inputs.
        writes: the tensor that it writes.
        states: tensors that it changes and that are kept from one run to the next.
        flags: compile-time choices of the kernel.
        scratch_bytes: of a buffer that it needs while it runs.
        in_place: tensors that its output may overwrite while it is computed.
        comment: what it computes, for a reader.
    """

    op: Op
    kernel: str
    source: str
    struct: str
    fields: Mapping[str, int | tuple[int, ...] | np.ndarray]
    reads: tuple[int | np.ndarray, ...]
    writes: int
    flags: int = 0
    scratch_bytes: int = 0
    in_place: tuple[int, ...] = ()
    states: tuple[int, ...] = ()
    comment: str = ""

    def number(self, name: str) -> int:
        """A field that is one number."""
        return int(np.asarray(self.fields[name]))


def operand(graph: Graph, op: Op, i: int) -> Tensor:
    """An input that must be there."""
    tensor = graph.of(op, i)
    if tensor is None:
        raise Unsupported(f"input {i} is left out. Convert the model again")
    return tensor


def int8(graph: Graph, index: int) -> Tensor:
    """A tensor that must be int8 with one step."""
    return quantized(graph, index, "int8")


def values(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor that must have one step: int8, or int16 with zero point 0; `dtypes` narrows that."""
    tensor = quantized(graph, index, *(dtypes or ("int8", "int16")))
    if tensor.dtype == "int16" and tensor.zero_point:
        raise Unsupported(f"{tensor.name!r} must have zero point 0, has {tensor.zero_point}. Convert the model again")
    return tensor


def quantized(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor that must be of one of some types and have one step."""
    if index < 0:
        raise Unsupported("an input is left out. Convert the model again")
    tensor = graph.tensors[index]
    if tensor.dtype not in dtypes or len(tensor.scales) != 1:
        raise Unsupported(
            f"{tensor.name!r} must be {' or '.join(dtypes)} with one scale, is {tensor.dtype} with "
            f"{len(tensor.scales)}. Convert with `tfkd convert --mode full_int8`"
        )
    return tensor


def constant(graph: Graph, op: Op, i: int, *dtypes: str) -> np.ndarray:
    """The values of an input that must be constant."""
    tensor = operand(graph, op, i)
    if tensor.data is None or tensor.dtype not in dtypes:
        found = tensor.dtype if tensor.data is not None else f"{tensor.dtype} that is computed"
        raise Unsupported(
            f"{tensor.name!r} must be a constant of {' or '.join(dtypes)}, is {found}. Make it fixed in the Keras model"
        )
    return tensor.data


def activation_range(op: Op, output: Tensor) -> tuple[int, int]:
    """The output's range with the fused activation, in steps (kernel_util's CalculateActivationRangeQuantized)."""
    kind = op.options.get("FusedActivationFunction", "none")
    scale = np.float32(output.scale)

    def steps(value: float) -> int:
        quotient = np.float32(value) / scale
        return output.zero_point + int(math.copysign(math.floor(abs(float(quotient)) + 0.5), quotient))

    low, high = int(np.iinfo(output.dtype).min), int(np.iinfo(output.dtype).max)
    limits = {
        "none": (low, high),
        "relu": (steps(0), high),
        "relu6": (steps(0), steps(6)),
        "relu_n1_to_1": (steps(-1), steps(1)),
    }
    if kind not in limits:
        raise Unsupported(f"fused {kind} is not supported. Put the activation into a layer of its own")
    least, most = limits[kind]
    return max(low, least), min(high, most)


def folded_sums(name: str, weights: np.ndarray, bias: np.ndarray, zero_point: int) -> tuple[np.ndarray, bool]:
    """Folds the input's zero point into the bias; whether sums may pass the bounds of the kernels' fast forms.

    Args:
        weights: [channels, depth] int64.
        bias: [channels] int64.
    """
    folded = bias - zero_point * weights.sum(axis=1)
    largest = np.abs(weights).sum(axis=1) * 128
    if (np.abs(folded) + largest).max(initial=0) >= 2**31 or np.abs(folded).max(initial=0) >= 2**31:
        raise Unsupported(f"sums of {name!r} do not fit 32 bits: a damaged bias. Convert the model again")
    # Pairs of channels share 16 bits: 256 * sum of one + sum of the other must fit.
    pairs = 256 * largest + np.roll(largest, 1)
    wide = (np.abs(folded) + largest).max(initial=0) >= 2**30 or pairs.max(initial=0) >= 2**31 or weights.min() <= -128
    return folded.astype("int32"), bool(wide)


def requantization(scales: Sequence[float], output: Tensor, least: int, most: int) -> tuple[dict[str, np.ndarray], int]:
    """Multipliers and shifts for real factors, and the flags for the kernel that uses them."""
    pairs = [arithmetic.quantize_multiplier(scale) for scale in scales]
    flags = SIGNED if least < output.zero_point else 0
    flags |= CLAMP if (least, most) != (-128, 127) else 0
    shifts = np.array([shift for _, shift in pairs])
    if (shifts > 30).any():
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    if (shifts >= 0).any():
        flags |= ANY_SHIFT
    else:
        shifts = -shifts - 1
    return {"multiplier": np.array([m for m, _ in pairs], "int32"), "shift": shifts.astype("int8")}, flags


def long_requantization(scales: Sequence[float], output: Tensor) -> dict[str, np.ndarray]:
    """The same for sums of 64 bits, which TensorFlow Lite Micro rescales by the upper 16 bits of a multiplier."""
    pairs = [arithmetic.quantize_multiplier(scale) for scale in scales]
    if max(shift for _, shift in pairs) > 7:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    multipliers = [0x7FFF if m >= 0x7FFF0000 else (m + 2**15) >> 16 for m, _ in pairs]
    return {"multiplier": np.array(multipliers, "int32"), "shift": np.array([s for _, s in pairs], "int8")}


def weights_of(
    graph: Graph, op: Op, axis: int, bias_at: int = 2, biases: tuple[str, ...] = ("int32",)
) -> tuple[Tensor, np.ndarray, np.ndarray, list[float]]:
    """The filter, its values and bias as int64, and a scale for each output channel."""
    tensor = operand(graph, op, 1)
    values = constant(graph, op, 1, "int8").astype("int64")
    channels = tensor.shape[axis]
    if not tensor.scales or any(tensor.zero_points) or (len(tensor.scales) > 1 and tensor.axis != axis):
        raise Unsupported(f"weights {tensor.name!r} must be symmetric, by channel. Convert with `--mode full_int8`")
    bias = np.zeros(channels, "int64")
    if graph.of(op, bias_at) is not None:
        bias = constant(graph, op, bias_at, *biases).astype("int64").reshape(-1)
    if len(bias) != channels:
        raise Unsupported(f"{len(bias)} biases for {channels} channels. The file is damaged")
    return tensor, values, bias, list(tensor.scales) if len(tensor.scales) > 1 else list(tensor.scales) * channels


def fast_form(weights: np.ndarray, folded: np.ndarray, shifts: np.ndarray, flags: int, wide: bool) -> int:
    """Flags for kernels that multiply up to 256 times a sum and saturate.

    Args:
        weights: [channels, depth] int64.
        folded: [channels] biases, with the input's zero point folded in.
        shifts: [channels] as the kernels take them.
        flags: from `requantization`.
        wide: from `folded_sums`.

    Returns:
        `flags` with WIDE, with CLAMP where numbers pass the bounds of that form, and with ONE_SHIFT where it applies.
    """
    flags |= WIDE if wide else 0
    most = folded + np.maximum(weights * 127, weights * -128).sum(axis=1)
    least = folded + np.minimum(weights * 127, weights * -128).sum(axis=1)
    if most.max(initial=0) >= 2**23 or least.min(initial=0) < -(2**23) or np.max(shifts, initial=0) > 14:
        flags |= CLAMP
    return flags if flags or min(shifts) < 3 or max(shifts) > 9 else ONE_SHIFT


def by_pairs(values: np.ndarray, groups: int) -> np.ndarray:
    """[channels, ...] as [groups, pairs, 2, ...], with zeros beside the last of an odd number."""
    grouped = values.reshape(groups, -1, *values.shape[1:])
    padded = np.pad(grouped, [(0, 0), (0, grouped.shape[1] % 2)] + [(0, 0)] * (values.ndim - 1))
    return padded.reshape(groups, -1, 2, *values.shape[1:])


def pair_words(
    biases: np.ndarray, multipliers: np.ndarray, shifts: np.ndarray, odd: int, zero_point: int, flags: int
) -> np.ndarray:
    """What kernels/convolution.h needs of two channels at a time.

    Args:
        biases, multipliers, shifts: [groups, pairs, 2] int64; shifts as other kernels take them.
        odd: 1 where the last pair of a group has one channel.
        zero_point: of the output.
        flags: of the layer.

    Returns:
        [groups, pairs, 7] int32.
    """
    first, second = biases[..., 0], biases[..., 1]
    offsets = np.zeros_like(shifts)
    last = 0
    if not flags & (ANY_SHIFT | WIDE | CLAMP):
        second = 256 * second + first
        # 2 * zero point + 1, whose shift by one is left; and half of the bits that the first rounding drops
        offsets = ((2 * zero_point + 1) << shifts + [0, 7]) + np.array([0, 64])
        if flags & ONE_SHIFT:
            offsets[..., 0] = ((2 * zero_point + 1) << 10) + (1 << 9 - shifts[..., 0])
            shifts = shifts * [-1, 1] + [11, 0]
        shifts = shifts + [0, 7]
        last = np.arange(shifts.shape[1]) == shifts.shape[1] - 1 - odd
    packed = shifts[..., 0] & 255 | (shifts[..., 1] & 255) << 8 | last * np.int64(-(2**31))
    words = [second, first, packed, multipliers[..., 0], multipliers[..., 1], offsets[..., 0], offsets[..., 1]]
    return np.stack(words, -1).astype("uint32").view("int32")


def pair_numbers(words: np.ndarray, flags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Biases, multipliers and shifts of which `pair_words` made words."""
    words = words.astype("int64")
    first, second = words[..., 1], words[..., 0]
    shifts = np.stack([words[..., 2].astype("int8"), (words[..., 2] >> 8).astype("int8")], -1).astype("int64")
    if not flags & (ANY_SHIFT | WIDE | CLAMP):
        second = (second - first).astype("int32").astype("int64") >> 8
        shifts = shifts - [0, 7]
        if flags & ONE_SHIFT:
            shifts = shifts * [-1, 1] + [11, 0]
    return np.stack([first, second], -1), words[..., 3:5], shifts


def scaling_of(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts, as exponents of two, of a layer that requantizes: one, or one for each channel."""
    if layer.kernel == "convolution":
        _, *numbers = pair_numbers(np.asarray(layer.fields["pairs"]), layer.flags)
        count = layer.number("group_out_channels")
        multipliers, shifts = (x.reshape(len(x), -1)[:, :count].reshape(-1) for x in numbers)
    else:
        multipliers, shifts = (np.asarray(layer.fields[name]).reshape(-1) for name in ("multiplier", "shift"))
    return multipliers, shifts if layer.flags & ANY_SHIFT else -shifts.astype("int32") - 1


def packed_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two channels' weights in 16 bits: 256 * second + first."""
    return ((256 * second + first + 2**15) % 2**16 - 2**15).astype("int16")


def same_steps(source: Tensor, output: Tensor) -> None:
    """Refuses an op that would have to rescale."""
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise Unsupported(f"{source.name!r} and {output.name!r} must have one scale. Convert the model again")


def shape_text(tensor: Tensor) -> str:
    """A shape for a reader, without the batch."""
    shape = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    return "x".join(map(str, shape)) or "1"


def strides_of(shape: Sequence[int]) -> list[int]:
    """Values from one to the next along each axis."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def identifier(name: str) -> str:
    """A C identifier from a layer's name: its last parts, as letters, digits and underscores."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", name.split(";")[0]).strip("_").lower()
    return words[-40:].strip("_") or "tensor"
