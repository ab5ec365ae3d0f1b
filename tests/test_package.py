"""The sdist and the wheel: complete, and the wheel works in an environment that has no checkout."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command, cwd, **options):
    """Runs a command outside of the checkout, without the checkout on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder with an sdist, and with the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation the build uses the installed setuptools and needs no network.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Folder of programs of a fresh environment with the wheel in it.

    The dependencies are those of the running environment: a .pth file adds its folder to the module search path, after
    the fresh one. The editable installation of tfkd is not found this way, since .pth files are not read recursively.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        wheel,
        cwd=folder,
    )
    installed = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip())
    dependencies = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    (installed / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(dependencies)))
    return folder / "bin"


def test_distributions_pass_the_check_of_the_package_index(dist):
    out = run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()), cwd=dist)
    assert out.count("PASSED") == 2


def test_wheel_holds_each_file_of_the_package_and_nothing_else(wheel):
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tfkd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package


def test_sdist_holds_tests_and_tools(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/conftest.py", "tools/system_packages.py", "recipes/digits.toml", "Makefile", "LICENSE"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".apk")]


def test_installed_package_is_the_one_of_the_wheel(environment, tmp_path):
    out = run(environment / "python", "-c", "import tfkd; print(tfkd.__file__, tfkd.__version__)", cwd=tmp_path)
    file, version = out.split()
    assert Path(file).is_relative_to(environment.parent)
    assert re.search(rf'^version = "{re.escape(version)}"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_installed_command_prints_its_help(environment, tmp_path):
    assert "Usage: tfkd" in run(environment / "tfkd", "--help", cwd=tmp_path)


def test_installed_command_writes_a_recipe_and_runs_it(environment, tmp_path):
    run(environment / "tfkd", "init", "--out", "digits.toml", cwd=tmp_path)
    recipe = tmp_path / "digits.toml"
    # The same pipeline in little time, without the microcontroller; the student surely meets the contract.
    changes = {
        r"^epochs = \d+": "epochs = 3",
        r"^seeds = \d+": "seeds = 1",
        r"^modes = \[[^]]*\]": 'modes = ["full_int8"]',
        r"^optional = \[[^]]*\]": "optional = []",
        r"^min_accuracy = .*": "min_accuracy = 20.0",
        r"^max_accuracy_drop = .*": "max_accuracy_drop = 50.0",
        r"^max_drop_from_teacher = .*": "max_drop_from_teacher = 80.0",
        r"^max_arena_bytes = .*": "",
    }
    text = recipe.read_text()
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"the recipe has no line {pattern}"
    recipe.write_text(text)
    run(environment / "tfkd", "run", "digits.toml", cwd=tmp_path)
    assert (tmp_path / "runs" / "digits" / "report.html").is_file()
    report = json.loads((tmp_path / "runs" / "digits" / "report.json").read_text())
    assert [row["target"] for row in report["rows"]][-2:] == ["host", "tflm"]
