"""Copies the table of results from the demo's report to README.md, between its markers.

make demo && .venv/bin/python tools/update_readme.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "runs/digits/report.md"
MARKERS = re.compile(r"(<!-- demo table -->\n).*?(<!-- /demo table -->)", re.DOTALL)


def main() -> None:
    """Updates the table in README.md."""
    if not REPORT.is_file():
        sys.exit(f"{REPORT} does not exist. Run `make demo`.")
    section = REPORT.read_text().split("## Results\n", 1)[1].split("\n## ", 1)[0]
    table = "".join(f"{line}\n" for line in section.splitlines() if line.startswith("|"))
    readme = ROOT / "README.md"
    text, found = MARKERS.subn(lambda match: f"{match[1]}{table}{match[2]}", readme.read_text())
    if found != 1 or not table:
        sys.exit(
            f"README.md must contain the markers once (found: {found}) and {REPORT.name} a table ({len(table)} bytes)."
        )
    readme.write_text(text)


if __name__ == "__main__":
    main()
