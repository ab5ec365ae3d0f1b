"""The public names: sorted, importable, documented, and loaded only when they are used.

That they are annotated is checked by mypy.
"""

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
    """The public functions and classes of a name: its value, or what a module or its submodules define."""
    value = getattr(tfkd, name)
    if not isinstance(value, types.ModuleType):
        return [value]
    members = [member for key, member in vars(value).items() if not key.startswith("_") and callable(member)]
    return [member for member in members if f"{getattr(member, '__module__', '')}.".startswith(f"{value.__name__}.")]


def loaded_by(code):
    """Names of the heavy packages that a fresh interpreter has loaded after it ran some code."""
    report = f"import sys\n{code}\nprint('LOADED', *sorted({HEAVY!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    assert "LOADED" in child.stdout, child.stdout
    return child.stdout.rsplit("LOADED", 1)[1].split()


def test_public_names_are_sorted_and_unique():
    assert tfkd.__all__ == sorted(set(tfkd.__all__))


def test_public_names_are_those_that_a_type_checker_sees():
    tree = ast.parse(Path(tfkd.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING:
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert sorted(alias.name for node in imports for alias in node.names) == tfkd.__all__


@pytest.mark.parametrize("name", tfkd.__all__)
def test_public_name_is_importable_and_documented(name):
    assert inspect.getdoc(getattr(tfkd, name))
    assert name in dir(tfkd)
    for value in public(name):
        assert value.__doc__, f"{value.__qualname__} has no docstring"


def test_unknown_name_lists_the_public_names():
    with pytest.raises(AttributeError, match=r"no attribute 'distil'. It has: Contract, Distiller"):
        _ = tfkd.distil


def test_version_equals_the_one_of_the_metadata():
    assert tfkd.__version__ == importlib.metadata.version("tfkd")


def test_import_loads_no_heavy_package():
    assert loaded_by("import tfkd") == []


def test_loading_of_a_heavy_package_is_detected():
    assert loaded_by("import tfkd, scipy") == ["scipy"]


def test_help_loads_no_heavy_package():
    code = "sys.argv = ['tfkd', '--help']\nfrom tfkd.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    assert loaded_by(code) == []


def test_module_with_a_short_name_is_imported_when_it_is_used():
    assert loaded_by("import tfkd.augmentation") == []
    assert loaded_by("import inspect, sys, tfkd; [hasattr(one, '__file__') for one in [*sys.modules.values()]]") == []
    script = (
        "from tfkd.features import Feature; from tfkd.teachers import ensemble; from tfkd.augmentation import crop_flip"
    )
    assert "keras" in loaded_by(script)


def test_recipe_is_read_without_keras():
    assert not {"keras", "tensorflow", "scipy"} & set(loaded_by("from tfkd.recipes import recipe, template"))
