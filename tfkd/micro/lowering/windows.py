"""CONV_2D, DEPTHWISE_CONV_2D and pools: a window moves over an image [1, H, W, C].

Output height and width are `ceil(size / stride)` with padding SAME, else `(size + stride - reach) // stride`, where a
window reaches over `(kernel - 1) * dilation + 1` values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.channel_pairs import ChannelPairs, by_pairs, packed_weights
from tfkd.micro.lowering.layer import BY_PLANE, BY_ROWS, Layer, Unsupported, int8, shape_text, values, weights_of
from tfkd.micro.lowering.requantization import activation_range, fast_form, folded_sums, requantization

SIDES = ("height", "width")
# Depthwise scratch that holds pairs of rows, where the plane of one channel takes less than that; a quarter of the
# bytes that the layer reads and writes is enough.
_ROWS_BYTES = 1024


def _padding(op: Op, size: int, kernel: int, stride: int, dilation: int, out: int) -> int:
    """Padding before the first value, after checking that the output has the size that the options give.

    Args:
        op: The op, with the option `Padding`.
        size: Values of the input along this axis.
        kernel: Values of the window.
        stride: Values between windows.
        dilation: Values between the window's values.
        out: Values of the output.
    """
    if min(stride, dilation, kernel) < 1:
        raise Unsupported(f"kernel {kernel}, stride {stride} and dilation {dilation} must be >= 1. The file is damaged")
    reach = (kernel - 1) * dilation + 1
    expected = -(-size // stride) if op.options["Padding"] == "same" else (size + stride - reach) // stride
    if expected != out:
        raise Unsupported(
            f"{size} values with kernel {kernel}, stride {stride} and dilation {dilation} "
            f"make {expected} outputs, not {out}. The file is damaged"
        )
    return max(0, (out - 1) * stride + reach - size) // 2


def window(source: Tensor, output: Tensor, op: Op, kernel: tuple[int, ...]) -> dict[str, int]:
    """The struct fields that describe how a window moves over an image: sizes, strides, dilations, padding."""
    if len(source.shape) != 4 or len(output.shape) != 4 or source.shape[0] != 1 or output.shape[0] != 1:
        raise Unsupported(f"input {source.shape} must be [1, h, w, c]. Convert the model again")
    fields = {
        "height": source.shape[1],
        "width": source.shape[2],
        "channels": source.shape[3],
        "out_height": output.shape[1],
        "out_width": output.shape[2],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
    }
    for axis, name, letter, before in ((0, "height", "H", "pad_top"), (1, "width", "W", "pad_left")):
        stride = int(op.options[f"Stride{letter}"])
        dilation = int(op.options.get(f"Dilation{letter}Factor", 1))
        fields |= {f"stride_{name}": stride, f"dilation_{name}": dilation}
        pads = op.options.get("Pads", ((0, 0), (0, 0)))[axis]
        size = fields[name] + sum(pads)
        fields[before] = pads[0] + _padding(op, size, kernel[axis], stride, dilation, fields[f"out_{name}"])
    if max(fields.values()) >= 2**15:
        raise Unsupported(f"a size of {max(fields.values())} is too large. Use a smaller model")
    return fields


def convolution(graph: Graph, op: Op) -> list[Layer]:
    """CONV_2D: input [1, H, W, I], weights [O, h, w, I / groups], output [1, H', W', O]."""
    tensor, weights, bias, scales = weights_of(graph, op, 0)
    if weights.ndim != 4:
        raise Unsupported(f"weights {tensor.shape} must be [out, h, w, in]. The file is damaged")
    return [_convolution(graph, op, weights, bias, scales)]


def _convolution(graph: Graph, op: Op, weights: np.ndarray, bias: np.ndarray, scales: Sequence[float]) -> Layer:
    """A convolution, or a depthwise one of a single input channel, which computes the same.

    Args:
        graph: The model.
        op: The op.
        weights: [O, h, w, I / groups] int64.
        bias: [O] int64.
        scales: Scale of each output channel's weights.
    """
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    fields = window(source, output, op, weights.shape[1:3])
    channels, part = weights.shape[0], weights.shape[3]
    groups = fields["channels"] // part
    if groups * part != fields["channels"] or groups < 1 or channels % groups or output.shape[3] != channels:
        raise Unsupported(f"weights {weights.shape} do not fit input {source.shape}. The file is damaged")
    flat = weights.reshape(channels, -1)
    depth = -(-flat.shape[1] // 4) * 4
    least, most = activation_range(op, output)
    # TensorFlow Lite Micro computes float * float / float as doubles here.
    scaling, flags = requantization([source.scale * s / output.scale for s in scales], output, least, most)
    name = graph.tensors[op.inputs[1]].name
    folded, wide = folded_sums(name, flat, bias, source.zero_point, scaling["multiplier"])
    flags = fast_form(flat, folded, scaling["shift"], flags, wide, signed_doubles=False)
    per_group = channels // groups
    placed = np.zeros((channels, depth), "int64")
    placed[:, _places(fields, part)] = flat
    rows = by_pairs(placed, groups)
    numbers = (folded, scaling["multiplier"], scaling["shift"])
    pairs = ChannelPairs(*(by_pairs(n.astype("int64"), groups) for n in numbers))
    return Layer(
        op,
        "convolution",
        "convolution",
        "tfkd_convolution_params",
        {
            "weights": packed_weights(rows[:, :, 0], rows[:, :, 1]),
            "pairs": pairs.pack(flags, odd=per_group % 2, zero_point=output.zero_point),
            **fields,
            "out_channels": channels,
            "groups": groups,
            "group_channels": part,
            "group_out_channels": per_group,
            "depth": depth,
            "zero_point": source.zero_point,
            "out_zero_point": output.zero_point,
            "least": least,
            "most": most,
        },
        (source.index,),
        output.index,
        flags,
        scratch_bytes=6 * depth,  # three columns of int16
        in_place=(source.index,) if source.shape == output.shape and groups == 1 and _by_pixel(fields) else (),
        lag=_lag(fields, channels) if groups == 1 else None,
        comment=f"{shape_text(source)} -> {shape_text(output)}, {_kernel(fields)}",
    )


def _lag(fields: Mapping[str, int], channels: int) -> int:
    """`Layer.lag` of a kernel that computes output pixels one after the other, each from its window.

    Args:
        fields: Fields of `window`.
        channels: Output channels.
    """
    if _by_pixel(fields):  # pixel i of the input is read before pixel i of the output is written
        return max(0, (fields["out_height"] * fields["out_width"] - 1) * (channels - fields["channels"]))
    row, out_row = fields["width"] * fields["channels"], fields["out_width"] * channels
    tops = (max(0, y * fields["stride_height"] - fields["pad_top"]) for y in range(fields["out_height"]))
    return max((y + 1) * out_row - top * row for y, top in enumerate(tops))


def _by_pixel(fields: Mapping[str, int]) -> bool:
    """Whether each output pixel reads the input pixel of the same place only."""
    same_size = all(fields[side] == fields[f"out_{side}"] for side in SIDES)
    return same_size and not np.ptp([1, *(fields[f"{a}_{b}"] for a in ("kernel", "stride") for b in SIDES)])


def _places(fields: Mapping[str, int], part: int) -> np.ndarray:
    """Where a column of kernels/convolution.h holds each value of a receptive field.

    A run is a part of the receptive field whose values are adjacent in the input. All groups of four values come first,
    each in the order 0 2 1 3 in which SXTB16 widens a word; the last one to three values of the runs follow. A kernel
    of 2 x 2 over 3 channels has 2 runs (rows) of 6 values, and a column of 12:

        value of the field   0  1  2  3 | 4  5    6  7  8  9 | 10 11
                             first row  |         second row |
        place in the column  0  2  1  3 | 8  9    4  6  5  7 | 10 11

    Args:
        fields: Fields of `window`.
        part: Input channels of a group.

    Returns:
        [kernel height * kernel width * part] places.
    """
    adjacent = fields["dilation_width"] == 1 and part == fields["channels"]
    size = fields["kernel_height"] * fields["kernel_width"] * part
    run = fields["kernel_width"] * part if adjacent else part
    runs, i = np.divmod(np.arange(size), run)
    fours = run // 4 * 4
    swapped = i // 4 * 4 + np.array([0, 2, 1, 3])[i % 4]
    return np.where(i < fours, runs * fours + swapped, size // run * fours + runs * (run % 4) + i % 4)


def depthwise(graph: Graph, op: Op) -> list[Layer]:
    """DEPTHWISE_CONV_2D: input [1, H, W, C], weights [1, h, w, C * multiplier], output [1, H', W', C * multiplier]."""
    tensor, weights, bias, scales = weights_of(graph, op, 3)
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    if weights.ndim != 4 or weights.shape[0] != 1:
        raise Unsupported(f"weights {tensor.shape} must be [1, h, w, out]. The file is damaged")
    if source.shape[3:] == (1,):  # the kernel of convolutions is faster
        return [_convolution(graph, op, weights.transpose(3, 1, 2, 0), bias, scales)]
    fields = window(source, output, op, weights.shape[1:3])
    channels = weights.shape[3]
    times = channels // fields["channels"]
    if times * fields["channels"] != channels or output.shape[3] != channels:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    by_channel = np.ascontiguousarray(weights[0].transpose(2, 0, 1))
    flat = by_channel.reshape(channels, -1)
    least, most = activation_range(op, output)
    scaling, flags = requantization([source.scale * s / output.scale for s in scales], output, least, most)
    folded, wide = folded_sums(tensor.name, flat, bias, source.zero_point, scaling["multiplier"])
    flags = fast_form(flat, folded, scaling["shift"], flags, wide, signed_doubles=True)
    fields |= _plane(fields)
    flags |= BY_ROWS if fields["row_pairs"] else BY_PLANE
    # With a stride, and padding that makes up for it, a row would be written before it is read.
    by_row = max(fields["stride_height"], fields["stride_width"]) == 1 or source.shape[1:3] == (1, 1)
    in_place = times == 1 and source.shape == output.shape and by_row
    return [
        Layer(
            op,
            "depthwise",
            "depthwise",
            "tfkd_depthwise_params",
            {
                "weights": by_channel.astype("int8"),
                "bias": folded,
                **scaling,
                **fields,
                "channel_multiplier": times,
                "zero_point": source.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            flags,
            scratch_bytes=depthwise_scratch_bytes(fields, fields["out_height"]),
            in_place=(source.index,) if in_place else (),
            comment=f"{shape_text(source)} -> {shape_text(output)}, {_kernel(fields)}",
        )
    ]


def _plane(fields: Mapping[str, int]) -> dict[str, int]:
    """The size of one channel's padded plane, and how many pairs of its rows are held for four channels at a time.

    The kernel by pairs of rows serves windows of 3 x 3 with equal strides of 1 or 2; for others `row_pairs` is 0.
    """
    height, width = (
        (fields[f"out_{side}"] - 1) * fields[f"stride_{side}"]
        + (fields[f"kernel_{side}"] - 1) * fields[f"dilation_{side}"]
        + 1
        for side in SIDES
    )
    stride = fields["stride_width"]
    width += width % 2 + (2 if stride == 2 and fields["out_width"] % 2 else 0)  # two outputs at a time
    found = {"plane_height": height, "plane_width": width, "row_pairs": 0}
    by_rows = all(
        (fields[f"kernel_{side}"], fields[f"stride_{side}"], fields[f"dilation_{side}"]) == (3, stride, 1)
        for side in SIDES
    )
    if by_rows and stride <= 2 and fields["channels"] >= 4 and fields["out_width"] > 1:
        values = fields["channels"] * sum(fields[f"{a}height"] * fields[f"{a}width"] for a in ("", "out_"))
        room = max(2 * height * width, min(_ROWS_BYTES, values // 4)) // (16 * width)
        found["row_pairs"] = max(2, min(room, (height + 1) // 2))
    return found


def depthwise_scratch_bytes(fields: Mapping[str, int], rows: int) -> int:
    """Scratch for some rows of a depthwise output: the plane of one channel, or pairs of rows of four channels."""
    stride = fields["stride_height"]
    height = (rows - 1) * stride + (fields["kernel_height"] - 1) * fields["dilation_height"] + 1
    return fields["plane_width"] * max(2 * height, 16 * min(fields["row_pairs"], (height + 1) // 2))


def pool(graph: Graph, op: Op) -> list[Layer]:
    """AVERAGE_POOL_2D and MAX_POOL_2D: input [1, H, W, C], output [1, H', W', C]."""
    source = values(graph, op.inputs[0])
    output = values(graph, op.outputs[0], source.dtype)
    fields = window(source, output, op, (int(op.options["FilterHeight"]), int(op.options["FilterWidth"])))
    if min(fields["kernel_height"], fields["kernel_width"]) < 1 or output.shape[3] != source.shape[3]:
        raise Unsupported(f"a window of {fields['kernel_height']} x {fields['kernel_width']}. The file is damaged")
    least, most = activation_range(op, output)
    fields = {name: value for name, value in fields.items() if not name.startswith("dilation")}
    kernel = "average_pool" if op.kind == "AVERAGE_POOL_2D" else "max_pool"
    return [
        Layer(
            op,
            kernel,
            "pool",
            "tfkd_pool_params",
            {**fields, "least": least, "most": most},
            (source.index,),
            output.index,
            flags=int(kernel == "average_pool" and bool(op.options.get("Unsigned"))),
            lag=_lag(fields, fields["channels"]) * np.dtype(source.dtype).itemsize,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
            generic=True,
        )
    ]


def _kernel(fields: Mapping[str, int]) -> str:
    return f"{fields['kernel_height']}x{fields['kernel_width']}, stride {fields['stride_height']}"
