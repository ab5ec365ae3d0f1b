"""Writing of reports: formats, existing files, failures."""

import copy
import json
import os
import stat

import pytest

from tests.report.records import COMMAND, SEEDS, TRAINING, written
from tfkd.report import write_report


def test_write_report_refuses_an_existing_path(ship, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"report.json already exists. Pass overwrite=True"):
        write_report(ship, path)
    assert path.read_text() == "mine"
    assert json.loads(written(ship, path, overwrite=True))["ship"] == "full_int8"


def test_write_report_refuses_another_suffix(ship, tmp_path):
    with pytest.raises(ValueError, match="suffix must be one of .html, .md, .json, .xml. Received: .*report.pdf"):
        write_report(ship, tmp_path / "report.pdf")


def test_write_report_refuses_a_mapping_with_another_schema(tmp_path):
    with pytest.raises(
        ValueError, match=r"report with schema .tfkd.validation/1.. Received: schema='tfkd.measurement/1'"
    ):
        write_report({"schema": "tfkd.measurement/1"}, tmp_path / "report.html")


def test_write_report_creates_folders_and_leaves_no_temporary_file(ship, tmp_path):
    path = write_report(ship, tmp_path / "a" / "b" / "report.md")
    assert [file.name for file in path.parent.iterdir()] == ["report.md"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_write_report_that_fails_leaves_no_file(ship, tmp_path):
    broken = copy.deepcopy(ship)
    del broken["rows"][0]["accuracy_interval"]
    with pytest.raises(KeyError, match="accuracy_interval"):
        write_report(broken, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_json_report_reads_back_into_the_same_page(ship, tmp_path):
    page = written(ship, tmp_path / "one.html", training=TRAINING, seeds=SEEDS, command=COMMAND)
    text = written(ship, tmp_path / "report.json", training=TRAINING, seeds=SEEDS, command=COMMAND)
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["training"]["student alone"]["loss"] == [2.5, None]
    assert written(record, tmp_path / "two.html") == page
