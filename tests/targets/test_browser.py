"""The target browser in a real Chromium without a window, with LiteRT.js from the npm registry or the cache."""

import concurrent.futures
import queue
import random
import re
import shutil
import stat

import numpy as np
import pytest
import system_packages
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests.browser_client import accessibility_faults, node_modules, opened_chromium
from tests.random_graph import Net
from tfkd import report, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets import litert_js
from tfkd.targets.browser import comparable

MISSING = system_packages.skip_reason("chromium")
needs_chromium = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
NO_FIREFOX = system_packages.skip_reason("firefox")


@pytest.fixture(scope="module")
def chromium():
    return f"browser:{system_packages.find('chromium')}"


@pytest.fixture(scope="module")
def int16():
    """A sum of two inputs in int16 that LiteRT's kernel for AVX2 rounds otherwise than its reference kernel."""
    net = Net(random.Random(2), "int16")
    shape = (1, 32, 32, 16)
    net.graph.inputs = [net.tensor(shape, scales=[net.scale(1e-4, 1e-3)]) for _ in range(2)]
    output = net.tensor(shape, scales=[net.scale(5e-4, 2e-3)])
    return TFLiteModel.load(net.bytes(net.op("ADD", net.graph.inputs, [output], schema.AddOptionsT())))


# Keeps each lock of the screen that the page takes.
LOCKS = """const request = navigator.wakeLock.request.bind(navigator.wakeLock);
window.locks = [];
navigator.wakeLock.request = async (kind) => {
  window.locks.push(await request(kind));
  return window.locks.at(-1);
};"""


def host(model, inputs):
    return targets.get("host").run(model, inputs, latency=False).outputs


@needs_chromium
@pytest.mark.network
def test_validation_in_chromium_gives_the_outputs_of_the_host(chromium, digits_int8, splits, tmp_path):
    validation = tfkd.validate(digits_int8, splits.test, targets=["host", chromium])
    computer, browser = (row.measurement for row in validation.rows if row.target)
    assert np.array_equal(browser.outputs[0], computer.outputs[0])
    assert browser.valid, browser.invalid_reason
    assert browser.latency.p50_ms > 0
    assert browser.evidence == {"outputs": "measured", "latencies_ns": "measured"}
    assert browser.environment["isolated"]
    batch = browser.setting["inferences_per_time"]
    assert batch * browser.latency.max_ms >= 10 * browser.environment["clock_step_ms"]
    page = report.write_report(validation, tmp_path / "report.html").read_text()
    assert re.search(r"Chrom\w+ \d+ \(LiteRT.js 2", page)


@needs_chromium
@pytest.mark.network
def test_int16_model_on_two_threads(chromium, int16):
    """Equal to the reference kernels on any CPU, with which the pages of phones compare it, too."""
    x = [np.random.default_rng(seed).integers(-32768, 32768, (40, 32, 32, 16)).astype("int16") for seed in range(2)]
    found = targets.get(f"{chromium},threads=2").run(int16, x, latency=False)
    (reference,) = (host for host in comparable(int16) if host.kernels == "reference")
    assert found.outputs[0].dtype == np.int16
    assert np.array_equal(found.outputs[0], reference.run(int16, x, latency=False).outputs[0])
    assert "threaded" in found.environment["engine"]
    assert found.latencies_ns is None


@pytest.mark.skipif(NO_FIREFOX is not None, reason=str(NO_FIREFOX))
@pytest.mark.network
def test_firefox_gives_the_outputs_of_the_host_and_times_by_a_coarser_clock(digits_int8, splits):
    x = digits_int8.quantize_input(splits.test.x[:100])
    found = targets.get(f"browser:{system_packages.find('firefox')},threads=2").run(digits_int8, x)
    assert np.array_equal(found.outputs[0], host(digits_int8, x)[0])
    assert found.environment["browser"].startswith("Firefox ")
    assert found.environment["isolated"]
    assert "threaded" in found.environment["engine"]
    assert found.setting["inferences_per_time"] * found.latency.max_ms >= 10 * found.environment["clock_step_ms"]


@needs_chromium
@pytest.mark.network
def test_each_sample_starts_from_the_initial_state(chromium, resource_states):
    model, x, expected = resource_states
    found = targets.get(chromium).run(model, x, latency=False)
    np.testing.assert_allclose(found.outputs[0], expected, rtol=1e-5, atol=1e-6)


@needs_chromium
@pytest.mark.network
def test_several_inputs_and_outputs_of_several_types(chromium, several_ends):
    model, inputs = several_ends
    found = targets.get(chromium).run(model, inputs, latency=False)
    for one, expected in zip(found.outputs, host(model, inputs), strict=True):
        assert one.dtype == expected.dtype
        assert np.array_equal(one, expected)


@needs_chromium
@pytest.mark.network
def test_model_that_needs_too_much_memory_is_an_error(chromium):
    """LiteRT.js prints this failure, and returns outputs of no meaning."""
    large = tf.function(
        lambda x: tf.reduce_sum(tf.nn.relu(tf.tile(x, [1, 2**30 - 8])), axis=1),
        input_signature=[tf.TensorSpec([1, 1], tf.float32)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([large.get_concrete_function()], large)
    with pytest.raises(ModelError, match="could not run the model .*Failed to allocate"):
        targets.get(chromium).run(converter.convert(), np.ones((2, 1), "float32"), latency=False)


@needs_chromium
@pytest.mark.network
def test_browser_that_is_killed_is_an_error(tmp_path, digits_int8, splits):
    script = tmp_path / "killed-chromium"
    script.write_text(f'#!/bin/sh\nexec timeout -s KILL 1 "{system_packages.find("chromium")}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    x = np.repeat(digits_int8.quantize_input(splits.test.x), 200, axis=0)  # more than a second takes
    with pytest.raises(DeviceError, match="ended with status"):
        targets.get(f"browser:{script}").run(digits_int8, x)


@pytest.fixture
def waiting(digits_int8, splits, monkeypatch):
    """A target that waits for a phone in a thread: its URL, its samples and its run."""
    lines = queue.Queue()  # pytest's capture cannot be read while a thread prints
    monkeypatch.setattr("tfkd.targets.browser.say", lines.put)
    target = targets.get("browser:wait,address=127.0.0.1", timeout_s=60).with_labels(splits.test.y[:50])
    x = digits_int8.quantize_input(splits.test.x[:50])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        run, printed = pool.submit(target.run, digits_int8, x), ""
        while not (url := re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", printed)):
            printed += lines.get(timeout=60)
        assert "█" in printed
        yield url[0], x, run


@needs_chromium
@pytest.mark.network
def test_phone_opens_the_page_and_sees_the_verdict(waiting, digits_int8):
    url, x, run = waiting
    with opened_chromium() as browser:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.add_init_script(LOCKS)
        page.goto(url)
        assert not run.done()  # nothing starts by itself
        assert accessibility_faults(page) == []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.locator("#verdict").wait_for(timeout=30_000)
        page.wait_for_function("window.locks.length === 1 && window.locks[0].released")
        assert page.locator("#verdict").inner_text() == "Same answers"
        assert page.locator("#verdict").bounding_box()["y"] < 200
        assert re.search(r"Accuracy\s+\d+\.\d+ %", page.locator("#facts").inner_text())
        assert page.locator("#bars rect").count() > 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.evaluate("document.getElementById('sustained').dataset.seconds = 1")
        page.keyboard.press("Tab")  # from the verdict, which has the focus
        page.keyboard.press("Enter")
        page.locator("#slowing", has_text="After 1 of 1 s").wait_for(timeout=10_000)
        page.wait_for_function("window.locks.length === 2 && window.locks[1].released")
        page.get_by_role("button", name="Load the device").wait_for()
        # One point for each 120th of the time in which an inference ended, from the left to the right end.
        places = [float(one.split(",")[0]) for one in page.locator("#line").get_attribute("points").split()]
        assert places == sorted(set(places))
        assert len(places) <= 120
        assert places[0] < 10
        assert places[-1] == 300
        assert accessibility_faults(page) == []
    assert np.array_equal(run.result(timeout=30).outputs[0], host(digits_int8, x)[0])


@needs_chromium
@pytest.mark.network
def test_phone_may_try_again_after_its_tab_was_closed_or_its_network_cut(waiting, digits_int8):
    url, x, run = waiting
    with opened_chromium() as browser:
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="Start the test").click()
        page.get_by_role("status").wait_for()
        page.close()  # in the middle
        page = browser.new_page()
        page.route("**/page.js", lambda route: route.fulfill(body="newer than = this ?. browser"))
        page.goto(url)
        page.get_by_role("alert").filter(has_text="too old").wait_for()
        page.unroute("**/page.js")
        page.clock.install()
        page.goto(url)
        page.route("**/input/0/0", lambda route: None)  # the network is cut, and nobody tells
        page.get_by_role("button", name="Start the test").click()
        page.get_by_role("status").filter(has_text="Compiling").wait_for()
        page.clock.fast_forward(600_000)
        page.locator("#explanation", has_text="Nothing has happened for 10 minutes").wait_for()
        page.unroute("**/input/0/0")
        page.route("**/input/0/0", lambda route: route.abort())
        page.get_by_role("button", name="Run the test again").click()
        page.locator("#explanation", has_text="The computer cannot be reached").wait_for(timeout=30_000)
        assert page.locator("#verdict").inner_text() == "The test failed"
        assert not run.done()
        page.unroute("**/input/0/0")
        page.get_by_role("button", name="Run the test again").click()
        page.locator("#verdict", has_text="Same answers").wait_for(timeout=30_000)
    assert np.array_equal(run.result(timeout=30).outputs[0], host(digits_int8, x)[0])


def test_nobody_answers_in_time(digits_int8, splits, tmp_path):
    target = targets.get("browser:wait,address=127.0.0.1", timeout_s=0.5, litert_js=str(node_modules(tmp_path)))
    with pytest.raises(DeviceError, match="no device gave an answer within 0.5 s"):
        target.run(digits_int8, digits_int8.quantize_input(splits.test.x[:2]))


# LiteRT.js -----------------------------------------------------------------------------------------------------------


def test_folder_of_npm_is_taken_and_its_version_told(tmp_path):
    found = litert_js.load(print, str(node_modules(tmp_path)))
    assert found.version == "2.6.0"
    assert found.files["index.js"] == b'import "./wasm_utils.js";'
    (tmp_path / "core/wasm/litert_wasm_internal.wasm").unlink()
    with pytest.raises(InputError, match="npm install @litertjs/core"):
        litert_js.load(print, str(tmp_path))


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    lines = []
    with pytest.raises(ToolMissingError, match="litert_js=FOLDER"):
        litert_js.load(lines.append)
    assert "downloading LiteRT.js" in lines[0]


@pytest.mark.network
def test_damaged_cache_is_made_again_and_another_hash_refused(tmp_path, monkeypatch):
    litert_js.load(print)
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path))
    shutil.copytree(litert_js.cache().parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(litert_js, "_PACKAGES", {"wasm-utils": litert_js._PACKAGES["core"]})
    damaged = litert_js.cache() / "litertjs/core/dist/index.js"
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text("damaged")
    (litert_js.cache() / "sha256.json").write_text("{}")
    lines = []
    with pytest.raises(DeviceError, match="has another hash"):
        litert_js.load(lines.append)
    assert "is damaged" in lines[0]


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("browser:wait,accelerator=cuda", "accelerator must be one of"),
        ("browser:wait,threads=0", "threads must be"),
        ("browser:wait,accelerator=webgpu,threads=2", "threads must be"),
        ("browser:wait,accelerator=webgpu", "https"),
        ("browser:wait,port=70000", "port must be"),
        ("browser:wait,timeout_s=0", "timeout_s must be"),
        ("browser:opera", "the browser must be"),
        ("browser:/no/such/browser", "must be a browser"),
    ],
)
def test_wrong_settings_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        targets.get(spec)


def test_missing_browser_says_how_to_install_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="apt-get install chromium"):
        targets.get("browser")
    with pytest.raises(ToolMissingError, match="apt-get install firefox-esr"):
        targets.get("browser:firefox")
