"""What each device gave in each setting: a row of words for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfkd.report import words

# Android's thermal status, by its number.
HEAT = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def shown(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of the shipped model (of all models, where none is to ship) that were timed."""
    rows = [row for row in record["rows"] if row["target"] and record["ship"] in (None, row["name"])]
    return [row for row in rows if row["measurement"] and row["measurement"]["latency"]]


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each device and setting, and for each that gave nothing; none where nothing was timed."""
    timed = {id(row) for row in shown(record)}
    rows = [row for row in record["rows"] if row["target"] and record["ship"] in (None, row["name"])]
    rows = [row for row in rows if id(row) in timed or row["measurement"] is None] if timed else []
    return [_row(row) for row in rows]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    measured = row["measurement"]
    found = {
        **row,
        "device": "",
        "setting": row["target"].partition(",")[2].replace(",", ", "),
        "heat": words.NONE,
        **dict.fromkeys(("p50", "p90", "p99", "halves", "runs", "rate", "evidence"), words.NONE),
        "standing": _standing(row),
    }
    if not measured:
        return found
    latency, environment, setting = measured["latency"], measured["environment"], measured["setting"]
    batch = setting.get("timed_batch", 1)
    heat = [status for _, status in environment.get("thermal") or () if status >= 0]
    return {
        **found,
        "device": _device(environment),
        "setting": _setting(setting),
        "p50": words.ms(latency["p50_ms"]),
        "p90": words.ms(latency["p90_ms"]),
        "p99": words.ms(latency["p99_ms"]),
        "halves": words.NONE if latency["latency_trend"] is None else f"{latency['latency_trend']:.2f}",
        "runs": f"{environment.get('runs', latency['count']):,}",
        "rate": f"{1000 * batch / latency['p50_ms']:,.0f}" if latency["p50_ms"] else words.NONE,
        "heat": HEAT[min(max(heat), len(HEAT) - 1)] if heat else words.NONE,
        "evidence": measured["evidence"].get("latencies_ns") or measured["evidence"].get("latency_summary", words.NONE),
    }


def _standing(row: Mapping[str, Any]) -> str:
    if row["valid"]:
        return "valid"
    kind = "not valid" if row["measurement"] else "does not run" if row["broken"] else "not known"
    return f"{kind}: {row['invalid_reason']}"


def _device(environment: Mapping[str, Any]) -> str:
    """A phone by its maker, model, chip and system; another machine by its processor."""
    phone = " ".join(str(environment[key]) for key in ("manufacturer", "model") if environment.get(key))
    android = f"Android {environment['android']}" if environment.get("android") else None
    cores = f"{environment['cores']} cores" if environment.get("cores") else None
    parts = (phone, environment.get("soc"), environment.get("processor"), cores, android)
    return ", ".join(str(part) for part in parts if part)


def _setting(setting: Mapping[str, Any]) -> str:
    threads, batch = setting.get("threads"), setting.get("timed_batch", 1)
    parts = [
        setting.get("accelerator") or setting.get("kernels"),
        threads and f"{threads} thread{'' if threads == 1 else 's'}",
        f"batch {batch}" if batch != 1 else None,
        f"restart {setting['restart']}" if setting.get("restart") else None,
    ]
    return ", ".join(str(part) for part in parts if part)
