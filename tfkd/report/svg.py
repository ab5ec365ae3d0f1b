"""SVG plots for a page: drawn by Matplotlib, with the colours and the font of the page.

Matplotlib writes fixed colours into an SVG. The page needs CSS variables instead, such as `var(--ink)`, whose values
follow the light or dark scheme of the reader. So each variable has a placeholder colour that no plot uses otherwise;
plots are drawn with placeholders, and `finish` replaces them in the SVG:

    colour("--ink") -> "#010101" -> Matplotlib -> style="stroke: #010101" -> finish -> style="stroke: var(--ink)"
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
_SVG, _XLINK = (f"{{{address}}}" for address in _NAMESPACES.values())
_SERIES = 8
_PLACEHOLDERS = {
    "--ink": "#010101", "--muted": "#020202", "--line": "#030303", "--card": "#040404", "--good": "#050505",
    "--bad": "#060606", **{f"--series-{n}": f"#0{n}0{n}0f" for n in range(_SERIES)},
}  # fmt: skip
_VARIABLES = {placeholder: variable for variable, placeholder in _PLACEHOLDERS.items()}

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tfkd",  # the same ids in each run
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 9.5,
    "legend.fontsize": 9,
    "legend.handlelength": 1.4,
    "legend.frameon": False,
    "text.color": _PLACEHOLDERS["--ink"],
    "text.parse_math": False,  # a class or a model may be called "a$b$"
    "axes.labelcolor": _PLACEHOLDERS["--muted"],
    "xtick.color": _PLACEHOLDERS["--muted"],
    "ytick.color": _PLACEHOLDERS["--muted"],
    "axes.edgecolor": _PLACEHOLDERS["--line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 9.5,
    "axes.labelpad": 6,
    "axes.grid": True,
    "grid.color": _PLACEHOLDERS["--line"],
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "figure.constrained_layout.use": True,
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Args:
        title: Title, plain text.
        caption: Caption, plain text.
        svg: SVG markup that is safe to insert into a page.
    """

    title: str
    caption: str
    svg: str


def colour(variable: str) -> str:
    """The placeholder of a CSS variable, to draw with.

    Args:
        variable: `--ink`, `--muted`, `--line`, `--card`, `--good` or `--bad`.
    """
    return _PLACEHOLDERS[variable]


def series_colour(number: int) -> str:
    """The placeholder of a data series. Colours repeat after eight series."""
    return _PLACEHOLDERS[f"--series-{number % _SERIES}"]


@contextmanager
def figure(height: float = 3.3) -> Iterator[Figure]:
    """An empty figure in the style of the page.

    Args:
        height: Height in inches; the width is 4.7.
    """
    # Figure instead of pyplot: no global state, no display.
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        yield Figure(figsize=(4.7, height))


def plot(figure: Figure, title: str, caption: str) -> Plot:
    """The finished plot of a figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(title, caption, finish(buffer.getvalue(), title, caption))


def finish(svg: str, title: str, caption: str) -> str:
    """Turns an SVG file of Matplotlib into markup for a page.

    Placeholder colours become CSS variables and the font that of the page. Ids get the title as a prefix, so that they
    are unique in the page. Size, metadata and style sheet are removed; title and description are added for screen
    readers.

    Args:
        svg: Content of the file.
        title: Title of the plot, plain text; unique in the page.
        caption: Description of the plot, plain text.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    references = " ".join(value for element in root.iter() for value in element.attrib.values())
    used = set(re.findall(r"#(\w+)", references))
    prefix = re.sub(r"\W+", "-", title.lower())
    for element in root.iter():
        _rewrite(element, used, prefix)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": title}
    for place, (tag, text) in enumerate((("title", title), ("desc", caption))):
        described = ElementTree.Element(f"{_SVG}{tag}")
        described.text = text
        root.insert(place, described)
    for name, address in _NAMESPACES.items():
        ElementTree.register_namespace(name, address)
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite(element: ElementTree.Element, used: set[str], prefix: str) -> None:
    """Replaces the colours, the font and the ids of one element."""
    for name, value in list(element.attrib.items()):
        if name == "id":
            if value in used:
                element.set(name, f"{prefix}-{value}")
            else:
                del element.attrib[name]
        elif name in ("style", "fill", "stroke"):
            value = re.sub(r"#[0-9a-f]{6}\b", lambda match: f"var({_VARIABLES.get(match[0], '--ink')})", value)
            value = re.sub(r'font-family: [^;"]*', "font-family: var(--font)", value)
            # The short form `font: 9.5px 'DejaVu Sans', sans-serif` ends with the font's name.
            element.set(name, re.sub(r"(font: [^;]*?\d+(?:\.\d+)?px) [^;]*", r"\1 var(--font)", value))
        elif name == f"{_XLINK}href" or "url(#" in value:
            element.set(name, value.replace("#", f"#{prefix}-"))
