"""Selects chains of layers that run row by row, where that makes the arena smaller.

Convolutions and pools [H, W, C] -> [H', W', C'] read a window of rows for each output row. A chain of them computes
only the rows that the next layer's windows need, then the next layer's rows, and so on, and keeps no others. Each row
is computed once, so that the number of operations does not change.

Reference: patch-based inference in MCUNetV2, arXiv 2110.15352, section 3.1, which computes rows at patch borders twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tfkd.micro.graph import Graph
from tfkd.micro.lowering.layer import Layer
from tfkd.micro.lowering.windows import depthwise_scratch_bytes
from tfkd.micro.memory_plan import Buffer, aligned, saving
from tfkd.micro.placement import Chain, Window, image, lifetimes, place, roots

_KERNELS = ("convolution", "depthwise", "average_pool", "max_pool")
_ROWS = (1, 2, 4, 8, 16)  # output rows of a chain at a time
_PEAKS = 5  # limits of the peak that are tried, from the smallest possible peak to the best plan
_STATE_BYTES = 20  # sizeof(tfkd_turn), the row counters of one layer


def window(layer: Layer) -> Window | None:
    """A layer's windows along the height, or None where it cannot run row by row."""
    if layer.kernel not in _KERNELS:
        return None
    f = {name: value for name, value in layer.fields.items() if isinstance(value, int)}
    reach = (f["kernel_height"] - 1) * f.get("dilation_height", 1) + 1
    found = Window(
        f["stride_height"],
        reach,
        f["pad_top"],
        f["height"],
        f["out_height"],
        f["width"] * f["channels"],
        f["out_width"] * f.get("out_channels", f["channels"] * f.get("channel_multiplier", 1)),
    )
    # Each window must overlap the image, and its reach must fit the C struct.
    if reach >= 2**15 or found.pad >= reach or (found.out_height - 1) * found.stride - found.pad >= found.height:
        return None
    return found


def choose(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int]) -> tuple[Chain, ...]:
    """Selects the chains with the smallest arena; among those, the ones with the fewest kernel calls.

    Args:
        graph: The model.
        layers: Layers from `lowering.lower`.
        aliases: Aliases from `lowering.lower`.

    Returns:
        Chains that have no layer in common; none where they would not make the arena smaller.
    """
    unchained = place(graph, layers, aliases)
    alone = [unchained.live_bytes(i) for i in range(len(layers))]
    endings = options(graph, layers, aliases)
    least = [0]  # the smallest possible peak of the layers before each layer
    for end in range(len(layers)):
        peaks = [max(least[end], alone[end])]
        peaks += [max(least[chain.first], peak) for chain, peak in endings[end]]
        least.append(min(peaks))
    # A plan may be larger than its peak: then chains with a larger peak and fewer calls may have the same arena.
    best: tuple[int, int, tuple[Chain, ...]] = (unchained.plan.bytes, 0, ())
    for part in range(_PEAKS):
        limit = least[-1] + (best[0] - 1 - least[-1]) * part // _PEAKS
        if least[-1] <= limit < best[0]:
            calls, chains = _fewest_calls(alone, endings, limit)
            best = min(best, (place(graph, layers, aliases, chains).plan.bytes, calls, chains), key=lambda one: one[:2])
    return best[2]


def _fewest_calls(
    alone: Sequence[int], endings: Sequence[Sequence[tuple[Chain, int]]], limit: int
) -> tuple[int, tuple[Chain, ...]]:
    """The chains with the fewest kernel calls whose peaks are all within a limit.

    Args:
        alone: Live bytes of each layer that runs alone.
        endings: Result of `options`.
        limit: Largest live bytes allowed, at least the smallest possible peak.

    Returns:
        The number of calls, and the chains.
    """
    best: list[tuple[int, tuple[Chain, ...]] | None] = [(0, ())]  # for the layers before each layer
    for end, peak_alone in enumerate(alone):
        found = [best[end]] if peak_alone <= limit else []
        for chain, peak in endings[end]:
            before = best[chain.first]
            if before is not None and peak <= limit:
                found.append((before[0] + chain.calls, (*before[1], chain)))
        best.append(min((one for one in found if one is not None), key=lambda one: one[0], default=None))
    return best[-1] or (0, ())


def options(graph: Graph, layers: Sequence[Layer], aliases: Mapping[int, int]) -> list[list[tuple[Chain, int]]]:
    """For each layer the possible chains that end with it, each with the bytes that live while it runs."""
    _, find = roots(graph, aliases)
    live = lifetimes(graph, layers, find, range(len(layers)))
    windows = [window(layer) for layer in layers]
    shared = {find(i) for view in aliases.items() for i in view}  # other layers may read these through views
    endings: list[list[tuple[Chain, int]]] = [[] for _ in layers]
    for first in range(len(layers)):
        for last in range(first, len(layers)):
            if not windows[last] or last > first and not _follows(layers, last, live, shared):
                break
            inner = {layers[i].writes for i in range(first, last)}
            around = sum(b.bytes for i, b in live.items() if b.first <= last and b.last >= first and i not in inner)
            source, out = find(image(layers[first])), find(layers[last].writes)
            freed = live[source].last == first and graph.tensors[source].data is None
            for rows in _ROWS:
                chain = _chain(layers, [w for w in windows[first : last + 1] if w], first, rows, freed)
                saved = 0 if chain.lag is None else saving(live[out].bytes, live[source].bytes, chain.lag)
                if rows < chain.windows[-1].out_height and (saved or last > first):
                    endings[last].append((chain, around + chain.bytes - saved))
    return endings


def _follows(layers: Sequence[Layer], i: int, live: Mapping[int, Buffer], shared: Collection[int]) -> bool:
    """Whether layer i reads only the output of the layer before it, and no other layer reads that."""
    between = layers[i - 1].writes
    if layers[i].reads != (between,) or between in shared:
        return False
    return (live[between].first, live[between].last) == (i - 1, i)


def _chain(layers: Sequence[Layer], windows: Sequence[Window], first: int, rows: int, freed: bool) -> Chain:
    """A chain from layer `first` on; `freed`: whether its input is not needed after it."""
    kept, most, calls, lag = walk(windows, rows)
    scratch = [_scratch_bytes(layer, count) for layer, count in zip(layers[first:], most, strict=False)]
    slabs = tuple(count * w.row for count, w in zip(kept[1:], windows[1:], strict=True))
    state_bytes = _STATE_BYTES * len(windows)
    return Chain(first, tuple(windows), rows, calls, slabs, max(scratch), state_bytes, aligned(lag) if freed else None)


def _scratch_bytes(layer: Layer, rows: int) -> int:
    """Scratch of a layer that computes some output rows at a time."""
    if layer.kernel != "depthwise":
        return layer.scratch_bytes
    return depthwise_scratch_bytes({name: x for name, x in layer.fields.items() if isinstance(x, int)}, rows)


def walk(windows: Sequence[Window], rows: int) -> tuple[list[int], list[int], int, int]:
    """Simulates the schedule of tfkd_pull in kernels/rows.h, without values.

    Args:
        windows: Windows of each layer.
        rows: Output rows of the last layer at a time.

    Returns:
        Largest number of input rows that are kept at once, for each layer; largest number of output rows at a time, for
        each layer; number of kernel calls; bytes by which the output must start before the input to overwrite only rows
        that were read.
    """
    n, lag = len(windows), 0
    done, kept, most, calls = [0] * n, [0] * n, [0] * n, 0
    while done[-1] < windows[-1].out_height:
        first, end = done[-1], min(done[-1] + rows, windows[-1].out_height)
        read = done[0]
        for i in reversed(range(n)):
            w = windows[i]
            done[i] = end
            if first == end:
                break
            calls, most[i] = calls + 1, max(most[i], end - first)
            top = max(0, first * w.stride - w.pad)
            stop = min(w.height, (end - 1) * w.stride - w.pad + w.reach)
            kept[i] = max(kept[i], stop - top)
            first, end = max(top, done[i - 1]), stop
        if n > 1:  # a single kernel still reads its rows while it writes
            read = done[0]
        if n == 1 or read < windows[0].out_height:
            needed = max(0, read * windows[0].stride - windows[0].pad) * windows[0].row
            lag = max(lag, done[-1] * windows[-1].out_row - needed)
    return kept, most, calls, lag
