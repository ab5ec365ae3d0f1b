"""Copies the demo's table of models and engines from its report into README.md, between the markers.

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
    """Rewrites README.md."""
    if not REPORT.is_file():
        sys.exit(f"{REPORT}: must be the demo's report. Received: there is none. Run `make demo`.")
    section = REPORT.read_text().split("## Models and engines\n", 1)[1].split("\n## ", 1)[0]
    table = "".join(f"{line}\n" for line in section.splitlines() if line.startswith("|"))
    readme = ROOT / "README.md"
    text, found = MARKERS.subn(lambda match: f"{match[1]}{table}{match[2]}", readme.read_text())
    if found != 1 or not table:
        sys.exit(f"README.md and {REPORT.name}: must hold the markers and a table. Received: {found} and {len(table)}.")
    readme.write_text(text)


if __name__ == "__main__":
    main()
