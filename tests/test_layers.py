"""The levels of tfkd, read from its syntax trees: a lower one never imports a higher one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfkd

PACKAGE = Path(tfkd.__file__).parent
LEVELS = (
    ("measurement", "child", "data", "sources", "augmentation", "pairing", "models", "logits", "packing", "losses",
     "features", "tflite", "contract", "scores", "naming"),
    ("soft_labels", "labelling", "distiller", "teachers", "conversion", "calibration", "ranges", "quantization",
     "recurrence", "noise", "micro"),
    ("optimization", "targets"),
    ("validation", "report", "golden", "firmware", "difference", "explanation", "precision"),
    ("recipe", "training", "progress", "steps", "pipeline", "trial", "doctor", "deployment", "cli"),
)  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
# All but the public names, which come from every level.
FILES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})
# A module that is named in a string is imported too: by importlib, or in a child process as "module:function".
NAMED = re.compile(r"tfkd\.(\w+)[\w.]*(:\w+)?")


def part(path: Path) -> str:
    """The module or sub-package of tfkd that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(source: str, folder: str = "tfkd") -> set[str]:
    """The parts of tfkd that a module imports at any time; what only a type checker imports does not count."""
    return {name for node in running(ast.parse(source)) for name in named(node, folder)}


def running(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        nodes = node.orelse
    else:
        yield node
        nodes = list(ast.iter_child_nodes(node))
    for child in nodes:
        yield from running(child)


def named(node: ast.AST, folder: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        paths = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        package = ".".join(folder.split(".")[: len(folder.split(".")) - node.level + 1]) if node.level else ""
        module = ".".join(filter(None, (package, node.module)))
        paths = [f"{module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
        paths = [node.value.split(":")[0]]
    else:
        return
    for path in paths:
        root, _, rest = path.partition(".")
        if root == "tfkd":
            yield rest.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_no_higher_level(path):
    folder = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    known = {part(file) for file in FILES}
    for name in imported(path.read_text(), folder) & known:
        assert LEVEL[name] <= LEVEL[part(path)], f"{path.name} imports {name}, which is of a higher level"


def test_level_is_given_for_each_module():
    assert {part(path) for path in FILES} <= set(LEVEL)


def test_module_names_say_what_they_hold():
    parts = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not parts & {"utils", "common", "helpers", "base", "registry", "manager", "core", "_src"}


@pytest.mark.parametrize(
    "source",
    [
        "from tfkd.cli import main",
        "from tfkd import cli",
        "import tfkd.cli",
        "from . import cli",
        "from .cli import main",
        "def f():\n    from tfkd import cli",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from tfkd import cli",
        "importlib.import_module('tfkd.cli')",
        "child.run('tfkd.cli:main')",
    ],
)
def test_import_of_any_form_is_seen(source):
    assert "cli" in imported(source)


def test_import_for_types_only_is_left_out():
    source = "if TYPE_CHECKING:\n    from tfkd import cli\nfrom tfkd import data"
    assert imported(source) == {"data"}
