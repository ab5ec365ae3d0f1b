"""Plots of models and trainings: accuracy against size, training curves, accuracy by seed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import svg, words
from tfkd.report.seeds import Series
from tfkd.report.svg import Plot
from tfkd.tasks import CLASSIFICATION, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Histories = Mapping[str, Mapping[str, Sequence[float | None]]]

_MARKERS = "osD^vphd"
# Multiples of a power of ten at which an axis of sizes may have ticks, from few to many, and the most that it has.
_TICKS = ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
_MOST_TICKS = 5
# Limits on accuracy relative to another model: name, role of that model, and the sign of the limit.
_RELATIVE_LIMITS = (
    ("max_accuracy_drop", "reference", -1),
    ("max_drop_from_teacher", "teacher", -1),
    ("min_gain_over_alone", "alone", 1),
)


def colours(record: JsonRecord) -> dict[str, int]:
    """Number of the series colour of each model and training, the same in all plots."""
    labels = [row["name"] for row in record["rows"]]
    labels += [*(record.get("training") or ()), *(record.get("seeds") or ())]
    return {label: place for place, label in enumerate(dict.fromkeys(labels))}


def pareto(record: JsonRecord, palette: Mapping[str, int]) -> Plot | None:
    """Accuracy against size, one point per model, with the limits of the contract."""
    rows = _first_rows(record)
    if not rows:
        return None
    with svg.figure() as figure:
        axes = figure.add_subplot()
        best = front([(row["bytes"], 100 * row["accuracy"]) for row in rows])
        axes.plot(*zip(*best, strict=True), color=svg.colour("--muted"), linewidth=1, drawstyle="steps-post", zorder=2)
        for row in rows:
            x, y, colour = row["bytes"], 100 * row["accuracy"], svg.series_colour(palette[row["name"]])
            low, high = row["accuracy_interval"]
            axes.plot([x, x], [100 * low, 100 * high], color=colour, alpha=0.35, linewidth=2.2, zorder=2)
            candidate = row["target"] is not None and row["name"] == record["ship"]
            axes.plot(
                x,
                y,
                color=colour,
                marker=_MARKERS[palette[row["name"]] % len(_MARKERS)],
                markersize=11 if candidate else 8,
                linestyle="none",
                markeredgecolor=svg.colour("--ink" if candidate else "--card"),
                zorder=4 if candidate else 3,
                label=row["name"],
            )
        axes.set_xscale("log")
        axes.margins(x=0.12)
        _draw_limits(axes, record)
        _set_size_ticks(axes)
        axes.set_ylabel("test accuracy, %")
        figure.legend(loc="outside lower center", ncols=2, handletextpad=0.4, columnspacing=1.2)
        caption = (
            "Models at the upper left are more accurate and smaller. The line joins the models that no other model "
            "beats in both. Vertical bars are 95% confidence intervals. The candidate has a dark outline. The size of "
            "a Keras model is that of its weights."
        )
        return svg.plot(figure, "Accuracy against size", caption)


def training(histories: Histories, palette: Mapping[str, int]) -> list[Plot]:
    """Curves over the epochs: the accuracy or another share, if it was recorded, and the loss."""
    metrics = {name for history in histories.values() for name in history}
    share = next((name for name in sorted(metrics) if _is_share(name) and not name.startswith("val_")), None)
    note = "Solid: validation. Dashed: training."
    wanted = [(f"{_SHARES.get(share, 'Accuracy')} in training", share, note)] if share else []
    wanted.append(("Loss in training", "loss", f"{note} Different loss functions are not comparable."))
    plots = (_curves(histories, metric, title, caption, palette) for title, metric, caption in wanted)
    return [plot for plot in plots if plot]


# Titles of shares in the logs of trainings that are no accuracy of classes.
_SHARES = {
    "cell_f1": "F1 of cells",
    "frame_accuracy": "Accuracy of frames",
    "label_accuracy": "Accuracy of labels",
    "near_points": "Points within one cell",
    "pixel_accuracy": "Accuracy of pixels",
}


def _is_share(name: str) -> bool:
    return "accuracy" in name or name in _SHARES


def _curves(histories: Histories, metric: str, title: str, caption: str, palette: Mapping[str, int]) -> Plot | None:
    from matplotlib.ticker import MaxNLocator

    labels = [label for label, history in histories.items() if history.get(metric) or history.get(f"val_{metric}")]
    if not labels:
        return None
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for label in labels:
            curves = [(name, histories[label].get(name) or ()) for name in (metric, f"val_{metric}")]
            labelled = curves[1][0] if curves[1][1] else curves[0][0]  # one entry in the legend
            for name, values in curves:
                numbers = [float("nan") if value is None else value for value in values]
                axes.plot(
                    range(1, len(numbers) + 1),
                    [100 * value for value in numbers] if _is_share(metric) else numbers,
                    color=svg.series_colour(palette[label]),
                    linestyle="solid" if name.startswith("val_") else (0, (3, 2)),
                    linewidth=1.8 if name.startswith("val_") else 1.1,
                    marker="o" if len(numbers) == 1 else None,  # one epoch is not a line
                    label=label if name == labelled else None,
                )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"{_SHARES.get(metric, 'accuracy')}, %" if _is_share(metric) else metric)
        figure.legend(loc="outside lower center", ncols=2)
        return svg.plot(figure, title, caption)


def seeds(
    all_series: Sequence[Series], palette: Mapping[str, int], metric: Metric = CLASSIFICATION.primary
) -> Plot | None:
    """Test accuracy, or another metric, of each seed, with lines between the trainings of the same seed."""
    if not all_series:
        return None
    with svg.figure(height=2.7) as figure:
        axes = figure.add_subplot()
        for seed in sorted({seed for one in all_series for seed in one.by_seed}):
            line = [(x, one.by_seed[seed]) for x, one in enumerate(all_series) if seed in one.by_seed]
            axes.plot(*zip(*line, strict=True), color=svg.colour("--muted"), linewidth=0.9, alpha=0.7, zorder=2)
        for x, one in enumerate(all_series):
            values, colour = list(one.by_seed.values()), svg.series_colour(palette[one.label])
            axes.plot(
                [x] * len(values),
                values,
                linestyle="none",
                marker="o",
                markersize=7,
                zorder=3,
                color=colour,
                markeredgecolor=svg.colour("--card"),
            )
            axes.plot([x - 0.14, x + 0.14], [one.mean] * 2, color=colour, linewidth=2.4, zorder=3)
        axes.set_xticks(range(len(all_series)), [one.label for one in all_series])
        axes.set_xlim(-0.5, len(all_series) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.15)
        name = "accuracy" if metric.name == CLASSIFICATION.primary.name else metric.label
        axes.set_ylabel(f"test {name}{', %' if metric.unit == 'percent' else ''}")
        caption = "One dot per seed. Lines join the trainings of the same seed. Horizontal bars are means."
        return svg.plot(figure, f"{name[:1].upper()}{name[1:]} by seed", caption)


def _first_rows(record: JsonRecord) -> list[JsonRecord]:
    """One row per model: that of the first target with an accuracy."""
    found: dict[str, JsonRecord] = {}
    for row in record["rows"]:
        key = f"{row['name']}/{row['target'] is None}"
        if row["accuracy"] is not None:
            found.setdefault(key, row)
    return list(found.values())


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (size, accuracy) points that no other point beats in both, by size."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _draw_limits(axes: Axes, record: JsonRecord) -> None:
    """Dashed lines at the largest size and the lowest accuracy that the contract permits."""
    contract = record["contract"] or {}
    style: JsonObject = {"color": svg.colour("--bad"), "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}
    if contract.get("max_bytes") is not None:
        axes.axvline(contract["max_bytes"], label=f"limit {words.size(contract['max_bytes'])}", **style)
    floors = [contract["min_accuracy"]] if contract.get("min_accuracy") is not None else []
    accuracy = {row["name"]: row["accuracy"] for row in record["rows"] if row["target"] is None}
    for limit, role, sign in _RELATIVE_LIMITS:
        other = accuracy.get(record.get(role))
        if contract.get(limit) is not None and other is not None:
            floors.append(100 * other + sign * contract[limit])
    if floors:
        axes.axhline(max(floors), label=f"limit {max(floors):.1f}%", **style)


def _set_size_ticks(axes: Axes) -> None:
    """Labels the axis of sizes at a few round sizes."""
    from matplotlib.ticker import FixedLocator, NullLocator

    labels = size_ticks(*axes.get_xlim())
    axes.xaxis.set_major_locator(FixedLocator(list(labels)))
    axes.set_xticklabels(list(labels.values()))
    axes.xaxis.set_minor_locator(NullLocator())


def size_ticks(low: float, high: float) -> dict[float, str]:
    """Up to `_MOST_TICKS` round sizes in a range with their labels: more would overlap.

    >>> size_ticks(4e3, 2e8)
    {10000.0: '10 kB', 100000.0: '100 kB', 1000000.0: '1 MB', 10000000.0: '10 MB', 100000000.0: '100 MB'}
    """
    from matplotlib.ticker import MaxNLocator

    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**exponent for exponent in exponents if low <= 10.0**exponent <= high]
    ticks = decades[:: math.ceil(len(decades) / _MOST_TICKS) or 1]
    for multiples in _TICKS:
        more = [factor * 10.0**exponent for exponent in exponents for factor in multiples]
        more = [tick for tick in more if low <= tick <= high]
        ticks = more if len(more) <= _MOST_TICKS else ticks
    if len(ticks) < 2:
        steps = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [float(tick) for tick in steps if low <= tick <= high]
    return {tick: _without_zeros(words.size(tick)) for tick in ticks}


def _without_zeros(number: str) -> str:
    """A number and its unit without zeros at the end of the fraction.

    >>> _without_zeros("1.50 MB"), _without_zeros("20.0 kB"), _without_zeros("100 B")
    ('1.5 MB', '20 kB', '100 B')
    """
    return re.sub(r"(\.\d*?)0+ ", r"\1 ", number).replace(". ", " ")
