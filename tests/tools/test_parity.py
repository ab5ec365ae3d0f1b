"""The benchmark of exactness on a few models: nothing is wrong, and an interrupted run goes on."""

import json

import numpy as np
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
    rows = parity.read(tmp_path / "rows.jsonl")
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
    old = row | {"mode": "float16", "version": "that of other code"}
    lines = [json.dumps(one) for one in (row | {"version": parity.digest()}, old)]
    rows.write_text("\n".join(lines) + '\n{"family": "vec')
    compared = []
    new = row | {"mode": "float16", "result": "right"}
    monkeypatch.setattr(
        parity, "compare", lambda family, name, build, modes: compared.append((name, modes)) or [dict(new)]
    )
    assert parity.main(["--rows", str(rows), "--match", "^Dense$", "--mode", "float32", "--mode", "float16"]) == 1
    assert compared == [("Dense", ["float16"])]
    assert [one["result"] for one in parity.read(rows)] == ["wrong", "wrong", "right"]
    page = tmp_path / "page.md"
    rows.write_text("\n".join(lines))
    assert parity.main(
        ["--rows", str(rows), "--match", "^Dense$", "--any-version", "--mode", "float16", "--out", str(page)]
    )
    assert len(compared) == 1
    assert "2 versions of the code" in page.read_text()


def test_outputs_of_another_size_or_without_numbers_are_wrong():
    expected = np.arange(6.0)
    assert parity.difference(np.arange(5.0), expected) == np.inf
    assert parity.difference(np.full(6, np.nan), expected) == np.inf
    assert parity.difference(expected + 0.5, expected) == 0.1
    assert parity.correlation(-expected, expected) == pytest.approx(-1)
    assert parity.correlation(np.zeros(6), expected) == 0
