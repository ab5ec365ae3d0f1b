"""Plots of a search: accuracy on the validation split against each cost, with the limits of the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import plots, svg, words
from tfkd.report.svg import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHED = (0, (4, 3))
# Costs: key, title, and how a value is written.
_AXES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bytes", "size of the .tflite", words.size),
    ("arena_bytes", "tensor arena", words.size),
    ("flash_bytes", "flash", words.size),
    ("instructions", "instructions", lambda value: words.count(round(value))),
    ("p90_ms", "latency p90", words.ms),
)
# Values that differ by more are on a logarithmic axis.
_WIDE = 8


def all_of(record: JsonRecord) -> list[Plot]:
    """One plot for each cost that is known; the latency only where no instructions were counted."""
    finished = finished_of(record)
    known = {key for key, _, _ in _AXES if any(cost_of(one, key) is not None for one in finished)}
    if "instructions" in known:
        known.discard("p90_ms")
    return [_plot(record, finished, key, title, write) for key, title, write in _AXES if key in known]


def finished_of(record: JsonRecord) -> list[JsonRecord]:
    """The candidates that were trained to the end."""
    return [one for one in record["candidates"] if one["outcome"] == "finished"]


def cost_of(candidate: JsonRecord, key: str) -> float | None:
    """A cost of a candidate; None if it is unknown."""
    return None if candidate["cost"] is None else candidate["cost"][key]


def shown(record: JsonRecord, value: float) -> float:
    """The value of a candidate as an axis shows it: an accuracy in percent."""
    return 100 * value if record["metric"]["name"] == "accuracy" else value


def _plot(
    record: JsonRecord, finished: Sequence[JsonRecord], key: str, title: str, write: Callable[[float], str]
) -> Plot:
    points = [(cost_of(one, key), shown(record, one["value"]), one["number"]) for one in finished]
    known = [(x, y, number) for x, y, number in points if x is not None]
    sign = 1 if record["larger_is_better"] else -1
    refused = [x for one in record["candidates"] if one["outcome"] == "refused" if (x := cost_of(one, key)) is not None]
    with svg.figure() as figure:
        axes = figure.add_subplot()
        best = [(x, sign * y) for x, y in plots.front([(x, sign * y) for x, y, _ in known])]
        axes.plot(*zip(*best, strict=True), color=svg.colour("--muted"), linewidth=1, drawstyle="steps-post", zorder=2)
        for x, y, number in known:
            is_best = number == record["best"]
            axes.plot(
                x,
                y,
                marker="D" if is_best else "o",
                markersize=10 if is_best else 7,
                linestyle="none",
                color=svg.series_colour(0),
                markeredgecolor=svg.colour("--ink" if is_best else "--card"),
                zorder=4 if is_best else 3,
                label="best candidate" if is_best else None,
            )
        limit = record["contract"].get(f"max_{key}")
        _set_scale(axes, [x for x, _, _ in known] + ([limit] if limit else []), write)
        _draw_box(axes, limit, record["contract"].get("min_accuracy"), write)
        _draw_refused(axes, refused)
        axes.set_xlabel(title)
        name = record["metric"]["label"].lower()
        axes.set_ylabel(f"validation {name}{', %' if record['metric']['unit'] == 'percent' else ''}")
        figure.legend(loc="outside lower center", ncols=3, handletextpad=0.4, columnspacing=1.2)
        caption = (
            "One point for each candidate that was trained to the end; the line joins those that no other beats in "
            "both. The shaded box is the contract. Ticks below are costs of candidates outside of the contract, which "
            "were not trained."
        )
        return svg.plot(figure, f"{record['metric']['label']} against {title}", caption)


def _set_scale(axes: Axes, values: Sequence[float], write: Callable[[float], str]) -> None:
    """A linear axis around the values, or a logarithmic one where they differ much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = min(values), max(values)
    if high > _WIDE * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.12 * (high - low) or 0.2 * high
        axes.set_xlim(max(0, low - margin), high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _without_zeros(write(value))))
    axes.margins(y=0.15)


def _without_zeros(text: str) -> str:
    """A number without a fraction of zeros: `20.0 kB` is `20 kB`."""
    return text.replace(".00 ", " ").replace(".0 ", " ")


def _draw_box(axes: Axes, limit: float | None, floor: float | None, write: Callable[[float], str]) -> None:
    """The area that the contract permits: left of the largest cost and above the lowest accuracy."""
    style: JsonObject = {"color": svg.colour("--bad"), "linewidth": 1.2, "linestyle": _DASHED, "zorder": 1}
    low, high = axes.get_ylim()
    if floor is not None:
        low = min(low, floor - 0.1 * max(1.0, high - floor))
        axes.axhline(floor, label=f"limit {floor:g}%", **style)
    axes.set_ylim(low, high)
    left, right = axes.get_xlim()
    if limit is not None:
        axes.axvline(limit, label=f"limit {_without_zeros(write(limit))}", **style)
    if limit is not None or floor is not None:
        edge, bottom = right if limit is None else limit, low if floor is None else floor
        axes.fill_between([left, edge], bottom, high, color=svg.colour("--good"), alpha=0.08, linewidth=0, zorder=0)


def _draw_refused(axes: Axes, costs: Sequence[float]) -> None:
    """A tick on the lower edge for each candidate that was not trained; those beyond the right edge lie on it."""
    left, right = axes.get_xlim()
    for cost in costs:
        axes.plot(
            min(max(cost, left), right),
            0.0,
            marker="|",
            markersize=9,
            linestyle="none",
            color=svg.colour("--bad"),
            alpha=0.6,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )
