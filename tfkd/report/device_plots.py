"""Plots of devices: latency, throughput, thermal status, and the layers and the arena of a microcontroller."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfkd._internal.types import JsonRecord
from tfkd.report import devices, svg, words
from tfkd.report.svg import Plot

# More curves in one plot cannot be told apart.
_MAX_CURVES = 8
# A distribution of fewer latencies is not informative.
_MIN_LATENCIES = 20
_DASHED = (0, (4, 3))


@dataclasses.dataclass(frozen=True)
class LatencyAxis:
    """The horizontal axis of the latency plot.

    Args:
        low_ns: Left end in nanoseconds.
        high_ns: Right end in nanoseconds.
        logarithmic: Whether the scale is logarithmic.
    """

    low_ns: float
    high_ns: float
    logarithmic: bool

    @classmethod
    def of(cls, samples: Sequence[Sequence[int]]) -> LatencyAxis:
        """An axis on which the distributions fill the width, without the rare slow inferences that would squeeze them.

        Args:
            samples: Sorted latencies of each curve, in nanoseconds.
        """
        medians = [_quantile(ordered, 0.5) for ordered in samples]
        low = min(ordered[0] for ordered in samples)
        high = max(_upper_fence(ordered) for ordered in samples)
        margin = 0.05 * (high - low) or 0.1 * high  # all latencies may be equal
        logarithmic = max(medians) > 8 * min(medians)
        return cls(0.9 * low if logarithmic else max(0, low - margin), high + margin, logarithmic)


def _upper_fence(ordered: Sequence[int]) -> float:
    """The largest latency that is not an outlier: at most three times the spread p10..p90 above p90."""
    p10, p90 = _quantile(ordered, 0.1), _quantile(ordered, 0.9)
    return min(_quantile(ordered, 0.995), p90 + 3 * (p90 - p10))


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[int(share * (len(ordered) - 1))]


def latency(record: JsonRecord) -> Plot | None:
    """Cumulative distribution of the latency, one curve per row with enough raw latencies."""
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [
        row for row in devices.timed_rows(record) if len(row["measurement"]["latencies_ns"] or ()) >= _MIN_LATENCIES
    ]
    if not rows:
        return None
    samples = {_label(row): sorted(row["measurement"]["latencies_ns"]) for row in rows[:_MAX_CURVES]}
    axis = LatencyAxis.of(list(samples.values()))
    slower = sum(latency > axis.high_ns for ordered in samples.values() for latency in ordered)
    limit = (record["contract"] or {}).get("max_p90_ms")
    drawn = limit if limit is not None and 1e6 * limit < 3 * axis.high_ns else None
    end = max(axis.high_ns, 1.05e6 * (drawn or 0))
    factor, unit = (1e3, "microseconds") if end < 1e5 else (1e6, "milliseconds")
    with svg.figure(height=3.3 + 0.2 * max(0, len(samples) - 3)) as figure:
        axes = figure.add_subplot()
        for number, (label, ordered) in enumerate(samples.items()):
            steps = range(201)  # 200 steps draw any number of latencies
            times = [ordered[min(len(ordered) - 1, step * len(ordered) // 200)] / factor for step in steps]
            axes.plot(times, [step / 2 for step in steps], color=svg.series_colour(number), label=label)
        if drawn is not None:
            x = drawn * 1e6 / factor
            axes.plot([x, x], [0, 90], color=svg.colour("--bad"), linestyle=_DASHED, label="p90 limit")
        if axis.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())  # its default labels overlap
        axes.set_xlim(axis.low_ns / factor, end / factor)
        axes.set_ylim(0, 102)
        axes.set_xlabel(f"latency, {unit}")
        axes.set_ylabel("share of inferences, %")
        figure.legend(loc="outside lower center", ncols=1)
        caption = f"Share of {sum(map(len, samples.values())):,} timed inferences that took at most this long."
        if slower:
            slowest = max(ordered[-1] for ordered in samples.values()) / 1e6
            verb = "is" if slower == 1 else "are"
            caption += f" {slower:,} slower {verb} not shown, up to {words.ms(slowest)}."
        if limit != drawn:
            caption += f" The p90 limit of {words.ms(limit)} is outside of the plot."
        return svg.plot(figure, "Latency", caption)


def throughput(record: JsonRecord) -> Plot | None:
    """Samples per second against the batch size, for each target and number of threads with several batch sizes."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in devices.timed_rows(record):
        setting, latency = row["measurement"]["setting"], row["measurement"]["latency"]
        threads, batch = setting.get("threads", 1), setting.get("timed_batch", 1)
        label = f"{row['name']} on {row['target'].partition(',')[0]}, {threads} thread{'s' if threads > 1 else ''}"
        if latency["p50_ms"]:
            curves.setdefault(label, []).append((batch, 1000 * batch / latency["p50_ms"]))
    curves = {label: sorted(curve) for label, curve in curves.items() if len({batch for batch, _ in curve}) > 1}
    if not curves:
        return None
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for number, (label, curve) in enumerate(curves.items()):
            axes.plot(*zip(*curve, strict=True), color=svg.series_colour(number), marker="o", markersize=4, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({batch for curve in curves.values() for batch, _ in curve}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("batch size")
        axes.set_ylabel("samples per second")
        figure.legend(loc="outside lower center", ncols=1)
        return svg.plot(figure, "Throughput", "Throughput at the median latency. Larger batches help while it rises.")


def minutes(record: JsonRecord) -> Plot | None:
    """Median and p90 latency of each minute, for each row that ran for two minutes or longer."""
    rows = [
        row for row in devices.timed_rows(record) if len(row["measurement"]["environment"].get("per_minute") or ()) > 1
    ]
    if not rows:
        return None
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for number, row in enumerate(rows[:_MAX_CURVES]):
            times = row["measurement"]["environment"]["per_minute"]
            for name, style in (("p50_ns", "solid"), ("p90_ns", (0, (3, 2)))):
                axes.plot(
                    [one["minute"] for one in times],
                    [one[name] / 1e6 for one in times],
                    color=svg.series_colour(number),
                    linestyle=style,
                    label=_label(row) if name == "p50_ns" else None,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minute")
        axes.set_ylabel("latency, milliseconds")
        figure.legend(loc="outside lower center", ncols=1)
        caption = "Solid: median of each minute. Dashed: p90. A rising curve means that the device slows down."
        return svg.plot(figure, "Latency by minute", caption)


def thermal(record: JsonRecord) -> Plot | None:
    """Thermal status during the run, for each row whose device reports it."""
    rows = [
        (row, [one for one in row["measurement"]["environment"].get("thermal") or () if one[1] >= 0])
        for row in devices.timed_rows(record)
    ]
    rows = [(row, trace) for row, trace in rows if trace][:_MAX_CURVES]
    if not rows:
        return None
    top = max(2, *(status for _, trace in rows for _, status in trace))
    with svg.figure(height=2.5 + 0.2 * len(rows)) as figure:
        axes = figure.add_subplot()
        for number, (row, trace) in enumerate(rows):
            seconds, statuses = zip(*trace, strict=True)
            axes.plot(seconds, statuses, color=svg.series_colour(number), drawstyle="steps-post", label=_label(row))
        axes.axhline(1.5, color=svg.colour("--bad"), linestyle=_DASHED, label="above: the run is not valid")
        axes.set_yticks(range(top + 1), devices.THERMAL_STATUS[: top + 1])
        axes.set_ylim(-0.3, top + 0.3)
        axes.set_xlabel("second of the run")
        figure.legend(loc="outside lower center", ncols=1)
        return svg.plot(figure, "Thermal status", "Thermal status that the device reports, once per second.")


def _label(row: JsonRecord) -> str:
    return f"{row['name']} on {row['target']}{'' if row['valid'] else ' (not valid)'}"


def layers(row: JsonRecord) -> Plot:
    """Instructions of each layer of a model on an emulated microcontroller."""
    environment, total = row["measurement"]["environment"], row["measurement"]["instructions"]
    # "around" is the code that belongs to no layer.
    counts = [count for name, count in environment["layers"].items() if name != "around"]
    with svg.figure(height=max(2.2, 0.8 + 0.19 * len(counts))) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(counts)), [count / 1e6 for count in counts], color=svg.series_colour(0), height=0.7)
        # A step is "CONV_2D 3x3 to 8 x 8 x 16, by rows": the op and the first detail are enough.
        labels = [
            f"{op.lower()} {detail.split(', ')[0]}"
            for op, _, detail in (step.partition(" ") for step in environment["steps"])
        ]
        axes.set_yticks(range(len(counts)), labels[: len(counts)], fontsize=7)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("million instructions, emulated")
        most = max(range(len(counts)), key=counts.__getitem__)
        caption = f"{labels[most]} takes {words.percent(counts[most] / total)} of {total:,} instructions."
        return svg.plot(figure, f"Instructions by layer on {row['target']}", caption)


def arena(row: JsonRecord) -> Plot:
    """Memory plan of the arena: address and lifetime of each buffer."""
    from matplotlib.patches import Rectangle

    environment, size = row["measurement"]["environment"], row["measurement"]["memory"]["arena_bytes"]
    least, last = environment["least_live_bytes"], len(environment["steps"])
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for number, (name, offset, count, first, end) in enumerate(environment["arena"]):
            colour = svg.colour("--muted") if name.startswith("scratch") else svg.series_colour(number)
            box = (first - 0.5, offset / 1e3), end - first + 1, count / 1e3
            axes.add_patch(Rectangle(*box, facecolor=colour, alpha=0.55, edgecolor=svg.colour("--card"), linewidth=0.8))
        axes.axhline(least / 1e3, color=svg.colour("--bad"), linestyle=_DASHED, label="lower bound")
        axes.set_xlim(-1.5, last + 0.5)
        axes.set_ylim(0, 1.08 * max(size, least) / 1e3)
        axes.set_xlabel("layer")
        axes.set_ylabel("arena, kB")
        figure.legend(loc="outside lower center")
        caption = (
            f"The arena has {size:,} bytes. Lower bound: the tensors in use at the same time have up to {least:,} "
            "bytes. Each box is a buffer, from the layer that writes it to the last layer that reads it; grey boxes "
            "are scratch buffers."
        )
        return svg.plot(figure, f"Arena on {row['target']}", caption)
