"""The report's plots: SVG by Matplotlib whose colours are CSS variables, so that they follow light and dark."""

from __future__ import annotations

import dataclasses
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tfkd.report import devices, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib writes colours as hex; these values stand for the page's variables and are put in afterwards.
_VARIABLES = {
    "#010101": "--ink", "#020202": "--muted", "#030303": "--line", "#040404": "--card", "#050505": "--good",
    "#060606": "--bad", **{f"#0{n}0{n}0f": f"--series-{n}" for n in range(8)},
}  # fmt: skip
_COLOUR = {variable: sentinel for sentinel, variable in _VARIABLES.items()}
_MARKERS = "osD^vphd"
# Of fewer latencies a distribution says nothing.
_ENOUGH = 20

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfkd",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 9.5,
    "legend.fontsize": 9,
    "legend.handlelength": 1.4,
    "legend.frameon": False,
    "text.color": _COLOUR["--ink"],
    "text.parse_math": False,  # a class or a run may be called "a$b"
    "axes.labelcolor": _COLOUR["--muted"],
    "xtick.color": _COLOUR["--muted"],
    "ytick.color": _COLOUR["--muted"],
    "axes.edgecolor": _COLOUR["--line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 9.5,
    "axes.labelpad": 6,
    "axes.grid": True,
    "grid.color": _COLOUR["--line"],
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "figure.constrained_layout.use": True,
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """One plot: `svg` is markup that is safe to put into a page; `caption` is plain text."""

    title: str
    caption: str
    svg: str


def colours(record: Mapping[str, Any]) -> dict[str, int]:
    """A place in the palette for each label, so that a model has one colour in all plots."""
    labels = [row["name"] for row in record["rows"]]
    labels += [*(record.get("training") or ()), *(record.get("seeds") or ())]
    return {label: place for place, label in enumerate(dict.fromkeys(labels))}


def pareto(record: Mapping[str, Any], palette: Mapping[str, int]) -> Plot | None:
    """Accuracy against bytes, one point for each model, with the contract's budgets."""
    points = [row for row in _first_rows(record) if row["accuracy"] is not None]
    if not points:
        return None
    with _figure() as figure:
        axes = figure.add_subplot()
        front = _front([(row["bytes"], 100 * row["accuracy"]) for row in points])
        axes.plot(*zip(*front, strict=True), color=_COLOUR["--muted"], linewidth=1, drawstyle="steps-post", zorder=2)
        for row in points:
            x, y, colour = row["bytes"], 100 * row["accuracy"], _series(palette[row["name"]])
            low, high = row["accuracy_interval"]
            axes.plot([x, x], [100 * low, 100 * high], color=colour, alpha=0.35, linewidth=2.2, zorder=2)
            marker = _MARKERS[palette[row["name"]] % len(_MARKERS)]
            candidate = row["target"] is not None and row["name"] == record["ship"]
            axes.plot(
                x,
                y,
                color=colour,
                marker=marker,
                markersize=11 if candidate else 8,
                linestyle="none",
                markeredgecolor=_COLOUR["--ink" if candidate else "--card"],
                zorder=4 if candidate else 3,
                label=row["name"],
            )
        axes.set_xscale("log")
        axes.margins(x=0.12)
        _budgets(axes, record)
        _size_ticks(axes)
        axes.set_ylabel("accuracy on test, %")
        figure.legend(loc="outside lower center", ncols=2, handletextpad=0.4, columnspacing=1.2)
        caption = (
            "Up and to the left is better; the candidate has a rim. The line joins the models that no other "
            "beats in both; bars are 95% intervals. Keras models count their weights, .tflite models their file."
        )
        return _plot(figure, "Accuracy against size", caption)


def training(histories: Mapping[str, Mapping[str, Sequence[float | None]]], palette: Mapping[str, int]) -> list[Plot]:
    """Curves over the epochs: the loss, and the accuracy where it was recorded."""
    metrics = {name for history in histories.values() for name in history}
    accuracy = next((name for name in sorted(metrics) if "accuracy" in name and not name.startswith("val_")), None)
    note = "Solid: validation. Dashed: training."
    found = [("Accuracy in training", accuracy, note)] if accuracy else []
    found.append(("Loss in training", "loss", f"{note} Losses of different trainings are not on one scale."))
    plots = []
    for title, metric, caption in found:
        if plot := _curves(histories, metric, Plot(title, caption, ""), palette):
            plots.append(plot)
    return plots


def _curves(histories: Mapping[str, Any], metric: str, plot: Plot, palette: Mapping[str, int]) -> Plot | None:
    from matplotlib.ticker import MaxNLocator

    labels = [label for label, history in histories.items() if history.get(metric) or history.get(f"val_{metric}")]
    if not labels:
        return None
    with _figure() as figure:
        axes = figure.add_subplot()
        for label in labels:
            for name, style in ((metric, (0, (3, 2))), (f"val_{metric}", "solid")):
                values = [float("nan") if value is None else value for value in histories[label].get(name) or ()]
                shown = [100 * value for value in values] if "accuracy" in metric else values
                only = name == metric and not histories[label].get(f"val_{metric}")
                axes.plot(
                    range(1, len(shown) + 1),
                    shown,
                    color=_series(palette[label]),
                    linestyle=style,
                    linewidth=1.8 if name != metric else 1.1,
                    # One epoch makes no line.
                    marker="o" if len(shown) == 1 else None,
                    label=label if only or name != metric else None,
                )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("accuracy, %" if "accuracy" in metric else metric)
        figure.legend(loc="outside lower center", ncols=2)
        return _plot(figure, plot.title, plot.caption)


def latency(record: Mapping[str, Any]) -> Plot | None:
    """The share of inferences that were done within a time, for each row that has enough raw latencies."""
    rows = [row for row in devices.shown(record) if len(row["measurement"]["latencies_ns"] or ()) >= _ENOUGH]
    rows = rows[: len(_MARKERS)]
    if not rows:
        return None
    samples = {_label(row): sorted(row["measurement"]["latencies_ns"]) for row in rows}
    # The slowest 0.5 % of runs would squeeze all others to a line; so would a device that is far slower.
    medians = [ordered[len(ordered) // 2] for ordered in samples.values()]
    logarithmic = max(medians) > 8 * min(medians)
    end = 1.1 * max(ordered[int(0.995 * (len(ordered) - 1))] for ordered in samples.values())
    limit = (record["contract"] or {}).get("max_p90_ms")
    shown = limit if limit is not None and 1e6 * limit < 3 * end else None
    end = max(end, 1.05e6 * (shown or 0))
    factor, unit = (1e3, "microseconds") if end < 1e5 else (1e6, "milliseconds")
    note = "" if limit == shown else f" The p90 limit of {words.ms(limit)} lies far to the right."
    with _figure(height=3.3 + 0.2 * max(0, len(samples) - 3)) as figure:
        axes = figure.add_subplot()
        for number, (label, ordered) in enumerate(samples.items()):
            steps = range(201)  # 200 steps draw any number of runs
            times = [ordered[min(len(ordered) - 1, step * len(ordered) // 200)] / factor for step in steps]
            axes.plot(times, [step / 2 for step in steps], color=_series(number), label=label)
        if shown is not None:
            x = shown * 1e6 / factor
            axes.plot([x, x], [0, 90], color=_COLOUR["--bad"], linestyle=(0, (4, 3)), label="p90 limit")
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        start = 0.9 * min(ordered[0] for ordered in samples.values()) if logarithmic else 0
        axes.set_xlim(start / factor, end / factor)
        axes.set_ylim(0, 102)
        axes.set_xlabel(unit)
        axes.set_ylabel("inferences done, %")
        figure.legend(loc="outside lower center", ncols=1)
        count = sum(len(ordered) for ordered in samples.values())
        caption = f"{count:,} timed inferences. A steep line is an even pace, a tail to the right is jitter."
        return _plot(figure, "Latency", caption + note)


def throughput(record: Mapping[str, Any]) -> Plot | None:
    """Samples a second against the batch, a line for each engine and number of threads that ran several batches."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in devices.shown(record):
        setting, latency = row["measurement"]["setting"], row["measurement"]["latency"]
        threads, batch = setting.get("threads", 1), setting.get("timed_batch", 1)
        place = f"{row['name']} on {row['target'].partition(',')[0]}, {threads} thread{'s' if threads > 1 else ''}"
        if latency["p50_ms"]:
            curves.setdefault(place, []).append((batch, 1000 * batch / latency["p50_ms"]))
    curves = {place: sorted(curve) for place, curve in curves.items() if len({batch for batch, _ in curve}) > 1}
    if not curves:
        return None
    with _figure() as figure:
        axes = figure.add_subplot()
        for number, (place, curve) in enumerate(curves.items()):
            axes.plot(*zip(*curve, strict=True), color=_series(number), marker="o", markersize=4, label=place)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({batch for curve in curves.values() for batch, _ in curve}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("samples in one inference")
        axes.set_ylabel("samples a second")
        figure.legend(loc="outside lower center", ncols=1)
        return _plot(figure, "Throughput", "At the median. A server gathers samples as long as the curve still rises.")


def minutes(record: Mapping[str, Any]) -> Plot | None:
    """The p50 and p90 of each minute, for each row that ran for two or more."""
    rows = [row for row in devices.shown(record) if len(row["measurement"]["environment"].get("per_minute") or ()) > 1]
    if not rows:
        return None
    with _figure() as figure:
        axes = figure.add_subplot()
        for number, row in enumerate(rows[: len(_MARKERS)]):
            times = row["measurement"]["environment"]["per_minute"]
            for name, style in (("p50_ns", "solid"), ("p90_ns", (0, (3, 2)))):
                axes.plot(
                    [one["minute"] for one in times],
                    [one[name] / 1e6 for one in times],
                    color=_series(number),
                    linestyle=style,
                    label=_label(row) if name == "p50_ns" else None,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minute")
        axes.set_ylabel("milliseconds")
        figure.legend(loc="outside lower center", ncols=1)
        caption = "Solid: the median of each minute. Dashed: its p90. A line that rises is a device that slows down."
        return _plot(figure, "Latency over the minutes", caption)


def heat(record: Mapping[str, Any]) -> Plot | None:
    """The thermal status over the run, for each row whose device says it."""
    rows = [
        (row, [one for one in row["measurement"]["environment"].get("thermal") or () if one[1] >= 0])
        for row in devices.shown(record)
    ]
    rows = [(row, trace) for row, trace in rows if trace][: len(_MARKERS)]
    if not rows:
        return None
    top = max(2, *(status for _, trace in rows for _, status in trace))
    with _figure(height=2.5 + 0.2 * len(rows)) as figure:
        axes = figure.add_subplot()
        for number, (row, trace) in enumerate(rows):
            seconds, statuses = zip(*trace, strict=True)
            axes.plot(seconds, statuses, color=_series(number), drawstyle="steps-post", label=_label(row))
        axes.axhline(1.5, color=_COLOUR["--bad"], linestyle=(0, (4, 3)), label="above it a run is not valid")
        axes.set_yticks(range(top + 1), devices.HEAT[: top + 1])
        axes.set_ylim(-0.3, top + 0.3)
        axes.set_xlabel("second of the run")
        figure.legend(loc="outside lower center", ncols=1)
        return _plot(figure, "Heat", "The thermal status that the device itself reports, once a second.")


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['name']} on {row['target']}{'' if row['valid'] else ' (not valid)'}"


def layers(row: Mapping[str, Any]) -> Plot:
    """Instructions of each layer of a model on an emulated core."""
    counts = [count for name, count in row["measurement"]["environment"]["layers"].items() if name != "around"]
    steps, total = row["measurement"]["environment"]["steps"], row["measurement"]["instructions"]
    with _figure(height=max(2.2, 0.8 + 0.19 * len(counts))) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(counts)), [count / 1e6 for count in counts], color=_series(0), height=0.7)
        labels = [f"{step.split(' ', 1)[0].lower()} {step.split(' ', 1)[1].split(', ')[0]}" for step in steps]
        axes.set_yticks(range(len(counts)), labels[: len(counts)], fontsize=7)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("million instructions, emulated")
        most = max(range(len(counts)), key=counts.__getitem__)
        caption = f"{labels[most]} takes {words.percent(counts[most] / total)} of {total:,} instructions."
        return _plot(figure, f"Work by layer on {row['target']}", caption)


def arena(row: Mapping[str, Any]) -> Plot:
    """The plan of the arena: when and where each buffer lies."""
    from matplotlib.patches import Rectangle

    environment, size = row["measurement"]["environment"], row["measurement"]["memory"]["arena_bytes"]
    least, last = environment["least_live_bytes"], len(environment["steps"])
    with _figure() as figure:
        axes = figure.add_subplot()
        for number, (name, offset, count, first, end) in enumerate(environment["arena"]):
            colour = _COLOUR["--muted"] if name.startswith("scratch") else _series(number)
            box = (first - 0.5, offset / 1e3), end - first + 1, count / 1e3
            axes.add_patch(Rectangle(*box, facecolor=colour, alpha=0.55, edgecolor=_COLOUR["--card"], linewidth=0.8))
        axes.axhline(least / 1e3, color=_COLOUR["--bad"], linestyle=(0, (4, 3)), label="least that lives at once")
        axes.set_xlim(-1.5, last + 0.5)
        axes.set_ylim(0, 1.08 * max(size, least) / 1e3)
        axes.set_xlabel("layer")
        axes.set_ylabel("arena, kB")
        figure.legend(loc="outside lower center")
        caption = (
            f"{size:,} bytes; the model's tensors that live at once take {least:,}. A box is a buffer from the "
            "layer that writes it to the last that reads it; grey is scratch."
        )
        return _plot(figure, f"Arena on {row['target']}", caption)


def seeds(all_series: Sequence[Any], palette: Mapping[str, int]) -> Plot | None:
    """Test accuracy of each seed, with a line from one way of training to the next for the same seed."""
    if not all_series:
        return None
    with _figure(height=2.7) as figure:
        axes = figure.add_subplot()
        for seed in sorted({seed for one in all_series for seed in one.by_seed}):
            line = [(x, one.by_seed[seed]) for x, one in enumerate(all_series) if seed in one.by_seed]
            axes.plot(*zip(*line, strict=True), color=_COLOUR["--muted"], linewidth=0.9, alpha=0.7, zorder=2)
        for x, one in enumerate(all_series):
            values = list(one.by_seed.values())
            axes.plot(
                [x] * len(values),
                values,
                linestyle="none",
                marker="o",
                markersize=7,
                zorder=3,
                color=_series(palette[one.label]),
                markeredgecolor=_COLOUR["--card"],
            )
            axes.plot([x - 0.14, x + 0.14], [one.mean] * 2, color=_series(palette[one.label]), linewidth=2.4, zorder=3)
        axes.set_xticks(range(len(all_series)), [one.label for one in all_series])
        axes.set_xlim(-0.5, len(all_series) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.15)
        axes.set_ylabel("accuracy on test, %")
        caption = "One dot for each seed, a line between the runs of the same seed, a bar at the mean."
        return _plot(figure, "Accuracy by seed", caption)


def _first_rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One row for each model: the first target that gave an accuracy."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in record["rows"]:
        key = f"{row['name']}/{row['target'] is None}"
        if row["accuracy"] is not None:
            found.setdefault(key, row)
    return list(found.values())


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both size and accuracy, by size."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _budgets(axes: Axes, record: Mapping[str, Any]) -> None:
    contract = record["contract"] or {}
    style: dict[str, Any] = {"color": _COLOUR["--bad"], "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}
    if contract.get("max_bytes") is not None:
        axes.axvline(contract["max_bytes"], label=f"limit {words.size(contract['max_bytes'])}", **style)
    floors = [100 * contract["min_accuracy"]] if contract.get("min_accuracy") is not None else []
    rows = (row for row in record["rows"] if row["target"] is None and row["name"] == record["reference"])
    reference = next((row["accuracy"] for row in rows), None)
    if contract.get("max_accuracy_drop") is not None and reference is not None:
        floors.append(100 * reference - contract["max_accuracy_drop"])
    if floors:
        axes.axhline(max(floors), label=f"limit {max(floors):.1f}%", **style)


def _size_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: words.size(value).replace(".00", "").replace(".0", ""))
    )
    axes.xaxis.set_minor_formatter(NullFormatter())


def _series(number: int) -> str:
    return _COLOUR[f"--series-{number % 8}"]


@contextmanager
def _figure(height: float = 3.3) -> Iterator[Figure]:
    # Figure itself instead of pyplot: no global state, no display.
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        yield Figure(figsize=(4.7, height))


def _plot(figure: Figure, title: str, caption: str) -> Plot:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub("#0[0-9a-f]{5}", lambda match: f"var({_VARIABLES.get(match[0], '--ink')})", svg)
    # Ids must be unique in the page: those that nothing refers to go, the others take the plot's name.
    used, slug = set(re.findall(r"[#](\w+)[\")]", svg)), re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{slug}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r"(href=\"|url\()#", rf"\1#{slug}-", svg)
    head = f'<svg role="img" aria-label="{html.escape(title)}"'
    svg = re.sub(r'<svg([^>]*?) width="[^"]*" height="[^"]*"', rf"{head}\1", svg, count=1)
    text = f"<title>{html.escape(title)}</title><desc>{html.escape(caption)}</desc>"
    return Plot(title, caption, re.sub(r"(<svg[^>]*>)", rf"\1{text}", svg, count=1))
