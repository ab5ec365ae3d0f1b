"""What was measured on each device with each setting: rows of text for the page and for Markdown."""

from __future__ import annotations

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.report import words

# Android's thermal status by number: android.os.PowerManager.THERMAL_STATUS_NONE is 0.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def timed_rows(record: JsonRecord) -> list[JsonRecord]:
    """The rows with a latency, of the model that is to ship (of all models, if none is)."""
    return [row for row in _rows(record) if row["measurement"] and row["measurement"]["latency"]]


def table(record: JsonRecord) -> list[JsonObject]:
    """One row per target with a latency or without any measurement; none if no target has a latency."""
    timed = {id(row) for row in timed_rows(record)}
    rows = [row for row in _rows(record) if id(row) in timed or row["measurement"] is None]
    return [_row(row) for row in rows] if timed else []


def _rows(record: JsonRecord) -> list[JsonRecord]:
    return [row for row in record["rows"] if row["target"] and record["ship"] in (None, row["name"])]


def _row(row: JsonRecord) -> JsonObject:
    measured = row["measurement"]
    text = {
        **row,
        "device": "",
        "setting": row["target"].partition(",")[2].replace(",", ", "),
        **dict.fromkeys(("thermal", "p50", "p90", "p99", "trend", "runs", "rate", "evidence"), words.NONE),
        "status": words.status(row),
    }
    if not measured:
        return text
    latency, environment, setting = measured["latency"], measured["environment"], measured["setting"]
    batch = setting.get("timed_batch", 1)
    thermal = [status for _, status in environment.get("thermal") or () if status >= 0]
    evidence = measured["evidence"]
    return {
        **text,
        "device": _device(environment),
        "setting": _setting(setting),
        "p50": words.ms(latency["p50_ms"]),
        "p90": words.ms(latency["p90_ms"]),
        "p99": words.ms(latency["p99_ms"]),
        "trend": words.NONE if latency["latency_trend"] is None else f"{latency['latency_trend']:.2f}",
        "runs": f"{environment.get('runs', latency['count']):,}",
        "rate": f"{1000 * batch / latency['p50_ms']:,.0f}" if latency["p50_ms"] else words.NONE,
        "thermal": THERMAL_STATUS[min(max(thermal), len(THERMAL_STATUS) - 1)] if thermal else words.NONE,
        "evidence": evidence.get("latencies_ns") or evidence.get("latency_summary", words.NONE),
    }


def _device(environment: JsonRecord) -> str:
    """Manufacturer, model, chip, system and browser of a phone; processor and cores of another machine."""
    phone = " ".join(str(environment[key]) for key in ("manufacturer", "model") if environment.get(key))
    android = f"Android {environment['android']}" if environment.get("android") else None
    cores = f"{environment['cores']} cores" if environment.get("cores") else None
    browser = environment.get("browser") and f"{environment['browser']} ({environment['engine']})"
    parts = (
        phone,
        environment.get("soc"),
        environment.get("processor"),
        cores,
        android,
        environment.get("gpu"),
        browser,
    )
    return ", ".join(str(part) for part in parts if part)


def _setting(setting: JsonRecord) -> str:
    threads, batch = setting.get("threads"), setting.get("timed_batch", 1)
    parts = [
        setting.get("accelerator") or setting.get("kernels"),
        threads and f"{threads} thread{'' if threads == 1 else 's'}",
        f"batch {batch}" if batch != 1 else None,
        f"restart {setting['restart']}" if setting.get("restart") else None,
    ]
    return ", ".join(str(part) for part in parts if part)
