"""Limits of a contract and the verdict on them."""

import dataclasses
import json
import math
import typing
from importlib import resources

import numpy as np
import pytest
from scipy.stats import binomtest

from tfkd.recipes.recipe import Recipe
from tfkd.targets.measurement import Measurement, Memory
from tfkd.validation.contract import CONSTANT, LABELS, QUALITY, RUNS, Check, Contract, judge
from tfkd.validation.limits import LIMITS
from tfkd.validation.results import Row
from tfkd.validation.scores import AccuracyDifference, OutputDivergence


def row(target="host", **changes):
    latencies = changes.pop("latencies_ns", None)
    memory = Memory(**{name: changes.pop(name) for name in ("arena_bytes", "ram_bytes") if name in changes})
    evidence = changes.pop("evidence", {"outputs": "measured", "memory": "emulated", "latencies_ns": "measured"})
    measured = Measurement(target, "ab", 1000, (), evidence, latencies, memory)
    fields = {"bytes": 1000, "accuracy": 0.9, "agreement": 0.95, "parameters": None, "samples": 100}
    fields |= {"accuracy_interval": (0.82, 0.95), "constant_accuracy": 0.1}
    return Row(name="m", target=target, measurement=measured, **fields | changes)


def against(points, interval=(0, 0), role="reference"):
    """The differences of a row whose accuracy is `points` above that of another model."""
    return {role: AccuracyDifference("other", points, interval)}


def contract_of(**limits):
    """A contract whose limit on quality always holds, and other limits."""
    return Contract(min_accuracy=0, **limits)


def check_of(verdict, name):
    return next(check for check in verdict.checks if check.name == name)


# The table of limits.


def test_limits_are_the_fields_of_a_contract():
    assert [field.name for field in dataclasses.fields(Contract)] == [*LIMITS, "confident"]
    types = {name: limit.number | None for name, limit in LIMITS.items()}
    assert typing.get_type_hints(Contract) == {**types, "confident": bool}
    assert all(name == limit.name for name, limit in LIMITS.items())


def test_limits_are_those_of_the_json_schema():
    schema = json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text())["$defs"]
    assert set(schema["contract"]["properties"]) == {*LIMITS, "confident"}
    assert schema["check"]["properties"]["name"]["enum"] == list(LABELS)
    assert {limit.unit for limit in LIMITS.values()} == set(schema["check"]["properties"]["unit"]["enum"]) - {None}


def test_limits_have_a_label_in_reports_and_a_key_in_recipes():
    assert list(LABELS) == [RUNS, CONSTANT, QUALITY, *LIMITS]
    assert list(Recipe.model_fields["contract"].annotation.model_fields) == [*LIMITS, "confident"]


def test_limit_texts_are_sentences_and_name_the_unit():
    for limit in LIMITS.values():
        assert limit.help.startswith("Maximum " if limit.name.startswith("max") else "Minimum ")
        assert all(text.endswith(".") for text in (limit.help, limit.example, limit.missing))
        unit = {"percent": "in percent", "points": "percentage points", "ms": "milliseconds", "steps": "steps"}
        unit |= {"value": "in the unit of the labels", "ratio": "number"}
        assert unit.get(limit.unit, limit.unit) in limit.help


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"min_accuracy": 101}, r"min_accuracy must be a number in 0..100. Received: min_accuracy=101"),
        (
            {"min_accuracy": 0.9},
            r"min_accuracy is in percent now.* Received: min_accuracy=0.9. Write min_accuracy=90.",
        ),
        ({"min_agreement": 1}, r"min_agreement is in percent now.* Write min_agreement=100."),
        ({"max_drop_from_teacher": -1}, "max_drop_from_teacher must be a number in 0..100"),
        ({"min_gain_over_alone": 101}, "min_gain_over_alone must be a number in 0..100"),
        ({"confident": 1}, "confident must be True or False. Received: 1"),
        ({"max_accuracy_drop": -1}, "max_accuracy_drop must be a number in 0..100"),
        ({"min_agreement": float("nan")}, "min_agreement must be a number"),
        ({"max_bytes": 0}, "max_bytes must be a number >= 1"),
        ({"max_bytes": "50 kB"}, "max_bytes must be a number"),
        ({"max_bytes_ratio_to_teacher": 25}, "max_bytes_ratio_to_teacher must be a number in .*0.25 for a quarter"),
        ({"max_bytes_ratio_to_teacher": 0}, "max_bytes_ratio_to_teacher must be a number"),
        ({"max_arena_bytes": True}, "max_arena_bytes must be a number"),
        ({"max_p90_ms": 0}, "max_p90_ms must be a number"),
        ({"max_divergence_steps": math.inf}, "max_divergence_steps must be a number >= 0"),
    ],
)
def test_contract_limit_out_of_range_is_refused(limit, message):
    with pytest.raises(ValueError, match=f"Contract: {message}"):
        Contract(**limit)


# The verdict.


@pytest.mark.parametrize("contract", [None, Contract(), Contract(confident=True)])
def test_verdict_without_limits_is_none(contract):
    verdict = judge(contract, [row()])
    assert (verdict.status, verdict.checks, verdict.binding) == (None, (), None)


def test_verdict_ship_is_bound_by_the_least_headroom():
    contract = contract_of(max_bytes=1100, max_accuracy_drop=10, max_p90_ms=5)
    verdict = judge(contract, [row(latencies_ns=(1_000_000,), differences=against(-2, (-4, 0)))])
    assert (verdict.status, verdict.binding) == ("SHIP", "max_bytes")
    assert {check.name: check.headroom for check in verdict.checks} == {
        "runs": None,
        "better_than_constant": pytest.approx(90 / 16 - 1),
        "min_accuracy": 90,
        "max_accuracy_drop": pytest.approx(0.8),
        "max_bytes": pytest.approx(1 / 11),
        "max_p90_ms": pytest.approx(0.8),
    }


def test_verdict_no_is_bound_by_what_is_broken_the_most():
    verdict = judge(Contract(max_bytes=900, min_accuracy=99, max_divergence_steps=3), [row()])
    assert (verdict.status, verdict.binding) == ("NO", "max_bytes")
    assert [check.status for check in verdict.checks] == ["holds", "holds", "broken", "broken", "unknown"]


def test_verdict_unknown_names_what_is_missing():
    verdict = judge(contract_of(max_bytes=2000, max_p90_ms=5), [row("tflm", arena_bytes=10)])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "max_p90_ms")
    assert verdict.checks[-1].value is None
    assert verdict.checks[-1].headroom is None
    assert "No target measured latency" in verdict.checks[-1].detail


# Limits on quality.


def test_contract_without_a_limit_on_quality_is_unknown_and_names_the_keys():
    verdict = judge(Contract(max_bytes=2000, min_agreement=50), [row()])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "quality")
    names = "min_accuracy, max_drop_from_teacher, min_macro_f1 or max_macro_f1_drop_from_teacher"
    assert check_of(verdict, "quality").detail.endswith(f"Add {names}.")
    assert judge(Contract(max_bytes=900), [row()]).status == "NO"


QUALITY_LIMITS = [
    ({"min_accuracy": 90}, row(accuracy=0.9), row(accuracy=0.899)),
    ({"max_accuracy_drop": 1}, row(differences=against(-1)), row(differences=against(-1.1))),
    (
        {"max_drop_from_teacher": 0},
        row(differences=against(0, role="teacher")),
        row(differences=against(-0.1, role="teacher")),
    ),
    (
        {"min_gain_over_alone": 2},
        row(differences=against(2, role="alone")),
        row(differences=against(1.9, role="alone")),
    ),
]


@pytest.mark.parametrize(("limit", "good", "bad"), QUALITY_LIMITS)
def test_limit_against_labels_or_teacher_is_needed(limit, good, bad):
    (name,) = limit
    ships, refused = judge(Contract(**limit), [good]), judge(Contract(**limit), [good, bad])
    if name in ("min_accuracy", "max_drop_from_teacher"):
        assert (ships.status, ships.binding) == ("SHIP", name)
    else:  # the student before conversion and the one trained alone may be bad themselves
        assert (ships.status, ships.binding) == ("UNKNOWN", "quality")
        assert judge(contract_of(**limit), [good]).status == "SHIP"
    assert (refused.status, refused.binding) == ("NO", name)


@pytest.mark.parametrize(
    "limit", ["max_accuracy_drop", "max_drop_from_teacher", "min_gain_over_alone", "min_agreement"]
)
def test_limit_against_a_model_that_is_not_given_is_unknown(limit):
    verdict = judge(contract_of(**{limit: 50}), [row(agreement=None)])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", limit)
    assert "is needed" in verdict.checks[-1].detail


def test_test_split_that_is_too_small_to_tell_is_said():
    verdict = judge(Contract(min_accuracy=85), [row()])
    assert verdict.status == "SHIP"
    check = check_of(verdict, "min_accuracy")
    assert (check.value, check.interval) == (90, (82, 95))
    assert "too small to tell" in check.detail
    assert check_of(judge(Contract(min_accuracy=80), [row()]), "min_accuracy").detail is None


@pytest.mark.parametrize(
    ("limit", "differences", "status"),
    [
        ({"min_accuracy": 82}, {}, "SHIP"),
        ({"min_accuracy": 83}, {}, "NO"),
        ({"max_accuracy_drop": 3}, against(-1, (-3, 1)), "SHIP"),
        ({"max_accuracy_drop": 2}, against(-1, (-3, 1)), "NO"),
        ({"min_gain_over_alone": 1}, against(2, (1, 3), "alone"), "SHIP"),
        ({"min_gain_over_alone": 2}, against(2, (1, 3), "alone"), "NO"),
    ],
)
def test_confident_contract_counts_the_end_of_the_interval_against_the_model(limit, differences, status):
    limits = {"min_accuracy": 0} | limit
    verdict = judge(Contract(**limits, confident=True), [row(differences=differences)])
    assert verdict.status == status
    assert "end of the interval decides" in verdict.checks[-1].detail
    assert judge(Contract(**limits), [row(differences=differences)]).status == "SHIP"


@pytest.mark.parametrize(("teacher_bytes", "status"), [(4000, "SHIP"), (3999, "NO"), (None, "UNKNOWN")])
def test_size_is_limited_relative_to_the_teacher(teacher_bytes, status):
    verdict = judge(contract_of(max_bytes_ratio_to_teacher=0.25), [row(teacher_bytes=teacher_bytes)])
    check = check_of(verdict, "max_bytes_ratio_to_teacher")
    assert verdict.status == status
    assert check.value == (None if teacher_bytes is None else 1000 / teacher_bytes)
    assert (check.target, "is needed" in (check.detail or "")) == (None, teacher_bytes is None)


# Models that are no better than a constant answer.


@pytest.mark.parametrize("contract", [None, contract_of(), Contract(max_bytes=2000), Contract(max_bytes=1)])
def test_model_that_is_no_better_than_a_constant_answer_is_no_whatever_the_contract_says(contract):
    poor = row("tflm", accuracy=0.15, accuracy_interval=(0.09, 0.23))
    verdict = judge(contract, [row(), poor])
    assert (verdict.status, verdict.binding) == ("NO", "better_than_constant")
    check = check_of(verdict, "better_than_constant")
    assert (check.target, check.value, check.limit, check.unit) == ("tflm", 15, 16, "percent")
    assert "reaches 10.0%" in check.detail


@pytest.mark.parametrize("samples", [40, 100, 1000])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_least_accuracy_is_that_of_an_exact_binomial_test(samples, share):
    least = next(k for k in range(samples + 1) if binomtest(k, samples, share, "greater").pvalue <= 0.05)
    for right, status in ((least, "holds"), (least - 1, "broken")):
        one = row(samples=samples, accuracy=right / samples, constant_accuracy=share)
        assert check_of(judge(contract_of(), [one]), "better_than_constant").status == status


def test_test_split_that_no_model_can_pass_is_unknown():
    verdict = judge(contract_of(), [row(samples=4, accuracy=1.0, constant_accuracy=0.5)])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "better_than_constant")
    assert "4 test samples are too few" in check_of(verdict, "better_than_constant").detail


# Evidence, and targets without numbers.


@pytest.mark.parametrize("evidence", ["estimated", "emulated", None])
@pytest.mark.parametrize("milliseconds", [1, 100])
def test_latency_that_was_not_measured_neither_passes_nor_fails(evidence, milliseconds):
    known = {"outputs": "measured"} | ({"latencies_ns": evidence} if evidence else {})
    rows = [row(latencies_ns=(1_000_000,)), row("board", latencies_ns=(milliseconds * 10**6,), evidence=known)]
    verdict = judge(contract_of(max_p90_ms=5), rows)
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "max_p90_ms")
    assert verdict.checks[-1].target == "board"


def test_latency_broken_on_one_target_is_no_whatever_the_others():
    rows = [row(latencies_ns=(1_000_000,)), row("phone", latencies_ns=(9_000_000,)), row("board")]
    verdict = judge(contract_of(max_p90_ms=5), rows)
    assert verdict.status == "NO"
    assert verdict.checks[-1] == Check(
        "max_p90_ms", "broken", 5, 9.0, "ms", "phone", "measured", pytest.approx(-0.8), None
    )


def test_arena_that_was_emulated_passes():
    assert judge(contract_of(max_arena_bytes=10), [row("tflm", arena_bytes=10)]).status == "SHIP"


@pytest.mark.parametrize(("steps", "status"), [(0, "SHIP"), (1, "NO")])
def test_limit_of_zero_is_a_limit(steps, status):
    rows = [row(), row("tflm", output_divergence=OutputDivergence(steps, 0.0, 0.0, "host"))]
    assert judge(contract_of(max_divergence_steps=0), rows).status == status


@pytest.mark.parametrize(("broken", "status"), [(True, "NO"), (False, "UNKNOWN")])
def test_invalid_row_never_ships(broken, status):
    failed = row("tflm", accuracy=None, agreement=None, invalid_reason="crashed", broken=broken)
    verdict = judge(contract_of(max_bytes=2000), [row(), failed])
    assert (verdict.status, verdict.binding) == (status, "runs")
    assert verdict.checks[0].detail == "crashed"


def test_model_that_ran_nowhere_never_ships():
    failed = row(accuracy=None, invalid_reason="no tool")
    assert judge(contract_of(max_bytes=2000), [failed]).status == "UNKNOWN"
    verdict = judge(contract_of(max_bytes=2000), [], skipped=[failed])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "runs")


def test_skipped_target_is_named_and_leaves_its_limits_unknown():
    skipped = [row("tflm", accuracy=None, invalid_reason="not installed")]
    ships = judge(contract_of(max_bytes=2000), [row()], skipped=skipped)
    assert ships.status == "SHIP"
    assert "Unavailable here: tflm" in ships.checks[0].detail
    assert judge(contract_of(max_arena_bytes=2000), [row()], skipped=skipped).status == "UNKNOWN"


@pytest.mark.parametrize(
    ("role", "limit"),
    [("teacher", "max_drop_from_teacher"), ("reference", "max_accuracy_drop"), ("alone", "min_gain_over_alone")],
)
def test_limit_relative_to_a_model_at_chance_is_unknown(role, limit):
    good, chance = row(differences=against(5, (2, 8), role)), row(None, accuracy=0.11)
    contract = contract_of(**{limit: 5})
    assert judge(contract, [good], others={role: row(None, accuracy=0.5)}).status == "SHIP"
    verdict = judge(contract, [good], others={role: chance})
    assert (verdict.status, verdict.binding) == ("UNKNOWN", limit)
    assert "classifies 11.0% right, no better than the most frequent label" in check_of(verdict, limit).detail


def test_test_split_of_one_class_is_unknown():
    verdict = judge(contract_of(), [row(accuracy=1.0, constant_accuracy=1.0)])
    assert (verdict.status, verdict.binding) == ("UNKNOWN", CONSTANT)
    assert "All test samples have one label" in check_of(verdict, CONSTANT).detail


@pytest.mark.parametrize("role", ["teacher", "reference"])
@pytest.mark.parametrize(
    ("gain", "interval", "status"),
    [(22, (19, 25), "UNKNOWN"), (22, (-1, 40), "SHIP"), (4, (2, 6), "SHIP")],
    ids=["much-better", "too-few-samples", "a-little-better"],
)
def test_limit_relative_to_a_model_that_is_much_worse_is_unknown(role, gain, interval, status):
    """Such as the student before conversion in another range of pixels than that of its training."""
    good, other = row(differences=against(gain, interval, role)), row(None, accuracy=0.5)
    limit = {"teacher": "max_drop_from_teacher", "reference": "max_accuracy_drop"}[role]
    verdict = judge(Contract(**{"max_drop_from_teacher": 5, limit: 5}), [good], others={role: other})
    if role == "teacher":
        assert verdict.status == status
    assert check_of(verdict, limit).status == ("unknown" if status == "UNKNOWN" else "holds")
    assert ("worse than this one by 22.0 points" in (check_of(verdict, limit).detail or "")) == (status == "UNKNOWN")


def test_student_may_be_much_better_than_a_weak_teacher_where_labels_show_it():
    good, weak = row(accuracy=0.9, differences=against(22, (19, 25), "teacher")), row(None, accuracy=0.5)
    for least, status in ((80, "SHIP"), (95, "NO")):
        contract = Contract(max_drop_from_teacher=5, min_accuracy=least)
        assert judge(contract, [good], others={"teacher": weak}).status == status


def test_model_in_use_may_be_much_worse_than_the_one_that_replaces_it():
    good, other = row(differences=against(22, (19, 25), "reference")), row(None, accuracy=0.5)
    contract = Contract(max_accuracy_drop=1)
    assert judge(contract, [good], others={"reference": other}, trusted="reference").status == "SHIP"


@pytest.mark.parametrize(("right", "named"), [(10, True), (9, False)], ids=["enough-samples", "too-few-samples"])
def test_accuracy_that_another_order_of_the_classes_would_give_is_named(right, named):
    confusion = np.array([[0, right], [right, 0]])
    swapped = row(confusion=confusion, accuracy=0.0, samples=2 * right, constant_accuracy=0.5)
    verdict = judge(Contract(min_accuracy=50), [swapped])
    assert verdict.status == "NO"
    for name in ("better_than_constant", "min_accuracy"):
        detail = check_of(verdict, name).detail or ""
        assert ("accuracy 100.0% if label 0 is output 1, label 1 is output 0" in detail) == named


def test_limit_that_is_broken_relative_to_a_model_at_chance_stays_broken():
    bad = row(differences=against(-20, (-25, -15), "teacher"))
    others = {"teacher": row(None, accuracy=0.11)}
    assert judge(Contract(max_drop_from_teacher=5), [bad], others=others).status == "NO"


@pytest.mark.parametrize(("limit", "status"), [(12_000_000, "SHIP"), (11_999_999, "NO")])
def test_instructions_of_an_emulated_core_decide(limit, status):
    counted = dataclasses.replace(
        row().measurement, instructions=12_000_000, evidence={"outputs": "emulated", "instructions": "emulated"}
    )
    verdict = judge(contract_of(max_instructions=limit), [row(), dataclasses.replace(row("m4"), measurement=counted)])
    assert verdict.status == status
    assert check_of(verdict, "max_instructions").target == "m4"
