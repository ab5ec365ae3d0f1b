"""TRANSPOSE_CONV, RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR: images [1, H, W, C] to other heights and widths."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import WIDE, Layer, Unsupported, same_quantization, shape_text, values, weights_of
from tfkd.micro.lowering.requantization import activation_range, long_requantization, requantization


def _image(tensor: Tensor) -> Tensor:
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or max(tensor.shape) >= 2**15:
        raise Unsupported(f"{tensor.name!r} of shape {tensor.shape} must be [1, h, w, c]. Convert the model again")
    return tensor


def transpose_convolution(graph: Graph, op: Op) -> list[Layer]:
    """TRANSPOSE_CONV: input [1, H, W, I], weights [O, h, w, I], output [1, H', W', O]; input 0 is its shape."""
    if len(op.inputs) < 3:
        raise Unsupported(f"{len(op.inputs)} inputs, must be at least 3. The file is damaged")
    source = _image(values(graph, op.inputs[2]))
    output, wide = _image(values(graph, op.outputs[0], source.dtype)), source.dtype == "int16"
    # With int16 activations the interpreter would read a bias of 32 bits as one of 64.
    tensor, weights, bias, scales = weights_of(graph, op, 0, bias_at=3, biases=("int64" if wide else "int32",))
    if weights.ndim != 4 or weights.shape[0] != output.shape[3] or weights.shape[3] != source.shape[3]:
        raise Unsupported(f"weights {tensor.shape} do not fit input {source.shape}. The file is damaged")
    fields = {
        "height": source.shape[1],
        "width": source.shape[2],
        "channels": source.shape[3],
        "out_height": output.shape[1],
        "out_width": output.shape[2],
        "out_channels": output.shape[3],
        "kernel_height": weights.shape[1],
        "kernel_width": weights.shape[2],
    }
    for name, letter in (("height", "H"), ("width", "W")):
        stride, kernel, size = int(op.options[f"Stride{letter}"]), fields[f"kernel_{name}"], fields[f"out_{name}"]
        if not 1 <= stride < 2**15:
            raise Unsupported(f"stride {stride} must be >= 1. The file is damaged")
        steps = -(-size // stride) if op.options["Padding"] == "same" else (size + stride - kernel) // stride
        pad = max(0, (steps - 1) * stride + kernel - size) // 2
        fields |= {f"stride_{name}": stride, f"first_{name}": pad // stride, f"first_kernel_{name}": pad % stride}
    if max(fields.values()) >= 2**15:
        raise Unsupported(f"a size of {max(fields.values())} is too large. Use a smaller model")
    bits = 47 if wide else 31
    largest = np.abs(weights).sum(axis=(1, 2, 3)) * (2.0**15 if wide else 255) + np.abs(bias)
    if largest.max() >= 2.0**bits:
        raise Unsupported(f"sums of {tensor.name!r} do not fit {bits} bits: a damaged bias. Convert the model again")
    least, most = activation_range(op, output)
    factors = [source.scale * s / output.scale for s in scales]
    scaling, flags = (long_requantization(factors, output), 0) if wide else requantization(factors, output, least, most)
    flags |= 0 if wide or largest.max() < 2**30 else WIDE
    return [
        Layer(
            op,
            "transpose_convolution",
            "sums_int8 transpose_convolution",
            "tfkd_transpose_convolution_params",
            {
                "weights": weights.astype("int8"),
                "bias": bias.astype("int64" if wide else "int32"),
                **scaling,
                **fields,
                "zero_point": source.zero_point,
                "out_zero_point": output.zero_point,
                "least": least,
                "most": most,
            },
            (source.index,),
            output.index,
            flags,
            comment=f"{shape_text(source)} -> {shape_text(output)}, {weights.shape[1]}x{weights.shape[2]}",
            generic=True,
        )
    ]


def _resized(graph: Graph, op: Op) -> tuple[Tensor, Tensor, bool, bool]:
    """Input, output, and the options AlignCorners and HalfPixelCenters of a resize."""
    source = _image(values(graph, op.inputs[0], *(("int8",) if op.kind == "RESIZE_BILINEAR" else ())))
    output = _image(values(graph, op.outputs[0], source.dtype))
    same_quantization(source, output)
    if source.shape[3] != output.shape[3]:
        raise Unsupported(f"{source.shape} resized is not {output.shape}. The file is damaged")
    return source, output, bool(op.options["AlignCorners"]), bool(op.options["HalfPixelCenters"])


def resize_nearest(graph: Graph, op: Op) -> list[Layer]:
    """RESIZE_NEAREST_NEIGHBOR, with a table of source rows and one of source columns."""
    source, output, corners, half = _resized(graph, op)
    _, height, width, channels = source.shape
    return [
        Layer(
            op,
            "resize_nearest",
            "resize",
            "tfkd_resize_nearest_params",
            {
                "rows": _nearest(height, output.shape[1], corners, half) * width * channels,
                "columns": _nearest(width, output.shape[2], corners, half) * channels,
                "channels": channels,
                "out_height": output.shape[1],
                "out_width": output.shape[2],
            },
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
            generic=True,
        )
    ]


def _nearest(size: int, out: int, corners: bool, half: bool) -> np.ndarray:
    """The source row or column of each output row or column, computed in float32 as the interpreter does."""
    aligned = corners and out > 1
    scale = np.float32(size - 1 if aligned else size) / np.float32(out - 1 if aligned else out)
    position = (np.arange(out, dtype="float32") + np.float32(0.5 if half else 0)) * scale
    position = np.floor(position + np.float32(0.5)) if corners else np.floor(position)
    return np.minimum(position.astype("int64"), size - 1).astype("int32")


def resize_bilinear(graph: Graph, op: Op) -> list[Layer]:
    """RESIZE_BILINEAR, with tables of the two source rows and columns and of the fractions between them."""
    source, output, corners, half = _resized(graph, op)
    _, height, width, channels = source.shape
    rows = _bilinear(height, output.shape[1], width * channels, corners, half)
    columns = _bilinear(width, output.shape[2], channels, corners, half)
    return [
        Layer(
            op,
            "resize_bilinear",
            "resize",
            "tfkd_resize_bilinear_params",
            {
                **{f"row_{name}": values for name, values in rows.items()},
                **{f"column_{name}": values for name, values in columns.items()},
                "channels": channels,
                "out_height": output.shape[1],
                "out_width": output.shape[2],
            },
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
            generic=True,
        )
    ]


def _bilinear(size: int, out: int, stride: int, corners: bool, half: bool) -> dict[str, np.ndarray]:
    """The two source rows or columns of each output row or column, and the fraction between them in 1/1024.

    Args:
        size: Rows or columns of the input.
        out: Rows or columns of the output.
        stride: Elements from one row or column of the input to the next.
        corners: Option AlignCorners.
        half: Option HalfPixelCenters.
    """
    intervals, out_intervals = (size - 1, out - 1) if corners and out > 1 else (size, out)
    scale = (1024 * intervals + out_intervals // 2) // out_intervals
    positions = [i * scale + (scale // 2 - 512 if half else 0) for i in range(out)]
    lower = [max(math.trunc(x / 1024), 0) for x in positions]
    if max(lower) >= size:
        raise Unsupported(f"{size} values resized to {out} read beyond the input. Resize by a smaller factor")
    upper = [min(math.trunc((x + 1023) / 1024), size - 1) for x in positions]
    return {
        "first": np.array(lower, "int32") * stride,
        "second": np.array(upper, "int32") * stride,
        "fraction": np.array([x - 1024 * y for x, y in zip(positions, lower, strict=True)], "int16"),
    }
