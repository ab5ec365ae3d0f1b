"""The guides are correct: their commands exist, and the guide to stored teacher logits works as it is written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

import tfkd
from tfkd import cli

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "stored_labels.md"
OUTPUTS = ROOT / "docs" / "guides" / "several_outputs.md"
PAGES = [
    ROOT / "README.md",
    *(page for room in ("guides", "tutorials", "concepts") for page in ROOT.glob(f"docs/{room}/*.md")),
]
GROUP: Any = typer.main.get_command(cli.app)


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.stem)
def test_commands_of_a_page_exist_with_their_options(page):
    text = page.read_text()
    blocks = "".join(re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?tfkd ([a-z-]+)([^#\n]*)", blocks, re.MULTILINE)
    for name, arguments in lines + re.findall(r"`tfkd ([a-z][a-z-]*)([^`]*)`", text):
        known = {option for one in GROUP.commands[name].params for option in (*one.opts, *one.secondary_opts)}
        assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", arguments)) <= known, name


def test_logits_of_any_framework_are_stored(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr[-4000:]
    store = tfkd.SoftLabels.open(tmp_path / "labels")
    assert store.missing == 0
    assert store.read(store.ids).shape == (len(store.ids), 10)


def test_guide_to_several_outputs_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", OUTPUTS.read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)  # in this process, which has TensorFlow loaded
    logs, outputs = capsys.readouterr().out.splitlines()
    assert {"digit_loss", "digit_soft_loss", "digit_accuracy", "val_ink_mae"} <= set(ast.literal_eval(logs))
    assert ast.literal_eval(outputs) == [(10,), (1,)]
    assert max(found["history"].history["val_digit_accuracy"]) > 0.5
