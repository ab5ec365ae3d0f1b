"""Limits of a contract and the verdict on them."""

import dataclasses
import json
import math
import typing
from importlib import resources

import pytest

from tfkd.recipes.recipe import Recipe
from tfkd.report import words
from tfkd.targets.measurement import Measurement, Memory
from tfkd.validation.contract import LIMITS, RUNS, Check, Contract, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import OutputDivergence


def row(target="host", **changes):
    latencies = changes.pop("latencies_ns", None)
    memory = Memory(**{name: changes.pop(name) for name in ("arena_bytes", "ram_bytes") if name in changes})
    evidence = changes.pop("evidence", {"outputs": "measured", "memory": "emulated", "latencies_ns": "measured"})
    measured = Measurement(target, "ab", 1000, (), evidence, latencies, memory)
    fields = {"bytes": 1000, "accuracy": 0.9, "agreement": 0.95, "parameters": None, "samples": 100}
    return Row(name="m", target=target, measurement=measured, **fields | changes)


# The table of limits.


def test_limits_are_the_fields_of_a_contract():
    assert [field.name for field in dataclasses.fields(Contract)] == list(LIMITS)
    assert typing.get_type_hints(Contract) == {name: limit.number | None for name, limit in LIMITS.items()}
    assert all(name == limit.name for name, limit in LIMITS.items())


def test_limits_are_those_of_the_json_schema():
    schema = json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text())["$defs"]
    assert set(schema["contract"]["properties"]) == set(LIMITS)
    assert schema["check"]["properties"]["name"]["enum"] == [RUNS, *LIMITS]
    assert {limit.unit for limit in LIMITS.values()} == set(schema["check"]["properties"]["unit"]["enum"]) - {None}


def test_limits_have_a_label_in_reports_and_a_key_in_recipes():
    assert set(words.LABELS) == {RUNS, *LIMITS}
    assert list(Recipe.model_fields["contract"].annotation.model_fields) == list(LIMITS)


def test_limit_texts_are_sentences_and_name_the_unit():
    for limit in LIMITS.values():
        assert limit.help.startswith("Maximum " if limit.name.startswith("max") else "Minimum ")
        assert all(text.endswith(".") for text in (limit.help, limit.example, limit.missing))
        unit = {"share": "0..1", "points": "percentage points", "ms": "milliseconds", "steps": "steps"}
        assert unit.get(limit.unit, limit.unit) in limit.help


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"min_accuracy": 95}, r"min_accuracy must be a number in 0..1. Received: min_accuracy=95"),
        ({"max_accuracy_drop": -1}, "max_accuracy_drop must be a number in 0..100"),
        ({"min_agreement": float("nan")}, "min_agreement must be a number"),
        ({"max_bytes": 0}, "max_bytes must be a number >= 1"),
        ({"max_bytes": "50 kB"}, "max_bytes must be a number"),
        ({"max_arena_bytes": True}, "max_arena_bytes must be a number"),
        ({"max_p90_ms": 0}, "max_p90_ms must be a number"),
        ({"max_divergence_steps": math.inf}, "max_divergence_steps must be a number >= 0"),
    ],
)
def test_contract_limit_out_of_range_is_refused(limit, message):
    with pytest.raises(ValueError, match=f"Contract: {message}"):
        Contract(**limit)


# The verdict.


@pytest.mark.parametrize("contract", [None, Contract()])
def test_verdict_without_limits_is_none(contract):
    verdict = judge(contract, [row()], 0.9)
    assert (verdict.status, verdict.checks, verdict.binding) == (None, (), None)


def test_verdict_ship_is_bound_by_the_least_headroom():
    contract = Contract(max_bytes=1100, max_accuracy_drop=10, max_p90_ms=5)
    verdict = judge(contract, [row(latencies_ns=(1_000_000,))], 0.92)
    assert (verdict.status, verdict.binding) == ("SHIP", "max_bytes")
    assert {check.name: check.headroom for check in verdict.checks} == {
        "runs": None,
        "max_accuracy_drop": pytest.approx(0.8),
        "max_bytes": pytest.approx(1 / 11),
        "max_p90_ms": pytest.approx(0.8),
    }


def test_verdict_no_is_bound_by_what_is_broken_the_most():
    verdict = judge(Contract(max_bytes=900, min_accuracy=0.99, max_divergence_steps=3), [row()], None)
    assert (verdict.status, verdict.binding) == ("NO", "max_bytes")
    assert [check.status for check in verdict.checks] == ["holds", "broken", "broken", "unknown"]


def test_verdict_unknown_names_what_is_missing():
    verdict = judge(Contract(max_bytes=2000, max_p90_ms=5), [row("tflm", arena_bytes=10)], None)
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "max_p90_ms")
    assert verdict.checks[-1].value is None
    assert verdict.checks[-1].headroom is None
    assert "No target measured latency" in verdict.checks[-1].detail


@pytest.mark.parametrize("limit", ["max_accuracy_drop", "min_agreement"])
def test_verdict_without_reference_is_unknown(limit):
    assert judge(Contract(**{limit: 0.5}), [row(agreement=None)], None).status == "UNKNOWN"


@pytest.mark.parametrize("evidence", ["estimated", "emulated", None])
@pytest.mark.parametrize("milliseconds", [1, 100])
def test_latency_that_was_not_measured_neither_passes_nor_fails(evidence, milliseconds):
    known = {"latencies_ns": evidence} if evidence else {}
    rows = [row(latencies_ns=(1_000_000,)), row("board", latencies_ns=(milliseconds * 10**6,), evidence=known)]
    verdict = judge(Contract(max_p90_ms=5), rows, None)
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "max_p90_ms")
    assert verdict.checks[-1].target == "board"


def test_latency_broken_on_one_target_is_no_whatever_the_others():
    rows = [row(latencies_ns=(1_000_000,)), row("phone", latencies_ns=(9_000_000,)), row("board")]
    verdict = judge(Contract(max_p90_ms=5), rows, None)
    assert verdict.status == "NO"
    assert verdict.checks[-1] == Check(
        "max_p90_ms", "broken", 5, 9.0, "ms", "phone", "measured", pytest.approx(-0.8), None
    )


def test_arena_that_was_emulated_passes():
    assert judge(Contract(max_arena_bytes=10), [row("tflm", arena_bytes=10)], None).status == "SHIP"


def test_accuracy_drop_at_the_limit_holds():
    # 100 * (0.9 - 0.89) is 1.0000000000000009.
    assert judge(Contract(max_accuracy_drop=1), [row(accuracy=0.89)], 0.9).status == "SHIP"
    assert judge(Contract(max_accuracy_drop=1), [row(accuracy=0.889)], 0.9).status == "NO"


@pytest.mark.parametrize(("steps", "status"), [(0, "SHIP"), (1, "NO")])
def test_limit_of_zero_is_a_limit(steps, status):
    rows = [row(), row("tflm", output_divergence=OutputDivergence(steps, 0.0, 0.0, "host"))]
    assert judge(Contract(max_divergence_steps=0), rows, None).status == status


@pytest.mark.parametrize(("broken", "status"), [(True, "NO"), (False, "UNKNOWN")])
def test_invalid_row_never_ships(broken, status):
    failed = row("tflm", accuracy=None, agreement=None, invalid_reason="crashed", broken=broken)
    verdict = judge(Contract(max_bytes=2000), [row(), failed], None)
    assert (verdict.status, verdict.binding) == (status, "runs")
    assert verdict.checks[0].detail == "crashed"


def test_model_that_ran_nowhere_never_ships():
    failed = row(accuracy=None, invalid_reason="no tool")
    assert judge(Contract(max_bytes=2000), [failed], None).status == "UNKNOWN"
    verdict = judge(Contract(max_bytes=2000), [], None, skipped=[failed])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "runs")


def test_skipped_target_is_named_and_leaves_its_limits_unknown():
    skipped = [row("tflm", accuracy=None, invalid_reason="not installed")]
    ships = judge(Contract(max_bytes=2000), [row()], None, skipped=skipped)
    assert ships.status == "SHIP"
    assert "Unavailable here: tflm" in ships.checks[0].detail
    assert judge(Contract(max_arena_bytes=2000), [row()], None, skipped=skipped).status == "UNKNOWN"
