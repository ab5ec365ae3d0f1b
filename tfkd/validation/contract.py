"""What a model must keep to ship, and the verdict over it: SHIP, NO or UNKNOWN."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.validation.results import Row

Status = Literal["SHIP", "NO", "UNKNOWN"]

# Every kernel that ran really gave these outputs and this arena; an emulator's time says nothing about the device.
_RAN = frozenset({"measured", "emulated"})
_TIMED = frozenset({"measured"})


@dataclasses.dataclass(frozen=True)
class Contract:
    """Limits that the shipped model must keep on every target; a limit that is None is not asked for.

    Args:
        min_accuracy: share of the test set that must be right, 0..1.
        max_accuracy_drop: percentage points that may be lost against the reference, 0..100.
        min_agreement: share of the test set with the reference's label, 0..1.
        max_bytes: of the .tflite, >= 1.
        max_arena_bytes: of the tensor arena, >= 1.
        max_ram_bytes: of all RAM on a microcontroller: arena and stack, >= 1.
        max_flash_bytes: of code and weights on a microcontroller, >= 1.
        max_p90_ms: 90th percentile of the measured latency, > 0.
        max_divergence_steps: quantization steps by which an output may differ between engines, >= 0.

    Raises:
        ValueError: a limit is outside its range.

    >>> Contract(max_bytes=50_000).limits
    {'max_bytes': 50000}
    """

    min_accuracy: float | None = None
    max_accuracy_drop: float | None = None
    min_agreement: float | None = None
    max_bytes: int | None = None
    max_arena_bytes: int | None = None
    max_ram_bytes: int | None = None
    max_flash_bytes: int | None = None
    max_p90_ms: float | None = None
    max_divergence_steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.limits.items():
            limit = _LIMITS[name]
            number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not limit.low <= value <= limit.high:
                wanted = f"in {limit.low:g}..{limit.high:g}" if math.isfinite(limit.high) else f">= {limit.low:g}"
                raise InputError(
                    f"Contract: {name} must be a number {wanted}. Received: {name}={value!r}. {limit.advice}"
                )

    @property
    def limits(self) -> dict[str, Any]:
        """The limits that were given, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Check:
    """One limit, held against what the targets gave.

    Args:
        name: the limit's name in `Contract`, or `runs`: the model gives finite outputs on every target.
        status: `holds`, `broken`, or `unknown` where no number may decide.
        limit: the limit; None for `runs`.
        value: the worst number of all targets; None where there is none.
        unit: of both: `share`, `points`, `bytes`, `ms` or `steps`; None for `runs`.
        target: the target that gave the number.
        evidence: how the number came about.
        headroom: what is left of the limit, relative to it; negative where it is broken.
        detail: one sentence where the numbers do not speak for themselves.
    """

    name: str
    status: Literal["holds", "broken", "unknown"]
    limit: float | None = None
    value: float | None = None
    unit: str | None = None
    target: str | None = None
    evidence: str | None = None
    headroom: float | None = None
    detail: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the model may ship.

    Args:
        status: SHIP when every limit was measured and holds; NO when a measured one is broken; UNKNOWN otherwise;
            None without a contract.
        checks: one per limit, `runs` first.
        binding: the check that decides: for NO the one broken the most, for SHIP the one with the least headroom (both
            relative to the limit), for UNKNOWN the first that is not known.
    """

    status: Status | None
    checks: tuple[Check, ...] = ()
    binding: str | None = None


@dataclasses.dataclass(frozen=True)
class _Limit:
    unit: str
    low: float
    high: float
    advice: str
    number: Callable[[Row, float | None], float | None]
    field: str | None  # of Measurement.evidence; None for what the file itself says
    admits: frozenset[str]
    missing: str


def _drop(row: Row, reference: float | None) -> float | None:
    if row.accuracy is None or reference is None:
        return None
    return round(100 * (reference - row.accuracy), 9)  # 90 % - 89 % is 1 point, not 1.0000000000000009


def _p90(row: Row, _: float | None) -> float | None:
    return row.measurement.latency.p90_ms if row.measurement and row.measurement.latency else None


def _arena(row: Row, _: float | None) -> float | None:
    return row.measurement.memory.arena_bytes if row.measurement else None


def _ram(row: Row, _: float | None) -> float | None:
    return row.measurement.memory.ram_bytes if row.measurement else None


def _flash(row: Row, _: float | None) -> float | None:
    return row.measurement.memory.flash_bytes if row.measurement else None


_SHARE = "Give a share: 0.95 for 95 %."
_LIMITS = {
    "min_accuracy": _Limit(
        "share", 0, 1, _SHARE, lambda row, _: row.accuracy, "outputs", _RAN, "No target gave outputs."
    ),
    "max_accuracy_drop": _Limit(
        "points", 0, 100, "Give percentage points: 1.0 for one.", _drop, "outputs", _RAN,
        "It needs a reference and a target that gave outputs.",
    ),
    "min_agreement": _Limit(
        "share", 0, 1, _SHARE, lambda row, _: row.agreement, "outputs", _RAN,
        "It needs a reference and a target that gave outputs.",
    ),
    "max_bytes": _Limit(
        "bytes", 1, math.inf, "Give bytes: 50_000 for 50 kB.", lambda row, _: row.bytes, None, _RAN, "No file."
    ),
    "max_arena_bytes": _Limit(
        "bytes", 1, math.inf, "Give bytes: 65_536 for 64 KiB.", _arena, "memory", _RAN,
        "No target gave the arena. Add the target tflm.",
    ),
    "max_ram_bytes": _Limit(
        "bytes", 1, math.inf, "Give bytes: 65_536 for 64 KiB.", _ram, "memory", _RAN,
        "No target gave the RAM. Add a microcontroller such as cortex-m4.",
    ),
    "max_flash_bytes": _Limit(
        "bytes", 1, math.inf, "Give bytes: 262_144 for 256 KiB.", _flash, "memory", _RAN,
        "No target gave the flash. Add a microcontroller such as cortex-m4.",
    ),
    "max_p90_ms": _Limit(
        "ms", 1e-9, math.inf, "Give milliseconds: 5.0.", _p90, "latencies_ns", _TIMED,
        "No target measured latency. Add a target that runs on the device itself.",
    ),
    "max_divergence_steps": _Limit(
        "steps", 0, math.inf, "Give quantization steps: 2.",
        lambda row, _: row.output_divergence.max_steps if row.output_divergence else None, "outputs", _RAN,
        "It needs a quantized model on two targets.",
    ),
}  # fmt: skip


def judge(contract: Contract | None, rows: Sequence[Row], reference_accuracy: float | None) -> Verdict:
    """Holds the rows of the shipped model against the contract.

    Args:
        contract: the limits; without one, or without a limit in it, the status is None.
        rows: the shipped model on each target.
        reference_accuracy: of the reference on the same test set, 0..1; None without a reference.
    """
    limits = contract.limits if contract else {}
    if not limits:
        return Verdict(None)
    checks = (_runs(rows), *(_check(name, limit, rows, reference_accuracy) for name, limit in limits.items()))

    def room(check: Check) -> float:
        return -math.inf if check.headroom is None else check.headroom

    broken = [check for check in checks if check.status == "broken"]
    unknown = [check for check in checks if check.status == "unknown"]
    if broken:
        return Verdict("NO", checks, min(broken, key=room).name)
    if unknown:
        return Verdict("UNKNOWN", checks, unknown[0].name)
    return Verdict("SHIP", checks, min(checks[1:], key=room).name)


def _runs(rows: Sequence[Row]) -> Check:
    failed = [row for row in rows if not row.valid]
    if not failed:
        return Check("runs", "holds")
    worst = next((row for row in failed if row.broken), failed[0])
    status: Literal["broken", "unknown"] = "broken" if worst.broken else "unknown"
    return Check("runs", status, target=worst.target, detail=worst.invalid_reason)


def _check(name: str, limit: float, rows: Sequence[Row], reference_accuracy: float | None) -> Check:
    spec = _LIMITS[name]
    # A limit of 0 has no scale of its own: one unit stands in for it.
    scale, sign = abs(limit) or 1.0, -1 if name.startswith("max") else 1
    found = []
    for row in rows:
        value = spec.number(row, reference_accuracy)
        if row.valid and value is not None:
            evidence = "measured" if spec.field is None else _evidence(row, spec.field)
            found.append((sign * (value - limit) / scale, value, row.target, evidence))
    if not found:
        return Check(name, "unknown", limit, unit=spec.unit, detail=spec.missing)
    admitted = [entry for entry in found if entry[3] in spec.admits]
    barred = [entry for entry in found if entry[3] not in spec.admits]
    room, value, target, evidence = min(admitted or barred, key=lambda entry: entry[0])
    status: Literal["holds", "broken", "unknown"] = "holds" if room >= 0 else "broken"
    detail = None
    if barred and (status == "holds" or not admitted):
        room, value, target, evidence = min(barred, key=lambda entry: entry[0])
        status, detail = "unknown", f"On {target} the number is {evidence or 'of unknown origin'}, not measured."
    target = None if spec.field is None else target
    return Check(name, status, limit, value, spec.unit, target, evidence, room, detail)


def _evidence(row: Row, field: str) -> str | None:
    return row.measurement.evidence.get(field) if row.measurement else None
