"""`tfkd serve`: devices that answer over HTTP, the live page and the rows of the validation."""

import dataclasses
import json
import threading

import numpy as np
import pytest

from tests.browser_client import Page, node_modules
from tfkd import data, targets
from tfkd.errors import DeviceError, InputError
from tfkd.targets.browser import Browser
from tfkd.validation import visits
from tfkd.validation.contract import Contract


@pytest.fixture(scope="module")
def split():
    return data.load("digits").test.sample(40)


@pytest.fixture
def browser(tmp_path):
    return Browser("wait", address="127.0.0.1", litert_js=str(node_modules(tmp_path)), timeout_s=60)


def test_each_device_is_a_row_of_the_live_page_and_of_the_validation(browser, digits_int8, split):
    x = digits_int8.quantize_input(split.x)
    (expected,) = targets.get("host").run(digits_int8, x, latency=False).outputs
    urls, rows, found, started = [], [], [], threading.Event()

    def serve():
        found.extend(
            visits.serve(
                digits_int8,
                split,
                browser,
                most=3,
                on_start=lambda *both: (urls.extend(both), started.set()),
                on_visit=rows.append,
            )
        )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(30)
    page, live = (Page(url, digits_int8, x, [digits_int8.dequantize_output(expected)]) for url in urls)
    assert json.loads(live.get("rows.json")) == []
    assert b"QR code" in live.get("")
    assert live.get("code.svg").startswith(b"<?xml")
    assert page.send(page.record())[1]["again"]
    page.outputs[0][0] = page.outputs[0][0, ::-1]
    page.send(page.record(hidden=True))
    page.outputs = []
    nonce = json.loads(page.get("job.json"))["nonce"]
    while len(rows) < 2:
        threading.Event().wait(0.05)
    assert [row["number"] for row in json.loads(live.get("rows.json"))] == ["1", "2"]
    page.send({"nonce": nonce, "error": "no WebAssembly", "device": {"user_agent": "Firefox/52.0"}})
    thread.join(30)
    assert [row["verdict"] for row in rows] == ["Same answers", "1 of 40 differ", "The test failed"]
    assert "background" in rows[1]["note"]
    assert (rows[2]["device"], rows[2]["note"]) == ("Firefox 52", "no WebAssembly")
    validation = visits.validate_visits(digits_int8, split, found[:1], Contract(min_accuracy=50))
    host, first = validation.rows
    assert (first.target, first.accuracy) == ("browser:visit-1", host.accuracy)
    assert np.array_equal(first.measurement.outputs[0], host.measurement.outputs[0])
    assert validation.verdict.status == "SHIP"
    validation = visits.validate_visits(digits_int8, split, found, Contract(min_accuracy=50))
    assert ["background" in str(row.invalid_reason) for row in validation.rows] == [False, False, True, False]
    assert "no WebAssembly" in validation.rows[3].invalid_reason
    assert validation.verdict.status != "SHIP"


def test_values_are_compared_as_values(browser, digits_int8, split):
    x = digits_int8.quantize_input(split.x)
    (raw,) = targets.get("host").run(digits_int8, x, latency=False).outputs
    values = data.as_split((split.x, digits_int8.dequantize_output(raw) + 0.5), "test", labels="values")
    rows = []

    def answer(url, live):
        page = Page(url, digits_int8, x, [digits_int8.dequantize_output(np.clip(raw, -128, 126) + 1)])
        page.send(page.record())

    found = visits.serve(digits_int8, values, browser, task="regression", most=1, on_start=answer, on_visit=rows.append)
    assert (rows[0]["verdict"], rows[0]["accuracy"]) == ("Close answers", "–")
    validation = visits.validate_visits(digits_int8, values, found, task="regression")
    assert validation.task == "regression"
    assert validation.rows[1].result.metrics["mae"].value == pytest.approx(0.5, abs=0.2)


def test_task_that_does_not_fit_is_refused_before_the_page_is_served(browser, digits_int8, split):
    with pytest.raises(InputError, match="regression"):
        visits.serve(digits_int8, split, browser, task="regression", on_start=lambda *urls: pytest.fail("was served"))


def test_without_a_device_there_is_no_validation(browser, digits_int8, split):
    found = visits.serve(digits_int8, split, dataclasses.replace(browser, timeout_s=0.1))
    with pytest.raises(DeviceError, match="no device gave an answer"):
        visits.validate_visits(digits_int8, split, found)
