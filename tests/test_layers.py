"""The order of the rooms of tfkd: a room imports only rooms before it, and inside a room no imports form a cycle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfkd

PACKAGE = Path(tfkd.__file__).parent
# The whole rule. `errors` and `_internal` may be imported by all.
ROOMS = (
    "errors", "_internal", "data", "tasks", "models", "losses", "distillation", "conversion", "micro", "targets",
    "optimization", "validation", "report", "recipes", "cli",
)  # fmt: skip
# The public names come from every room: the root is outside of the order, and no room may import it.
FILES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})
# A module whose name is in a string is imported too: by importlib, or in a child process as "module:function".
NAMED = re.compile(r"tfkd(\.\w+)+(:\w+)?")


def module_of(path: Path) -> str:
    """Dotted name of the module in a file; for __init__.py, the name of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str, package: str = "tfkd") -> set[str]:
    """Names of the modules of tfkd that a source text imports, type-only imports included."""
    return {name for node in ast.walk(ast.parse(source)) for name in named(node, package)}


def named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        paths = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        start = parents[: len(parents) - node.level + 1] if node.level else []
        module = ".".join([*start, *([node.module] if node.module else [])])
        paths = [f"{module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
        paths = [node.value.split(":")[0]]
    else:
        return
    for path in paths:
        while path and path not in MODULES:  # a name inside a module
            path = path.rpartition(".")[0]
        if path:
            yield path


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imported(path.read_text(), package) - {module}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_rooms_before_its_own(path):
    module = module_of(path)
    for other in imports_of(module):
        assert room(other), f"{module} imports a public name of tfkd; import it from its module"
        free = room(other) in ("errors", "_internal")
        assert free or ROOMS.index(room(other)) <= ROOMS.index(room(module)), f"{module} imports {other}"


def test_imports_form_no_cycle():
    graph = {module: imports_of(module) for module in MODULES if module != "tfkd"}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_top_of_the_package_has_rooms_only():
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries == {"__init__", *ROOMS}


def test_each_folder_of_tests_is_a_room():
    folders = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "android_demo", "docs", "tools"}


def test_module_name_is_specific():
    parts = {part for module in MODULES for part in module.split(".")}
    assert not parts & {"utils", "common", "helpers", "base", "registry", "manager", "core", "misc"}


def test_module_has_fewer_than_400_lines():
    long = {module: n for module, path in MODULES.items() if (n := len(path.read_text().splitlines())) >= 400}
    assert not long


@pytest.mark.parametrize(
    "source",
    [
        "from tfkd.cli import main",
        "from tfkd import cli",
        "import tfkd.cli",
        "from . import cli",
        "from .cli import main",
        "def f():\n    from tfkd import cli",
        "if TYPE_CHECKING:\n    from tfkd import cli",
        "importlib.import_module('tfkd.cli')",
        "isolation.run('tfkd.cli:main')",
    ],
)
def test_import_of_any_form_is_found(source):
    assert "tfkd.cli" in imported(source)
