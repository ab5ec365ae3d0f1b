"""Numbers and checks as text."""

import re

import pytest

from tests.report.records import record_of
from tfkd.report import words
from tfkd.validation.contract import Contract


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.size(999), "999 B"), (words.size(1_234_567), "1.23 MB"), (words.size(None), "–"),
        (words.ms(0.05), "50.0 µs"), (words.ms(1234.5), "1,234 ms"), (words.percent(None), "–"),
        (words.points(-1.234), "−1.23"), (words.quantity(1, "steps"), "1 step"),
        (words.quantity(float("nan"), "value"), "–"),
        (words.quantity(-0.5, "points"), "−0.50 points"), (words.quantity(-0.001, "points"), "0.00 points"),
        (words.quantity(0.5, "share"), "50.0%"),
        (words.quantity(50, "percent"), "50.0%"),
    ],
)  # fmt: skip
def test_number_as_text(text, expected):
    assert text == expected


def test_headline_of_each_verdict(ship, no, unknown):
    assert "full_int8 keeps every limit. The tightest is " in words.headline(ship)
    assert re.search(r"with \d+% headroom: .* required|permitted", words.headline(ship))
    assert "exceeds the limit on file size: 20.0 kB, at most 15.0 kB permitted." in words.headline(no)
    assert "one could not be checked: latency p90. No target measured latency. Add" in words.headline(unknown)
    assert "no contract" in words.headline(record_of(None))


def test_headline_of_a_model_that_does_not_run(ship):
    checks = [{**ship["verdict"]["checks"][0], "status": "broken", "target": "tflm", "detail": "It crashed."}]
    record = {**ship, "verdict": {"status": "NO", "binding": "runs", "checks": checks}}
    assert words.headline(record) == "full_int8 does not run on tflm: It crashed."


def test_headline_of_a_value_below_its_limit():
    record = record_of(Contract(min_accuracy=100))
    assert "full_int8 is below the limit on accuracy: " in words.headline(record)
    assert "at least 100.0% required." in words.headline(record)
    assert re.search(r"% on \w+ \(95% interval [\d.]+% to [\d.]+%\), at least", words.headline(record))


def test_headline_of_a_model_that_is_no_better_than_a_constant_answer(ship):
    check = {"name": "better_than_constant", "status": "broken", "value": 10.0, "limit": 13.0, "unit": "percent"}
    check |= {"target": "host", "detail": "The most frequent label reaches 10.3%."}
    record = {**ship, "verdict": {"status": "NO", "binding": "better_than_constant", "checks": [check]}}
    assert words.headline(record) == (
        "full_int8 is not better than a constant answer: 10.0% on host, at least 13.0% required. "
        "The most frequent label reaches 10.3%."
    )


def test_headline_of_a_contract_without_a_limit_on_quality_names_the_keys():
    assert words.headline(record_of(Contract(max_bytes=50_000))).startswith("The contract does not say how accurate")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "valid"),
        ({"broken": True}, "does not run: reason"),
        ({"unavailable": True, "measurement": None}, "unavailable: reason"),
        ({"measurement": None}, "no result: reason"),
        ({"measurement": {}, "invalid_reason": "throttled"}, "not valid: throttled"),
    ],
)
def test_status_of_a_row(ship, changes, expected):
    invalid = {"valid": False, "invalid_reason": "reason"} if changes else {}
    measurement = {"measurement": {"schema": "x"}} if changes.get("measurement") == {} else {}
    assert words.status({**ship["rows"][2], **invalid, **changes, **measurement}) == expected
