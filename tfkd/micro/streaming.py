"""Selects chains of layers that run row by row, where that makes the arena smaller.

Convolutions and pools [H, W, C] -> [H', W', C'] read a window of rows for each output row. A chain of them computes
only the rows that the next layer's windows need, then the next layer's rows, and so on, and keeps no others. Each row
is computed once, so that the number of operations does not change.

Reference: patch-based inference in MCUNetV2, arXiv 2110.15352, section 3.1, which computes rows at patch borders twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tfkd.conversion.tflite import op_macs
from tfkd.micro.graph import Graph
from tfkd.micro.lowering.layer import Layer
from tfkd.micro.lowering.windows import depthwise_scratch_bytes
from tfkd.micro.memory_plan import Buffer, aligned, saving
from tfkd.micro.placement import Chain, Window, image, lifetimes, place, roots

_KERNELS = ("convolution", "depthwise", "average_pool", "max_pool")
_ROWS = (1, 2, 4, 8, 16)  # output rows of a chain at a time
_PEAKS = 5  # limits of the peak that are tried, from the smallest possible peak to that of no chains
# A plan is slow where its chains take more than this share of the model's work in addition. A plan that is not is taken
# in place of a slow one if its arena is at most so many times larger.
_SLOW = 0.03
_WORTH = 1.15
# Instructions of Cortex-M4 that one more call of a kernel takes, by `tools/bench/micro.py --layers`: of any kernel;
# of a depthwise kernel for each channel, and for each value of a row, since it reads rows again.
_CALL, _CALL_CHANNEL, _CALL_VALUE = 400, 115, 2.6
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
    """Selects the chains with the smallest arena; among those, the ones with the least additional work.

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
    # A plan may be larger than its peak: then chains with a larger peak and less work may have the same arena.
    plans: dict[tuple[Chain, ...], int] = {(): unchained.plan.bytes}
    limits = {least[-1] + (unchained.plan.bytes - 1 - least[-1]) * part // _PEAKS for part in range(_PEAKS)}
    limits |= {least[-1] * percent // 100 for percent in range(102, round(100 * _WORTH), 2)}
    for limit in sorted(limits):
        if least[-1] <= limit < min(plans.values()) * _WORTH:
            chains = _least_work(alone, endings, limit)
            if chains not in plans:
                plans[chains] = place(graph, layers, aliases, chains).plan.bytes
    shapes = [tensor.shape for tensor in graph.tensors]
    work = sum(op_macs(op.kind, op.inputs, op.outputs, shapes) for op in graph.ops)  # about one instruction each
    best = min(plans, key=lambda chains: (plans[chains], _work(chains)))
    fast = [chains for chains, size in plans.items() if _work(chains) <= _SLOW * work and size <= _WORTH * plans[best]]
    return min(fast, key=lambda chains: (plans[chains], _work(chains)), default=best)


def _work(chains: Sequence[Chain]) -> float:
    """Estimated instructions of Cortex-M4 that chains take in addition."""
    return sum(chain.extra for chain in chains)


def _least_work(alone: Sequence[int], endings: Sequence[Sequence[tuple[Chain, int]]], limit: int) -> tuple[Chain, ...]:
    """The chains with the least additional work whose peaks are all within a limit.

    Args:
        alone: Live bytes of each layer that runs alone.
        endings: Result of `options`.
        limit: Largest live bytes allowed, at least the smallest possible peak.
    """
    best: list[tuple[float, tuple[Chain, ...]] | None] = [(0, ())]  # for the layers before each layer
    for end, peak_alone in enumerate(alone):
        found = [best[end]] if peak_alone <= limit else []
        for chain, peak in endings[end]:
            before = best[chain.first]
            if before is not None and peak <= limit:
                found.append((before[0] + chain.extra, (*before[1], chain)))
        best.append(min((one for one in found if one is not None), key=lambda one: one[0], default=None))
    return best[-1][1] if best[-1] else ()


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
                useful = last > first or (saved and layers[first].lag is None)  # with a lag it overwrites as a whole
                if rows < chain.windows[-1].out_height and useful:
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
    kept, most, _, lag = walk(windows, rows)
    scratch = [_scratch_bytes(layer, count) for layer, count in zip(layers[first:], most, strict=False)]
    slabs = tuple(count * w.row for count, w in zip(kept[1:], windows[1:], strict=True))
    state_bytes = _STATE_BYTES * len(windows)
    turns = -(-windows[-1].out_height // rows)
    extra = turns * sum(_call(layer) for layer, _ in zip(layers[first:], windows, strict=False))
    return Chain(first, tuple(windows), rows, extra, slabs, max(scratch), state_bytes, aligned(lag) if freed else None)


def _call(layer: Layer) -> float:
    """Estimated instructions of Cortex-M4 that one more call of a layer's kernel takes."""
    if layer.kernel != "depthwise":
        return _CALL
    channels = layer.number("channels")
    return _CALL + channels * (_CALL_CHANNEL + _CALL_VALUE * layer.number("width"))


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
