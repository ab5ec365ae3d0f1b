"""Recipes of tasks other than classification."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfkd.errors import InputError
from tfkd.recipes import pipeline, recipe

TEXT = """
output = "{out}"
{task}

[data]
path = "{data}"
validation = 0.2

[teacher]
model = "mlp"
epochs = 10
learning_rate = 1e-2

[student]
model = "mlp"
options = {{ units = 8 }}

[distillation]
seeds = 2
epochs = 6
learning_rate = 1e-2
{more}

[targets]
names = ["host"]

[contract]
{contract}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A regression of whole numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype("float32")
    y = np.rint(100 + 30 * x[:, 0] - 20 * np.abs(x[:, 1]) + rng.normal(0, 5, 400))
    path = tmp_path_factory.mktemp("table") / "table.npz"
    np.savez(path, x_train=x[:280], y_train=y[:280], x_test=x[280:], y_test=y[280:])
    return path


def written(tmp_path, table, *, task='task = "regression"', contract="min_r2 = 0.3", more=""):
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT.format(out=tmp_path / "run", data=table, task=task, contract=contract, more=more))
    return recipe.load(path)


@pytest.mark.campaign
def test_recipe_of_a_regression_runs_to_its_verdict(tmp_path, table):
    result = pipeline.run(written(tmp_path, table, more="views = 1"))
    record = result.record
    assert (record["task"], record["verdict"]["status"], result.ok) == ("regression", "SHIP", True)
    assert {run["seed"] for run in record["seeds"]["student distilled"]} == {0, 1}
    page = result.page.read_text(encoding="utf-8")
    assert "MAE by seed" in page
    assert "Residuals" in page
    assert all(state["record"].get("val_accuracy") is None for state in _states(tmp_path))
    assert "labels" in result.steps
    again = pipeline.run(written(tmp_path, table, more="views = 1"))
    assert set(again.steps.values()) == {"kept"}


def _states(tmp_path):
    found = [path for path in (tmp_path / "run").glob("*.json") if "state" in path.name]
    return [step for path in found for step in json.loads(path.read_text()).values() if isinstance(step, dict)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": ""}, 'must be integers.*task = "regression"'),
        ({"contract": "min_accuracy = 90"}, "min_accuracy is a limit of the task classification"),
        ({"more": '[conversion]\noutput = "softmax"'}, "conversion.output = .softmax. is not for the task regression"),
        ({"more": "label_smoothing = 0.1"}, "label_smoothing is for classes"),
    ],
)
def test_settings_of_classifications_are_refused(tmp_path, table, settings, message):
    with pytest.raises(InputError, match=message):
        pipeline.run(written(tmp_path, table, **settings))


def test_unknown_task_is_refused(tmp_path, table):
    with pytest.raises(InputError, match="task: task must be one of .*Did you mean 'regression'"):
        written(tmp_path, table, task='task = "regresion"')
