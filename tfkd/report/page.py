"""The report as HTML or Markdown: the JSON record becomes rows of text, which a template lays out."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from tfkd import tasks
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import device_plots, devices, metrics, microcontrollers, plots, seeds, words
from tfkd.validation.contract import LABELS

# CSS class and explanation of each verdict.
_STATUS = {
    "SHIP": ("ship", "The contract holds."),
    "NO": ("no", "The model must not ship."),
    "UNKNOWN": ("unknown", "A limit that could not be checked does not count as kept."),
    None: ("none", ""),
}
# A larger confusion matrix is not readable; the most frequent confusions are listed anyway.
_MAX_MATRIX_CLASSES = 20


def html(record: JsonRecord) -> str:
    """The report as one HTML page without scripts and without network access."""
    return environment(autoescape=True).get_template("page.html.jinja").render(**_texts(record), **_plots(record))


def markdown(record: JsonRecord) -> str:
    """The report as GitHub Markdown, without plots."""
    templates = environment(autoescape=False)
    templates.finalize = _markdown_escape
    text = templates.get_template("page.md.jinja").render(**_texts(record))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _texts(record: JsonRecord) -> JsonObject:
    """Everything that the templates show except the plots, as text."""
    status = record["verdict"]["status"]
    tone, explanation = _STATUS[status]
    teacher = words.teacher_row(record)
    all_series = seeds.series(record.get("seeds") or {})
    shown = _shown(record)
    rows = [_row(row, record, teacher) for row in record["rows"]]
    task = metrics.task_of(record)
    chosen = None if metrics.is_classification(record) else _with_result(record)
    cores = [row for row in rows if row["measurement"] and row["measurement"].get("instructions")]
    return {
        "title": f"{record['ship'] or 'tfkd'}: {status or 'no contract'}",
        "status": status or "NO CONTRACT",
        "tone": tone,
        "explanation": explanation,
        "headline": words.headline(record),
        "accuracy": words.accuracy_line(record),
        "task": task.name.replace("_", "-"),
        "classes": _classes(record, task),
        "metrics": [] if metrics.is_classification(record) else [metric.label for metric in task.metrics],
        "metric_table": metrics.table(chosen),
        "metric_row": chosen,
        "seeds_label": f"Test {task.primary.label}{', %' if task.primary.unit == 'percent' else ''}",
        "record": record,
        "test": record["test"],
        "checks": [_check(check, record["verdict"]["binding"]) for check in record["verdict"]["checks"]],
        "figures": _figures(record, teacher),
        "teacher": teacher and teacher["name"],
        "rows": rows,
        "details": [_detail(row) for row in rows if row["accuracy"] is not None],
        "class_metrics": [one.label for one in metrics.CLASS_METRICS],
        "top5": any(row["top5"] is not None for row in record["rows"]),
        "series": all_series,
        "seed_numbers": sorted({seed for one in all_series for seed in one.by_seed}),
        "comparisons": seeds.compare(all_series, task.primary),
        "devices": devices.table(record),
        "cores": [microcontrollers.row(row) for row in cores],
        "firmware": microcontrollers.firmware(_candidate(cores, record)) if cores else None,
        "confusion": _confusion(shown, record["test"]["class_names"]) if shown else None,
        "audits": _audits(record["models"]),
        "compression": words.COMPRESSION,
        "command": record.get("command"),
    }


def _plots(record: JsonRecord) -> JsonObject:
    """The plots of the HTML page."""
    colours = plots.colours(record)
    task = metrics.task_of(record)
    chosen = None if metrics.is_classification(record) else _with_result(record)
    on_devices = (device_plots.throughput(record), device_plots.minutes(record), device_plots.thermal(record))
    core = next((row for row in record["rows"] if (row["measurement"] or {}).get("instructions")), None)
    return {
        "metric_plots": metrics.plots(chosen, task),
        "pareto": plots.pareto(record, colours),
        "seeds_plot": plots.seeds(seeds.series(record.get("seeds") or {}), colours, task.primary),
        "training": plots.training(record.get("training") or {}, colours),
        "latency": device_plots.latency(record),
        "device_plots": [plot for plot in on_devices if plot],
        "core_plots": [device_plots.layers(core), device_plots.arena(core)] if core else [],
    }


def _classes(record: JsonRecord, task: tasks.Task) -> str:
    """The number of classes, labels or outputs, in words."""
    count = len(record["test"]["class_names"])
    nouns = {
        "values": ("output", "outputs"),
        "multi_hot": ("label", "labels"),
        "points": ("point", "points"),
        "identities": ("identity", "identities"),
    }.get(task.labels, ("class", "classes"))
    return f"{count} {nouns[count != 1]}"


def _with_result(record: JsonRecord) -> JsonRecord | None:
    """The row whose plots are shown: that of the candidate on its first target, else the last with a result."""
    rows = [row for row in record["rows"] if row.get("result")]
    shipped = [row for row in rows if row["target"] and row["name"] == record["ship"]]
    return shipped[0] if shipped else rows[-1] if rows else None


def environment(*, autoescape: bool) -> jinja2.Environment:
    """The environment of the templates.

    Args:
        autoescape: Whether values are escaped for HTML.
    """
    found = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {
        "percent": words.percent,
        "points": words.points,
        "size": words.size,
        "ms": words.ms,
        "svg": lambda plot: Markup(plot.svg),  # svg.py escapes the texts in it
    }
    return found


def _markdown_escape(value: object) -> object:
    """The value of an expression, escaped: it cannot start a tag, a table cell or emphasis."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_|\[\]~])", r"\\\1", escaping.escape(value, quote=False)).replace("\n", " ")


def _check(check: JsonRecord, binding: str | None) -> JsonObject:
    meter = None
    if check["value"] is not None:
        whole = {"share": 1.0, "percent": 100.0}
        end = whole.get(check["unit"]) or 1.25 * max(check["limit"], check["value"], 1e-9)
        meter = {"value": _within(check["value"] / end), "limit": _within(check["limit"] / end)}
    return {
        **check,
        "label": LABELS[check["name"]],
        "bound": words.bound(check),
        "number": words.quantity(check["value"], check["unit"]),
        "interval": words.interval(check),
        "finding": words.finding(check),
        "binding": check["name"] == binding,
        "meter": meter,
    }


def _within(share: float) -> float:
    return round(100 * min(1.0, max(0.0, share)), 2)


def _figures(record: JsonRecord, teacher: JsonRecord | None) -> list[tuple[str, str, str]]:
    """The main numbers of the candidate as (label, number, note), each from the target where it is worst."""
    rows = [row for row in record["rows"] if row["target"] and row["name"] == record["ship"]]
    if not metrics.is_classification(record):
        return _metric_figures(rows, record, teacher)
    rows = [row for row in rows if row["valid"] and row["accuracy"] is not None]
    if not rows:
        return []
    worst = min(rows, key=lambda row: row["accuracy"])
    found = []
    for targets, row in words.shipped_accuracies(record):
        low, high = row["accuracy_interval"]
        note = f"95% interval {words.percent(low)} to {words.percent(high)}"
        if teacher and teacher["accuracy"] is not None:
            note = f"{teacher['name']} {words.percent(teacher['accuracy'])}; {note}"
        found.append((f"Accuracy on {targets}", words.percent(row["accuracy"]), note))
    if worst["agreement"] is not None:
        found.append(("Agreement", words.percent(worst["agreement"]), f"same label as {record['reference']}"))
    found.append(("File", words.size(worst["bytes"]), _compared(worst, teacher)))
    arenas = [(row["measurement"]["memory"]["arena_bytes"] or 0, row["target"]) for row in rows]
    if max(arenas)[0]:
        found.append(("Tensor arena", words.size(max(arenas)[0]), f"on {max(arenas)[1]}"))
    candidates = [row for row in record["rows"] if row["target"] and row["name"] == record["ship"]]
    if not all(_on_host(row) for row in candidates):
        rows = [row for row in rows if not _on_host(row)]
    return [*found, *_speed(rows)]


def _metric_figures(
    rows: Sequence[JsonRecord], record: JsonRecord, teacher: JsonRecord | None
) -> list[tuple[str, str, str]]:
    """The metrics of the candidate, each from the target where it is worst, and its size."""
    task, found = metrics.task_of(record), []
    rows = [row for row in rows if row["valid"] and row.get("result")]
    for metric in task.metrics if rows else ():
        known = [(metric.sign * number, row) for row in rows if (number := metrics.value(row, metric.name)) is not None]
        if not known:
            continue
        row = min(known, key=lambda one: one[0])[1]
        text, interval = dict(zip((one.name for one in task.metrics), metrics.cells(row, task.metrics), strict=True))[
            metric.name
        ]
        own = metrics.value(teacher, metric.name) if teacher else None
        notes = [f"{teacher['name']} {words.quantity(own, metric.unit)}"] if teacher and own is not None else []
        notes += [f"95% interval {interval}"] if interval else []
        found.append((f"{metric.label} on {row['target']}", text, "; ".join(notes)))
    if rows:
        found.append(("File", words.size(rows[0]["bytes"]), _compared(rows[0], teacher)))
    return [*found, *_speed([row for row in rows if not _on_host(row)] or rows)]


def _on_host(row: JsonRecord) -> bool:
    """Whether a row says nothing about a device other than this machine."""
    return row["target"].partition(":")[0].partition(",")[0] in ("host", "tflm")


def _speed(rows: Sequence[JsonRecord]) -> list[tuple[str, str, str]]:
    """The latency of the candidate; on a microcontroller its estimate."""
    measured = [(row["measurement"], row["target"]) for row in rows]
    estimates = [(one["estimated_ms"], target) for one, target in measured if one.get("estimated_ms")]
    if estimates:
        (low, high), target = max(estimates, key=lambda entry: entry[0][1])
        return [("Estimated time", f"{words.ms(low)} to {words.ms(high)}", f"on {target}")]
    times = [
        (one["latency"]["p90_ms"], target)
        for one, target in measured
        if one["latency"] and one["latency"]["p90_ms"] is not None
    ]
    return [("Latency p90", words.ms(max(times)[0]), f"on {max(times)[1]}")] if times else []


def _compared(row: JsonRecord, teacher: JsonRecord | None) -> str:
    return words.compared_size(row["bytes"], teacher["bytes"], teacher["name"]) if teacher else ""


def _row(row: JsonRecord, record: JsonRecord, teacher: JsonRecord | None) -> JsonObject:
    measured = row["measurement"] or {"memory": {"arena_bytes": None}, "latency": None}
    latency = measured["latency"] or {"p50_ms": None, "p90_ms": None}
    return {
        **row,
        "cells": [] if metrics.is_classification(record) else metrics.cells(row, metrics.task_of(record).metrics),
        "against": metrics.against(row, metrics.task_of(record), "reference"),
        "shipped": row["target"] is not None and row["name"] == record["ship"],
        "is_reference": row["target"] is None and row["name"] == record["reference"],
        "ratio": words.percent(row["bytes"] / teacher["bytes"]) if teacher and row is not teacher else None,
        "arena": words.size(measured["memory"]["arena_bytes"]),
        "p50": words.ms(latency["p50_ms"]),
        "p90": words.ms(latency["p90_ms"]),
        "evidence": words.evidence(row),
        "status": words.status(row),
    }


def _detail(row: JsonRecord) -> JsonObject:
    divergence = row["output_divergence"]
    return {
        **row,
        "class_cells": metrics.class_cells(row),
        "worst": f"{row['worst_class'][0]}: {words.percent(row['worst_class'][1])}",
        "divergence_max": f"{divergence['max_steps']} (against {divergence['against']})" if divergence else words.NONE,
        "divergence_mean": f"{divergence['mean_steps']:.3f}" if divergence else words.NONE,
        "divergence_share": words.percent(divergence["share_changed"]) if divergence else words.NONE,
    }


def _audits(models: JsonRecord) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Each calibration once, as (names of the models that were calibrated with it, its facts)."""
    found: list[tuple[list[str], list[tuple[str, str]]]] = []
    for name, model in models.items():
        facts = _audit(model["audit"]) if model["audit"] else []
        if model.get("findings"):
            facts.append(("Comparison with the Keras model", " ".join(model["findings"])))
        same = next((names for names, known in found if known == facts), None)
        if same is not None:
            same.append(name)
        elif facts:
            found.append(([name], facts))
    return found


def _audit(audit: JsonRecord) -> list[tuple[str, str]]:
    accuracy = audit["accuracy"]
    total = audit["classes_total"]  # 0 where the samples of a model with several inputs have no labels
    return [
        ("Samples", f"{audit['samples']:,}"),
        ("Range", f"{audit['minimum']:g} to {audit['maximum']:g}, mean {audit['mean']:.4g}"),
        ("Classes", f"{audit['classes_covered']} of {total}" if total else "not known"),
        ("Also in the test split", str(audit["overlap"])),
        ("Values outside of the input range", words.percent(audit["saturation"], 2)),
        *([("Accuracy of the Keras model on them", words.percent(accuracy, 2))] if accuracy is not None else []),
        ("SHA-256", audit["digest"]),
        ("Findings", " ".join(audit["findings"]) or "none"),
    ]


def _candidate(rows: list[JsonObject], record: JsonRecord) -> JsonObject:
    """The row of the candidate, else the last one."""
    return next((row for row in rows if row["name"] == record["ship"]), rows[-1])


def _shown(record: JsonRecord) -> JsonRecord | None:
    """The row whose confusion matrix is shown: that of the candidate, else the last with one."""
    rows = [row for row in record["rows"] if row["confusion"] is not None]
    shipped = [row for row in rows if row["target"] and row["name"] == record["ship"]]
    return shipped[0] if shipped else rows[-1] if rows else None


def _confusion(row: JsonRecord, names: list[str]) -> JsonObject:
    matrix = row["confusion"]
    lines, pairs = [], []
    for label, counts in enumerate(matrix):
        total = sum(counts) or 1
        lines.append(
            (names[label], [(count, round(count / total, 3), label == other) for other, count in enumerate(counts)])
        )
        for other, count in enumerate(counts):
            if label != other and count:
                pairs.append((count, names[label], names[other], count / total))
    pairs.sort(key=lambda pair: -pair[0])
    return {
        "name": row["name"],
        "target": row["target"],
        "names": names,
        "lines": lines if len(names) <= _MAX_MATRIX_CLASSES else [],
        "pairs": pairs[:6],
        "errors": sum(pair[0] for pair in pairs),
    }
