"""The page of a search: what was tried, what it costs, how good it is, and the best recipe."""

from __future__ import annotations

import json
from collections import Counter

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import search_plots, words
from tfkd.report.page import environment

_STATES = {"finished": "finished", "stopped": "stopped", "refused": "not trained", None: "unfinished"}
_TONES = {"finished": "holds", "refused": "broken"}


def html(record: JsonRecord) -> str:
    """The search as one HTML page without scripts and without network access.

    Args:
        record: Content of `search.json`.
    """
    return environment(autoescape=True).get_template("search.html.jinja").render(**_texts(record))


def _texts(record: JsonRecord) -> JsonObject:
    candidates = record["candidates"]
    best = next((one for one in candidates if one["number"] == record["best"]), None)
    counts = Counter(one["outcome"] for one in candidates)
    trained = counts["finished"] + counts["stopped"]
    summary = (
        f"{len(candidates)} candidates: {trained} within the contract were trained, {counts['stopped']} of them "
        f"stopped early; {counts['refused']} are outside of the contract and were not trained."
    )
    return {
        "record": record,
        "best": best and _row(record, best),
        "metric": record["metric"]["label"],
        "summary": summary,
        "limits": [words.limit(name, value) for name, value in record["contract"].items()],
        "plots": search_plots.all_of(record) if best else [],
        "rows": [_row(record, one) for one in sorted(candidates, key=lambda one: _order(record, one))],
        "final": record["final"],
        "tone": _tone(record) if best else "no",
    }


def _tone(record: JsonRecord) -> str:
    final = record["final"]
    if final and final["status"] != "UNKNOWN":
        return "ship" if final["ok"] else "no"
    return "unknown" if final or record["contract"] else "ship"


def _order(record: JsonRecord, one: JsonRecord) -> tuple[int, float]:
    """Finished candidates first, the best of them first, then by number."""
    if one["outcome"] == "finished":
        return 0, -one["value"] if record["larger_is_better"] else one["value"]
    return 1 + ("stopped", None, "refused").index(one["outcome"]), one["number"]


def _row(record: JsonRecord, one: JsonRecord) -> JsonObject:
    """A candidate as texts."""
    cost = one["cost"] or dict.fromkeys(("bytes", "arena_bytes", "flash_bytes", "instructions", "p90_ms", "parameters"))
    value = one["value"]
    number = words.NONE
    if value is not None:
        number = words.percent(value) if record["metric"]["name"] == "accuracy" else f"{value:.4g}"
    return {
        "number": one["number"],
        "values": [(name.rpartition(".")[2], _text(setting)) for name, setting in one["values"].items()],
        "state": _STATES[one["outcome"]],
        "tone": _TONES.get(one["outcome"], "none"),
        "reason": one["reason"],
        "epochs": one["epochs"],
        "quality": number,
        "is_best": one["number"] == record["best"],
        "parameters": words.NONE if cost["parameters"] is None else f"{cost['parameters']:,}",
        "bytes": words.size(cost["bytes"]),
        "arena": words.size(cost["arena_bytes"]),
        "flash": words.size(cost["flash_bytes"]),
        "instructions": words.count(cost["instructions"]),
        "latency": words.ms(cost["p90_ms"]),
    }


def _text(setting: object) -> str:
    if isinstance(setting, float):
        return f"{setting:.3g}"
    return setting if isinstance(setting, str) else json.dumps(setting)
