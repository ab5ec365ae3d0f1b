"""The report as JUnit XML and as Markdown, and the table of devices."""

import re
from xml.etree import ElementTree

import pytest

from tests.report.records import COMMAND, HOSTILE, HOT, SEEDS, TRAINING, with_microcontroller, written
from tfkd.report import devices, words


@pytest.mark.parametrize(("name", "failures", "errors"), [("ship", "0", "0"), ("no", "1", "0"), ("unknown", "0", "1")])
def test_junit_has_one_case_for_each_check(name, failures, errors, request, tmp_path):
    record = request.getfixturevalue(name)
    root = ElementTree.fromstring(written(record, tmp_path / "report.xml"))
    suite = root.find("testsuite")
    assert len(suite.findall("testcase")) == len(record["verdict"]["checks"]) == int(suite.get("tests"))
    assert (suite.get("failures"), suite.get("errors")) == (failures, errors)
    assert len(suite.findall("testcase/failure")) == int(failures)
    assert len(suite.findall("testcase/error")) == int(errors)


def test_junit_survives_what_xml_cannot_hold(ship, tmp_path):
    check = {**ship["verdict"]["checks"][0], "status": "broken", "detail": "\x00\x1b <bad>\ud800"}
    record = {**ship, "verdict": {"status": "NO", "binding": "runs", "checks": [check]}}
    root = ElementTree.fromstring(written(record, tmp_path / "report.xml"))
    assert "<bad>" in root.find("testsuite/testcase/failure").text


def test_markdown_tables_have_one_width_and_no_markup_of_others(no, tmp_path):
    text = written(no, tmp_path / "report.md", training=TRAINING, seeds=SEEDS, command=COMMAND)
    assert text.startswith("# NO: full\\_int8\n")
    assert "<script>" not in text
    assert COMMAND in text
    assert "Distillation improved accuracy" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        width = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if "does not run" not in line}
        assert len(width) == 1, table


def test_devices_have_a_row_for_each_setting_with_status_and_thermal_status(phones):
    rows = devices.table(phones)
    assert [(row["target"], row["setting"], row["status"], row["thermal"], row["evidence"]) for row in rows] == [
        ("host", "", "valid", words.NONE, "measured"),
        ("android,threads=2", "cpu, 2 threads", "valid", "light", "measured"),
        ("android,restart=1", "cpu, 1 thread, restart 1", f"not valid: {HOT}", "severe", "measured"),
        ("android,accelerator=gpu", "accelerator=gpu", f"no result: no {HOSTILE}", words.NONE, words.NONE),
    ]
    assert rows[1]["device"] == "Google Pixel 8, Tensor G3, 9 cores, Android 15"
    assert rows[1]["rate"] == f"{1000 / phones['rows'][2]['measurement']['latency']['p50_ms']:,.0f}"


def test_devices_are_on_the_page_and_in_markdown_with_thermal_status_and_minutes(phones, tmp_path):
    page = written(phones, tmp_path / "page.html")
    for title in ("Devices and settings", "Latency by minute", "Thermal status", "severe"):
        assert title in page
    assert HOSTILE not in page
    markdown = written(phones, tmp_path / "page.md")
    assert "| android,threads=2 | cpu, 2 threads | Google Pixel 8, Tensor G3, 9 cores, Android 15 |" in markdown
    assert "not valid: thermal status 3" in markdown


def test_devices_without_times_are_no_section(unknown, tmp_path):
    assert "Devices and settings" not in written(unknown, tmp_path / "page.html")


def test_candidate_on_a_microcontroller_shows_its_estimated_time(ship, tmp_path):
    page = written(with_microcontroller(ship), tmp_path / "page.html")
    assert "<dt>Estimated time</dt><dd>96.5 ms to 193 ms" in page
    assert "<dt>Latency p90</dt>" not in page


def test_candidate_on_a_microcontroller_without_an_estimate_shows_no_latency_of_the_host(ship, tmp_path):
    assert "<dt>Latency p90</dt>" in written(ship, tmp_path / "host.html")
    record = with_microcontroller(ship)
    record["rows"][-1]["measurement"]["estimated_ms"] = None
    page = written(record, tmp_path / "page.html")
    assert "<dt>Latency p90</dt>" not in page


def test_headline_has_the_accuracy_on_each_target_beside_the_teacher(ship, tmp_path):
    rows = [dict(row) for row in ship["rows"]]
    rows[3]["accuracy"] = 0.5
    record = {**ship, "rows": rows}
    assert words.accuracy_line(ship) == "Accuracy: 98.3% on host, tflm; teacher 98.5%."
    assert words.accuracy_line(record) == "Accuracy: 50.0% on tflm; 98.3% on host; teacher 98.5%."
    assert words.accuracy_line({**ship, "ship": None}) == ""
    page = written(record, tmp_path / "page.html")
    assert "<dt>Accuracy on tflm</dt><dd>50.0%" in page
    assert "<dt>Accuracy on host</dt><dd>98.3%" in page
    assert page.index("teacher 98.5%; 95% interval") < page.index("<h2")
