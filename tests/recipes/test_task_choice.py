"""A limit of another task is found before any training."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tfkd import data
from tfkd.recipes import recipe, task_choice

X = np.zeros((8, 3), np.float32)


@pytest.mark.parametrize(
    ("y", "limit", "message"),
    [
        (np.arange(8) + 0.5, "max_accuracy_drop", "for a regression. Use .*max_mae"),
        (np.arange(8) % 2, "min_miou", "for a classification. Use .*min_accuracy"),
    ],
    ids=["values", "classes"],
)
def test_limit_of_another_task_is_an_error(tmp_path, y, limit, message):
    file = tmp_path / "recipe.toml"
    file.write_text(
        'output = "out"\n[data]\nname = "digits"\n[teacher]\npath = "t.keras"\n[student]\nmodel = "mlp"\n'
        f"[contract]\n{limit} = 2.0\n"
    )
    train = data.from_arrays((X, y), (X, y), validation=0).train
    (finding,) = task_choice.examine_task(recipe.load(file), train)
    assert finding.severity == "error"
    assert re.search(f"{limit}=2 {message}", finding.evidence)
