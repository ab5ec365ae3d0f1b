"""Copies five rows of the results of the demo's report to README.md, between its markers.

make demo && .venv/bin/python tools/update_readme.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "runs/digits/report.md"
COLUMNS = ("Model", "Target", "Accuracy", "95% interval", "Bytes", "Relative to teacher", "Arena")
# The Keras models, and the model that ships on the computer and on the microcontroller.
ROWS = ("Keras", "full\\_int8 on host", "full\\_int8 on cortex-m4:nrf52840")
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- /demo table -->)", re.DOTALL)


def main() -> None:
    """Updates the table in README.md."""
    if not REPORT.is_file():
        sys.exit(f"{REPORT} does not exist. Run `make demo`.")
    section = REPORT.read_text().split("## Results\n", 1)[1].split("\n## ", 1)[0]
    lines = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|") and "---" not in line
    ]
    head, *rows = lines
    places = [head.index(column) for column in COLUMNS]
    chosen = [row for row in rows if row[1] in ROWS or f"{row[0]} on {row[1]}" in ROWS]
    table = "".join(
        f"| {' | '.join(cells)} |\n"
        for cells in (COLUMNS, ["---"] * len(COLUMNS), *([row[place] for place in places] for row in chosen))
    )
    readme = ROOT / "README.md"
    text, found = MARKERS.subn(lambda match: f"{match[1]}{table}{match[2]}", readme.read_text())
    if found != 1 or not table:
        sys.exit(
            f"README.md must contain the markers once (found: {found}) and {REPORT.name} a table ({len(table)} bytes)."
        )
    readme.write_text(text)


if __name__ == "__main__":
    main()
