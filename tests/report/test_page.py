"""The HTML page: its content, and its layout in a real browser."""

import re

import numpy as np
import pytest
import system_packages

from tests.report.records import COMMAND, FULL, HOSTILE, SEEDS, TRAINING, record_of, with_microcontroller, written
from tfkd.report import write_report


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
    assert "Effect of distillation" not in page
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
    assert "No errors." in page


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


@pytest.mark.parametrize(("name", "width"), [("ship", 1280), ("ship", 390), ("no", 390), ("unknown", 1280)])
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
    assert first.bounding_box()["x"] == pytest.approx(before)  # the model's name stays visible


def test_browser_shows_all_parts(open_page, ship):
    page = open_page(ship, **FULL)
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Contract",
        "Results",
        "Effect of distillation",
        "Size and speed",
        "Devices and settings",
        "Training",
        "Errors",
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


def test_browser_shows_markup_in_a_class_name_as_text(open_page, no):
    page = open_page(no, **FULL)
    assert page.locator("script").count() == 0
    assert HOSTILE in page.locator(".matrix tbody th").first.inner_text()


def test_browser_cuts_no_column_at_1280(open_page, ship):
    page = open_page(with_microcontroller(ship), **FULL)
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
        ".map(e => e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))"
    )
    assert cut == []


def test_browser_says_that_wide_tables_scroll_on_a_phone(open_page, ship):
    page = open_page(ship, 390, **FULL)
    wide = page.evaluate("() => [...document.querySelectorAll('.scroll')].map(e => e.scrollWidth > e.clientWidth + 1)")
    hints = page.locator(".scroll + .hint")
    assert any(wide)
    assert hints.count() == page.locator(".scroll:not(:has(.matrix))").count()
    assert hints.first.is_visible()
    assert not open_page(ship, 1280, **FULL).locator(".scroll + .hint").first.is_visible()
