"""Rows of a benchmark are saved as they finish, so that a stopped one continues with the next row."""

import equal_budget
import pytest

WANTED = [("plain, PTQ", 0), ("QAT", 0), ("QAT", 1)]


def test_stopped_benchmark_continues_with_the_next_row(tmp_path, capsys):
    def work(name, seed, title):
        begun.append((name, seed))
        if len(begun) == 2:
            raise KeyboardInterrupt
        if len(begun) == 3:
            raise ValueError("QAT: cannot")
        return {"accuracy": 0.5 + seed / 4}

    begun, rows = [], equal_budget.Rows(tmp_path, {"epochs": 3})
    with pytest.raises(KeyboardInterrupt, match="^$"):
        rows.fill(WANTED, work, minutes=1)
    rows.fill(WANTED, work, minutes=1)
    assert "row 2/3: QAT, seed 0: failed: QAT: cannot" in capsys.readouterr().out
    rows.fill(WANTED, work, minutes=1)
    assert begun == [WANTED[0], WANTED[1], WANTED[1], WANTED[2], WANTED[1]]
    printed = capsys.readouterr().out
    assert "row 1/3: plain, PTQ, seed 0: kept" in printed
    assert "row 2/3: QAT, seed 0: accuracy 0.5, seconds" in printed
    assert sorted(row["accuracy"] for row in rows.finished()) == [0.5, 0.5, 0.75]

    other = equal_budget.Rows(tmp_path, {"epochs": 4})
    other.fill(WANTED, work, minutes=0)
    assert not other.finished()
    assert "row 2/3: QAT, seed 0: not run, it would end after the 0 minutes given" in capsys.readouterr().out
    other.fill(WANTED, work, minutes=1)
    assert len(rows.finished()) == len(other.finished()) == 3
