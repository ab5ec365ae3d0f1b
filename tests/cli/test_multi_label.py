"""A multi-label data set from the command line: a table with several columns of labels, from training to verdict."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd.cli import app


def tfkd(*arguments):
    ran = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@pytest.mark.campaign  # half a minute
def test_table_with_columns_of_labels_reaches_a_verdict(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 4))
    y = (x[:, :2] + rng.normal(0, 0.2, (240, 2)) > 0).astype(int)
    rows = ["a,b,c,d,label:wet,label:cold", *(",".join(map(str, (*one, *two))) for one, two in zip(x, y, strict=True))]
    data = tmp_path / "table.csv"
    data.write_text("\n".join(rows))
    given = ("--data", data, "--task", "multi_label")
    teacher, student, model = (tmp_path / name for name in ("teacher.keras", "student.keras", "student.tflite"))
    options = ("--epochs", 15, "--learning-rate", 0.02)
    trained = tfkd("train", "mlp", "--out", teacher, *given, *options)
    assert (trained["task"], set(trained["val_metrics"])) == ("multi_label", {"map", "f1"})
    assert tfkd("label", "--teacher", teacher, "--out", tmp_path / "labels", *given)["missing"] == 0
    tfkd("distill", "--teacher", teacher, "--student", "mlp", "--out", student, *given, *options)
    tfkd("convert", student, model, "--calibration", data, "--task", "multi_label")
    record = tfkd(
        "validate", model, "--reference", student, "--teacher", teacher, "--target", "host", "--min-map", 80,
        "--max-map-drop", 5, *given,
    )  # fmt: skip
    assert (record["task"], record["verdict"]["status"]) == ("multi_label", "SHIP")
    assert record["test"]["class_names"] == ["wet", "cold"]
