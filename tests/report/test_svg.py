"""SVG of Matplotlib as markup for a page."""

import re
from xml.etree import ElementTree

import pytest

from tfkd.report import svg

RAW = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="20pt"
     viewBox="0 0 10 20">
 <metadata>who and when</metadata>
 <defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
 <g id="unused"><path id="m1" style="stroke: #010101; fill: #01010f"/></g>
 <use xlink:href="#m1" clip-path="url(#p2)" style="stroke: #123456"/>
 <text style="font-size: 9px; font-family: 'DejaVu Sans', sans-serif; fill: #020202">a &lt; b #010101</text>
 <text style="font: 9.5px 'DejaVu Sans', sans-serif; text-anchor: end">c</text>
 <clipPath id="p2"/>
</svg>
"""


@pytest.fixture
def markup():
    return svg.finish(RAW, "A plot & more", "caption <b>")


def test_colours_become_variables_of_the_page(markup):
    assert 'style="stroke: var(--ink); fill: var(--series-1)"' in markup
    assert "#123456" not in markup
    assert "a &lt; b #010101" in markup  # text is not touched


def test_font_is_that_of_the_page(markup):
    assert "DejaVu" not in markup
    assert "font-size: 9px; font-family: var(--font); fill: var(--muted)" in markup
    assert "font: 9.5px var(--font); text-anchor: end" in markup


def test_ids_have_the_title_as_prefix_and_unused_ones_are_removed(markup):
    assert set(re.findall(r' id="([^"]*)"', markup)) == {"a-plot-more-m1", "a-plot-more-p2"}
    assert 'xlink:href="#a-plot-more-m1"' in markup
    assert 'clip-path="url(#a-plot-more-p2)"' in markup


def test_size_metadata_and_style_sheet_are_removed_and_texts_added(markup):
    root = ElementTree.fromstring(markup)
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == (None, None, "0 0 10 20")
    assert (root.get("role"), root.get("aria-label")) == ("img", "A plot & more")
    assert [child.text for child in list(root)[:2]] == ["A plot & more", "caption <b>"]
    assert not re.search("<style|metadata|DOCTYPE|ns0:", markup)


def test_variables_have_different_placeholders():
    variables = ("--ink", "--muted", "--line", "--card", "--good", "--bad")
    placeholders = [*map(svg.colour, variables), *(svg.series_colour(number) for number in range(8))]
    assert len(set(placeholders)) == 14
    assert svg.series_colour(8) == svg.series_colour(0)
