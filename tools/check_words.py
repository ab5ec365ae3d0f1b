"""Checks the wording of the code: argument texts are noun phrases, and names and words say what they mean.

Usage: `python tools/check_words.py [FILE or FOLDER ...]`. It reads Python files, prints `file:line: message` for each
finding, and exits with 1 if there is one. What is refused:

- an argument text in a docstring that begins with "of", or with neither a capital letter, a digit nor a symbol;
- an assignment to one of `NAMES`, or a parameter of that name;
- one of `WORDS` anywhere in a line.

A line that must contain such a word, a test of an error of another library for instance, ends in `# words: skip`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("tfkd", "tests", "tools")
# A reader cannot tell whose values these are; `student_logits`, `teacher_logits` and `output` say it.
NAMES = frozenset({"said", "theirs", "taught", "told"})
# Words that have a standard term: "unreasonable", "and similar ops", "available", "fix", "main class".
WORDS = ("absurd", "its kin", "at hand", "mend", "mends", "mended", "spine")
SKIP = "# words: skip"

_WORDS = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
_SECTION = re.compile(r"^(\w+):$")
# An entry of "Args:": `name: Text.`, `name (type): Text.`, `*names: Text.` or `a, b: Text.`
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w[\w, *]*?)(?: \([^)]*\))?: (.*)$")


def findings(source: str) -> Iterator[tuple[int, str]]:
    """Finds what the rules refuse in the source text of a Python file.

    Args:
        source: Text of the file.

    Yields:
        Line number, from 1, and message of each finding.
    """
    lines = source.splitlines()
    for number, message in sorted(_all_findings(source, lines)):
        if not lines[number - 1].endswith(SKIP):
            yield number, message


def _all_findings(source: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.arg) and _bound_name(node) in NAMES:
            yield node.lineno, f"the name {_bound_name(node)!r} does not say what it holds"
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstring_findings(node)
    for number, line in enumerate(lines, 1):
        for word in sorted({match.lower() for match in _WORDS.findall(line)}):
            yield number, f"use the standard technical term instead of {word!r}"


def _bound_name(node: ast.Name | ast.arg) -> str | None:
    """Name that the node assigns or declares; None where it only reads it."""
    if isinstance(node, ast.arg):
        return node.arg
    return node.id if isinstance(node.ctx, ast.Store) else None


def _docstring_findings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node, clean=True)
    if not text:
        return
    section = ""
    for number, line in enumerate(text.splitlines(), node.body[0].lineno):
        if found := _SECTION.match(line):
            section = found[1]
        elif section in ("Args", "Attributes") and (entry := _ENTRY.match(line)):
            for message in _argument_findings(*entry.groups()):
                yield number, message


def _argument_findings(name: str, text: str) -> Iterator[str]:
    if re.match(r"of\b", text, re.IGNORECASE):
        yield f"the text of {name!r} begins with 'of': write a noun phrase"
    elif text[:1].islower():
        yield f"the text of {name!r} must begin with a capital letter"


def python_files(paths: list[str]) -> list[Path]:
    """The Python files among the given files and under the given folders, without this one and its test."""
    own = {"check_words.py", "test_check_words.py"}
    files = {file for path in map(Path, paths) for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return sorted(file for file in files if file.name not in own)


def main(paths: list[str]) -> int:
    """Prints the findings in all Python files among the paths, and returns the exit status."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        print(f"check_words: {missing[0]} does not exist")
        return 2
    status = 0
    for file in python_files(paths):
        for number, message in findings(file.read_text(encoding="utf-8")):
            print(f"{file}:{number}: {message}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
