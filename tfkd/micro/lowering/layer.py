"""A layer of the generated program, and checks of an op's tensors that the lowerings share."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor

# Compile-time flags of the kernels, as in kernels/arithmetic.h.
ANY_SHIFT = 1  # shifts are exponents of two of either sign; without it, right shifts minus one
SIGNED = 2  # results below the zero point are possible, so that halves must round away from zero on both sides
CLAMP = 4  # the output range is narrower than int8, or values exceed what the saturating form takes
WIDE = 8  # sums may exceed what the fast form takes
ONE_PRODUCT = 16  # multipliers and offsets that `one_product` found: one product and one shift for each output
BY_ROWS = 32  # depthwise: layers that widen pairs of rows of four channels
BY_PLANE = 64  # depthwise: layers that widen the plane of one channel


# Scales of activations outside of this range come from a damaged file; their quotients would exceed what a multiplier
# and a shift can express. Weights may have any scale: the multiplier of a tiny one is 0.
_LEAST_SCALE, _MOST_SCALE = 1e-18, 1e18

# Values of a kernel's C struct: numbers, tuples of numbers, or arrays that become constants of their own.
Fields = dict[str, int | np.float32 | tuple[int, ...] | np.ndarray]


class Unsupported(ValueError):
    """An op that the generator does not support; the message says what was found and what to do."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a C kernel.

    Args:
        op: The op that it computes, or a part of it.
        kernel: Name of the C function without its prefix `tfkd_`.
        source: File of the kernel, without `.h`, after the files that it needs; `pool@int16` is `pool.h`, compiled for
            int16 values.
        struct: C struct of the kernel's parameters.
        fields: Values of the struct, see `Fields`.
        reads: Input tensors by index, or constant arrays.
        writes: Index of the output tensor.
        states: Tensors that the kernel changes and that keep their values between runs.
        flags: Compile-time flags of the kernel.
        scratch_bytes: Size of a buffer that the kernel needs while it runs.
        in_place: Input tensors that the output may overwrite while it is computed.
        lag: Bytes by which the output must start before the only input, which has been read up to where the output
            then ends, so that the output may overwrite what was read; None where it must not overwrite anything.
        comment: Shapes and kernel size, for the reader of the C.
        generic: Whether one text of the kernel, written for int8, serves int16 too.
    """

    op: Op
    kernel: str
    source: str
    struct: str
    fields: Mapping[str, int | np.float32 | tuple[int, ...] | np.ndarray]
    reads: tuple[int | np.ndarray, ...]
    writes: int
    flags: int = 0
    scratch_bytes: int = 0
    in_place: tuple[int, ...] = ()
    lag: int | None = None
    states: tuple[int, ...] = ()
    comment: str = ""
    generic: bool = False

    def number(self, name: str) -> int:
        """A field that is one number."""
        return int(np.asarray(self.fields[name]))


@dataclasses.dataclass(frozen=True)
class Alias:
    """The result of an op that moves no data: its output has the bytes of another tensor.

    Args:
        source: Index of that tensor.
    """

    source: int


def operand(graph: Graph, op: Op, i: int) -> Tensor:
    """Input `i` of an op, which must be present."""
    tensor = graph.input_of(op, i)
    if tensor is None:
        raise Unsupported(f"input {i} is missing. Convert the model again")
    return tensor


def int8(graph: Graph, index: int) -> Tensor:
    """A tensor that must be int8 with one scale."""
    return quantized(graph, index, "int8")


def values(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor that must be int8, or int16 with zero point 0, with one scale; `dtypes` restricts the types."""
    tensor = quantized(graph, index, *(dtypes or ("int8", "int16")))
    if tensor.dtype in ("int16", "int32") and tensor.zero_point:
        raise Unsupported(f"{tensor.name!r} must have zero point 0, has {tensor.zero_point}. Convert the model again")
    return tensor


def moved(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor whose values an op moves: int8, int16 or floats, quantized or not; `dtypes` restricts the types."""
    return typed(graph, index, *(dtypes or ("int8", "int16", "float32")))


def quantized(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor that must have one of some types and one scale."""
    if index < 0:
        raise Unsupported("an input is missing. Convert the model again")
    tensor = graph.tensors[index]
    if tensor.dtype not in dtypes or len(tensor.scales) != 1:
        advice = "Convert with `tfkd convert --mode full_int8`"
        if tensor.dtype in ("int32", "int64", "bool"):  # such as token ids, which stay so in every mode
            advice = "Take this op out of the model: compute it before, and give its result as an input"
        raise Unsupported(
            f"{tensor.name!r} must be {' or '.join(dtypes)} with one scale, is {tensor.dtype} with "
            f"{len(tensor.scales)}. {advice}"
        )
    check_scale(tensor)
    return tensor


def check_scale(tensor: Tensor) -> None:
    """Refuses a scale of an activation or a state that is 0, tiny or huge."""
    if not _LEAST_SCALE < tensor.scale < _MOST_SCALE:
        raise unsupported_scale(tensor)


def typed(graph: Graph, index: int, *dtypes: str) -> Tensor:
    """A tensor that must have one of some types, with any quantization or none."""
    if index < 0:
        raise Unsupported("an input is missing. Convert the model again")
    tensor = graph.tensors[index]
    if tensor.dtype not in dtypes:
        raise Unsupported(f"{tensor.name!r} must be {' or '.join(dtypes)}, is {tensor.dtype}. Convert the model again")
    return tensor


def read_by_kernel(tensor: Tensor) -> int | np.ndarray:
    """What a kernel reads for a tensor: its index, or its values where it is a constant."""
    return tensor.index if tensor.data is None else tensor.data.reshape(-1)


def constant(graph: Graph, op: Op, i: int, *dtypes: str) -> np.ndarray:
    """The values of input `i`, which must be constant and have one of some types."""
    tensor = operand(graph, op, i)
    if tensor.data is None or tensor.dtype not in dtypes:
        found, remedy = f"{tensor.dtype} that is computed", "Make it a constant in the Keras model"
        if tensor.data is not None:  # TensorFlow Lite Micro would read it as another type
            found, remedy = tensor.dtype, "Convert with `tfkd convert --mode full_int8` or `int16x8`"
        raise Unsupported(f"{tensor.name!r} must be a constant of {' or '.join(dtypes)}, is {found}. {remedy}")
    return tensor.data


def weights_of(
    graph: Graph, op: Op, axis: int, bias_at: int = 2, biases: tuple[str, ...] = ("int32",)
) -> tuple[Tensor, np.ndarray, np.ndarray, list[float]]:
    """Weights and bias of an op.

    Args:
        graph: The model.
        op: An op whose input 1 holds the weights.
        axis: Axis of the output channels in the weights.
        bias_at: Number of the input that holds the bias; a missing bias is zeros.
        biases: Types that the bias may have.

    Returns:
        The weight tensor, its values as int64, the bias [channels] int64, and one weight scale for each output channel.
    """
    tensor = operand(graph, op, 1)
    values = constant(graph, op, 1, "int8").astype("int64")
    channels = tensor.shape[axis]
    if any(tensor.zero_points):
        raise Unsupported(
            f"weights {tensor.name!r} must be symmetric, with zero point 0. Convert with `--mode full_int8`"
        )
    if len(tensor.scales) not in (1, channels) or (len(tensor.scales) > 1 and tensor.axis != axis):
        raise Unsupported(
            f"weights {tensor.name!r} of shape {tensor.shape} must have one scale, or one for each output channel on "
            f"axis {axis}; they have {len(tensor.scales)} on axis {tensor.axis}. Convert with `--mode full_int8`"
        )
    bias = np.zeros(channels, "int64")
    if graph.input_of(op, bias_at) is not None:
        bias = constant(graph, op, bias_at, *biases).astype("int64").reshape(-1)
    if len(bias) != channels:
        raise Unsupported(f"{len(bias)} biases for {channels} channels. The file is damaged")
    return tensor, values, bias, list(tensor.scales) if len(tensor.scales) > 1 else list(tensor.scales) * channels


def same_quantization(source: Tensor, output: Tensor) -> None:
    """Refuses an op whose input and output differ in scale or zero point, so that it would have to requantize."""
    if (source.scales, source.zero_points) != (output.scales, output.zero_points):
        raise Unsupported(
            f"{source.name!r} and {output.name!r} must have the same scale and zero point. Convert the model again"
        )


def unsupported_scale(tensor: Tensor) -> Unsupported:
    """The error for a scale that no calibrated model has."""
    return Unsupported(
        f"scale {tensor.scale:g} of {tensor.name!r} is outside the supported range. Convert again with a "
        "representative calibration set"
    )


def shape_text(tensor: Tensor) -> str:
    """A shape without the batch axis, such as `8x8x16`."""
    shape = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    return "x".join(map(str, shape)) or "1"


def strides_of(shape: Sequence[int]) -> list[int]:
    """Elements from one value to the next along each axis, in row-major order."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def identifier(name: str) -> str:
    """A C identifier from a layer's name: its last parts, as letters, digits and underscores."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", name.split(";")[0]).strip("_").lower()
    return words[-40:].strip("_") or "tensor"
