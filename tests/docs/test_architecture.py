"""The examples of a task, a data source and a command in the architecture page work as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import typer
from typer.testing import CliRunner

import tfkd
from tfkd import cli, data, tasks
from tfkd.cli.application import TFLiteFile, command
from tfkd.data import loading, sources
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError
from tfkd.tasks.regression import Regression
from tfkd.validation import metric_limits

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def example(path, **names):
    """The names that the code block with this file name defines."""
    (code,) = re.findall(rf"^```py\n# {re.escape(path)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(code, path, "exec"), names)
    return names


def test_task_has_its_loss_and_its_limits(monkeypatch):
    task = example("tfkd/tasks/robust_regression.py", keras=keras, Regression=Regression)["TASK"]
    monkeypatch.setitem(tasks.TASKS, task.name, task)
    student, teacher = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in range(2))
    assert tfkd.Distiller(student, teacher, task="robust_regression").task is task
    x = np.zeros((8, 2), "float32")
    split = data.as_split((x, x[:, :1] + 0.5), "test")
    assert tasks.find(split, name="robust_regression").hard_loss().name == "huber_loss"
    assert tasks.find(split).name == "regression"  # the first task with such labels
    assert {limit.name for limit in metric_limits.of_tasks() if "robust_regression" in limit.tasks} >= {
        "max_mae", "max_rmse_increase", "min_r2"
    }  # fmt: skip


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
