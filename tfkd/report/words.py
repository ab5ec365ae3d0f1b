"""Numbers and findings in words, the same in HTML, Markdown and JUnit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfkd.validation.contract import LIMITS, RUNS, RUNS_LABEL

NONE = "–"
COMPRESSION = (
    "Compressed (gzip -9, zstd -19) is what a download or an update costs. Zeros and shared values of a pruned or "
    "clustered model save nothing by themselves: a .tflite stores every weight, and kernels multiply by zeros too."
)

# The name of each check of a contract.
LABELS = {RUNS: RUNS_LABEL, **{name: limit.label for name, limit in LIMITS.items()}}

_FIELDS = {
    "outputs": "outputs",
    "memory": "memory",
    "latencies_ns": "latency",
    "latency_summary": "latency",
    "instructions": "instructions",
    "estimated_ms": "milliseconds",
}


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.9721)
    '97.2%'
    """
    return NONE if share is None else f"{100 * share:.{digits}f}%"


def points(value: float | None) -> str:
    """Signed percentage points, with a true minus sign."""
    return NONE if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def size(count: float | None) -> str:
    """Bytes in steps of 1,000.

    >>> size(48_112), size(512)
    ('48.1 kB', '512 B')
    """
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{_digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def ms(value: float | None) -> str:
    """Milliseconds, or microseconds where those say more.

    >>> ms(0.0312), ms(2.5)
    ('31.2 µs', '2.50 ms')
    """
    if value is None:
        return NONE
    return f"{_digits(1000 * value)} µs" if value < 0.1 else f"{_digits(value)} ms"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(counted: int | None) -> str:
    """A count in millions.

    >>> times(6_206_004), times(485_136)
    ('6.21 M', '0.49 M')
    """
    return NONE if counted is None else f"{_digits(counted / 1e6)} M"


def quantity(value: float | None, unit: str | None) -> str:
    """A number in one of the units of a check."""
    if value is None:
        return NONE
    if unit == "points":
        return f"{value:.2f} points".replace("-", "\N{MINUS SIGN}")
    if unit == "steps":
        return f"{value:g} step{'' if value == 1 else 's'}"
    if unit == "share":
        return percent(value)
    return ms(value) if unit == "ms" else size(value)


def bound(check: Mapping[str, Any]) -> str:
    """A check's limit, such as `limit 50.0 kB`."""
    if check["limit"] is None:
        return NONE
    side = "needs at least" if check["name"].startswith("min") else "limit"
    return f"{side} {quantity(check['limit'], check['unit'])}"


def finding(check: Mapping[str, Any]) -> str:
    """What one check found, in one sentence."""
    where = f" on {check['target']}" if check["target"] else ""
    if check["value"] is None:
        holds = "The model runs on every target." if check["status"] == "holds" else "Not known."
        return check["detail"] or holds
    text = f"{quantity(check['value'], check['unit'])}{where}, {bound(check)}."
    return f"{text} {check['detail']}" if check["detail"] else text


def headline(record: Mapping[str, Any]) -> str:
    """The verdict's reason, in one or two sentences."""
    verdict, name = record["verdict"], record["ship"]
    if verdict["status"] is None:
        return "No contract was given, so nothing was judged. The numbers below stand for themselves."
    check = next(check for check in verdict["checks"] if check["name"] == verdict["binding"])
    label = LABELS[check["name"]]
    if verdict["status"] == "SHIP":
        left = f"{100 * check['headroom']:.0f}% to spare"
        return f"{name} keeps every limit. The tightest is {label.lower()}: {finding(check)[:-1]}, {left}."
    if verdict["status"] == "NO" and check["name"] == "runs":
        return f"{name} does not run on {check['target']}: {check['detail']}"
    if verdict["status"] == "NO":
        return f"{name} breaks the limit on {label.lower()}: {finding(check)}"
    return f"No limit is broken, but one is not known: {label.lower()}. {finding(check)}"


def evidence(row: Mapping[str, Any]) -> str:
    """How a row's numbers came about: one word where all agree, else one per number."""
    if row["measurement"] is None:
        return "measured" if row["valid"] else NONE
    found = row["measurement"]["evidence"]
    kinds = set(found.values())
    if len(kinds) == 1:
        return str(next(iter(kinds)))
    return ", ".join(f"{_FIELDS.get(name, name)} {kind}" for name, kind in found.items())
