"""Which buffer of the arena each tensor lies in, and when it lives there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tfkd.micro.graph import Graph
from tfkd.micro.lowering.layer import Layer
from tfkd.micro.memory_plan import ALIGNMENT, Buffer, MemoryPlan, plan


@dataclasses.dataclass(frozen=True)
class Window:
    """How a layer moves over the rows of its input, as in kernels/rows.h.

    Args:
        stride: rows of the input from one row of the output to the next.
        reach: rows of the input for one of the output.
        pad: rows before the first.
        height: rows of the input.
        out_height: rows of the output.
        row: bytes of a row of the input.
        out_row: bytes of a row of the output.
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
    """Layers that run by rows in turn, so that of what lies between them only a few rows are kept.

    Args:
        first: number of the first layer.
        windows: of each layer.
        rows: of the last layer's output, computed at a time.
        calls: of kernels in one run.
        slab_bytes: for each layer but the last, what is kept of its output.
        scratch_bytes: the largest scratch of its layers.
        state_bytes: of where each layer stands.
        lag: bytes that its output must start before its input, to overwrite what was read; None where it may not.
    """

    first: int
    windows: tuple[Window, ...]
    rows: int
    calls: int
    slab_bytes: tuple[int, ...]
    scratch_bytes: int
    state_bytes: int
    lag: int | None

    @property
    def last(self) -> int:
        """Number of the last layer."""
        return self.first + len(self.windows) - 1

    @property
    def layers(self) -> range:
        """The numbers of its layers."""
        return range(self.first, self.last + 1)

    @property
    def bytes(self) -> int:
        """What it needs beside its input and its output."""
        return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in (*self.slab_bytes, self.work_bytes))

    @property
    def work_bytes(self) -> int:
        """Scratch, and behind it where each layer stands."""
        return self.state_at + self.state_bytes

    @property
    def state_at(self) -> int:
        """Bytes from the scratch's start to where the layers' states are."""
        return -(-self.scratch_bytes // ALIGNMENT) * ALIGNMENT


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where tensors lie: the buffer of each, and the buffer of each layer's scratch."""

    of_tensor: Mapping[int, int]
    of_scratch: Mapping[int, int]
    plan: MemoryPlan
    least_bytes: int
    steps: Sequence[int]

    def tensor(self, index: int) -> int:
        """Bytes from the arena's start to a tensor."""
        return self.plan.offsets[self.of_tensor[index]]

    def scratch(self, layer: int) -> int:
        """Bytes from the arena's start to a layer's scratch."""
        return self.plan.offsets[self.of_scratch[layer]]

    def live_bytes(self, layer: int) -> int:
        """Sum of what lives while a layer runs."""
        return self.plan.live_bytes(self.steps[layer])


def place(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int], chains: Sequence[Chain] = ()) -> Placement:
    """Plans the arena: views share their tensor's bytes, and an output takes its input's where that is exact.

    Args:
        graph: the model.
        layers: from `lowering.lower`.
        aliases: from `lowering.lower`.
        chains: layers that run by rows.
    """
    root, find = roots(graph, aliases)
    apart = lifetimes(graph, layers, find, range(len(layers)))
    least_bytes = MemoryPlan(tuple(apart.values()), (0,) * len(apart)).lower_bound
    steps, chained = list(range(len(layers))), {i: chain for chain in chains for i in chain.layers}
    for i, chain in chained.items():
        steps[i] = chain.first
    live = lifetimes(graph, layers, find, steps)
    for chain in chains:
        for i, size in zip(chain.layers, chain.slab_bytes, strict=False):
            tensor = layers[i].writes
            live[tensor] = dataclasses.replace(live[tensor], name=f"rows of {live[tensor].name}", bytes=size)
    for step, layer in enumerate(layers):
        out = find(layer.writes)
        for i in layer.in_place if step not in chained else ():
            source = find(i)
            if source != out and live[source].last == step == live[out].first and live[source].bytes == live[out].bytes:
                root[out] = source
                live[source] = dataclasses.replace(live[source], last=live[out].last)
                break
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
    overlaps = {}
    for chain in chains:
        if chain.lag is not None:
            ends = layers[chain.last].writes, image(layers[chain.first])
            overlaps[found[ends[0]], found[ends[1]]] = chain.lag
    return Placement(found, of_scratch, plan(buffers, overlaps), least_bytes, steps)


def image(layer: Layer) -> int:
    """The one tensor that a layer of windows reads."""
    (source,) = layer.reads
    if not isinstance(source, int):
        raise TypeError(f"{layer.kernel} reads a constant")
    return source


def roots(graph: Graph, aliases: Mapping[int, int]) -> tuple[dict[int, int], Callable[[int], int]]:
    """For each tensor the one whose bytes it shares, step by step, and a function that follows these to the last."""
    root = {t.index: t.index for t in graph.tensors}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for view, of in aliases.items():
        if graph.tensors[of].data is None:
            root[view] = find(of)
    return root, find


def lifetimes(
    graph: Graph, layers: Sequence[Layer], find: Callable[[int], int], steps: Sequence[int]
) -> dict[int, Buffer]:
    """A buffer for each tensor that layers read or write, or that is an input; `steps`: when each layer runs."""
    first: dict[int, int] = {find(i): -1 for i in graph.inputs}
    last: dict[int, int] = dict(first)
    for step, layer in zip(steps, layers, strict=True):
        for i in (*(r for r in layer.reads if isinstance(r, int)), *layer.states, layer.writes):
            kept = graph.tensors[find(i)].variable  # from one run to the next
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
