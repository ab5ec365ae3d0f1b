"""README.md is correct: its Python runs, and the files and make targets that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def ran(forks, tmp_path_factory):
    """The folder in which the Python of the README ran, and the lines that it printed."""
    folder = tmp_path_factory.mktemp("readme")
    (code,) = blocks("python")
    child = forks.start(code, cwd=folder)
    printed = child.communicate()
    assert child.returncode == 0, printed[-4000:]
    return folder, printed.splitlines()


def test_python_writes_a_model_and_a_report(ran):
    folder, _ = ran
    assert {path.name for path in folder.iterdir()} == {"student.tflite", "report.html"}


def test_python_prints_a_verdict(ran):
    _, lines = ran
    assert lines[-1] in ("SHIP", "NO")  # every limit of its contract is known on the host


NAMED = re.findall(r"(?<![\w/])(?:tfkd|tests|tools|recipes)/[\w/]+\.\w+", README)
LINKED = re.findall(r"\]\(([\w./]+)\)", README)


@pytest.mark.parametrize("path", sorted({*NAMED, *LINKED}))
def test_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


def test_pictures_have_absolute_addresses_of_files_in_the_repository():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    prefix = "https://raw.githubusercontent.com/tfkd/tfkd/main/"
    assert pictures
    for picture in pictures:
        assert picture.startswith(prefix)
        assert (ROOT / picture.removeprefix(prefix)).is_file()


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for words in re.findall(r"(?:`|^)make ((?:[a-z-]+ ?)+)", README, re.MULTILINE)
        for target in words.split()
    }
    assert {"demo", "test", "system-packages"} <= named <= targets
