"""The report in its four forms, and the page in a real browser."""

import copy
import dataclasses
import importlib.util
import json
import os
import re
import stat
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tfkd import data
from tfkd.conversion.tflite import CalibrationAudit
from tfkd.report import devices, plots, seeds, words, write_report
from tfkd.targets.measurement import Measurement, Memory
from tfkd.validation.contract import Contract, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import measure_divergence, score
from tfkd.validation.validator import Validation

HOSTILE = "<script>alert('x')</script>"
HOT = "thermal status 3: let it cool"
TRAINING = {
    "teacher": {"accuracy": [0.5, 0.9], "val_accuracy": [0.4, 0.8], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]},
    "student alone": {"accuracy": [0.3, 0.7], "loss": [2.5, np.float32("nan")]},
}
SEEDS = {
    "student alone": [{"seed": seed, "accuracy": value} for seed, value in enumerate((0.961, 0.957, 0.966))],
    "student distilled": [{"seed": seed, "accuracy": value} for seed, value in enumerate((0.974, 0.972, 0.976))],
}
COMMAND = "tfkd run recipes/digits.toml --overwrite"
MODELS = {
    "full_int8": {
        "sha256": "ab" * 32,
        "size_bytes": 20_000,
        "audit": dataclasses.asdict(
            CalibrationAudit(256, 0.0, 255.0, 77.75, 10, 10, "cd" * 32, 0, 0.012, ("Class 3 has 2 samples.",))
        ),
    },
    "float32": {"sha256": "ef" * 32, "size_bytes": 70_000, "audit": None},
}


def record_of(contract=None, *, class_names=None, timed=True):
    """What a validation over digits gives, with outputs made from the labels and noise."""
    test = data.load("digits").test
    names = class_names or test.class_names
    random = np.random.default_rng(0)
    logits = np.eye(10)[test.y] * 4 + random.normal(size=(len(test), 10))
    raw = np.clip(np.rint(logits * 12), -128, 127).astype(np.int8)
    rows, first = [], None
    for name, noise in (("teacher", 0.1), ("student", 0.0)):
        outputs = logits + noise * random.normal(size=logits.shape)
        rows.append(Row(name, None, 800_000, 200_000, len(test), **score(outputs, test, None)))
    labels = logits.argmax(axis=1)
    for target, fields in (
        ("host", {"latencies_ns": tuple(random.integers(50_000, 90_000, 300).tolist()) if timed else None}),
        ("tflm", {"memory": Memory(arena_bytes=15_000)}),
    ):
        outputs = raw + (random.random(raw.shape) < 0.1 * (target == "tflm"))
        evidence = {"outputs": "measured", "latencies_ns": "measured", "memory": "emulated"}
        measured = Measurement(target, "ab" * 32, 20_000, (outputs,), evidence, **fields)
        found = score(outputs, test, labels)
        rows.append(
            Row(
                "full_int8",
                target,
                20_000,
                None,
                len(test),
                output_divergence=measure_divergence(measured, first),
                measurement=measured,
                **found,
            )
        )
        first = first or measured
    verdict = judge(contract, rows[2:], rows[1].accuracy)
    rows.append(Row("float32", "tflm", 70_000, None, len(test), invalid_reason=f"No {HOSTILE} kernel.", broken=True))
    facts = {
        "name": "digits",
        "samples": len(test),
        "class_names": list(names),
        "input_shape": [8, 8, 1],
        "content_hash": test.content_hash,
    }
    validation = Validation(tuple(rows), verdict, contract, "full_int8", "student", {}, facts, {"python": "3.11"})
    return {**validation.to_json(), "models": MODELS}


SHIP = Contract(max_bytes=50_000, max_accuracy_drop=5, max_arena_bytes=16_000, max_p90_ms=1, max_divergence_steps=2)
NO = Contract(max_bytes=15_000, min_accuracy=0.5)
UNKNOWN = Contract(max_bytes=50_000, max_p90_ms=1)


@pytest.fixture(scope="module")
def ship():
    return record_of(SHIP)


@pytest.fixture(scope="module")
def no():
    return record_of(NO, class_names=[f"{HOSTILE}{place} $x$ | `b`" for place in range(10)])


@pytest.fixture(scope="module")
def unknown():
    return record_of(UNKNOWN, timed=False)


def written(record, path, **options):
    return write_report(record, path, **options).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def phones(ship):
    """The host, a phone in two settings, one of them too hot, and a setting that the phone does not take."""
    record = copy.deepcopy(ship)
    host = record["rows"][2]
    phone = {"manufacturer": "Google", "model": "Pixel 8", "soc": "Tensor G3", "cores": 9, "android": "15"}
    for target, setting, heat in (
        ("android,threads=2", {"threads": 2, "accelerator": "cpu", "restart": 0}, [[0, 0], [1, 1]]),
        ("android,restart=1", {"threads": 1, "accelerator": "cpu", "restart": 1}, [[0, 1], [60, 3]]),
    ):
        row = copy.deepcopy(host)
        row["target"] = row["measurement"]["target"] = target
        row["measurement"] |= {"setting": setting, "environment": {**phone, "thermal": heat, "runs": 500}}
        record["rows"].append(row)
    row["measurement"]["environment"]["per_minute"] = [
        {"minute": 0, "p50_ns": 70_000, "p90_ns": 80_000},
        {"minute": 1, "p50_ns": 90_000, "p90_ns": 99_000},
    ]
    row |= {"valid": False, "invalid_reason": HOT}
    lost = {**host, "target": "android,accelerator=gpu", "measurement": None, "accuracy": None, "confusion": None}
    record["rows"].append({**lost, "valid": False, "invalid_reason": f"no {HOSTILE}", "broken": False})
    return record


# Writing.


def test_write_report_refuses_an_existing_path(ship, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"write_report: .*report.json exists. Pass overwrite=True"):
        write_report(ship, path)
    assert path.read_text() == "mine"
    assert json.loads(written(ship, path, overwrite=True))["ship"] == "full_int8"


def test_write_report_refuses_another_suffix(ship, tmp_path):
    with pytest.raises(ValueError, match="suffix must be one of .html, .md, .json, .xml. Received: .*report.pdf"):
        write_report(ship, tmp_path / "report.pdf")


def test_write_report_refuses_what_is_no_validation(tmp_path):
    with pytest.raises(ValueError, match=r"form tfkd.validation/1. Received: schema='tfkd.measurement/1'"):
        write_report({"schema": "tfkd.measurement/1"}, tmp_path / "report.html")


def test_write_report_makes_folders_and_leaves_no_part(ship, tmp_path):
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


# Words.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.size(999), "999 B"), (words.size(1_234_567), "1.23 MB"), (words.size(None), "–"),
        (words.ms(0.05), "50.0 µs"), (words.ms(1234.5), "1,234 ms"), (words.percent(None), "–"),
        (words.points(-1.234), "−1.23"), (words.quantity(1, "steps"), "1 step"),
        (words.quantity(-0.5, "points"), "−0.50 points"), (words.quantity(0.5, "share"), "50.0%"),
    ],
)  # fmt: skip
def test_words_of_a_number(text, expected):
    assert text == expected


def test_headline_of_each_verdict(ship, no, unknown):
    assert "full_int8 keeps every limit. The tightest is " in words.headline(ship)
    assert "breaks the limit on file size: 20.0 kB, limit 15.0 kB." in words.headline(no)
    assert "one is not known: latency p90. No target measured latency. Add" in words.headline(unknown)
    assert "No contract" in words.headline(record_of(None))


def test_headline_of_a_model_that_does_not_run(ship):
    checks = [{**ship["verdict"]["checks"][0], "status": "broken", "target": "tflm", "detail": "It crashed."}]
    record = {**ship, "verdict": {"status": "NO", "binding": "runs", "checks": checks}}
    assert words.headline(record) == "full_int8 does not run on tflm: It crashed."


# Seeds.


def test_seeds_comparison_is_the_paired_t_interval():
    (found,) = seeds.compare(seeds.series(SEEDS))
    differences = np.array([1.3, 1.5, 1.0])
    reach = 4.302652729696142 * differences.std(ddof=1) / np.sqrt(3)
    assert found.mean == pytest.approx(differences.mean())
    assert found.interval == (pytest.approx(found.mean - reach), pytest.approx(found.mean + reach))
    assert found.sentence.startswith("Distillation paid: student distilled +1.27 points against student alone")


@pytest.mark.parametrize(
    ("gains", "start"),
    [
        ((-0.02, -0.021, -0.019), "Distillation cost accuracy"),
        ((0.02, -0.02, 0.01), "A gain from distillation is not shown"),
        ((0.02,), "One seed cannot tell"),
    ],
)
def test_seeds_sentence(gains, start):
    runs = {
        "student alone": [{"seed": seed, "accuracy": 0.9} for seed in range(len(gains))],
        "student distilled": [{"seed": seed, "accuracy": 0.9 + gain} for seed, gain in enumerate(gains)],
    }
    (found,) = seeds.compare(seeds.series(runs))
    assert found.sentence.startswith(start)


def test_seeds_only_pairs_are_compared():
    runs = {"a": [{"seed": 1, "accuracy": 0.5}], "b": [{"seed": 2, "accuracy": 0.9}], "c": []}
    assert seeds.compare(seeds.series(runs)) == []


# Plots.


def test_plots_repeat_byte_for_byte_and_hold_no_colour_of_their_own(ship):
    palette = plots.colours(ship)
    first = plots.pareto(ship, palette)
    assert plots.pareto(ship, palette) == first
    assert not re.search(r"#[0-9a-f]{6}\b", first.svg)
    assert "var(--series-0)" in first.svg
    root = ElementTree.fromstring(first.svg)
    assert root.get("role") == "img"
    assert root.find("{http://www.w3.org/2000/svg}title").text == "Accuracy against size"


def test_plots_ids_are_unique_in_the_page(ship, tmp_path):
    page = written(ship, tmp_path / "report.html", training=TRAINING, seeds=SEEDS)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


def test_plots_pareto_draws_the_front(ship):
    assert plots._front([(10, 90), (5, 80), (20, 85), (30, 95), (5, 70)]) == [(5, 80), (10, 90), (30, 95)]


def test_plots_label_with_markup_is_text():
    (accuracy, _) = plots.training({HOSTILE + "$a$": TRAINING["teacher"]}, {HOSTILE + "$a$": 0})
    assert "<script>" not in accuracy.svg
    assert "$a$" in accuracy.svg


def test_plots_without_numbers_are_left_out():
    assert plots.seeds([], {}) is None
    assert plots.training({}, {}) == []
    assert plots.latency({"rows": [], "ship": None, "contract": None}) is None


@pytest.mark.parametrize(
    ("nanoseconds", "limit", "unit", "far"),
    [
        (1_500, 1.0, "microseconds", True),
        (2_000_000, 3.0, "milliseconds", False),
        (2_000_000, None, "milliseconds", False),
    ],
)
def test_plots_latency_scale_follows_the_samples_not_a_far_limit(ship, nanoseconds, limit, unit, far):
    rows = copy.deepcopy([row for row in ship["rows"] if row["target"] == "host"])
    rows[0]["measurement"]["latencies_ns"] = [nanoseconds] * 400 + [1000 * nanoseconds]
    found = plots.latency({"rows": rows, "ship": None, "contract": {"max_p90_ms": limit}})
    assert unit in found.svg
    assert ("lies far to the right" in found.caption) == far
    assert ("p90 limit" in found.svg.split("</desc>")[1]) == (limit is not None and not far)


# JUnit and Markdown.


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
    assert "Distillation paid" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        width = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if "does not run" not in line}
        assert len(width) == 1, table


# The page.


def test_devices_have_a_row_for_each_setting_with_standing_and_heat(phones):
    rows = devices.table(phones)
    assert [(row["target"], row["setting"], row["standing"], row["heat"], row["evidence"]) for row in rows] == [
        ("host", "", "valid", words.NONE, "measured"),
        ("android,threads=2", "cpu, 2 threads", "valid", "light", "measured"),
        ("android,restart=1", "cpu, 1 thread, restart 1", f"not valid: {HOT}", "severe", "measured"),
        ("android,accelerator=gpu", "accelerator=gpu", f"not known: no {HOSTILE}", words.NONE, words.NONE),
    ]
    assert rows[1]["device"] == "Google Pixel 8, Tensor G3, 9 cores, Android 15"
    assert rows[1]["rate"] == f"{1000 / phones['rows'][2]['measurement']['latency']['p50_ms']:,.0f}"


def test_devices_are_on_the_page_and_in_markdown_with_heat_and_minutes(phones, tmp_path):
    page = written(phones, tmp_path / "page.html")
    for title in ("Devices and settings", "Latency over the minutes", "Heat", "severe"):
        assert title in page
    assert HOSTILE not in page
    markdown = written(phones, tmp_path / "page.md")
    assert "| android,threads=2 | cpu, 2 threads | Google Pixel 8, Tensor G3, 9 cores, Android 15 |" in markdown
    assert "not valid: thermal status 3" in markdown


def test_devices_in_several_batches_have_a_curve_of_throughput(phones):
    assert plots.throughput(phones) is None
    record = copy.deepcopy(phones)
    for batch in (8, 1):
        row = copy.deepcopy(record["rows"][2])
        row["target"] = f"host,batch={batch}"
        row["measurement"]["setting"] = {"threads": 2, "timed_batch": batch}
        record["rows"].append(row)
    assert "full_int8 on host, 2 threads" in plots.throughput(record).svg


def test_devices_without_times_are_no_section(unknown, tmp_path):
    assert "Devices and settings" not in written(unknown, tmp_path / "page.html")


def test_plots_latency_of_far_apart_devices_has_a_scale_for_both(phones):
    slow = copy.deepcopy(phones)
    times = slow["rows"][-2]["measurement"]
    times["latencies_ns"] = [1000 * one for one in times["latencies_ns"]]
    assert "0.1" in plots.latency(slow).svg
    few = copy.deepcopy(phones)
    for row in few["rows"]:
        if row["measurement"] and row["measurement"]["latencies_ns"]:
            row["measurement"]["latencies_ns"] = row["measurement"]["latencies_ns"][:19]
    assert plots.latency(few) is None


def test_page_is_self_contained_and_escaped(no, tmp_path):
    page = written(no, tmp_path / "report.html", training=TRAINING, seeds=SEEDS, command=f"tfkd {HOSTILE}")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_page_without_contract_and_options(tmp_path):
    record = {**record_of(None), "models": {}}
    page = written(record, tmp_path / "report.html")
    assert "NO CONTRACT" in page
    assert "Did distillation pay?" not in page
    assert "Calibration audit" not in page


def test_page_of_a_model_with_many_classes_has_no_matrix(ship, tmp_path):
    names = [str(place) for place in range(25)]
    rows = [
        {**row, "confusion": None if row["confusion"] is None else np.eye(25, dtype=int).tolist()}
        for row in ship["rows"]
    ]
    record = {**ship, "rows": rows, "test": {**ship["test"], "class_names": names}}
    page = written(record, tmp_path / "report.html")
    assert 'class="matrix"' not in page
    assert "No mistakes." in page


_TOOLS = Path(__file__).parents[2] / "tools" / "system_packages.py"
_spec = importlib.util.spec_from_file_location("system_packages", _TOOLS)
system_packages = importlib.util.module_from_spec(_spec)
sys.modules["system_packages"] = system_packages
_spec.loader.exec_module(system_packages)


@pytest.fixture(scope="module")
def browser():
    for tool in ("chromium", "fonts"):
        if reason := system_packages.skip_reason(tool):
            pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # root in a container has no sandbox
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=system_packages.find("chromium"), args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, tmp_path):
    pages = []

    def opened(record, width=1280, scheme="light", **options):
        path = write_report(record, tmp_path / f"{len(pages)}.html", **options)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.seen = {"requests": [], "console": []}
        page.on("request", lambda request: page.seen["requests"].append(request.url))
        page.on("console", lambda message: page.seen["console"].append(message.text))
        page.on("pageerror", lambda error: page.seen["console"].append(str(error)))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()


FULL = {"training": TRAINING, "seeds": SEEDS, "command": COMMAND}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["ship", "no", "unknown"])
def test_browser_shows_the_verdict_first_and_nothing_overflows(open_page, request, name, width):
    record = request.getfixturevalue(name)
    page = open_page(record, width, **FULL)
    verdict = page.locator("#verdict")
    assert verdict.inner_text() == record["verdict"]["status"]
    assert verdict.bounding_box()["y"] < 200
    assert page.locator(".headline").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        "w => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg') && "
        "e.getBoundingClientRect().right > w + 0.5).map(e => e.className || e.tagName)",
        width,
    )
    assert wide == []
    assert len(page.seen["requests"]) == 1
    assert page.seen["console"] == []


def test_browser_tables_scroll_in_their_own_box(open_page, ship):
    page = open_page(ship, 390, **FULL)
    box = page.locator(".scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto'")
    first = page.locator("table tbody th").first
    before = first.bounding_box()["x"]
    box.evaluate("e => e.scrollLeft = 150")
    assert first.bounding_box()["x"] == pytest.approx(before)  # the model's name stays in sight


def test_browser_all_parts_are_there(open_page, ship):
    page = open_page(ship, **FULL)
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Contract",
        "Models and engines",
        "Did distillation pay?",
        "Size and speed",
        "Devices and settings",
        "Training",
        "Where it errs",
        "Calibration audit",
        "Provenance",
    ]
    results = page.locator("section:has(#results) tbody tr")
    assert results.count() == len(ship["rows"])
    assert "Does not run: No <script>" in results.last.inner_text()
    plots_found = page.locator("figure svg")
    assert plots_found.count() == 5
    for place in range(5):
        plot = plots_found.nth(place)
        assert plot.locator("title").first.text_content()
        assert plot.get_attribute("role") == "img"
        assert plot.bounding_box()["height"] > 100
    assert page.locator("pre").inner_text() == COMMAND
    assert "Class 3 has 2 samples." in page.locator("section:has(#calibration)").inner_text()


def test_browser_follows_light_and_dark(open_page, ship):
    look = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.color, s.fill] }"
    found = {}
    for scheme in ("light", "dark"):
        page = open_page(ship, scheme=scheme, **FULL)
        found[scheme] = [
            page.locator("body").evaluate(look),
            page.locator(".card").first.evaluate(look),
            page.locator("figure svg text").first.evaluate(look),
        ]
    light, dark = found["light"], found["dark"]
    assert light[0][:2] != dark[0][:2]
    assert light[1][0] != dark[1][0]
    assert light[2][2] != dark[2][2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_text_has_contrast(open_page, ship, scheme):
    """WCAG AA: 4.5 to 1 between text and what lies behind it."""
    page = open_page(ship, scheme=scheme, **FULL)
    low = page.evaluate(
        """() => {
          const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
          const light = c => { const [r, g, b] = c.map(v => v / 255).map(
            v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
          const behind = e => { for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } };
          return [...document.querySelectorAll('.stamp, .headline, .eyebrow, .lead, .pill, .tag:not(.on), .note, ' +
            'th, .number, .muted, figcaption, dt')].filter(e => !e.closest('.matrix, .shipped')).filter(e => {
              const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
              return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; }).map(e => e.className || e.tagName);
        }"""
    )
    assert low == []


def test_browser_draws_no_script_of_a_class_name(open_page, no):
    page = open_page(no, **FULL)
    assert page.locator("script").count() == 0
    assert HOSTILE in page.locator(".matrix tbody th").first.inner_text()


# What the tests need from the system.


def test_system_packages_find_what_is_on_path(tmp_path, monkeypatch):
    tool = system_packages.Tool("thing", ("thing",), "thing-package", "none", probe=("--version",))
    monkeypatch.setattr(system_packages, "TOOLS", (tool,))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert system_packages.find("thing") is None
    assert "thing-package" in system_packages.skip_reason("thing")
    stub = tmp_path / "thing"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    assert system_packages.find("thing") is None  # a stub that does not start is no tool
    stub.write_text("#!/bin/sh\nexit 0\n")
    assert system_packages.find("thing") == str(stub)
    assert system_packages.skip_reason("thing") is None


def test_system_packages_where_it_may_not_install_says_what_will_not_run(monkeypatch, capsys):
    tool = system_packages.Tool("thing", ("no-such-thing",), "thing-package", "tests/test_thing.py")
    monkeypatch.setattr(system_packages, "TOOLS", (tool,))
    monkeypatch.setattr(system_packages, "_privilege", lambda: None)
    assert system_packages.main() == 0
    printed = capsys.readouterr().out
    assert "Not run, because thing is missing: tests/test_thing.py" in printed
    assert "sudo apt-get install -y --no-install-recommends thing-package" in printed
