"""The public names: sorted, importable, documented, annotated, and cheap to reach."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tfkd

HEAVY = {"tensorflow", "keras", "tf_keras", "ai_edge_litert", "tflite_micro", "sklearn", "scipy", "matplotlib"}


def public(name):
    """The public functions and classes that a name stands for: itself, or what a module defines."""
    value = getattr(tfkd, name)
    if not isinstance(value, types.ModuleType):
        return [value]
    members = [member for key, member in vars(value).items() if not key.startswith("_") and callable(member)]
    return [member for member in members if getattr(member, "__module__", None) == value.__name__]


def functions(value):
    """A function, or the public methods that a class defines itself."""
    if not inspect.isclass(value):
        return [value]
    return [member for key, member in vars(value).items() if inspect.isfunction(member) and not key.startswith("_")]


def loaded_by(code):
    """The heavy packages that a fresh interpreter has loaded after running some code."""
    report = f"import sys\n{code}\nprint('LOADED', *sorted({HEAVY!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    assert "LOADED" in child.stdout, child.stdout
    return child.stdout.rsplit("LOADED", 1)[1].split()


def test_public_names_are_sorted_and_each_once():
    assert tfkd.__all__ == sorted(set(tfkd.__all__))


def test_public_names_are_those_that_a_type_checker_sees():
    tree = ast.parse(Path(tfkd.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in block.body for alias in node.names) == tfkd.__all__


@pytest.mark.parametrize("name", tfkd.__all__)
def test_public_name_is_importable_and_documented(name):
    assert inspect.getdoc(getattr(tfkd, name))
    assert name in dir(tfkd)
    for value in public(name):
        assert value.__doc__, f"{value.__qualname__} has no docstring"


@pytest.mark.parametrize("name", tfkd.__all__)
def test_public_name_is_annotated(name):
    for value in public(name):
        for function in functions(value):
            signature = inspect.signature(function)
            missing = [
                parameter.name
                for parameter in signature.parameters.values()
                if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
            ]
            assert not missing, f"{function.__qualname__} leaves {missing} without a type"
            assert signature.return_annotation is not signature.empty, f"{function.__qualname__} returns no type"


def test_unknown_name_says_which_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'distil'. It has: Contract, Distiller"):
        _ = tfkd.distil


def test_version_is_the_one_of_the_metadata():
    assert tfkd.__version__ == importlib.metadata.version("tfkd")


def test_import_loads_no_heavy_package():
    assert loaded_by("import tfkd") == []


def test_heavy_package_is_seen_when_it_is_loaded():
    assert "keras" in loaded_by("import tfkd; tfkd.losses")


def test_help_loads_no_heavy_package():
    code = "sys.argv = ['tfkd', '--help']\nfrom tfkd.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    assert loaded_by(code) == []
