"""Metrics of each task against scikit-learn, their bootstrap, and the constant answer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tfkd import data, tasks
from tfkd.errors import InputError
from tfkd.tasks import bootstrap

RNG = np.random.default_rng(1)
N = 200
X = RNG.normal(size=(N, 2)).astype("float32")


def scored_task(name):
    """The task of a name, which has metrics of its own."""
    task = tasks.get(name)
    assert isinstance(task, tasks.ScoredTask)
    return task


def split_of(y, **options):
    return data.from_arrays((X, y), (X + 1, y), **options).test


VALUES = split_of(RNG.normal(3, 2, (N, 2)))
BINARY = split_of(np.arange(N) % 2)
SETS = split_of((RNG.random((N, 3)) < [0.5, 0.2, 0.7]).astype("int64"))


def outputs_of(split, noise=1.0, seed=0):
    """Outputs that fit the labels, rounded so that some are equal."""
    y = split.y.reshape(len(split), -1)
    return np.round(y + np.random.default_rng(seed).normal(0, noise, y.shape), 1)


def test_task_is_found_from_labels_and_outputs():
    classes = split_of(np.arange(N) % 4)
    assert tasks.find(VALUES).name == "regression"
    assert tasks.find(SETS).name == "multi_label"
    assert tasks.find(classes, 1).name == tasks.find(BINARY, 2).name == tasks.find(BINARY).name == "classification"
    assert tasks.find(BINARY, 1).name == tasks.find(BINARY, name="binary").name == "binary"
    for split, name, message in (
        (VALUES, "binary", "task 'binary' needs labels of the kind 'classes'. Received: 'values'"),
        (classes, "binary", "needs two classes. Received: 4"),
        (classes, "regresion", "must be one of classification, .*Did you mean 'regression'"),
    ):
        with pytest.raises(InputError, match=message):
            tasks.find(split, name=name)


def test_regression_equals_scikit_learn():
    outputs = outputs_of(VALUES)
    values = scored_task("regression").score(outputs, VALUES).values
    assert values["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(VALUES.y, outputs), rel=1e-6)
    assert values["rmse"] == pytest.approx(np.sqrt(sklearn_metrics.mean_squared_error(VALUES.y, outputs)), rel=1e-6)
    assert values["r2"] == pytest.approx(sklearn_metrics.r2_score(VALUES.y, outputs), rel=1e-6)


def test_binary_equals_scikit_learn():
    outputs, positive = outputs_of(BINARY), BINARY.y == 1
    values = scored_task("binary").score(outputs, BINARY, threshold=0.55).values
    assert values["roc_auc"] == pytest.approx(100 * sklearn_metrics.roc_auc_score(positive, outputs))
    assert values["pr_auc"] == pytest.approx(100 * sklearn_metrics.average_precision_score(positive, outputs))
    assert values["f1"] == pytest.approx(100 * sklearn_metrics.f1_score(positive, outputs[:, 0] > 0.55))


def test_multi_label_equals_scikit_learn():
    outputs = outputs_of(SETS)
    values = scored_task("multi_label").score(outputs, SETS, threshold=0.55).values
    precision = sklearn_metrics.average_precision_score(SETS.y, outputs, average="macro")
    assert values["map"] == pytest.approx(100 * precision)
    assert values["f1"] == pytest.approx(100 * sklearn_metrics.f1_score(SETS.y, outputs > 0.55, average="macro"))


def test_label_that_does_not_occur_in_the_test_part_is_left_out():
    y = SETS.y.copy()
    y[:, 1] = 0
    test = data.from_arrays((X, SETS.y), (X + 1, y), labels="multi_hot").test
    scored = scored_task("multi_label").score(outputs_of(SETS), test)
    expected = [sklearn_metrics.average_precision_score(y[:, c], outputs_of(SETS)[:, c]) for c in (0, 2)]
    assert scored.values["map"] == pytest.approx(100 * np.mean(expected))
    assert scored.details["missing"] == ["1"]


@pytest.mark.parametrize(("name", "split"), [("regression", VALUES), ("binary", BINARY), ("multi_label", SETS)])
def test_replicates_are_metrics_of_resampled_data(name, split):
    """Weights that repeat samples give what the repeated samples give, computed by scikit-learn."""
    task, outputs = scored_task(name), outputs_of(split)
    scored = task.score(outputs, split, threshold=0.55)
    first = next(bootstrap.counts(N))[0].astype(int)
    rows = np.repeat(np.arange(N), first)
    assert len(rows) == N
    resampled = task.score(outputs[rows], split.take(rows), threshold=0.55)
    for metric in task.metrics:
        assert scored.replicates[metric.name][0] == pytest.approx(resampled.values[metric.name], rel=1e-5)
        low, high = bootstrap.interval(scored.replicates[metric.name])
        assert low < scored.values[metric.name] < high


def test_interval_covers_the_true_value_in_about_95_percent():
    """RMSE of normal errors with standard deviation 1, in 200 independent test sets."""
    task, rng, covered = scored_task("regression"), np.random.default_rng(5), 0
    for _ in range(200):
        split = split_of(rng.normal(0, 3, N))
        scored = task.score(split.y + rng.normal(size=(N, 1)), split)
        low, high = bootstrap.interval(scored.replicates["rmse"])
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("name", "split"), [("regression", VALUES), ("binary", BINARY), ("multi_label", SETS)])
def test_model_without_information_is_not_better_than_a_constant(name, split):
    task, rng, better = scored_task(name), np.random.default_rng(3), 0
    for _ in range(40):
        noise = rng.normal(0, 0.1, split.y.reshape(N, -1).shape)
        constant = split.y.reshape(N, -1).mean(axis=0) if name == "regression" else 0.0
        better += bool(task.score(constant + noise, split).constant.better)
    assert better <= 6  # 5 % of 40 are 2
    assert task.score(outputs_of(split, 0.5), split).constant.better is True
    if name == "regression":
        exactly = task.score(np.broadcast_to(split.train_mean, split.y.shape), split).constant
        assert exactly.better is False


def test_few_samples_do_not_tell():
    few = split_of(RNG.normal(size=N)).take(np.arange(5))
    assert scored_task("regression").score(few.y, few).constant.better is None
    one_class = BINARY.take(np.flatnonzero(BINARY.y == 1))
    scored = scored_task("binary").score(outputs_of(one_class), one_class)
    assert scored.constant.better is None
    assert np.isnan(scored.values["roc_auc"])
    assert bootstrap.interval(scored.replicates["roc_auc"]) is None


@pytest.mark.parametrize(("name", "split"), [("binary", BINARY), ("multi_label", SETS)])
def test_threshold_has_the_highest_f1(name, split):
    task, outputs = scored_task(name), outputs_of(split)
    chosen = task.choose_threshold(outputs, split)
    best = task.score(outputs, split, threshold=chosen).values["f1"]
    others = [task.score(outputs, split, threshold=one).values["f1"] for one in np.linspace(-2, 3, 60)]
    assert best >= max(others) - 1e-9


def test_paired_difference_is_narrower_than_an_unpaired_one():
    task, outputs = scored_task("regression"), outputs_of(VALUES)
    one, other = task.score(outputs, VALUES), task.score(outputs + 0.01, VALUES)
    elsewhere = task.score(outputs + 0.01, VALUES, seed=1)

    def width(a, b):
        found = bootstrap.difference(a.values["mae"], b.values["mae"], a.replicates["mae"], b.replicates["mae"])
        return found.interval[1] - found.interval[0]

    assert width(one, other) < 0.2 * width(one, elsewhere)
