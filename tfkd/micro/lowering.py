"""From the ops of a graph to layers: one call of a C kernel each, with its constants.

Quantization parameters are computed as TensorFlow Lite Micro's kernels compute them when they prepare, in the same
precision (float32 where they use float), so that the integers come out equal.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor

# Flags of the kernels, as in kernels/arithmetic.h
ANY_SHIFT, SIGNED, CLAMP, WIDE, SWAPPED = 1, 2, 4, 8, 16


class Unsupported(ValueError):
    """An op that the generator does not take: what was found, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a kernel.

    Args:
        op: the op that it is of.
        kernel: the C function without its prefix `tfkd_`.
        source: the kernel's file, without `.h`.
        struct: the C struct of its parameters.
        fields: the struct's values: numbers, tuples of numbers, or arrays that become constants of their own.
        reads: tensors, or constant arrays, that the kernel takes as inputs.
        writes: the tensor that it writes.
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
    comment: str = ""


def lower(graph: Graph) -> tuple[tuple[Layer, ...], dict[int, int]]:
    """Lowers all ops.

    Returns:
        The layers, and for each tensor that is only another view of one (RESHAPE and the like) that one.

    Raises:
        ValueError: names every op, type or option that is not supported, with a remedy.
    """
    layers: list[Layer] = []
    aliases: dict[int, int] = {}
    problems = []
    for op in graph.ops:
        try:
            if op.kind in _VIEWS:
                _int8(graph, op.outputs[0])
                aliases[op.outputs[0]] = _of(graph, op, 0).index
            elif op.kind in _LOWERINGS:
                layers.extend(_LOWERINGS[op.kind](graph, op))
            else:
                raise Unsupported(
                    "is not supported. Replace the layer, or use the model's TensorFlow Lite Micro form: "
                    "`tfkd export-c --format tflm`"
                )
        except Unsupported as problem:
            problems.append(f"{graph.label(op)}: {problem}")
        except KeyError as missing:
            problems.append(f"{graph.label(op)}: has no option {missing}. The file is damaged")
    if problems:
        raise ValueError("micro: the model must use supported ops only. Received:\n  " + "\n  ".join(problems))
    return tuple(layers), aliases


_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def _of(graph: Graph, op: Op, i: int) -> Tensor:
    tensor = graph.of(op, i)
    if tensor is None:
        raise Unsupported(f"input {i} is left out. Convert the model again")
    return tensor


def _int8(graph: Graph, index: int) -> Tensor:
    tensor = graph.tensors[index]
    if tensor.dtype != "int8" or len(tensor.scales) != 1:
        raise Unsupported(
            f"{tensor.name!r} must be int8 with one scale, is {tensor.dtype} with {len(tensor.scales)}. "
            "Convert with `tfkd convert --mode full_int8`"
        )
    return tensor


def _constant(graph: Graph, op: Op, i: int, *dtypes: str) -> np.ndarray:
    tensor = _of(graph, op, i)
    if tensor.data is None or tensor.dtype not in dtypes:
        found = tensor.dtype if tensor.data is not None else f"{tensor.dtype} that is computed"
        raise Unsupported(
            f"{tensor.name!r} must be a constant of {' or '.join(dtypes)}, is {found}. Make it fixed in the Keras model"
        )
    return tensor.data


def _activation_range(op: Op, output: Tensor) -> tuple[int, int]:
    """The output's range with the fused activation, in steps (kernel_util's CalculateActivationRangeQuantized)."""
    kind = op.options.get("FusedActivationFunction", "none")
    scale = np.float32(output.scale)

    def steps(value: float) -> int:
        quotient = np.float32(value) / scale
        return output.zero_point + int(math.copysign(math.floor(abs(float(quotient)) + 0.5), quotient))

    limits = {"none": (-128, 127), "relu": (steps(0), 127), "relu6": (steps(0), steps(6)),
              "relu_n1_to_1": (steps(-1), steps(1))}  # fmt: skip
    if kind not in limits:
        raise Unsupported(f"fused {kind} is not supported. Put the activation into a layer of its own")
    least, most = limits[kind]
    return max(-128, least), min(127, most)


def _sums(name: str, weights: np.ndarray, bias: np.ndarray, zero_point: int) -> tuple[np.ndarray, bool]:
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


def _requantization(
    scales: Sequence[float], output: Tensor, least: int, most: int
) -> tuple[dict[str, np.ndarray], int]:
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


def _padding(op: Op, size: int, kernel: int, stride: int, dilation: int, out: int) -> int:
    """Values before the first, after checking that the output has the size that the options give."""
    if min(stride, dilation, kernel) < 1:
        raise Unsupported(f"kernel {kernel}, stride {stride} and dilation {dilation} must be >= 1. The file is damaged")
    reach = (kernel - 1) * dilation + 1
    expected = -(-size // stride) if op.options["Padding"] == "same" else (size + stride - reach) // stride
    if expected != out:
        raise Unsupported(f"{size} values, kernel {kernel}, stride {stride} and dilation {dilation} "
                          f"do not give {out}. The file is damaged")  # fmt: skip
    return max(0, (out - 1) * stride + reach - size) // 2


def _window(graph: Graph, op: Op, kernel: tuple[int, int]) -> dict[str, int]:
    """The struct fields that tell how a kernel moves over an image."""
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    if len(source.shape) != 4 or len(output.shape) != 4 or source.shape[0] != 1 or output.shape[0] != 1:
        raise Unsupported(f"input {source.shape} must be [1, h, w, c]. Convert the model again")
    fields = {"height": source.shape[1], "width": source.shape[2], "channels": source.shape[3],
              "out_height": output.shape[1], "out_width": output.shape[2],
              "kernel_height": kernel[0], "kernel_width": kernel[1]}  # fmt: skip
    for axis, name, letter, before in ((0, "height", "H", "pad_top"), (1, "width", "W", "pad_left")):
        stride = int(op.options[f"Stride{letter}"])
        dilation = int(op.options.get(f"Dilation{letter}Factor", 1))
        fields |= {f"stride_{name}": stride, f"dilation_{name}": dilation}
        fields[before] = _padding(op, fields[name], kernel[axis], stride, dilation, fields[f"out_{name}"])
    if max(fields.values()) >= 2**15:
        raise Unsupported(f"a size of {max(fields.values())} is too large. Use a smaller model")
    return fields


def _weights(graph: Graph, op: Op, axis: int) -> tuple[Tensor, np.ndarray, np.ndarray, list[float]]:
    """The filter, its values and bias as int64, and a scale for each output channel."""
    tensor = _of(graph, op, 1)
    values = _constant(graph, op, 1, "int8").astype("int64")
    channels = tensor.shape[axis]
    if not tensor.scales or any(tensor.zero_points) or (len(tensor.scales) > 1 and tensor.axis != axis):
        raise Unsupported(f"weights {tensor.name!r} must be symmetric, by channel. Convert with `--mode full_int8`")
    bias = np.zeros(channels, "int64")
    if graph.of(op, 2) is not None:
        bias = _constant(graph, op, 2, "int32").astype("int64").reshape(-1)
    if len(bias) != channels:
        raise Unsupported(f"{len(bias)} biases for {channels} channels. The file is damaged")
    return tensor, values, bias, list(tensor.scales) if len(tensor.scales) > 1 else list(tensor.scales) * channels


def _packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two channels' weights in 16 bits: 256 * second + first."""
    return ((256 * second + first + 2**15) % 2**16 - 2**15).astype("int16")


def _convolution(graph: Graph, op: Op) -> list[Layer]:
    tensor, weights, bias, scales = _weights(graph, op, 0)
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    if weights.ndim != 4:
        raise Unsupported(f"weights {tensor.shape} must be [out, h, w, in]. The file is damaged")
    fields = _window(graph, op, weights.shape[1:3])
    channels, part = weights.shape[0], weights.shape[3]
    groups = fields["channels"] // part
    if groups * part != fields["channels"] or groups < 1 or channels % groups or output.shape[3] != channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    flat = weights.reshape(channels, -1)
    depth = -(-flat.shape[1] // 8) * 8
    folded, wide = _sums(tensor.name, flat, bias, source.zero_point)
    least, most = _activation_range(op, output)
    # float * float / float, each as a double, per channel
    requantization, flags = _requantization([source.scale * s / output.scale for s in scales], output, least, most)
    per_group = channels // groups
    if part % 4 == 0:
        flags |= SWAPPED
    # [groups, blocks, pairs, 2 channels, depth / 2, 2 values]; each four values in the order in which columns hold them
    rows = np.zeros((groups, -(-per_group // 4) * 4, depth), "int64")
    rows[:, :per_group, : flat.shape[1]] = flat.reshape(groups, per_group, -1)
    if flags & SWAPPED:
        rows = rows.reshape(*rows.shape[:2], -1, 4)[..., [0, 2, 1, 3]]
    rows = rows.reshape(groups, -1, 2, 2, depth // 2, 2)
    packed = _packed(rows[:, :, :, 0], rows[:, :, :, 1]).transpose(0, 1, 3, 2, 4)
    return [
        Layer(
            op, "convolution", "convolution", "tfkd_convolution_params",
            {"weights": packed, "bias": folded, **requantization, **fields,
             "out_channels": channels, "groups": groups, "group_channels": part,
             "group_out_channels": per_group, "depth": depth, "zero_point": source.zero_point,
             "out_zero_point": output.zero_point, "least": least, "most": most},
            (source.index,), output.index, flags | (WIDE if wide else 0), scratch_bytes=4 * depth,
            comment=f"{_shape(source)} -> {_shape(output)}, {_kernel(fields)}",
        )
    ]  # fmt: skip


def _depthwise(graph: Graph, op: Op) -> list[Layer]:
    tensor, weights, bias, scales = _weights(graph, op, 3)
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    if weights.ndim != 4 or weights.shape[0] != 1:
        raise Unsupported(f"weights {tensor.shape} must be [1, h, w, out]. The file is damaged")
    fields = _window(graph, op, weights.shape[1:3])
    channels = weights.shape[3]
    times = channels // fields["channels"]
    if times * fields["channels"] != channels or output.shape[3] != channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    by_channel = np.ascontiguousarray(weights[0].transpose(2, 0, 1))
    folded, wide = _sums(tensor.name, by_channel.reshape(channels, -1), bias, source.zero_point)
    least, most = _activation_range(op, output)
    requantization, flags = _requantization([source.scale * s / output.scale for s in scales], output, least, most)
    plane = {}
    for name in ("height", "width"):
        reach = (fields[f"out_{name}"] - 1) * fields[f"stride_{name}"]
        reach += (fields[f"kernel_{name}"] - 1) * fields[f"dilation_{name}"] + 1
        plane[f"plane_{name}"] = reach + (reach % 2 if name == "width" else 0)
    same = times == 1 and source.shape == output.shape
    return [
        Layer(
            op, "depthwise", "depthwise", "tfkd_depthwise_params",
            {"weights": by_channel.astype("int8"), "bias": folded, **requantization, **fields, **plane,
             "channel_multiplier": times, "zero_point": source.zero_point,
             "out_zero_point": output.zero_point, "least": least, "most": most},
            (source.index,), output.index, flags | (WIDE if wide else 0),
            scratch_bytes=2 * plane["plane_height"] * plane["plane_width"], in_place=(source.index,) if same else (),
            comment=f"{_shape(source)} -> {_shape(output)}, {_kernel(fields)}",
        )
    ]  # fmt: skip


def _fully_connected(graph: Graph, op: Op) -> list[Layer]:
    tensor, weights, bias, scales = _weights(graph, op, 0)
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    channels, depth = weights.shape if weights.ndim == 2 else (0, 0)
    rows = source.elements // depth if depth else 0
    if not depth or rows * depth != source.elements or output.elements != rows * channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    if op.options.get("WeightsFormat", 0):
        raise Unsupported("shuffled weights are not supported. Convert the model again")
    folded, wide = _sums(tensor.name, weights, bias, source.zero_point)
    least, most = _activation_range(op, output)
    if len(tensor.scales) > 1:
        factors = [source.scale * s / output.scale for s in scales]
    else:  # one product in float32, unlike the convolutions
        factors = [float(np.float32(source.scale) * np.float32(tensor.scale)) / output.scale]
    requantization, flags = _requantization(factors, output, least, most)
    blocks = np.zeros((-(-channels // 8) * 8, -(-depth // 4) * 4), "int64")
    blocks[:channels, :depth] = weights
    # [blocks, pairs, 2 channels, depth / 4, 4 values]
    blocks = blocks.reshape(-1, 4, 2, blocks.shape[1] // 4, 4)[..., [0, 2, 1, 3]]
    packed = _packed(blocks[:, :, 0], blocks[:, :, 1]).transpose(0, 2, 1, 3)
    return [
        Layer(
            op, "fully_connected", "fully_connected", "tfkd_fully_connected_params",
            {"weights": packed, "bias": folded, **requantization, "rows": rows, "depth": depth, "channels": channels,
             "per_channel": int(len(tensor.scales) > 1), "out_zero_point": output.zero_point, "least": least,
             "most": most},
            (source.index,), output.index, flags | (WIDE if wide else 0),
            comment=f"{rows} x {depth} -> {rows} x {channels}",
        )
    ]  # fmt: skip


def _pool(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    fields = _window(graph, op, (int(op.options["FilterHeight"]), int(op.options["FilterWidth"])))
    if min(fields["kernel_height"], fields["kernel_width"]) < 1 or output.shape[3] != source.shape[3]:
        raise Unsupported(f"a window of {fields['kernel_height']} x {fields['kernel_width']}. The file is damaged")
    least, most = _activation_range(op, output)
    fields = {name: value for name, value in fields.items() if not name.startswith("dilation")}
    kernel = "average_pool" if op.kind == "AVERAGE_POOL_2D" else "max_pool"
    return [Layer(op, kernel, "pool", "tfkd_pool_params", {**fields, "least": least, "most": most}, (source.index,),
                  output.index, comment=f"{_shape(source)} -> {_shape(output)}")]  # fmt: skip


def _operands(graph: Graph, op: Op) -> tuple[dict[str, tuple[int, ...]], tuple[int | np.ndarray, ...], tuple[int, ...]]:
    """Sizes and strides of two operands broadcast against each other; what is read; what may be overwritten."""
    first, second, output = _int8(graph, op.inputs[0]), _int8(graph, op.inputs[1]), _int8(graph, op.outputs[0])
    shape = output.shape
    if len(shape) > 4:
        raise Unsupported(f"{len(shape)} dimensions are too many. Reshape to at most 4")
    fields: dict[str, tuple[int, ...]] = {}
    flat = first.shape == second.shape == shape
    size = (1, 1, 1, output.elements) if flat else (1,) * (4 - len(shape)) + shape
    fields["size"] = size
    for name, tensor in (("stride1", first), ("stride2", second)):
        own = (1, 1, 1, tensor.elements) if flat else (1,) * (4 - len(tensor.shape)) + tensor.shape
        if len(own) != 4 or any(a not in (1, b) for a, b in zip(own, size, strict=True)):
            raise Unsupported(f"{tensor.shape} does not broadcast to {shape}. The file is damaged")
        steps = [math.prod(own[i + 1 :]) for i in range(4)]
        fields[name] = tuple(0 if own[i] == 1 else steps[i] for i in range(4))
    reads = tuple(t.index if t.data is None else t.data.reshape(-1) for t in (first, second))
    in_place = tuple(t.index for t in (first, second) if t.data is None and t.shape == shape)
    return fields, reads, in_place


def _addition(graph: Graph, op: Op) -> list[Layer]:
    first, second, output = _int8(graph, op.inputs[0]), _int8(graph, op.inputs[1]), _int8(graph, op.outputs[0])
    fields, reads, in_place = _operands(graph, op)
    least, most = _activation_range(op, output)
    twice = 2 * max(first.scale, second.scale)
    factors = [first.scale / twice, second.scale / twice, twice / (2**20 * output.scale)]
    pairs = [arithmetic.quantize_multiplier(factor) for factor in factors]
    if factors[2] >= 1 or any(shift > 0 for _, shift in pairs):
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    sign = -1 if op.kind == "SUB" else 1
    return [
        Layer(
            op, "addition", "addition", "tfkd_addition_params",
            {"multiplier1": pairs[0][0], "multiplier2": pairs[1][0], "out_multiplier": pairs[2][0],
             "shift1": -pairs[0][1], "shift2": -pairs[1][1], "out_shift": -pairs[2][1], **fields,
             "zero_point1": first.zero_point, "zero_point2": second.zero_point, "out_zero_point": output.zero_point,
             "least": least, "most": most, "sign": sign},
            reads, output.index, in_place=in_place, comment=_shape(output),
            flags=sum(1 << i for i in (0, 1) if pairs[i] == (2**30, 0)),
        )
    ]  # fmt: skip


def _elementwise(graph: Graph, op: Op) -> list[Layer]:
    first, second, output = _int8(graph, op.inputs[0]), _int8(graph, op.inputs[1]), _int8(graph, op.outputs[0])
    fields, reads, in_place = _operands(graph, op)
    least, most = _activation_range(op, output) if op.kind == "MUL" else (-128, 127)
    multiplier, shift = arithmetic.quantize_multiplier(first.scale * second.scale / output.scale)
    if op.kind == "MUL" and shift > 14:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    kernel = {"MUL": "multiplication", "MAXIMUM": "maximum", "MINIMUM": "minimum"}[op.kind]
    return [
        Layer(
            op, kernel, "elementwise", "tfkd_elementwise_params",
            {"multiplier": multiplier, "shift": shift if op.kind == "MUL" else 0, **fields,
             "zero_point1": first.zero_point, "zero_point2": second.zero_point,
             "out_zero_point": output.zero_point, "least": least, "most": most},
            reads, output.index, in_place=in_place, comment=_shape(output),
        )
    ]  # fmt: skip


def _lookup(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    if source.elements != output.elements:
        raise Unsupported(f"{source.shape} and {output.shape} differ in size. The file is damaged")
    function = _UNARY[op.kind](op, source, output)
    return [Layer(op, "lookup", "lookup", "tfkd_lookup_params",
                  {"table": arithmetic.table(function), "count": output.elements}, (source.index,), output.index,
                  in_place=(source.index,), comment=_shape(output))]  # fmt: skip


def _relu(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    least = max(-128, output.zero_point)

    def relu(x: int) -> int:
        return max(least, output.zero_point + arithmetic.multiply(x - source.zero_point, multiplier, shift))

    return relu


def _relu6(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    six = source.zero_point + math.floor(float(np.float32(6) / np.float32(source.scale)) + 0.5)
    return lambda x: min(max(x, source.zero_point), six)


def _leaky_relu(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    alpha = np.float32(source.scale) * np.float32(op.options["Alpha"]) / np.float32(output.scale)
    if alpha < 0:
        raise Unsupported("a negative alpha is not supported")
    slope = arithmetic.quantize_multiplier(float(alpha))
    identity = arithmetic.quantize_multiplier(float(np.float32(source.scale) / np.float32(output.scale)))

    def leaky_relu(x: int) -> int:
        x -= source.zero_point
        return output.zero_point + arithmetic.multiply(x, *(identity if x >= 0 else slope))

    return leaky_relu


def _hard_swish(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    fine = np.float32(1 / 128) * np.float32(source.scale)
    out_multiplier, out_shift = _short(float(fine / np.float32(output.scale)))
    relu_multiplier, relu_shift = _short(float(fine / (np.float32(3) / np.float32(32768))))
    if out_shift > 0:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")

    def short(x: int) -> int:
        return max(-(2**15), min(2**15 - 1, x))

    def hard_swish(x: int) -> int:
        wide = (x - source.zero_point) * 128
        scaled = short((wide * out_multiplier + 2**14) >> 15)
        gate = short(wide << (relu_shift - 1)) if relu_shift > 0 else wide
        gate = short((gate * relu_multiplier + 2**14) >> 15)
        gate = short(gate << 1) if relu_shift > 0 else arithmetic.divide_by_power(gate, -relu_shift)
        gate = (gate + 2**15) >> 1
        product = int(math.copysign(abs(gate * scaled) // 2**15, gate * scaled))
        return arithmetic.divide_by_power(product, -out_shift) + output.zero_point

    return hard_swish


def _short(real: float) -> tuple[int, int]:
    """A multiplier of 16 bits, and its shift."""
    multiplier, shift = arithmetic.quantize_multiplier(real)
    return (2**15 - 1 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16), shift


def _sigmoid(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    fraction, shift = math.frexp(source.scale * 2**27)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    radius = arithmetic.input_radius(4, shift)
    kind, bits = (arithmetic.logistic, 23) if op.kind == "LOGISTIC" else (arithmetic.tanh, 24)
    offset = -128 if op.kind == "LOGISTIC" else 0
    if output.zero_point != offset:
        raise Unsupported(f"the output's zero point must be {offset}, is {output.zero_point}. Convert the model again")

    def sigmoid(x: int) -> int:
        x -= source.zero_point
        if abs(x) >= radius:
            return 127 if x > 0 else -128
        return arithmetic.divide_by_power(kind(arithmetic.multiply(x, multiplier, shift), 4), bits) + offset

    return sigmoid


def _requantize(op: Op, source: Tensor, output: Tensor) -> Callable[[int], int]:
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    return lambda x: arithmetic.multiply(x - source.zero_point, multiplier, shift) + output.zero_point


_UNARY: dict[str, Callable[[Op, Tensor, Tensor], Callable[[int], int]]] = {
    "RELU": _relu, "RELU6": _relu6, "LEAKY_RELU": _leaky_relu, "HARD_SWISH": _hard_swish, "LOGISTIC": _sigmoid,
    "TANH": _sigmoid, "QUANTIZE": _requantize,
}  # fmt: skip


def _softmax(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    depth = source.shape[-1] if source.shape else 1
    if output.zero_point != -128 or output.scale != 1 / 256 or source.shape != output.shape or depth >= 4096:
        raise Unsupported("the output must have scale 1/256, zero point -128 and at most 4095 classes. "
                          "Convert the model again")  # fmt: skip
    real = min(float(op.options["Beta"]) * source.scale * 2**26, 2.0**31 - 1)
    if real <= 1:
        raise Unsupported(f"the scale of {source.name!r} is absurd. Convert again with a real calibration set")
    multiplier, shift = arithmetic.quantize_multiplier(real)
    count = min(255, arithmetic.input_radius(5, shift)) + 1
    values = [arithmetic.exponential(arithmetic.high_mul(-d * 2**shift, multiplier), 5) for d in range(count)]
    return [Layer(op, "softmax", "softmax", "tfkd_softmax_params",
                  {"exponential": np.array(values, "int32"), "differences": count, "rows": source.elements // depth,
                   "depth": depth}, (source.index,), output.index, comment=_shape(output))]  # fmt: skip


def _block(size: Sequence[int], from_: Sequence[int], to: Sequence[int], first: int = 0, to_first: int = 0) -> dict:
    """Fields of a move, its dimensions filled up to 5 in front, neighbours that run on merged."""
    dims = [(s, f, t) for s, f, t in zip(size, from_, to, strict=True) if s != 1] or [(1, 1, 1)]
    merged = [dims[0]]
    for s, f, t in dims[1:]:
        size_, f_, t_ = merged[-1]
        if f_ == s * f and t_ == s * t:
            merged[-1] = (size_ * s, f, t)
        else:
            merged.append((s, f, t))
    if len(merged) > 5:
        raise Unsupported(f"{len(merged)} dimensions are too many. Reshape to at most 5")
    merged = [(1, 0, 0)] * (5 - len(merged)) + merged
    return {"size": tuple(m[0] for m in merged), "from": tuple(m[1] for m in merged),
            "to": tuple(m[2] for m in merged), "first": first, "to_first": to_first}  # fmt: skip


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _move(op: Op, source: Tensor, output: Tensor, fields: dict) -> Layer:
    read = source.index if source.data is None else source.data.reshape(-1)
    return Layer(op, "move", "move", "tfkd_move_params", fields, (read,), output.index,
                 comment=f"{_shape(source)} -> {_shape(output)}")  # fmt: skip


def _same_steps(source: Tensor, output: Tensor) -> None:
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise Unsupported(f"{source.name!r} and {output.name!r} must have one scale. Convert the model again")


def _concatenation(graph: Graph, op: Op) -> list[Layer]:
    output = _int8(graph, op.outputs[0])
    axis = int(op.options["Axis"]) % max(1, len(output.shape))
    layers, at, strides = [], 0, _strides(output.shape)
    for i in op.inputs:
        source = _int8(graph, i)
        _same_steps(source, output)
        if (
            len(source.shape) != len(output.shape)
            or at + source.shape[axis] > output.shape[axis]
            or any(a != b for d, (a, b) in enumerate(zip(source.shape, output.shape, strict=True)) if d != axis)
        ):
            raise Unsupported(f"{source.shape} does not fit into {output.shape}. The file is damaged")
        layers.append(_move(op, source, output, _block(source.shape, _strides(source.shape), strides,
                                                       to_first=at * strides[axis])))  # fmt: skip
        at += source.shape[axis]
    if at != output.shape[axis]:
        raise Unsupported(f"the inputs do not fill {output.shape}. The file is damaged")
    return layers


def _split(graph: Graph, op: Op) -> list[Layer]:
    source = _int8(graph, op.inputs[1])
    axis = int(_constant(graph, op, 0, "int32").reshape(-1)[0]) % len(source.shape)
    layers, at, strides = [], 0, _strides(source.shape)
    for i in op.outputs:
        output = _int8(graph, i)
        if (
            len(output.shape) != len(source.shape)
            or any(
                a > b if d == axis else a != b for d, (a, b) in enumerate(zip(output.shape, source.shape, strict=True))
            )
            or at + output.shape[axis] > source.shape[axis]
        ):
            raise Unsupported(f"{output.shape} does not come out of {source.shape}. The file is damaged")
        layers.append(_move(op, source, output, _block(output.shape, strides, _strides(output.shape),
                                                       first=at * strides[axis])))  # fmt: skip
        at += output.shape[axis]
    return layers


def _strided_slice(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    begin, end, steps = (_constant(graph, op, i, "int32").reshape(-1).tolist() for i in (1, 2, 3))
    options = op.options
    if options.get("EllipsisMask") or options.get("NewAxisMask") or options.get("Offset"):
        raise Unsupported("an ellipsis or a new axis is not supported. Reshape instead")
    rank = len(source.shape)
    if not len(begin) == len(end) == len(steps) <= rank or 0 in steps:
        raise Unsupported(f"{len(begin)} bounds for {rank} dimensions. The file is damaged")
    size, from_, first = [], [], 0
    strides = _strides(source.shape)
    for d in range(rank):
        lo = hi = None
        step = steps[d] if d < len(steps) else 1
        if d < len(begin):
            lo = None if options["BeginMask"] >> d & 1 else begin[d]
            hi = None if options["EndMask"] >> d & 1 else end[d]
            if options["ShrinkAxisMask"] >> d & 1:
                lo, step = begin[d], 1
                hi = lo + 1 if lo != -1 else None
        picked = range(source.shape[d])[slice(lo, hi, step)]
        size.append(len(picked))
        from_.append(strides[d] * step)
        first += strides[d] * (picked.start if len(picked) else 0)
    if math.prod(size) != output.elements or not output.elements:
        raise Unsupported(f"the slice {size} of {source.shape} is not {output.shape}. The file is damaged")
    return [_move(op, source, output, _block(size, from_, _strides(size), first=first))]


def _transpose(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    order = _constant(graph, op, 1, "int32").reshape(-1).tolist()
    order = [axis % len(source.shape) for axis in order]
    if sorted(order) != list(range(len(source.shape))) or tuple(source.shape[a] for a in order) != output.shape:
        raise Unsupported(f"the order {order} does not turn {source.shape} into {output.shape}. The file is damaged")
    strides = _strides(source.shape)
    return [_move(op, source, output, _block(output.shape, [strides[a] for a in order], _strides(output.shape)))]


def _pad(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    _same_steps(source, output)
    amounts = _constant(graph, op, 1, "int32", "int64").reshape(-1, 2).tolist()
    value = output.zero_point
    if op.kind == "PADV2":
        value = int(_constant(graph, op, 2, "int8").reshape(-1)[0])
    if (
        len(amounts) != len(source.shape)
        or any(
            a < 0 or b < 0 or s + a + b != o for (a, b), s, o in zip(amounts, source.shape, output.shape, strict=False)
        )
        or len(output.shape) != len(source.shape)
    ):
        raise Unsupported(f"{source.shape} padded by {amounts} is not {output.shape}. The file is damaged")
    strides = _strides(output.shape)
    to_first = sum(before * stride for (before, _), stride in zip(amounts, strides, strict=True))
    fill = Layer(op, "set", "fill", "tfkd_set_params", {"count": output.elements, "value": value}, (), output.index,
                 comment=f"{output.elements} x {value}")  # fmt: skip
    return [fill, _move(op, source, output, _block(source.shape, _strides(source.shape), strides, to_first=to_first))]


def _reduction(graph: Graph, op: Op) -> list[Layer]:
    source, output = _int8(graph, op.inputs[0]), _int8(graph, op.outputs[0])
    rank = len(source.shape)
    axes = {int(a) % rank for a in _constant(graph, op, 1, "int32").reshape(-1)}
    if rank > 4 or math.prod(s for d, s in enumerate(source.shape) if d not in axes) != output.elements:
        raise Unsupported(f"{source.shape} over axes {sorted(axes)} is not {output.shape}. Use at most 4 dimensions")
    count = math.prod(source.shape[a] for a in axes)
    multiplier, shift = arithmetic.quantize_multiplier(source.scale / output.scale)
    if op.kind == "MEAN":  # 1 / count goes into the multiplier
        bits = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << bits) // count, shift - bits
    if shift > 30:
        raise Unsupported(f"the scale of {output.name!r} is absurd. Convert again with a real calibration set")
    strides = _strides(source.shape)

    def four(dims: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        fill = (4 - len(dims),)[0]
        return (1,) * fill + tuple(source.shape[d] for d in dims), (0,) * fill + tuple(strides[d] for d in dims)

    kept, kept_stride = four([d for d in range(rank) if d not in axes])
    summed, summed_stride = four(sorted(axes))
    return [Layer(op, "reduction", "reduction", "tfkd_reduction_params",
                  {"kept": kept, "kept_stride": kept_stride, "summed": summed, "summed_stride": summed_stride,
                   "multiplier": multiplier, "shift": shift, "offset": source.zero_point * count,
                   "out_zero_point": output.zero_point}, (source.index,), output.index,
                  comment=f"{_shape(source)} -> {_shape(output)}")]  # fmt: skip


def _shape(tensor: Tensor) -> str:
    shape = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    return "x".join(map(str, shape)) or "1"


def _kernel(fields: Mapping[str, int]) -> str:
    return f"{fields['kernel_height']}x{fields['kernel_width']}, stride {fields['stride_height']}"


_LOWERINGS: dict[str, Callable[[Graph, Op], list[Layer]]] = {
    "CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool, "MAX_POOL_2D": _pool, "ADD": _addition, "SUB": _addition, "MUL": _elementwise,
    "MAXIMUM": _elementwise, "MINIMUM": _elementwise, "SOFTMAX": _softmax, "CONCATENATION": _concatenation,
    "SPLIT": _split, "STRIDED_SLICE": _strided_slice, "TRANSPOSE": _transpose, "PAD": _pad, "PADV2": _pad,
    "MEAN": _reduction, "SUM": _reduction, **dict.fromkeys(_UNARY, _lookup),
}  # fmt: skip


def identifier(name: str) -> str:
    """A C identifier from a layer's name: its last parts, as letters, digits and underscores."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", name.split(";")[0]).strip("_").lower()
    return words[-40:].strip("_") or "tensor"
