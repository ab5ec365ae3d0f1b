"""The recipes in recipes/tasks/: each loads, and a shortened one runs to a report with the metrics of its task."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import tfkd
from tfkd import tasks
from tfkd.recipes import pipeline, recipe
from tfkd.report import metrics

FOLDER = Path(__file__).parents[2] / "recipes" / "tasks"
RECIPES = sorted(FOLDER.glob("*.toml"))
# The others run in the campaigns, since each takes about 20 seconds, and whole by `make demo-tasks`.
SHORT = ("anomaly_detection",)
ALL = [pytest.param(path, id=path.stem, marks=() if path.stem in SHORT else pytest.mark.campaign) for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipe_has_a_limit_on_the_quality_of_its_task(path):
    loaded = recipe.load(path)
    task = tasks.get(loaded.task or "classification")
    loaded.limits.check_task(task.name)
    assert loaded.distillation.seeds == 3
    names = ("accuracy", *(metric.name for metric in task.metrics))
    assert any(name.startswith(("min_", "max_")) and name[4:].startswith(names) for name in loaded.limits.limits)


@pytest.mark.parametrize("path", ALL)
def test_shortened_recipe_runs_to_a_report(path, tmp_path):
    text = re.sub(r"^epochs = .*", "epochs = 2", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^seeds = .*", "seeds = 1\nallow_bad_teacher = true", text, flags=re.MULTILINE)
    text = re.sub(r"^modes = .*", 'modes = ["full_int8"]', text, flags=re.MULTILINE)
    text = re.sub(r"^(names|optional) = .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("[targets]", '[targets]\nnames = ["host"]')
    short = tmp_path / "short.toml"
    short.write_text(re.sub(r"^output = .*", f'output = "{tmp_path}/run"', text, flags=re.MULTILINE))
    result = pipeline.run(recipe.load(short))
    record = result.record
    with open(tfkd.__path__[0] + "/report/schema.json", encoding="utf-8") as file:
        jsonschema.validate(record, json.load(file))
    task, row = metrics.task_of(record), record["rows"][-1]
    assert row["valid"], row["invalid_reason"]
    if task.is_classification:
        assert row["accuracy"] > 0
        return
    assert row["accuracy"] is None
    assert row["result"]["metrics"][task.primary.name]["interval"] is not None
    page = result.page.read_text(encoding="utf-8")
    assert "Accuracy on" not in page
    assert all(metric.label in page for metric in task.metrics)
    assert all(plot.title in page for plot in metrics.plots(row, task))
