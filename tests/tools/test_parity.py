"""The benchmark of exactness on a few models: nothing is wrong, and an interrupted run goes on."""

import json

import parity
import parity_models
import pytest


@pytest.mark.parametrize(
    "sample", [3, pytest.param(len([*parity_models.all_models()]), marks=[pytest.mark.campaign, pytest.mark.slow])]
)
def test_no_model_is_wrong(sample, tmp_path):
    options = ["--rows", str(tmp_path / "rows.jsonl"), "--sample", str(sample), "--seed", "3"]
    if sample == 3:
        options += ["--mode", "float32", "--mode", "full_int8"]
    assert parity.main([*options, "--out", str(tmp_path / "page.md")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len({row["model"] for row in rows}) == sample
    assert "right" in {row["result"] for row in rows}
    assert "| float32 | full_int8 |" in (tmp_path / "page.md").read_text() or sample > 3


def test_names_differ():
    """Rows are found by the name of the model."""
    names = [name for _, name, _ in parity_models.all_models()]
    assert len(set(names)) == len(names)


def test_run_goes_on_after_the_rows_of_a_file(tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    row = {"family": "vector", "model": "Dense", "mode": "float32", "result": "wrong", "detail": "host 50.00%"}
    rows.write_text(json.dumps(row) + '\n{"family": "vec')
    compared = []
    monkeypatch.setattr(parity, "compare", lambda family, name, build, modes: compared.append((name, modes)) or [])
    assert parity.main(["--rows", str(rows), "--match", "^Dense$", "--mode", "float32", "--mode", "float16"]) == 1
    assert compared == [("Dense", ["float16"])]
