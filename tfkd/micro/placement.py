"""Assigns each tensor a buffer of the arena with its lifetime, and plans their offsets.

Views share the buffer of their tensor; an output shares its input's buffer where the kernel works in place and no later
layer reads the input. Shapes do not matter here, only sizes in bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tfkd.micro.graph import Graph
from tfkd.micro.lowering.layer import Layer
from tfkd.micro.memory_plan import Buffer, MemoryPlan, aligned, plan


@dataclasses.dataclass(frozen=True)
class Window:
    """How a layer's windows move over the rows of its input, as in kernels/rows.h.

    Args:
        stride: Input rows from one output row to the next.
        reach: Input rows of one output row.
        pad: Padding rows before the first input row.
        height: Rows of the input.
        out_height: Rows of the output.
        row: Bytes of an input row.
        out_row: Bytes of an output row.
    """

    stride: int
    reach: int
    pad: int
    height: int
    out_height: int
    row: int
    out_row: int


@dataclasses.dataclass(frozen=True)
class Chain:
    """Consecutive layers that run row by row in turn, so that only a few rows of the tensors between them are kept.

    Args:
        first: Index of the first layer.
        windows: Windows of each layer.
        rows: Output rows of the last layer that are computed at a time.
        extra: Estimated instructions of Cortex-M4 in addition to those of the layers that run as a whole.
        slab_bytes: Bytes of the rows that are kept of each layer's output, without the last layer's.
        scratch_bytes: Largest scratch of the layers.
        state_bytes: Bytes of the row counters of all layers.
        lag: Bytes by which the output must start before the input to overwrite only rows that were read; None where the
            output must not overwrite the input.
    """

    first: int
    windows: tuple[Window, ...]
    rows: int
    extra: float
    slab_bytes: tuple[int, ...]
    scratch_bytes: int
    state_bytes: int
    lag: int | None

    @property
    def last(self) -> int:
        """Index of the last layer."""
        return self.first + len(self.windows) - 1

    @property
    def layers(self) -> range:
        """The indices of the layers."""
        return range(self.first, self.last + 1)

    @property
    def bytes(self) -> int:
        """Bytes of the arena in addition to input and output."""
        return sum(aligned(size) for size in (*self.slab_bytes, self.work_bytes))

    @property
    def work_bytes(self) -> int:
        """Bytes of the scratch and of the row counters after it."""
        return self.state_at + self.state_bytes

    @property
    def state_at(self) -> int:
        """Bytes from the start of the scratch to the row counters."""
        return aligned(self.scratch_bytes)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The place of each tensor in the arena.

    Args:
        of_tensor: Buffer of each tensor, by the tensor's index.
        of_scratch: Buffer of each layer's scratch, by the layer's index.
        plan: Offsets of the buffers.
        least_bytes: Largest sum of the model's own tensors that live at the same time, without any sharing.
        steps: Step at which each layer runs; the layers of a chain share one.
    """

    of_tensor: Mapping[int, int]
    of_scratch: Mapping[int, int]
    plan: MemoryPlan
    least_bytes: int
    steps: Sequence[int]

    def tensor(self, index: int) -> int:
        """Bytes from the start of the arena to a tensor."""
        return self.plan.offsets[self.of_tensor[index]]

    def scratch(self, layer: int) -> int:
        """Bytes from the start of the arena to a layer's scratch."""
        return self.plan.offsets[self.of_scratch[layer]]

    def live_bytes(self, layer: int) -> int:
        """Bytes that live while a layer runs."""
        return self.plan.live_bytes(self.steps[layer])


def place(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int], chains: Sequence[Chain] = ()) -> Placement:
    """Plans the arena.

    Args:
        graph: The model.
        layers: Layers from `lowering.lower`.
        aliases: Aliases from `lowering.lower`.
        chains: Layers that run row by row.
    """
    root, find = roots(graph, aliases)
    unshared = lifetimes(graph, layers, find, range(len(layers)))
    least_bytes = MemoryPlan(tuple(unshared.values()), (0,) * len(unshared)).lower_bound
    steps, chained = list(range(len(layers))), {i: chain for chain in chains for i in chain.layers}
    for i, chain in chained.items():
        steps[i] = chain.first
    live = lifetimes(graph, layers, find, steps)
    for chain in chains:
        for i, size in zip(chain.layers, chain.slab_bytes, strict=False):
            tensor = layers[i].writes
            live[tensor] = dataclasses.replace(live[tensor], name=f"rows of {live[tensor].name}", bytes=size)
    lags = {}  # (output, input that it overwrites): bytes
    for step, layer in enumerate(layers):
        if step in chained or _share_in_place(layer, step, live, root, find) or layer.lag is None:
            continue
        source, out = find(image(layer)), find(layer.writes)
        if source != out and live[source].last == step == live[out].first:
            lags[out, source] = aligned(layer.lag)
    for chain in chains:
        if chain.lag is not None:
            lags[find(layers[chain.last].writes), find(image(layers[chain.first]))] = chain.lag
    kept = [i for i in live if find(i) == i]
    buffers = [live[i] for i in kept]
    of_scratch: dict[int, int] = {}
    for i, layer in enumerate(layers):
        if i in chained and i > chained[i].first:
            of_scratch[i] = of_scratch[chained[i].first]
        elif size := chained[i].work_bytes if i in chained else layer.scratch_bytes:
            of_scratch[i] = len(buffers)
            buffers.append(Buffer(f"scratch of layer {i}", size, i, i))
    numbers = {i: n for n, i in enumerate(kept)}
    found = {i: numbers[find(i)] for i in root if find(i) in numbers}
    overlaps = {(found[out], found[source]): lag for (out, source), lag in lags.items()}
    return Placement(found, of_scratch, plan(buffers, overlaps), least_bytes, steps)


def _share_in_place(
    layer: Layer, step: int, live: dict[int, Buffer], root: dict[int, int], find: Callable[[int], int]
) -> bool:
    """Lets a layer's output take the buffer of an input whose last reader it is, where its kernel allows that.

    Returns:
        Whether it did.
    """
    out = find(layer.writes)
    for i in layer.in_place:
        source = find(i)
        if source != out and live[source].last == step == live[out].first and live[source].bytes == live[out].bytes:
            root[out] = source
            live[source] = dataclasses.replace(live[source], last=live[out].last)
            return True
    return False


def image(layer: Layer) -> int:
    """The only tensor that a convolution or a pool reads."""
    (source,) = layer.reads
    if not isinstance(source, int):
        raise TypeError(f"{layer.kernel} reads a constant")
    return source


def roots(graph: Graph, aliases: Mapping[int, int]) -> tuple[dict[int, int], Callable[[int], int]]:
    """Which tensors share a buffer.

    Returns:
        For each tensor another one whose buffer it shares, or itself; and a function that follows these references to
        the tensor that owns the buffer.
    """
    root = {t.index: t.index for t in graph.tensors}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for view, source in aliases.items():
        if graph.tensors[source].data is None:
            root[view] = find(source)
    return root, find


def lifetimes(
    graph: Graph, layers: Sequence[Layer], find: Callable[[int], int], steps: Sequence[int]
) -> dict[int, Buffer]:
    """Buffers of the tensors that layers read or write, and of the model's inputs.

    Args:
        graph: The model.
        layers: All layers.
        find: Function that returns the tensor that owns a tensor's buffer, from `roots`.
        steps: Step at which each layer runs.

    Returns:
        Buffers by the index of the tensor that owns them. States and the model's outputs live to the end; states live
        from the start too.
    """
    first: dict[int, int] = {find(i): -1 for i in graph.inputs}
    last: dict[int, int] = dict(first)
    for step, layer in zip(steps, layers, strict=True):
        for i in (*(r for r in layer.reads if isinstance(r, int)), *layer.states, layer.writes):
            kept = graph.tensors[find(i)].variable  # between runs
            first.setdefault(find(i), -1 if kept else step)
            last[find(i)] = len(layers) if kept else step
    for i in graph.outputs:
        if find(i) in last:
            last[find(i)] = len(layers)
    size = dict.fromkeys(first, 0)
    for tensor in graph.tensors:
        if find(tensor.index) in size:
            size[find(tensor.index)] = max(size[find(tensor.index)], tensor.bytes)
    return {i: Buffer(graph.tensors[i].name, size[i], first[i], last[i]) for i in first}
