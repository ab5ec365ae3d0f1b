"""Each tutorial runs from its own code blocks, in their order, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(forks, language, code, folder):
    """Runs a block in a new process, or each of its commands; returns what it printed."""
    lines = [] if language == "python" else [shlex.split(line) for line in code.splitlines()]
    assert {line[0] for line in lines} <= {"tfkd"}
    printed = ""
    for line in lines or [None]:
        process = forks.start(code, cwd=folder) if line is None else forks.tfkd(*line[1:], cwd=folder)
        printed += process.communicate()
        # 1: a verdict of NO, which a tutorial may show on purpose.
        assert process.returncode in ((0,) if language == "python" else (0, 1)), f"{code}\n{printed[-3000:]}"
    return printed


@pytest.fixture(scope="module", params=TUTORIALS, ids=lambda path: path.stem)
def tutorial(request, forks, tmp_path_factory):
    """The name of a tutorial, the folder in which its blocks ran, and what each shell block printed."""
    folder = tmp_path_factory.mktemp(request.param.stem)
    blocks = BLOCK.findall(request.param.read_text())
    printed = [(language, run(forks, language, code, folder)) for language, code in blocks]
    return request.param.stem, folder, [text for language, text in printed if language == "sh"]


def test_tutorial_ends_where_it_says(tutorial):
    name, folder, printed = tutorial
    if name == "images_on_a_phone":
        assert (folder / "runs/photos/report.html").is_file()
        assert "Verdict: SHIP" in printed[-1]
    elif name == "keyword_spotter":
        assert "Verdict: SHIP" in printed[0]
        assert {"keyword.c", "keyword.h", "report.json"} <= {path.name for path in (folder / "firmware").iterdir()}
        subprocess.run(["make", "-C", folder / "firmware", "selftest"], check=True, capture_output=True)
        subprocess.run([folder / "firmware" / "selftest"], check=True)
    else:
        assert name == "int8_accuracy"
        accuracies = [float(value) for value in re.findall(r"([0-9.]+)%", printed[0])]
        assert max(accuracies) - min(accuracies) > 3  # the fault that was made on purpose
        assert "block2_pointwise" in printed[1]  # explain names the layer
        assert "%" in printed[2]
