"""Ops whose outputs are values of one input at positions that are known when the code is generated.

The positions come from NumPy: the op is applied to an array of the input's shape that holds 0, 1, 2, ... Its result is
divided into blocks along which input and output move by constant strides, one copy each. Positions without such an
order become a table of rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    constant,
    moved,
    operand,
    read_by_kernel,
    shape_text,
    strides_of,
    typed,
)
from tfkd.micro.lowering.moves import filled, move, strided

# More copies than this take more code than a table of rows.
_MOST_COPIES = 16
# Tensors of a microcontroller are far smaller; positions take eight bytes each.
_MOST_ELEMENTS = 2**22
# A block: its sizes, the strides in the input and in the output, and its first element in each.
_Block = tuple[Sequence[int], Sequence[int], Sequence[int], int, int]


def _tensors(graph: Graph, op: Op, i: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
    """Input `i`, the output, and the positions of the input's values in the input's shape."""
    source = operand(graph, op, i)
    output = moved(graph, op.outputs[0])
    source = moved(graph, source.index, output.dtype)
    if max(source.elements, output.elements) > _MOST_ELEMENTS:
        raise Unsupported(f"{output.shape} of {source.shape} is too large for a microcontroller")
    return source, output, np.arange(source.elements).reshape(source.shape)


def _selected(op: Op, source: Tensor, output: Tensor, positions: np.ndarray) -> list[Layer]:
    """Layers that write the values at some positions.

    Args:
        op: The op.
        source: Its input.
        output: Its output.
        positions: For each value of the output, in any shape, its position in the input; -1 for the zero point.
    """
    if positions.size != output.elements:
        raise Unsupported(f"{op.kind} of {source.shape} is not {output.shape}. The file is damaged")
    positions = positions.reshape(positions.shape or (1,))
    layers = [filled(op, output, output.zero_point if output.scales else 0)] if (positions < 0).any() else []
    found = _blocks(positions, 0, strides_of(positions.shape))
    blocks = list(itertools.islice(found, _MOST_COPIES + 1))
    if len(blocks) > _MOST_COPIES and not layers:
        return [_rows(op, source, output, positions)]
    layers += [move(op, source, output, strided(*block)) for block in (*blocks, *found)]
    return layers


def _blocks(positions: np.ndarray, at: int, to: Sequence[int]) -> Iterator[_Block]:
    """Divides positions into blocks of constant strides.

    Args:
        positions: Positions in the input; -1 for values that are not copied.
        at: Element of the output where `positions` start.
        to: Strides of `positions` in the output.
    """
    box = _box(positions >= 0)
    if box is None:
        return
    positions, at = positions[box], at + sum(s.start * step for s, step in zip(box, to, strict=True))
    whole = bool((positions >= 0).all())
    # [n - 1, other axes]: how far the position moves from one index of an axis to the next.
    steps = {
        d: np.moveaxis(np.diff(positions, axis=d), d, 0).reshape(n - 1, -1)
        for d, n in enumerate(positions.shape)
        if n > 1
    }
    if whole and all((step == step[0, 0]).all() for step in steps.values()):
        from_ = [int(steps[d][0, 0]) if d in steps else 0 for d in range(positions.ndim)]
        yield positions.shape, from_, to, int(positions.flat[0]), at
        return
    # An axis along which all values move together but not evenly, as in a mirrored border, is divided into even runs;
    # without one, the first axis is divided into single indices.
    uneven = [d for d, s in steps.items() if whole and (s == s[:, :1]).all() and (s != s[0, 0]).any()]
    axis = uneven[0] if uneven else next(iter(steps))
    runs = _runs(steps[axis][:, 0].tolist()) if uneven else ((i, i + 1) for i in range(positions.shape[axis]))
    for start, stop in runs:
        part = positions[(slice(None),) * axis + (slice(start, stop),)]
        yield from _blocks(part, at + start * to[axis], to)


def _box(used: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest block that holds all used positions, or None where there are none."""
    if not used.any():
        return None
    axes = range(used.ndim)
    ends = [np.flatnonzero(used.any(axis=tuple(other for other in axes if other != d)))[[0, -1]] for d in axes]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _runs(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal steps.

    >>> list(_runs([-1, -1, 1, 1, 1]))
    [(0, 3), (3, 6)]
    """
    start, count = 0, len(steps) + 1
    while start < count:
        stop = start + 1
        while stop < count and steps[stop - 1] == steps[start]:
            stop += 1
        yield start, stop
        start = stop


def _rows(op: Op, source: Tensor, output: Tensor, positions: np.ndarray) -> Layer:
    """A layer that copies rows by a table: the longest rows that start at multiples of their length."""
    rows = positions.reshape(-1, 1)
    for d in range(positions.ndim):
        longer = positions.reshape(-1, math.prod(positions.shape[d:]))
        width = longer.shape[1]
        if (longer - longer[:, :1] == np.arange(width)).all() and not (longer[:, 0] % width).any():
            rows = longer
            break
    width = rows.shape[1]
    table = (rows[:, 0] // width).astype("int32")
    return _gathered(op, source, output, table, (1, source.elements // width, width))


def _gathered(op: Op, source: Tensor, output: Tensor, at: np.ndarray | Tensor, blocks: tuple[int, int, int]) -> Layer:
    """A layer that copies the rows `at` of each block; `blocks`: number of blocks, rows of each, length of a row."""
    outer, rows, inner = blocks
    count = at.size if isinstance(at, np.ndarray) else at.elements
    if outer * count * inner != output.elements or not rows:
        raise Unsupported(f"{op.kind} of {source.shape} is not {output.shape}. The file is damaged")
    return Layer(
        op,
        "pick",
        "pick",
        "tfkd_pick_params",
        {"outer": outer, "rows": rows, "inner": inner, "count": count},
        (read_by_kernel(source), at if isinstance(at, np.ndarray) else at.index),
        output.index,
        comment=f"{count} rows of {shape_text(source)}",
        generic=True,
    )


def gather(graph: Graph, op: Op) -> list[Layer]:
    """GATHER along any axis, and EMBEDDING_LOOKUP along the first one; rows are constant or computed int32."""
    embedding = op.kind == "EMBEDDING_LOOKUP"
    source, output, positions = _tensors(graph, op, 1 if embedding else 0)
    at = typed(graph, op.inputs[0 if embedding else 1], "int32")
    axis, batch = (0, 0) if embedding else (int(op.options["Axis"]), int(op.options.get("BatchDims", 0)))
    rank = len(source.shape)
    axis, batch = axis % rank, batch + len(at.shape) if batch < 0 else batch
    if batch and (at.data is None or not 0 < batch <= axis or at.shape[:batch] != source.shape[:batch]):
        raise Unsupported("batch dimensions need constant positions. Gather along one axis")
    if at.data is None:
        shape = source.shape
        blocks = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        return [_gathered(op, source, output, at, blocks)]
    _check_range(op, at.data, source.shape[axis])
    if batch:
        lead = math.prod(source.shape[:batch])
        pairs = zip(positions.reshape(lead, *source.shape[batch:]), at.data.reshape(lead, -1), strict=True)
        return _selected(op, source, output, np.stack([one.take(rows, axis - batch) for one, rows in pairs]))
    return _selected(op, source, output, positions.take(at.data, axis))


def gather_nd(graph: Graph, op: Op) -> list[Layer]:
    """GATHER_ND with constant positions [..., n] along the first n axes."""
    source, output, positions = _tensors(graph, op)
    at = constant(graph, op, 1, "int32")
    count = at.shape[-1] if at.shape else 0
    if not 0 < count <= len(source.shape):
        raise Unsupported(f"positions {at.shape} for {source.shape}. The file is damaged")
    for d in range(count):
        _check_range(op, at[..., d], source.shape[d])
    return _selected(op, source, output, positions[tuple(np.moveaxis(at, -1, 0))])


def _check_range(op: Op, positions: np.ndarray, size: int) -> None:
    if positions.min(initial=0) < 0 or positions.max(initial=0) >= size:
        raise Unsupported(f"positions {positions.min()} to {positions.max()} of {size}. The file is damaged")


def broadcast_to(graph: Graph, op: Op) -> list[Layer]:
    """BROADCAST_TO: axes of size 1 and missing first axes are repeated."""
    source, output, positions = _tensors(graph, op)
    shape = source.shape
    fits = zip(shape[::-1], output.shape[::-1], strict=False)
    if len(shape) > len(output.shape) or any(a not in (1, b) for a, b in fits):
        raise Unsupported(f"{shape} does not broadcast to {output.shape}. The file is damaged")
    return _selected(op, source, output, np.broadcast_to(positions, output.shape))


def mirror_pad(graph: Graph, op: Op) -> list[Layer]:
    """MIRROR_PAD; mode 0 (REFLECT) leaves the outermost value out, mode 1 (SYMMETRIC) repeats it."""
    source, output, positions = _tensors(graph, op)
    reflect = int(op.options["Mode"]) == 0
    amounts = _amounts(graph, op, 1, len(source.shape))
    for size, pair in zip(source.shape, amounts, strict=True):
        if not 0 <= min(pair) <= max(pair) <= size - reflect:
            raise Unsupported(f"{pair} values cannot mirror {size}. The file is damaged")
    return _selected(op, source, output, np.pad(positions, amounts, "reflect" if reflect else "symmetric"))


def _amounts(graph: Graph, op: Op, i: int, rank: int) -> list[tuple[int, int]]:
    """Input `i`, a constant [rank, 2] of values before and after each axis."""
    amounts = constant(graph, op, i, "int32", "int64")
    if amounts.size != 2 * rank:
        raise Unsupported(f"{amounts.shape} amounts for {rank} dimensions. The file is damaged")
    return [(int(before), int(after)) for before, after in amounts.reshape(rank, 2)]


def depth_to_space(graph: Graph, op: Op) -> list[Layer]:
    """DEPTH_TO_SPACE: [N, H, W, B * B * C] to [N, H * B, W * B, C]."""
    source, output, positions = _tensors(graph, op)
    block = _block_size(op, source)
    n, h, w, depth = source.shape
    if depth % block**2:
        raise Unsupported(f"{depth} channels for blocks of {block} x {block}. The file is damaged")
    blocks = positions.reshape(n, h, w, block, block, depth // block**2)
    return _selected(op, source, output, blocks.transpose(0, 1, 3, 2, 4, 5))


def space_to_depth(graph: Graph, op: Op) -> list[Layer]:
    """SPACE_TO_DEPTH: [N, H * B, W * B, C] to [N, H, W, B * B * C]."""
    source, output, positions = _tensors(graph, op)
    block = _block_size(op, source)
    n, h, w, depth = source.shape
    if h % block or w % block:
        raise Unsupported(f"{h} x {w} values for blocks of {block} x {block}. The file is damaged")
    blocks = positions.reshape(n, h // block, block, w // block, block, depth)
    return _selected(op, source, output, blocks.transpose(0, 1, 3, 2, 4, 5))


def _block_size(op: Op, source: Tensor) -> int:
    block = int(op.options["BlockSize"])
    if len(source.shape) != 4 or not 0 < block <= max(source.shape):
        raise Unsupported(f"{source.shape} with blocks of {block} must be [n, h, w, c]. The file is damaged")
    return block


def space_to_batch(graph: Graph, op: Op) -> list[Layer]:
    """SPACE_TO_BATCH_ND: [N, H, W, C], padded to multiples of blocks [A, B], to [A * B * N, H / A, W / B, C]."""
    source, output, positions = _tensors(graph, op)
    blocks, amounts = _spatial(graph, op, source)
    positions = np.pad(positions, [(0, 0), *amounts, (0, 0)], constant_values=-1)
    if any(size % block for size, block in zip(positions.shape[1:-1], blocks, strict=True)):
        raise Unsupported(f"{positions.shape} is no multiple of {blocks}. The file is damaged")
    sizes = [n for size, block in zip(positions.shape[1:-1], blocks, strict=True) for n in (size // block, block)]
    inside, rank = range(2, 2 + 2 * len(blocks), 2), 2 + 2 * len(blocks)
    split = positions.reshape(source.shape[0], *sizes, source.shape[-1])
    return _selected(op, source, output, split.transpose(*inside, 0, *(d - 1 for d in inside), rank - 1))


def batch_to_space(graph: Graph, op: Op) -> list[Layer]:
    """BATCH_TO_SPACE_ND: [A * B * N, H, W, C] to [N, H * A, W * B, C], from which values are cropped."""
    source, output, positions = _tensors(graph, op)
    blocks, crops = _spatial(graph, op, source)
    count, spatial = len(blocks), source.shape[1:-1]
    if source.shape[0] % math.prod(blocks):
        raise Unsupported(f"{source.shape} is no multiple of {blocks}. The file is damaged")
    split = positions.reshape(*blocks, -1, *source.shape[1:])
    order = [d for i in range(count) for d in (count + 1 + i, i)]
    joined = split.transpose(count, *order, 2 * count + 1)
    if any(amount for pair in crops for amount in pair):
        joined = joined.reshape(-1, *(s * b for s, b in zip(spatial, blocks, strict=True)), source.shape[-1])
        joined = joined[:, *(slice(a, s - b) for (a, b), s in zip(crops, joined.shape[1:], strict=False))]
    return _selected(op, source, output, joined)


def _spatial(graph: Graph, op: Op, source: Tensor) -> tuple[list[int], list[tuple[int, int]]]:
    """Block sizes of the axes between the first and the last, and what is added or cropped before and after each."""
    blocks = constant(graph, op, 1, "int32").reshape(-1).tolist()
    if not 3 <= len(source.shape) <= 4 or len(blocks) != len(source.shape) - 2 or not 0 < min(blocks) <= 1024:
        raise Unsupported(f"{source.shape} with blocks {blocks} must be [n, h, w, c]. The file is damaged")
    amounts = _amounts(graph, op, 2, len(blocks))
    if min(min(pair) for pair in amounts) < 0 or max(max(pair) for pair in amounts) > max(blocks) * max(source.shape):
        raise Unsupported(f"amounts {amounts} for {source.shape}. The file is damaged")
    return blocks, amounts


def fill(graph: Graph, op: Op) -> list[Layer]:
    """FILL with a constant or computed value, and ZEROS_LIKE, which writes integers of 0."""
    output = moved(graph, op.outputs[0])
    if op.kind == "ZEROS_LIKE":
        return [filled(op, output, 0)]
    source, output, positions = _tensors(graph, op, 1)
    if source.elements != 1:
        raise Unsupported(f"the value has the shape {source.shape}. The file is damaged")
    if source.data is not None:
        return [filled(op, output, int(source.data.reshape(-1)[0]))]
    return _selected(op, source, output, np.broadcast_to(positions.reshape(1), (output.elements,)))


def update_slice(graph: Graph, op: Op) -> list[Layer]:
    """DYNAMIC_UPDATE_SLICE at a constant or computed place, moved so that the update lies inside."""
    source, output, _ = _tensors(graph, op)
    update, starts = moved(graph, op.inputs[1], output.dtype), operand(graph, op, 2)
    shape, rank = source.shape, len(source.shape)
    if shape != output.shape or not rank == starts.elements == len(update.shape):
        raise Unsupported(f"{update.shape} in {shape} is not {output.shape}. The file is damaged")
    last = [whole - part for whole, part in zip(shape, update.shape, strict=True)]
    if min(last, default=0) < 0:
        raise Unsupported(f"{update.shape} is larger than {shape}. The file is damaged")
    strides = strides_of(shape)
    layers = [move(op, source, output, strided(shape, strides, strides))]
    if starts.data is not None:
        places = zip(constant(graph, op, 2, "int32", "int64").reshape(-1).tolist(), last, strides, strict=True)
        first = sum(min(max(0, start), end) * step for start, end, step in places)
        block = strided(update.shape, strides_of(update.shape), strides, to_first=first)
        return [*layers, move(op, update, output, block)]
    if rank > 5:
        raise Unsupported(f"{rank} dimensions are too many. Reshape to at most 5")
    missing = 5 - rank
    fields: Fields = {
        "axes": rank,
        "size": (*update.shape, *[1] * missing),
        "stride": (*strides, *[0] * missing),
        "last": (*last, *[0] * missing),
    }
    reads = (read_by_kernel(update), typed(graph, starts.index, "int32").index)
    comment = f"{shape_text(update)} into {shape_text(output)}"
    layers.append(
        Layer(op, "update", "update", "tfkd_update_params", fields, reads, output.index, comment=comment, generic=True)
    )
    return layers
