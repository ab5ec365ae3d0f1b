"""Ops that move values without changing them: copies between strided blocks, and views that copy nothing.

A copy has up to five dimensions, each with a size, a stride in the input and a stride in the output. Adjacent
dimensions that are contiguous in both are merged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Alias,
    Layer,
    Unsupported,
    constant,
    moved,
    operand,
    read_by_kernel,
    same_quantization,
    shape_text,
    strides_of,
)


def strided(
    size: Sequence[int], from_: Sequence[int], to: Sequence[int], first: int = 0, to_first: int = 0
) -> Mapping[str, int | tuple[int, ...]]:
    """Fields of a copy.

    Args:
        size: Values along each dimension.
        from_: Strides in the input.
        to: Strides in the output.
        first: Element of the input where the copy starts.
        to_first: Element of the output where the copy starts.
    """
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
    return {
        "size": tuple(m[0] for m in merged),
        "from": tuple(m[1] for m in merged),
        "to": tuple(m[2] for m in merged),
        "first": first,
        "to_first": to_first,
    }


def move(op: Op, source: Tensor, output: Tensor, fields: Mapping[str, int | tuple[int, ...]]) -> Layer:
    return Layer(
        op,
        "move",
        "move",
        "tfkd_move_params",
        fields,
        (read_by_kernel(source),),
        output.index,
        comment=f"{shape_text(source)} -> {shape_text(output)}",
        generic=True,
    )


def view(graph: Graph, op: Op) -> Alias:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the output is the input's bytes in another shape, without code."""
    source, output = operand(graph, op, 0), graph.tensors[op.outputs[0]]
    if (source.elements, source.dtype) != (output.elements, output.dtype) or source.data is not None:
        raise Unsupported(f"{source.shape} of {source.name!r} is not {output.shape}. The file is damaged")
    return Alias(source.index)


def copy(graph: Graph, op: Op) -> list[Layer]:
    """READ_VARIABLE and ASSIGN_VARIABLE: from a state to a tensor or back; COPY: the same bits in another tensor."""
    source = moved(graph, op.inputs[0], "int8", "int16", "int32", "float32", "bool")
    output = moved(graph, op.outputs[0], source.dtype)
    return [move(op, source, output, strided((source.elements,), (1,), (1,)))]


def concatenation(graph: Graph, op: Op) -> list[Layer]:
    """CONCATENATION along any axis: one copy for each input; all have the output's scale."""
    output = moved(graph, op.outputs[0], "int8", "int16", "int32", "float32")
    axis = int(op.options["Axis"]) % max(1, len(output.shape))
    layers, at, strides = [], 0, strides_of(output.shape)
    for i in op.inputs:
        source = moved(graph, i, output.dtype)
        same_quantization(source, output)
        if (
            len(source.shape) != len(output.shape)
            or at + source.shape[axis] > output.shape[axis]
            or any(a != b for d, (a, b) in enumerate(zip(source.shape, output.shape, strict=True)) if d != axis)
        ):
            raise Unsupported(f"{source.shape} does not fit into {output.shape}. The file is damaged")
        layers.append(
            move(
                op,
                source,
                output,
                strided(source.shape, strides_of(source.shape), strides, to_first=at * strides[axis]),
            )
        )
        at += source.shape[axis]
    if at != output.shape[axis]:
        raise Unsupported(f"the inputs do not fill {output.shape}. The file is damaged")
    return layers


def split(graph: Graph, op: Op) -> list[Layer]:
    """SPLIT and SPLIT_V along any axis: one copy for each output, whose shapes give the sizes."""
    source_at, axis_at = (1, 0) if op.kind == "SPLIT" else (0, 2)
    source = moved(graph, op.inputs[source_at])
    axis = int(constant(graph, op, axis_at, "int32").reshape(-1)[0]) % len(source.shape)
    layers, at, strides = [], 0, strides_of(source.shape)
    for i in op.outputs:
        output = moved(graph, i, source.dtype)
        if (
            len(output.shape) != len(source.shape)
            or any(
                a > b if d == axis else a != b for d, (a, b) in enumerate(zip(output.shape, source.shape, strict=True))
            )
            or at + output.shape[axis] > source.shape[axis]
        ):
            raise Unsupported(f"{output.shape} is not a part of {source.shape}. The file is damaged")
        layers.append(
            move(op, source, output, strided(output.shape, strides, strides_of(output.shape), first=at * strides[axis]))
        )
        at += output.shape[axis]
    return layers


def unpack(graph: Graph, op: Op) -> list[Layer]:
    """UNPACK: one copy for each index of an axis, which the outputs do not have."""
    source = moved(graph, op.inputs[0])
    axis, strides = _axis(op, source), strides_of(source.shape)
    rest, steps = (tuple(x[:axis]) + tuple(x[axis + 1 :]) for x in (source.shape, strides))
    outputs = [moved(graph, i, source.dtype) for i in op.outputs]
    if len(outputs) != source.shape[axis] or any(output.shape != rest for output in outputs):
        raise Unsupported(f"{source.shape} is not {len(outputs)} outputs along axis {axis}. The file is damaged")
    return [
        move(op, source, output, strided(rest, steps, strides_of(rest), first=i * strides[axis]))
        for i, output in enumerate(outputs)
    ]


def pack(graph: Graph, op: Op) -> list[Layer]:
    """PACK: one copy for each input, along a new axis."""
    output = moved(graph, op.outputs[0])
    axis, strides = _axis(op, output), strides_of(output.shape)
    rest, steps = (tuple(x[:axis]) + tuple(x[axis + 1 :]) for x in (output.shape, strides))
    sources = [moved(graph, i, output.dtype) for i in op.inputs]
    if len(sources) != output.shape[axis] or any(source.shape != rest for source in sources):
        raise Unsupported(f"{len(sources)} inputs do not make {output.shape}. The file is damaged")
    return [
        move(op, source, output, strided(rest, strides_of(rest), steps, to_first=i * strides[axis]))
        for i, source in enumerate(sources)
    ]


def _axis(op: Op, tensor: Tensor) -> int:
    """The op's axis, counted from 0."""
    axis = int(op.options["Axis"])
    if not -len(tensor.shape) <= axis < len(tensor.shape):
        raise Unsupported(f"{tensor.shape} has no axis {axis}. The file is damaged")
    return axis % len(tensor.shape)


def tile(graph: Graph, op: Op) -> list[Layer]:
    """TILE: each axis becomes two, the copies and the values; the copies read with a stride of 0."""
    source = moved(graph, op.inputs[0])
    output = moved(graph, op.outputs[0], source.dtype)
    times = constant(graph, op, 1, "int32", "int64").reshape(-1).tolist()
    if (
        len(times) != len(source.shape)
        or tuple(s * n for s, n in zip(source.shape, times, strict=True)) != output.shape
    ):
        raise Unsupported(f"{source.shape} times {times} is not {output.shape}. The file is damaged")
    from_, to = strides_of(source.shape), strides_of(output.shape)
    dims = [
        dim for n, s, f, t in zip(times, source.shape, from_, to, strict=True) for dim in ((n, 0, s * t), (s, f, t))
    ]
    size, from_, to = (list(column) for column in zip(*dims, strict=True))
    return [move(op, source, output, strided(size, from_, to))]


def reverse(graph: Graph, op: Op) -> list[Layer]:
    """REVERSE_V2: a negative stride along each reversed axis."""
    source = moved(graph, op.inputs[0])
    output = moved(graph, op.outputs[0], source.dtype)
    axes = {int(a) % len(source.shape) for a in constant(graph, op, 1, "int32").reshape(-1)}
    if source.shape != output.shape:
        raise Unsupported(f"{source.shape} reversed is not {output.shape}. The file is damaged")
    strides = strides_of(source.shape)
    from_ = [-step if d in axes else step for d, step in enumerate(strides)]
    first = sum((source.shape[d] - 1) * strides[d] for d in axes)
    return [move(op, source, output, strided(source.shape, from_, strides, first=first))]


def strided_slice(graph: Graph, op: Op) -> list[Layer]:
    """STRIDED_SLICE with constant bounds, of either sign, and removed axes."""
    source = moved(graph, op.inputs[0], "int8", "int16", "int32", "float32", "bool")
    output = moved(graph, op.outputs[0], source.dtype)
    begin, end, steps = (constant(graph, op, i, "int32").reshape(-1).tolist() for i in (1, 2, 3))
    options = op.options
    if options.get("EllipsisMask") or options.get("NewAxisMask") or options.get("Offset"):
        raise Unsupported("an ellipsis or a new axis is not supported. Reshape instead")
    rank = len(source.shape)
    if not len(begin) == len(end) == len(steps) <= rank or 0 in steps:
        raise Unsupported(f"{len(begin)} bounds for {rank} dimensions. The file is damaged")
    size, from_, first = [], [], 0
    strides = strides_of(source.shape)
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
    return [move(op, source, output, strided(size, from_, strides_of(size), first=first))]


def block(graph: Graph, op: Op) -> list[Layer]:
    """SLICE with constant bounds; a size of -1 takes the rest of an axis."""
    source = moved(graph, op.inputs[0])
    output = moved(graph, op.outputs[0], source.dtype)
    begin, size = (constant(graph, op, i, "int32").reshape(-1).tolist() for i in (1, 2))
    if not len(begin) == len(size) == len(source.shape):
        raise Unsupported(f"{len(begin)} bounds for {len(source.shape)} dimensions. The file is damaged")
    size = [length - at if n == -1 else n for at, n, length in zip(begin, size, source.shape, strict=True)]
    inside = all(at >= 0 < n <= length - at for at, n, length in zip(begin, size, source.shape, strict=True))
    if not inside or math.prod(size) != output.elements:
        raise Unsupported(f"the slice {size} of {source.shape} is not {output.shape}. The file is damaged")
    strides = strides_of(source.shape)
    first = sum(at * stride for at, stride in zip(begin, strides, strict=True))
    return [move(op, source, output, strided(size, strides, strides_of(size), first=first))]


def transpose(graph: Graph, op: Op) -> list[Layer]:
    """TRANSPOSE: the input's strides in another order."""
    source = moved(graph, op.inputs[0])
    output = moved(graph, op.outputs[0], source.dtype)
    order = constant(graph, op, 1, "int32").reshape(-1).tolist()
    order = [axis % len(source.shape) for axis in order]
    if sorted(order) != list(range(len(source.shape))) or tuple(source.shape[a] for a in order) != output.shape:
        raise Unsupported(f"{source.shape} in the order {order} is not {output.shape}. The file is damaged")
    strides = strides_of(source.shape)
    return [move(op, source, output, strided(output.shape, [strides[a] for a in order], strides_of(output.shape)))]


def pad(graph: Graph, op: Op) -> list[Layer]:
    """PAD and PADV2: the output is filled with one value, then the input is copied into it."""
    source = moved(graph, op.inputs[0])
    output = moved(graph, op.outputs[0], source.dtype)
    same_quantization(source, output)
    amounts = constant(graph, op, 1, "int32", "int64").reshape(-1, 2).tolist()
    value = output.zero_point if output.scales else 0
    if op.kind == "PADV2":
        value = int(constant(graph, op, 2, output.dtype).reshape(-1)[0])
    if (
        len(amounts) != len(source.shape)
        or any(
            a < 0 or b < 0 or s + a + b != o for (a, b), s, o in zip(amounts, source.shape, output.shape, strict=False)
        )
        or len(output.shape) != len(source.shape)
    ):
        raise Unsupported(f"{source.shape} padded by {amounts} is not {output.shape}. The file is damaged")
    strides = strides_of(output.shape)
    to_first = sum(before * stride for (before, _), stride in zip(amounts, strides, strict=True))
    return [
        filled(op, output, value),
        move(op, source, output, strided(source.shape, strides_of(source.shape), strides, to_first=to_first)),
    ]


def filled(op: Op, output: Tensor, value: int) -> Layer:
    """A layer that sets all values of a tensor."""
    return Layer(
        op,
        "set",
        "fill",
        "tfkd_set_params",
        {"count": output.elements, "value": value},
        (),
        output.index,
        comment=f"{output.elements} x {value}",
        generic=True,
    )
