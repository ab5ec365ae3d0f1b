"""The limits that a model must keep to ship, and the verdict on them: SHIP, NO or UNKNOWN."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tfkd._internal.types import JsonObject
from tfkd.errors import InputError
from tfkd.validation import doubts
from tfkd.validation.limit_fields import MetricLimits
from tfkd.validation.limits import LIMITS, Limit

if TYPE_CHECKING:
    from tfkd.validation.results import Row

__all__ = ["LABELS", "LIMITS", "Check", "Contract", "Verdict", "judge"]

Status = Literal["SHIP", "NO", "UNKNOWN"]
CheckStatus = Literal["holds", "broken", "unknown"]

# Names of the checks that need no limit: the model returns finite outputs on every target; it is better than the best
# constant answer; the contract has a limit on quality.
RUNS, CONSTANT, QUALITY = "runs", "better_than_constant", "quality"

LABELS = {
    RUNS: "Runs on every target",
    CONSTANT: "Better than a constant answer",
    QUALITY: "Limit on quality",
    **{name: limit.label for name, limit in LIMITS.items()},
}
"""Name of each check in reports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract(MetricLimits):
    """Limits that the shipped model must keep on every target. None means no limit.

    At least one limit on quality against labels or teacher is needed, without which the verdict is never SHIP: for a
    classification `min_accuracy` or `max_drop_from_teacher`, for another task one on its metrics, see `MetricLimits`.

    Args:
        min_accuracy: Minimum accuracy on the test split in percent, 0 or in (1, 100]; values in (0, 1] are refused,
            since they look like shares.
        max_accuracy_drop: Maximum drop against the reference, which is the student before conversion, in points.
        max_drop_from_teacher: Maximum accuracy drop against the teacher in points, 0..100.
        min_gain_over_alone: Minimum accuracy gain over the same student without a teacher in points, 0..100.
        min_agreement: Minimum share of test samples with the label that the reference model predicts in percent, 0 or
            more than 1..100.
        max_bytes: Maximum size of the .tflite file in bytes, >= 1.
        max_bytes_ratio_to_teacher: Maximum size of the .tflite file relative to the weights of the teacher as they are
            in memory, such as 0.25 for a quarter, > 0 and <= 1.
        max_arena_bytes: Maximum size of the tensor arena in bytes, >= 1.
        max_ram_bytes: Maximum RAM on a microcontroller (tensor arena and stack) in bytes, >= 1.
        max_flash_bytes: Maximum flash on a microcontroller (code and weights) in bytes, >= 1.
        max_instructions: Maximum number of instructions of one inference on an emulated microcontroller, >= 1.
        max_p90_ms: Maximum 90th percentile of the measured latency in milliseconds, > 0.
        max_divergence_steps: Maximum difference of one output value between two targets in quantization steps, >= 0.
        confident: Whether limits on quality must hold even for the end of the 95 % interval that counts against the
            model. By default the number that was measured decides, and the report says when the test split is too
            small to tell.

    Raises:
        InputError: A limit is outside its range.

    >>> Contract(min_accuracy=90, max_bytes=50_000).limits
    {'min_accuracy': 90, 'max_bytes': 50000}
    """

    confident: bool = False

    def __post_init__(self) -> None:
        for name, value in self.limits.items():
            if refusal := LIMITS[name].refusal(value):
                raise InputError(f"Contract: {name} {refusal}")
        if not isinstance(self.confident, bool):
            raise InputError(
                f"Contract: confident must be True or False. Received: {self.confident!r}. Leave it out, or write True."
            )

    def check_task(self, task: str) -> None:
        """Refuses limits that a task does not have.

        Args:
            task: Name of the task.

        Raises:
            InputError: A limit is on a metric of another task.
        """
        for name, value in self.limits.items():
            tasks = LIMITS[name].tasks
            if tasks is not None and task not in tasks:
                own = [limit.name for limit in LIMITS.values() if limit.quality and task in (limit.tasks or ())]
                raise InputError(
                    f"Contract: {name} is a limit of the task {' or '.join(tasks)}. Received: {name}={value:g} for a "
                    f"{task}. Use {', '.join(own[:-1])} or {own[-1]}, or declare another task."
                )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def to_json(self) -> JsonObject:
        """The limits as plain JSON values, with null for no limit."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Check:
    """One limit and the value that was compared with it.

    Args:
        name: Name of the limit in `Contract`, or of a check that needs no limit: `runs`, the model returns finite
            outputs on every target; `better_than_constant`, it is significantly better than the best constant answer;
            `quality`, the contract has no limit on quality against labels or teacher.
        status: `holds`, `broken`, or `unknown` if no value may decide.
        limit: The limit; for `better_than_constant` the smallest accuracy that is significantly better, or what the
            constant answer reaches in the metric of another task; otherwise None.
        value: Worst value over all targets; None if there is none.
        unit: Unit of limit and value: `percent`, `points`, `bytes`, `instructions`, `ms`, `steps`, `value` (that of
            the labels) or `ratio`; None without a limit.
        target: Target with the worst value.
        evidence: How the value was obtained: `measured`, `emulated` or `estimated`.
        headroom: Distance to the limit relative to the limit; negative if it is broken.
        detail: What explains a status which does not follow from the values, in sentences.
        interval: 95 % interval of the value; None if the value has none.
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
    interval: tuple[float, float] | None = None

    def to_json(self) -> JsonObject:
        """The check as plain JSON values."""
        return {**dataclasses.asdict(self), "interval": list(self.interval) if self.interval else None}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the model may ship.

    Args:
        status: SHIP if every limit was checked and holds; NO if one is broken or the model is no better than a constant
            answer; UNKNOWN otherwise; None without a contract.
        checks: The checks that need no limit, then one check per limit.
        binding: Name of the check that decides: for NO a broken check that needs no limit, or else the limit broken by
            the largest part of itself; for SHIP the one with the least headroom; for UNKNOWN the first unknown one.
    """

    status: Status | None
    checks: tuple[Check, ...] = ()
    binding: str | None = None

    def to_json(self) -> JsonObject:
        """The verdict as plain JSON values."""
        checks = [check.to_json() for check in self.checks]
        return {"status": self.status, "checks": checks, "binding": self.binding}


def judge(
    contract: Contract | None,
    rows: Sequence[Row],
    skipped: Sequence[Row] = (),
    others: Mapping[str, Row] | None = None,
    *,
    task: str = "classification",
    trusted: str = "teacher",
) -> Verdict:
    """Checks the rows of the shipped model against a contract.

    Args:
        contract: The limits. Without any, the status of the verdict is None, or NO for a model that is no better than a
            constant answer.
        rows: The shipped model on each target.
        skipped: Rows of targets that this platform lacks and nobody chose. The model need not run there, but a limit
            that only such a target could check stays unknown.
        others: The `reference`, the `teacher` and the student trained `alone`, by these names, as far as there are any.
            A limit relative to one that is no better than a constant answer, or much worse than the model, stays
            unknown instead of holding.
        task: Name of the task.
        trusted: Role of the model that is known to be good: a limit on quality against labels or this one is needed.
            The student before conversion may be bad itself, and so may the student trained alone.
    """
    limits = contract.limits if contract else {}
    required = [_explained(check, rows) for check in (_check_runs(rows, skipped), *_check_constant(rows))]
    if contract is None or not limits:
        constant = any(check.name == CONSTANT and check.status == "broken" for check in required)
        return Verdict("NO", tuple(required), CONSTANT) if constant else Verdict(None)
    if not any(_bounds_quality(LIMITS[name], trusted) for name in limits):
        required.append(_missing_quality(task, trusted))
    found = {name: _check(LIMITS[name], limit, rows, contract.confident) for name, limit in limits.items()}
    is_good = any(check.status == "holds" and _bounds_quality(LIMITS[name], "labels") for name, check in found.items())
    checks = [
        _doubted(
            check,
            (others or {}).get(LIMITS[name].against or ""),
            # A student may be much better than a weak teacher; labels show whether it is.
            may_gain=(LIMITS[name].against == "teacher" and is_good)
            or LIMITS[name].against == "alone"
            or trusted == "reference",
        )
        for name, check in found.items()
    ]
    checks = [_explained(check, rows) for check in checks]

    def headroom(check: Check) -> float:
        return -math.inf if check.headroom is None else check.headroom

    everything = (*required, *checks)
    refused = [check for check in required if check.status == "broken"]
    broken = [check for check in checks if check.status == "broken"]
    unknown = [check for check in everything if check.status == "unknown"]
    if refused:
        return Verdict("NO", everything, refused[0].name)
    if broken:
        return Verdict("NO", everything, min(broken, key=headroom).name)
    if unknown:
        return Verdict("UNKNOWN", everything, unknown[0].name)
    return Verdict("SHIP", everything, min(checks, key=headroom).name)


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


def _check_constant(rows: Sequence[Row]) -> list[Check]:
    """The check that the accuracy is significantly above that of the best constant answer; none without an accuracy."""
    if others := [row for row in rows if row.valid and row.result is not None]:
        return [_check_constant_of_metric(others)]
    known = [row for row in rows if row.accuracy is not None and row.constant_accuracy is not None]
    if not known:
        return []
    # Here, since the command line needs the limits for its options, but no NumPy for `--help`.
    from tfkd.data.constant_answer import least_right

    samples, share = known[0].samples, known[0].constant_accuracy
    least = least_right(samples, share or 0.0)
    constant = f"The most frequent label of the test split, given to every sample, reaches {share:.1%}."
    if share == 1:
        return [
            Check(CONSTANT, "unknown", detail="All test samples have one label. Add test samples of other classes.")
        ]
    if least > samples:
        few = f"{constant} {samples} test samples are too few to tell a better model from that."
        return [Check(CONSTANT, "unknown", detail=few)]
    limit = dataclasses.replace(LIMITS["min_accuracy"], name=CONSTANT, interval=lambda row: None)
    check = _check(limit, round(100 * least / samples, 9), known, confident=False)
    return [dataclasses.replace(check, detail=" ".join(filter(None, (constant, check.detail))))]


def _doubted(check: Check, other: Row | None, *, may_gain: bool) -> Check:
    """A check that holds, but unknown where the model that it compares with cannot be the one that is meant."""
    if check.status != "holds" or other is None:
        return check
    is_better = check.unit == "points" and check.interval is not None and check.interval[1] < 0 and not may_gain
    doubt = doubts.on_other(other, -check.value if is_better and check.value is not None else 0.0)
    return check if doubt is None else dataclasses.replace(_with_detail(check, doubt), status="unknown")


def _with_detail(check: Check, sentence: str) -> Check:
    return dataclasses.replace(check, detail=" ".join(filter(None, (check.detail, sentence))))


def _explained(check: Check, rows: Sequence[Row]) -> Check:
    """A broken check of the accuracy with another order of the classes in which it would hold, if there is one."""
    limit = LIMITS["min_accuracy" if check.name == CONSTANT else check.name] if check.name != RUNS else None
    if check.status != "broken" or limit is None or not limit.quality:
        return check
    hint = next(filter(None, (doubts.other_order(row) for row in rows)), None)
    return check if hint is None else _with_detail(check, hint)


def _check_constant_of_metric(rows: Sequence[Row]) -> Check:
    """The check that a model is better than a constant answer, by the metric that its task compares."""
    # The worst target: one where the model is no better, then one where the samples do not tell.
    row = min(rows, key=lambda row: (False, None, True).index(row.result.constant.better) if row.result else 0)
    assert row.result is not None
    constant = row.result.constant
    limit = next(
        limit for limit in LIMITS.values() if limit.name in (f"min_{constant.metric}", f"max_{constant.metric}")
    )
    value, detail = limit.read(row), [constant.answer]
    if constant.better is None:
        detail.append(
            f"{constant.units or f'{row.samples} test samples'} are too few to tell a better model from that."
        )
    elif not constant.better:
        detail.append("The model is not significantly better (one-sided test at 95%).")
    return Check(
        CONSTANT,
        "unknown" if constant.better is None else "holds" if constant.better else "broken",
        constant.value if math.isfinite(constant.value) else None,
        value,
        limit.unit,
        row.target,
        _evidence(row, "outputs"),
        None if value is None else limit.sign * (value - constant.value) / (abs(constant.value) or 1.0),
        " ".join(detail),
        limit.interval(row),
    )


def _bounds_quality(limit: Limit, trusted: str) -> bool:
    return limit.quality and limit.against in (None, trusted)


def _missing_quality(task: str, trusted: str) -> Check:
    limits = [limit for limit in LIMITS.values() if _bounds_quality(limit, trusted)]
    names = [limit.name for limit in limits if task in (limit.tasks or ())]
    return Check(
        QUALITY,
        "unknown",
        detail="The contract does not say how accurate the model must be, against labels or teacher. "
        f"Add {', '.join(names[:-1])} or {names[-1]}.",
    )


def _check(limit: Limit, bound: float, rows: Sequence[Row], confident: bool) -> Check:
    # A bound of 0 has no scale of its own: one unit replaces it.
    scale, found = abs(bound) or 1.0, []
    for row in rows:
        value = limit.read(row)
        if row.valid and value is not None:
            compared, interval = value, limit.interval(row)
            if confident and interval:
                compared = interval[0] if limit.sign > 0 else interval[1]
            headroom = limit.sign * (compared - bound) / scale
            found.append((headroom, value, interval, row.target, _evidence(row, limit.evidence_field)))
    if not found:
        return Check(limit.name, "unknown", bound, unit=limit.unit, detail=limit.missing)
    decisive = [entry for entry in found if entry[-1] in limit.decisive]
    others = [entry for entry in found if entry[-1] not in limit.decisive]
    worst = min(decisive or others, key=lambda entry: entry[0])
    status: CheckStatus = "holds" if worst[0] >= 0 else "broken"
    details = []
    # A measured violation decides. Otherwise a single value that may not decide leaves the limit unknown.
    if others and (status == "holds" or not decisive):
        worst = min(others, key=lambda entry: entry[0])
        status = "unknown"
        details.append(f"The value on {worst[3]} is {worst[4] or 'of unknown origin'}, not measured.")
    headroom, value, interval, target, evidence = worst
    if interval and confident:
        details.append(f"The {'lower' if limit.sign > 0 else 'upper'} end of the interval decides.")
    if interval and interval[0] < bound < interval[1]:
        details.append("The test split is too small to tell: the interval contains the limit.")
    target = None if limit.evidence_field is None else target
    detail = " ".join(details) or None
    return Check(limit.name, status, bound, value, limit.unit, target, evidence, headroom, detail, interval)


def _evidence(row: Row, field: str | None) -> str | None:
    if field is None:
        return "measured"
    return row.measurement.evidence.get(field) if row.measurement else None
