"""The examples of a data source and a command in the architecture page work as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import typer
from typer.testing import CliRunner

from tfkd import cli, data
from tfkd.cli.application import TFLiteFile, command
from tfkd.data import loading, sources
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def example(path, **names):
    """The names that the code block with this file name defines."""
    (code,) = re.findall(rf"^```py\n# {re.escape(path)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(code, path, "exec"), names)
    return names


def test_data_source_is_loaded(tmp_path, monkeypatch):
    source = example(
        "tfkd/data/sources/csv.py", np=np, Arrays=Arrays, Request=Request, Source=Source, InputError=InputError
    )["SOURCE"]
    monkeypatch.setattr(loading, "SOURCES", (source, *sources.SOURCES))
    rows = np.column_stack([np.arange(60.0), np.arange(60) % 3])
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",")
    train, _, test = data.load(tmp_path / "table.csv")
    assert train.input_shape == (1,)
    assert train.num_classes == 3
    assert sorted([*train.x[:, 0], *test.x[:, 0]])[0] == 0
    assert set(test.y) == {0, 1, 2}


def test_command_is_registered(tmp_path):
    known = list(cli.app.registered_commands)
    try:
        example("tfkd/cli/sha256.py", typer=typer, command=command, TFLiteFile=TFLiteFile)
        missing = CliRunner().invoke(cli.app, ["sha256", str(tmp_path / "missing.tflite")])
        assert missing.exit_code == 2
        assert "missing.tflite" in missing.stderr
        assert "Print the SHA-256 of a .tflite." in CliRunner().invoke(cli.app, ["sha256", "--help"]).stdout
    finally:
        cli.app.registered_commands[:] = known
