"""README.md says what is so: its Python runs, its verbs and files exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import tfkd
from tfkd import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the Python of the README ran, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    code, _ = blocks("python")
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return folder, child.stdout.splitlines()


def test_python_leaves_a_model_and_a_report(ran):
    folder, _ = ran
    assert {path.name for path in folder.iterdir()} == {"student.tflite", "report.html"}


def test_python_prints_a_verdict_and_what_the_target_gave(ran):
    _, lines = ran
    assert lines[-2] in ("SHIP", "NO")  # every limit of its contract is known on these targets
    arena_bytes, shape = lines[-1].split(maxsplit=1)
    assert int(arena_bytes) > 0
    assert re.fullmatch(r"\(\d+, 10\)", shape)


def test_labels_of_any_framework_are_stored(tmp_path):
    _, code = blocks("python")
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr[-4000:]
    assert "torch" not in {line.split()[1] for line in code.splitlines() if line.startswith(("import", "from"))}
    store = tfkd.SoftLabels.open(tmp_path / "labels")
    assert store.missing == 0
    assert store.read(store.ids).shape == (len(store.ids), 10)


def test_verbs_are_those_of_the_command_line():
    named = re.findall(r"^\| `tfkd (\S+)", README, re.MULTILINE)
    assert sorted(named) == sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tfkd|tests|tools|recipes)/[\w/]+\.\w+", README))))
def test_file_that_is_named_exists(path):
    assert (ROOT / path).is_file()


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
