"""The limits that a model must keep to ship, and the verdict on them: SHIP, NO or UNKNOWN."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.validation.results import Row

Status = Literal["SHIP", "NO", "UNKNOWN"]
CheckStatus = Literal["holds", "broken", "unknown"]

# Name of the check that needs no limit: the model returns finite outputs on every target.
RUNS = "runs"
RUNS_LABEL = "Runs on every target"

# An emulator executes the same kernels, so its outputs and its memory may decide. Its time is not the device's.
_EXECUTED = frozenset({"measured", "emulated"})
_MEASURED = frozenset({"measured"})


@dataclasses.dataclass(frozen=True)
class Limit:
    """Everything about one limit of a contract: its texts, its range and the value that it applies to.

    Args:
        name: Field of `Contract`. It starts with `min` or `max`.
        label: Name of the value in reports.
        unit: Unit of limit and value: `share`, `points`, `bytes`, `ms` or `steps`.
        number: Type of the command-line option.
        low: Smallest permitted limit.
        high: Largest permitted limit.
        help: Help text of the command-line option.
        example: How to write a limit, for the error message.
        missing: What to say if no target returned the value.
        read: Takes a row and the accuracy of the reference (0..1, or None); returns the value, or None if unknown.
        evidence_field: Key of `Measurement.evidence` that says how the value was obtained; None for a property of the
            file itself, which counts as measured.
        decisive: Evidence that may decide about this limit.
    """

    name: str
    label: str
    unit: str
    number: type[int] | type[float]
    low: float
    high: float
    help: str
    example: str
    missing: str
    read: Callable[[Row, float | None], float | None]
    evidence_field: str | None = "outputs"
    decisive: frozenset[str] = _EXECUTED

    @property
    def range(self) -> str:
        """The permitted values, such as `in 0..1` or `>= 1`."""
        return f"in {self.low:g}..{self.high:g}" if math.isfinite(self.high) else f">= {self.low:g}"

    def permits(self, value: float) -> bool:
        """Whether a value is a finite number in the range."""
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and self.low <= value <= self.high


def _accuracy_drop(row: Row, reference_accuracy: float | None) -> float | None:
    if row.accuracy is None or reference_accuracy is None:
        return None
    return round(100 * (reference_accuracy - row.accuracy), 9)  # 90 % - 89 % is 1 point, not 1.0000000000000009


def _p90_ms(row: Row) -> float | None:
    return row.measurement.latency.p90_ms if row.measurement and row.measurement.latency else None


def _memory(field: str) -> Callable[[Row, float | None], float | None]:
    return lambda row, _: getattr(row.measurement.memory, field) if row.measurement else None


_SHARE = "Write a share: 0.95 for 95 %."
_NO_REFERENCE = "A reference model (--reference) is needed, and a target that returns outputs."

LIMITS: dict[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit(
            name="min_accuracy",
            label="Accuracy",
            unit="share",
            number=float,
            low=0,
            high=1,
            help="Minimum accuracy on the test split, 0..1.",
            example=_SHARE,
            missing="No target returned outputs.",
            read=lambda row, _: row.accuracy,
        ),
        Limit(
            name="max_accuracy_drop",
            label="Accuracy drop",
            unit="points",
            number=float,
            low=0,
            high=100,
            help="Maximum accuracy drop against the reference model, in percentage points.",
            example="Write percentage points: 1.0 for one point.",
            missing=_NO_REFERENCE,
            read=_accuracy_drop,
        ),
        Limit(
            name="min_agreement",
            label="Agreement",
            unit="share",
            number=float,
            low=0,
            high=1,
            help="Minimum share of test samples with the same label as the reference model predicts, 0..1.",
            example=_SHARE,
            missing=_NO_REFERENCE,
            read=lambda row, _: row.agreement,
        ),
        Limit(
            name="max_bytes",
            label="File size",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum size of the .tflite file, in bytes.",
            example="Write bytes: 50_000 for 50 kB.",
            missing="There is no file.",
            read=lambda row, _: row.bytes,
            evidence_field=None,
        ),
        Limit(
            name="max_arena_bytes",
            label="Tensor arena",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum size of the tensor arena, in bytes.",
            example="Write bytes: 65_536 for 64 KiB.",
            missing="No target reported the tensor arena. Add the target tflm.",
            read=_memory("arena_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_ram_bytes",
            label="RAM",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum RAM on a microcontroller (tensor arena and stack), in bytes.",
            example="Write bytes: 65_536 for 64 KiB.",
            missing="No target reported RAM. Add a microcontroller such as cortex-m4.",
            read=_memory("ram_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_flash_bytes",
            label="Flash",
            unit="bytes",
            number=int,
            low=1,
            high=math.inf,
            help="Maximum flash on a microcontroller (code and weights), in bytes.",
            example="Write bytes: 262_144 for 256 KiB.",
            missing="No target reported flash. Add a microcontroller such as cortex-m4.",
            read=_memory("flash_bytes"),
            evidence_field="memory",
        ),
        Limit(
            name="max_p90_ms",
            label="Latency p90",
            unit="ms",
            number=float,
            low=1e-9,
            high=math.inf,
            help="Maximum 90th percentile of the measured latency, in milliseconds.",
            example="Write milliseconds: 5.0.",
            missing="No target measured latency. Add a target that runs on the device itself.",
            read=lambda row, _: _p90_ms(row),
            evidence_field="latencies_ns",
            decisive=_MEASURED,
        ),
        Limit(
            name="max_divergence_steps",
            label="Output divergence",
            unit="steps",
            number=int,
            low=0,
            high=math.inf,
            help="Maximum difference of one output value between two targets, in quantization steps.",
            example="Write quantization steps: 2.",
            missing="There are no two integer outputs to compare. Validate a quantized model on two targets.",
            read=lambda row, _: row.output_divergence.max_steps if row.output_divergence else None,
        ),
    )
}
"""The limits of a contract by name. Options of the command line and labels of the reports come from here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
    """Limits that the shipped model must keep on every target. None means no limit.

    Args:
        min_accuracy: Minimum accuracy on the test split, 0..1.
        max_accuracy_drop: Maximum accuracy drop against the reference model, in percentage points, 0..100.
        min_agreement: Minimum share of test samples with the same label as the reference model predicts, 0..1.
        max_bytes: Maximum size of the .tflite file in bytes, >= 1.
        max_arena_bytes: Maximum size of the tensor arena in bytes, >= 1.
        max_ram_bytes: Maximum RAM on a microcontroller (tensor arena and stack) in bytes, >= 1.
        max_flash_bytes: Maximum flash on a microcontroller (code and weights) in bytes, >= 1.
        max_p90_ms: Maximum 90th percentile of the measured latency in milliseconds, > 0.
        max_divergence_steps: Maximum difference of one output value between two targets in quantization steps, >= 0.

    Raises:
        InputError: A limit is outside its range.

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
            limit = LIMITS[name]
            if not limit.permits(value):
                raise InputError(
                    f"Contract: {name} must be a number {limit.range}. Received: {name}={value!r}. {limit.example}"
                )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Check:
    """One limit and the value that was compared with it.

    Args:
        name: Name of the limit in `Contract`, or `runs`: the model returns finite outputs on every target.
        status: `holds`, `broken`, or `unknown` if no value may decide.
        limit: The limit; None for `runs`.
        value: Worst value over all targets; None if there is none.
        unit: Unit of limit and value: `share`, `points`, `bytes`, `ms` or `steps`; None for `runs`.
        target: Target with the worst value.
        evidence: How the value was obtained: `measured`, `emulated` or `estimated`.
        headroom: Distance to the limit relative to the limit; negative if it is broken.
        detail: One sentence that explains a status which does not follow from the values.
    """

    name: str
    status: CheckStatus
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
        status: SHIP if every limit was checked and holds; NO if one is broken; UNKNOWN otherwise; None without a
            contract.
        checks: One check per limit, after `runs`.
        binding: Name of the check that decides: for NO the limit broken by the largest part of itself, for SHIP the
            one with the least headroom, for UNKNOWN the first unknown one.
    """

    status: Status | None
    checks: tuple[Check, ...] = ()
    binding: str | None = None


def judge(
    contract: Contract | None,
    rows: Sequence[Row],
    reference_accuracy: float | None,
    skipped: Sequence[Row] = (),
) -> Verdict:
    """Checks the rows of the shipped model against a contract.

    Args:
        contract: The limits. Without any, the status of the verdict is None.
        rows: The shipped model on each target.
        reference_accuracy: Accuracy of the reference on the same test split, 0..1; None without a reference.
        skipped: Rows of targets that this platform lacks and nobody chose. The model need not run there, but a limit
            that only such a target could check stays unknown.
    """
    limits = contract.limits if contract else {}
    if not limits:
        return Verdict(None)
    checks = (
        _check_runs(rows, skipped),
        *(_check(LIMITS[name], limit, rows, reference_accuracy) for name, limit in limits.items()),
    )

    def headroom(check: Check) -> float:
        return -math.inf if check.headroom is None else check.headroom

    broken = [check for check in checks if check.status == "broken"]
    unknown = [check for check in checks if check.status == "unknown"]
    if broken:
        return Verdict("NO", checks, min(broken, key=headroom).name)
    if unknown:
        return Verdict("UNKNOWN", checks, unknown[0].name)
    return Verdict("SHIP", checks, min(checks[1:], key=headroom).name)


def _check_runs(rows: Sequence[Row], skipped: Sequence[Row]) -> Check:
    failed = [row for row in rows if not row.valid]
    if failed:
        worst = next((row for row in failed if row.broken), failed[0])
        return Check(RUNS, "broken" if worst.broken else "unknown", target=worst.target, detail=worst.invalid_reason)
    if not rows:
        return Check(RUNS, "unknown", detail="No target is available on this platform.")
    if skipped:
        names = ", ".join(str(row.target) for row in skipped)
        return Check(RUNS, "holds", detail=f"The model runs on every available target. Unavailable here: {names}.")
    return Check(RUNS, "holds")


def _check(limit: Limit, bound: float, rows: Sequence[Row], reference_accuracy: float | None) -> Check:
    # A bound of 0 has no scale of its own: one unit replaces it.
    scale, sign = abs(bound) or 1.0, -1 if limit.name.startswith("max") else 1
    found = []
    for row in rows:
        value = limit.read(row, reference_accuracy)
        if row.valid and value is not None:
            found.append((sign * (value - bound) / scale, value, row.target, _evidence(row, limit.evidence_field)))
    if not found:
        return Check(limit.name, "unknown", bound, unit=limit.unit, detail=limit.missing)
    decisive = [entry for entry in found if entry[3] in limit.decisive]
    others = [entry for entry in found if entry[3] not in limit.decisive]
    headroom, value, target, evidence = min(decisive or others, key=lambda entry: entry[0])
    status: CheckStatus = "holds" if headroom >= 0 else "broken"
    detail = None
    # A measured violation decides. Otherwise a single value that may not decide leaves the limit unknown.
    if others and (status == "holds" or not decisive):
        headroom, value, target, evidence = min(others, key=lambda entry: entry[0])
        status, detail = "unknown", f"The value on {target} is {evidence or 'of unknown origin'}, not measured."
    target = None if limit.evidence_field is None else target
    return Check(limit.name, status, bound, value, limit.unit, target, evidence, headroom, detail)


def _evidence(row: Row, field: str | None) -> str | None:
    if field is None:
        return "measured"
    return row.measurement.evidence.get(field) if row.measurement else None
