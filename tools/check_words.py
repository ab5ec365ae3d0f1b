"""A lint of the words in the code: argument texts are noun phrases, and no variable has a name that says nothing.

It reads the Python files under the given folders and prints `file:line: message` for each finding; the exit status is 1
when there is one.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("tfkd", "tests", "tools")
# A reader cannot tell whose values these are; `student_logits`, `teacher_logits` and `printed` say it.
NAMES = frozenset({"said", "theirs", "taught"})
# Words that do not say what is meant.
WORDS = ("absurd", "its kin", "at hand", "mend", "mends", "mended", "spine")
_SECTION = re.compile(r"^\s*(Args|Attributes|Returns|Yields|Raises|Example|Examples|Reference|References):\s*$")
_ENTRY = re.compile(r"^(\s*)(\*{0,2}\w[\w, *]*?)(?: \([^)]*\))?: (.*)$")


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the message of each finding in a file."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        name = _bound_name(node)
        if name in NAMES:
            yield node.lineno, f"the name {name!r} does not say what it holds"
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstring(node)
    for number, line in enumerate(source.splitlines(), 1):
        for word in WORDS:
            if re.search(rf"\b{word}\b", line, re.IGNORECASE):
                yield number, f"say it in the field's own terms instead of {word!r}"


def _bound_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    return None


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node, clean=True)
    if not text:
        return
    start = node.body[0].lineno
    section = ""
    for offset, line in enumerate(text.splitlines()):
        if found := _SECTION.match(line):
            section = found[1]
        elif section in ("Args", "Attributes") and (entry := _ENTRY.match(line)):
            if len(entry[1]) == 4 and re.match(r"of\b", entry[3], re.IGNORECASE):
                yield start + offset, f"the text of {entry[2]!r} begins with 'of': write a noun phrase"


def main(folders: list[str]) -> int:
    """Prints the findings in all Python files under the folders, and gives the exit status."""
    found = 0
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            if path == Path(__file__) or path.resolve() == Path(__file__).resolve():
                continue
            for line, message in sorted(findings(path)):
                print(f"{path}:{line}: {message}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
