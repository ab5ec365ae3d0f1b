"""Each task from data to verdict: distilled, converted to int8, validated on two targets, reported, compared."""

from __future__ import annotations

import json

import jsonschema
import keras
import numpy as np
import pytest

import tfkd
from tfkd import data, tasks
from tfkd.distillation import training
from tfkd.errors import InputError
from tfkd.recipes import student
from tfkd.recipes.recipe import training_config
from tfkd.report import console
from tfkd.validation import difference, explanation
from tfkd.validation.contract import Contract
from tfkd.validation.validator import validate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype("float32")
HIDDEN = np.tanh(X @ RNG.normal(size=(6, 4)))
TABLES = {
    "regression": 150 + 40 * (HIDDEN @ RNG.normal(size=(4, 2)) + RNG.normal(0, 0.2, (600, 2))),
    "binary": (HIDDEN.sum(axis=1) + RNG.normal(0, 0.3, 600) > 0).astype("int64"),
    "multi_label": (HIDDEN + RNG.normal(0, 0.3, (600, 4)) > 0.2).astype("int64"),
}
CONTRACTS = {
    "regression": Contract(min_r2=0.4, max_mae_increase=5, max_rmse_increase_from_teacher=30),
    "binary": Contract(min_roc_auc=80, max_pr_auc_drop=3, max_f1_drop_from_teacher=15),
    "multi_label": Contract(min_map=60, max_map_drop=3, max_f1_drop_from_teacher=15),
}
CONFIG = training_config(epochs=15, batch_size=32, learning_rate=1e-2, early_stopping=6)


@pytest.fixture(
    scope="module", params=["regression", "binary", pytest.param("multi_label", marks=pytest.mark.campaign)]
)
def trained(request, tmp_path_factory):
    """Task, splits, teacher, student and its int8 .tflite."""
    task = tasks.get(request.param)
    y = TABLES[task.name]
    splits = data.from_arrays((X[:450], y[:450]), (X[450:], y[450:]), validation=0.2, labels=task.labels)
    keras.utils.set_random_seed(0)
    tfkd_teacher = student.build_for("mlp", splits.train, task)
    training.fit(tfkd_teacher, splits, CONFIG, task=task)
    small = student.build_for("mlp", splits.train, task, {"units": 12})
    distiller = tfkd.Distiller(small, tfkd_teacher, alpha=0.7, task=task.name)
    training.fit(distiller, splits, CONFIG, task=task)
    path = tmp_path_factory.mktemp(task.name) / "student.tflite"
    return task, splits, tfkd_teacher, small, tfkd.convert(small, path, calibration=splits.train)


@pytest.fixture(scope="module")
def validation(trained):
    task, splits, teacher, small, model = trained
    return validate(
        model,
        splits.test,
        reference=small,
        teacher=teacher,
        targets=["host", "tflm"],
        contract=CONTRACTS[task.name],
        task=task.name,
        validation=splits.val,
    )


def test_verdict_is_that_of_the_metrics(trained, validation):
    task, splits, _, _, model = trained
    assert (validation.verdict.status, validation.task) == ("SHIP", task.name), validation.verdict
    for row in validation.rows:
        assert row.accuracy is None
        assert row.result.constant.better is True
        if row.target:
            values = model.dequantize_output(row.measurement.outputs[0]).reshape(len(splits.test), -1)
            expected = task.score(values, splits.test, threshold=row.result.threshold).values
            assert {name: one.value for name, one in row.result.metrics.items()} == pytest.approx(expected)
            assert set(row.result.differences) == {"reference", "teacher"}
    if task.has_threshold:
        assert len({row.result.threshold for row in validation.rows if row.target}) == 1


def test_difference_from_the_reference_is_that_of_the_metrics(validation):
    reference = next(row for row in validation.rows if row.name == "reference")
    for row in validation.rows:
        if row.target:
            for name, change in row.result.differences["reference"].items():
                expected = row.result.metrics[name].value - reference.result.metrics[name].value
                assert change.value == pytest.approx(expected, abs=1e-6)
                assert change.interval[0] <= change.value <= change.interval[1]


def test_report_shows_the_metrics(trained, validation, tmp_path):
    task = trained[0]
    record = validation.to_json()
    with open(tfkd.__path__[0] + "/report/schema.json", encoding="utf-8") as file:
        jsonschema.validate(record, json.load(file))
    for suffix in ("html", "md", "json", "xml"):
        text = tfkd.write_report(validation, tmp_path / f"report.{suffix}").read_text(encoding="utf-8")
        assert "Accuracy on" not in text
        if suffix in ("html", "md"):
            assert all(metric.label in text for metric in task.metrics)
            assert validation.rows[-1].result.constant.answer in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("Residuals" in page, "ROC curve" in page) == (task.name == "regression", task.name == "binary")
    summary = console.summary(record)
    assert f"Task: {task.name}" in summary
    assert "accuracy" not in summary


def test_contract_that_cannot_hold_is_no(trained):
    task, splits, _, _, model = trained
    limits = {"regression": {"max_mae": 0.01}, "binary": {"min_roc_auc": 99.99}, "multi_label": {"min_f1": 99.99}}
    verdict = validate(
        model, splits.test, targets=["host"], contract=Contract(**limits[task.name]), task=task.name
    ).verdict
    assert (verdict.status, verdict.binding) == ("NO", *limits[task.name])


def test_contract_without_quality_is_unknown(trained):
    task, splits, _, _, model = trained
    verdict = validate(model, splits.test, targets=["host"], contract=Contract(max_bytes=10**6), task=task.name).verdict
    assert (verdict.status, verdict.binding) == ("UNKNOWN", "quality")


def test_limit_of_another_task_is_refused(trained):
    task, splits, _, _, model = trained
    with pytest.raises(InputError, match="min_accuracy is a limit of the task classification"):
        validate(model, splits.test, targets=["host"], contract=Contract(min_accuracy=90), task=task.name)


def test_constant_model_never_ships(trained, tmp_path):
    task, splits, *_ = trained
    constant = student.build_for("mlp", splits.train, task, {"units": 12})
    last = constant.layers[-1]
    last.kernel.assign(0 * np.asarray(last.kernel))
    model = tfkd.convert(constant, tmp_path / "constant.tflite", mode="float32")
    limits = {"regression": {"max_mae": 1e6}, "binary": {"min_roc_auc": 0}, "multi_label": {"min_map": 0}}
    verdict = validate(
        model, splits.test, targets=["host"], contract=Contract(**limits[task.name]), task=task.name
    ).verdict
    assert (verdict.status, verdict.binding) == ("NO", "better_than_constant")


def test_explain_counts_in_the_metrics(trained):
    task, splits, teacher, small, model = trained
    found = explanation.explain(small, model, splits, teacher=teacher, targets=["host:plain"], task=task.name)
    assert [stage.name for stage in found.stages] == ["teacher", "student", "host:plain"]
    assert all(set(stage.metrics) == {metric.name for metric in task.metrics} for stage in found.stages)
    assert (found.stages[1].regressed is None) == (task.name == "regression")
    assert task.primary.name in "\n".join(found.lines())


def test_diff_counts_in_the_metrics(trained, tmp_path):
    task, splits, teacher, _, model = trained
    other = tfkd.convert(teacher, tmp_path / "teacher.tflite", mode="float32")
    limit = {"regression": "max_mae_increase", "binary": "max_roc_auc_drop", "multi_label": "max_map_drop"}[task.name]
    contract = Contract(**{limit: 50})
    found = difference.compare(model, other, splits.test, contract=contract, task=task.name, validation=splits.val)
    (comparison,) = found.comparisons
    assert comparison.verdict.status == "SHIP"
    assert (comparison.p_value is None) == (task.name == "regression")
    assert bool(comparison.worsened) == (task.name == "regression")
    assert task.primary.name in "\n".join(found.lines())
    json.dumps(found.to_json())
