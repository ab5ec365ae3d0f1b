"""Metrics of tasks other than classification in reports: numbers as text, tables and plots."""

from __future__ import annotations

from collections.abc import Sequence

from tfkd import tasks
from tfkd._internal.types import JsonRecord
from tfkd.report import overlays, svg, words
from tfkd.report.svg import Plot

# Heading and unit of each entry of a class.
_COLUMNS = {
    "name": ("Class", None),
    "share": ("Share of pixels", "percent"),
    "objects": ("Objects", None),
    "iou": ("IoU", "percent"),
    "dice": ("Dice", "percent"),
    "precision": ("Precision", "percent"),
    "recall": ("Recall", "percent"),
    "f1": ("F1", "percent"),
    "pck": ("PCK", "percent"),
    "ap": ("AP", "percent"),
    "ap50": ("AP50", "percent"),
}
# The metrics of a classification beside the accuracy.
CLASS_METRICS = tasks.CLASSIFICATION.metrics[1:]
# Labels of a multi-label task in the table of the page.
_MOST_LABELS = 30


def task_of(record: JsonRecord) -> tasks.Task:
    """The task of a validation; reports of the time before there were tasks are of classifications."""
    return tasks.get(record.get("task", tasks.CLASSIFICATION.name))


def is_classification(record: JsonRecord) -> bool:
    """Whether the task is the classification, which has its own columns."""
    return task_of(record).is_classification


def value(row: JsonRecord, name: str) -> float | None:
    """A metric of a row; None where it is unknown."""
    result = row.get("result")
    found = result["metrics"][name]["value"] if result else None
    return None if found is None else float(found)


def cells(row: JsonRecord, metrics: Sequence[tasks.Metric]) -> list[tuple[str, str]]:
    """Metrics of a row and their intervals as text, one pair for each metric."""
    found = []
    for metric in metrics:
        number = value(row, metric.name)
        interval = (row.get("result") or {"metrics": {metric.name: {}}})["metrics"][metric.name].get("interval")
        ends = " to ".join(words.quantity(end, metric.unit) for end in interval) if interval else ""
        found.append((words.quantity(number, metric.unit), ends))
    return found


def class_cells(row: JsonRecord) -> list[tuple[str, str]]:
    """Macro F1 and calibration error of a classification, and their intervals, as text; none in older reports."""
    found = row.get("class_metrics")
    return cells({"result": found}, CLASS_METRICS) if found else []


def against(row: JsonRecord, task: tasks.Task, role: str) -> str:
    """The difference of each metric from that of the model in a role, such as `MAE +0.12`; empty without one."""
    found = ((row.get("result") or {}).get("differences") or {}).get(role)
    if not found:
        return ""
    return ", ".join(
        f"{metric.label} {_signed(found[metric.name]['value'])}"
        for metric in task.metrics
        if found[metric.name]["value"] is not None
    )


def _signed(number: float) -> str:
    return f"{number:+.3g}".replace("-", "\N{MINUS SIGN}")


def plots(row: JsonRecord | None, task: tasks.Task) -> list[Plot]:
    """The plots of a row: residuals, or curves."""
    details = row["result"]["details"] if row and row.get("result") else {}
    if not row or not details:
        return []
    where = f"{row['name']} on {row['target'] or 'Keras'}"
    if "per_class" in details:
        return overlays.plots(details, where)
    if "predictions" in details:
        return [_predictions(details, where), _residuals(details, where)]
    if "sequences" in details:
        return [_timelines(details, where)]
    if "roc" in details:
        scores = [_scores(details["scores"], where)] if "scores" in details else []
        return [*scores, _roc(details, where), _pr(details, where)]
    return []


def _columns(details: JsonRecord) -> list[tuple[str, list[float], list[float]]]:
    """Name, labels and predictions of each output; of many outputs the first eight."""
    return [
        (name, [one[place] for one in details["labels"]], [one[place] for one in details["predictions"]])
        for place, name in enumerate(details["outputs"][:8])
    ]


def _predictions(details: JsonRecord, where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        columns = _columns(details)
        for place, (name, labels, predictions) in enumerate(columns):
            axes.plot(labels, predictions, "o", markersize=3, alpha=0.6, color=svg.series_colour(place), label=name)
        ends = [min(min(one[1]) for one in columns), max(max(one[1]) for one in columns)]
        axes.plot(ends, ends, color=svg.colour("--muted"), linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("label")
        axes.set_ylabel("prediction")
        if len(columns) > 1:
            figure.legend(loc="outside lower center", ncols=4)
        caption = f"{where}: one dot per test sample (at most 500, drawn at random). On the dashed line both are equal."
        return svg.plot(figure, "Predictions", caption)


def _residuals(details: JsonRecord, where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for place, (name, labels, predictions) in enumerate(_columns(details)):
            residuals = [prediction - label for label, prediction in zip(labels, predictions, strict=True)]
            axes.plot(predictions, residuals, "o", markersize=3, alpha=0.6, color=svg.series_colour(place), label=name)
        axes.axhline(0, color=svg.colour("--muted"), linewidth=1)
        axes.set_xlabel("prediction")
        axes.set_ylabel("prediction \N{MINUS SIGN} label")
        caption = f"{where}: errors against predictions. A trend or a funnel shows what the model has not learnt."
        return svg.plot(figure, "Residuals", caption)


def _roc(details: JsonRecord, where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        axes.plot(*details["roc"], color=svg.series_colour(0), linewidth=1.8)
        axes.plot([0, 1], [0, 1], color=svg.colour("--muted"), linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        caption = f"{where}: positives are {details['positive']}. The dashed line is that of a constant answer."
        return svg.plot(figure, "ROC curve", caption)


def _scores(scores: JsonRecord, where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        for place, name in enumerate(("normal", "abnormal")):
            axes.stairs(scores[name], scores["edges"], fill=True, alpha=0.6, color=svg.series_colour(place), label=name)
        threshold, note = scores["threshold"], ""
        if threshold is not None:
            axes.axvline(threshold, color=svg.colour("--muted"), linewidth=1, linestyle=(0, (4, 3)))
            note = " The dashed line is the threshold, the 95% quantile of normal validation samples."
        axes.set_xlabel("anomaly score: mean squared error of the reconstruction")
        axes.set_ylabel("test samples")
        figure.legend(loc="outside lower center", ncols=2)
        caption = f"{where}: scores of the test samples; the last bar has all higher ones.{note}"
        return svg.plot(figure, "Anomaly scores", caption)


def _timelines(details: JsonRecord, where: str) -> Plot:
    """Labels and predictions of some sequences as bars over time, in the colour of each class."""
    step, unit = (details["frame_seconds"], "seconds") if details["frame_seconds"] else (1, "frames")
    sequences, names = details["sequences"], details["classes"]
    with svg.figure() as figure:
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        for place, one in enumerate(sequences):
            for key, offset in (("labels", 0.0), ("predictions", 0.4)):
                for label in range(1, len(names)):
                    runs = [(step * first, step * (last - first)) for first, last in _runs(one[key], label)]
                    axes.broken_barh(runs, (place + offset, 0.36), color=svg.series_colour(label - 1))
        for label in range(1, len(names)):
            axes.broken_barh([], (0, 0), color=svg.series_colour(label - 1), label=names[label])
        axes.set_yticks([place + 0.38 for place in range(len(sequences))], [str(one["id"]) for one in sequences])
        axes.set_ylim(len(sequences), -0.2)
        axes.set_xlim(0, step * len(sequences[0]["labels"]))
        axes.set_xlabel(unit)
        axes.set_ylabel("sample")
        figure.legend(loc="outside lower center", ncols=4)
        caption = (
            f"{where}: test samples with events, drawn at random. Of each, the upper bars are the labels and the lower "
            f"ones the predictions; no bar is {names[0]}."
        )
        return svg.plot(figure, "Events over time", caption)


def _runs(frames: Sequence[int], label: int) -> list[tuple[int, int]]:
    """First frame, and frame after the last, of each run of a class."""
    edges = [place for place in range(1, len(frames)) if frames[place] != frames[place - 1]]
    starts, ends = [0, *edges], [*edges, len(frames)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if frames[start] == label]


def _pr(details: JsonRecord, where: str) -> Plot:
    with svg.figure() as figure:
        axes = figure.add_subplot()
        axes.plot(*details["pr"], color=svg.series_colour(0), linewidth=1.8, drawstyle="steps-post")
        axes.axhline(details["share"], color=svg.colour("--muted"), linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.set_ylim(0, 1.03)
        caption = f"{where}: the dashed line is the share of positives, {words.percent(details['share'])}."
        return svg.plot(figure, "Precision and recall", caption)


def table(row: JsonRecord | None) -> tuple[list[str], list[list[str]]] | None:
    """The metrics of each output, label or class of a row, as header and lines; None where there are none."""
    details = row["result"]["details"] if row and row.get("result") else {}
    if outputs := details.get("by_output"):
        lines = [
            [one["name"], *(words.quantity(one[name], "value") for name in ("mae", "rmse", "bias"))] for one in outputs
        ]
        return ["Output", "MAE", "RMSE", "Mean error"], lines
    if classes := details.get("by_class"):
        lines = [
            [
                one["name"], f"{one['frames']:,}", words.quantity(one["recall"], "percent"),
                f"{one['events']:,}" if one["event_f1"] is not None else words.NONE,
                words.quantity(one["event_f1"], "percent"),
            ]
            for one in classes
        ]  # fmt: skip
        return ["Class", "Test frames", "Recall of frames", "Events", "Event F1"], lines
    if labels := details.get("by_label"):
        ordered: Sequence[JsonRecord] = sorted(labels, key=lambda one: one["average_precision"])[:_MOST_LABELS]
        lines = [
            [
                one["name"],
                f"{one['samples']:,}",
                *(words.quantity(one[name], "percent") for name in ("average_precision", "f1")),
            ]
            for one in ordered
        ]
        return ["Label", "Test samples", "Average precision", "F1"], lines
    if classes := details.get("per_class"):
        columns = [name for name in classes[0] if name in _COLUMNS]
        return [_COLUMNS[name][0] for name in columns], [
            [_entry(one[name], _COLUMNS[name][1]) for name in columns] for one in classes
        ]
    return None


def _entry(value: str | float | None, unit: str | None) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if unit is None else words.quantity(value, unit)
