"""Numbers and checks as text, the same in HTML, Markdown, JUnit and on the command line."""

from __future__ import annotations

import math

from tfkd import tasks
from tfkd._internal.types import JsonRecord
from tfkd.validation.contract import CONSTANT, LABELS, LIMITS, QUALITY, RUNS

NONE = "–"
COMPRESSION = (
    "The compressed sizes (gzip -9, zstd -19) are those of a download or an update. Pruning and clustering do not "
    "reduce the file, RAM or latency by themselves: a .tflite stores every weight, and kernels multiply by zeros too."
)

# What each field of `Measurement.evidence` is about.
_EVIDENCE_OF = {
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
    """Percentage points with their sign, which is a true minus sign."""
    return NONE if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def compared_size(count: float, other: float, name: str) -> str:
    """How a size relates to that of a model.

    >>> compared_size(1_000, 27_000, "teacher"), compared_size(5_000, 4_000, "teacher")
    ('27.0 times smaller than teacher', '1.2 times larger than teacher')
    """
    smaller = count <= other
    ratio = other / count if smaller else count / other
    return (
        f"{ratio:.1f} times {'smaller' if smaller else 'larger'} than {name}"
        if ratio >= 1.05
        else f"as large as {name}"
    )


def size(count: float | None) -> str:
    """A number of bytes in B, kB, MB or GB (powers of 1,000).

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
    """Milliseconds; below 0.1 ms in microseconds.

    >>> ms(0.0312), ms(2.5)
    ('31.2 µs', '2.50 ms')
    """
    if value is None:
        return NONE
    return f"{_digits(1000 * value)} µs" if value < 0.1 else f"{_digits(value)} ms"


def millions(count: int | None) -> str:
    """A count in millions.

    >>> millions(6_206_004), millions(485_136)
    ('6.21 M', '0.49 M')
    """
    return NONE if count is None else f"{_digits(count / 1e6)} M"


def count(number: int | None) -> str:
    """A count as it is, from a million on in millions.

    >>> count(43_123), count(11_976_000)
    ('43,123', '12.0 M')
    """
    return NONE if number is None else f"{number:,}" if number < 1_000_000 else millions(number)


def _digits(value: float) -> str:
    """A positive number with about three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def quantity(value: float | None, unit: str | None) -> str:
    """The value of a check.

    Args:
        value: The value; None or NaN where it is not known.
        unit: `percent`, `points`, `bytes`, `instructions`, `ms`, `steps`, `value` or `ratio`; in reports of the time
            before 0.1.0 also `share`.
    """
    if value is None or math.isnan(value):
        return NONE
    if unit == "points":
        return f"{value:z.2f} points".replace("-", "\N{MINUS SIGN}")
    if unit == "steps":
        return f"{value:g} step{'' if value == 1 else 's'}"
    if unit == "instructions":
        return f"{int(value):,}"
    if unit in ("value", "ratio"):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if unit == "share":
        return percent(value)
    if unit == "percent":
        return percent(value / 100)
    return ms(value) if unit == "ms" else size(value)


def bound(check: JsonRecord) -> str:
    """The limit of a check, such as `at most 50.0 kB`."""
    if check["limit"] is None:
        return NONE
    side = "at most" if _is_maximum(check) else "at least"
    return f"{side} {quantity(check['limit'], check['unit'])}"


def limit(name: str, value: float) -> str:
    """A limit of a contract, such as `File size at most 50.0 kB`."""
    return f"{LABELS[name]} {bound({'name': name, 'limit': value, 'unit': LIMITS[name].unit})}"


def _is_maximum(check: JsonRecord) -> bool:
    """Whether smaller values are better: those of a maximum, and the error that a constant answer has."""
    return str(check["name"]).startswith("max") or (check["name"] == CONSTANT and check["unit"] == "value")


def interval(check: JsonRecord) -> str:
    """The confidence interval of a check, such as `95% interval 94.1% to 96.8%`; empty without one."""
    if not check.get("interval"):
        return ""
    low, high = (quantity(end, check["unit"]) for end in check["interval"])
    return f"95% interval {low} to {high}"


def finding(check: JsonRecord) -> str:
    """The value and the limit of a check, or its reason, in one or two sentences."""
    target = f" on {check['target']}" if check["target"] else ""
    if check["value"] is None:
        default = "The model runs on every target." if check["status"] == "holds" else "There is no value."
        return check["detail"] or default
    permitted = "permitted" if _is_maximum(check) else "required"
    spread = f" ({interval(check)})" if interval(check) else ""
    text = f"{quantity(check['value'], check['unit'])}{target}{spread}, {bound(check)} {permitted}."
    return f"{text} {check['detail']}" if check["detail"] else text


def headline(record: JsonRecord) -> str:
    """The reason for the verdict, in one or two sentences; of models with several outputs, which one was judged."""
    output = record.get("output")
    return _headline(record) + (f" Only the output {output} was judged." if output else "")


def _headline(record: JsonRecord) -> str:
    verdict, name = record["verdict"], record["ship"]
    if verdict["status"] is None:
        return "There is no contract, so there is no verdict."
    check = next(check for check in verdict["checks"] if check["name"] == verdict["binding"])
    label = _in_sentence(check["name"])
    if verdict["status"] == "SHIP":
        return (
            f"{name} keeps every limit. The tightest is {label}, with {100 * check['headroom']:.0f}% headroom: "
            f"{finding(check)}"
        )
    if verdict["status"] == "NO" and check["name"] == RUNS:
        return f"{name} does not run on {check['target']}: {check['detail']}"
    if verdict["status"] == "NO" and check["name"] == CONSTANT:
        return f"{name} is not better than a constant answer: {finding(check)}"
    if verdict["status"] == "UNKNOWN" and check["name"] == QUALITY:
        return str(check["detail"])
    if verdict["status"] == "NO":
        verb = "is below" if check["name"].startswith("min") else "exceeds"
        return f"{name} {verb} the limit on {label}: {finding(check)}"
    return f"No limit is broken, but one could not be checked: {label}. {finding(check)}"


def _in_sentence(name: str) -> str:
    """The label of a check inside a sentence; abbreviations of metrics keep their capitals."""
    is_metric = name in LIMITS and LIMITS[name].tasks not in (None, (tasks.CLASSIFICATION.name,))
    return LABELS[name] if is_metric else LABELS[name].lower()


def shipped_accuracies(record: JsonRecord) -> list[tuple[str, JsonRecord]]:
    """The accuracy of the model that is to ship: targets with the same accuracy, and the row of the first of them."""
    rows = [row for row in record["rows"] if row["target"] and row["name"] == record["ship"] and row["valid"]]
    groups: dict[float, list[JsonRecord]] = {}
    for row in rows:
        if row["accuracy"] is not None:
            groups.setdefault(row["accuracy"], []).append(row)
    return [(", ".join(row["target"] for row in groups[value]), groups[value][0]) for value in sorted(groups)]


def teacher_row(record: JsonRecord) -> JsonRecord | None:
    """The row of the teacher, or else of the first Keras model; None if there is none."""
    rows = [row for row in record["rows"] if row["target"] is None]
    return next((row for row in rows if row["name"] == record.get("teacher")), next(iter(rows), None))


def accuracy_line(record: JsonRecord) -> str:
    """The accuracy of the model that is to ship on each target, beside that of the teacher; empty without one."""
    task = tasks.get(record.get("task", tasks.CLASSIFICATION.name))
    if not task.is_classification:
        return _metrics_line(record, task)
    found = [f"{percent(row['accuracy'])} on {targets}" for targets, row in shipped_accuracies(record)]
    teacher = teacher_row(record)
    if teacher and teacher["accuracy"] is not None:
        found.append(f"{teacher['name']} {percent(teacher['accuracy'])}")
    return f"Accuracy: {'; '.join(found)}." if shipped_accuracies(record) else ""


def _metrics_line(record: JsonRecord, task: tasks.Task) -> str:
    rows = [row for row in record["rows"] if row["target"] and row["name"] == record["ship"] and row.get("result")]
    if not rows:
        return ""
    teacher = teacher_row(record)
    shown = [(row["target"], row) for row in rows]
    shown += [(teacher["name"], teacher)] if teacher and teacher.get("result") else []
    found = []
    for name, row in shown:
        metrics = row["result"]["metrics"]
        values = ", ".join(f"{one.label} {quantity(metrics[one.name]['value'], one.unit)}" for one in task.metrics)
        found.append(f"{name}: {values}")
    return f"{'; '.join(found)}."


def status(row: JsonRecord) -> str:
    """Whether a row is valid, and if not, why.

    A broken model does not run; an unavailable target is not installed; everything else, such as a timeout or a
    throttled phone, leaves the question open.
    """
    if row["valid"]:
        return "valid"
    if row["broken"]:
        state = "does not run"
    elif row.get("unavailable"):
        state = "unavailable"
    else:
        state = "not valid" if row["measurement"] else "no result"
    return f"{state}: {row['invalid_reason']}"


def evidence(row: JsonRecord) -> str:
    """How the numbers of a row were obtained: one word, or one per number if they differ."""
    if row["measurement"] is None:
        return "measured" if row["valid"] else NONE
    found = row["measurement"]["evidence"]
    if len(set(found.values())) == 1:
        return str(next(iter(found.values())))
    return ", ".join(f"{_EVIDENCE_OF.get(name, name)} {origin}" for name, origin in found.items())
