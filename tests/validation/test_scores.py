"""Scores of outputs over the test split, against independent implementations."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from tests.validation.identity_models import split_of
from tfkd.targets.measurement import Measurement
from tfkd.validation.results import Row
from tfkd.validation.scores import OutputDivergence, Scores, measure_difference, measure_divergence, score


@pytest.mark.parametrize("right", [0, 1, 6, 8])
def test_accuracy_interval_is_wilson(test_split, right):
    outputs = np.eye(3)[np.where(np.arange(8) < right, test_split.y, (test_split.y + 1) % 3)]
    expected = stats.binomtest(right, 8).proportion_ci(0.95, method="wilson")
    found = score(outputs, test_split, None)
    assert found.accuracy == right / 8
    assert found.accuracy_interval == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_scores_confusion_worst_class_and_ties(test_split):
    found = score(test_split.x, test_split, None)
    assert found.confusion.tolist() == [[2, 0, 0], [1, 2, 0], [0, 1, 2]]
    assert found.worst_class == ("bee", pytest.approx(2 / 3))
    assert found.ties == 1 / 8  # the last sample; the first of two equal outputs counts
    assert (found.top5, found.agreement, found.flips) == (None, None, None)


def test_scores_agreement_and_flips(test_split):
    reference = np.array([0, 1, 0, 1, 2, 2, 0, 0])  # right on all but samples 2 and 6
    found = score(test_split.x, test_split, reference)  # right on all but samples 1 and 5
    assert found.agreement == 4 / 8
    assert found.flips == (2, 2)


def test_scores_class_without_test_samples_is_not_the_worst():
    split = split_of([[1, 0, 0], [1, 0, 0], [0, 1, 0]], [0, 1, 1]).test
    assert score(split.x, split, None).worst_class == ("bee", 0.5)


def test_scores_top5_beyond_ten_classes():
    names = tuple("abcdefghijkl")
    split = split_of(np.tile(np.arange(12.0), (4, 1)), [11, 7, 6, 0], names).test
    assert score(split.x, split, None).top5 == 0.5


def test_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    outputs, y = random.integers(-9, 9, (300, 20)), random.integers(0, 20, 300)  # many outputs are equal
    split = split_of(outputs, y, tuple("abcdefghijklmnopqrst")).test
    found = score(outputs, split, None)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(y, outputs.argmax(1)))
    assert found.top5 == metrics.top_k_accuracy_score(y, outputs, k=5, labels=range(20))


def test_output_divergence_counts_steps_without_overflow():
    def measured(values):
        return Measurement("host", "", 1, (np.array(values, np.int8),), {})

    first = measured([[-128, 0, 5, 7]])
    assert measure_divergence(measured([[127, 0, 6, 7]]), first) == OutputDivergence(255, 64.0, 0.5, "host")
    assert measure_divergence(first, None) is None


def test_scores_are_fields_of_a_row(test_split):
    assert {field.name for field in dataclasses.fields(Scores)} <= {field.name for field in dataclasses.fields(Row)}
    found = score(test_split.x, test_split, None)
    row = Row("m", "host", 1000, None, 8).with_scores(found)
    assert (row.accuracy, row.worst_class, row.confusion) == (found.accuracy, found.worst_class, found.confusion)


# From Newcombe's paper on paired data, method 10: samples that both, the first, the second and neither got right.
@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292), ((1, 97, 1, 1), 0.8737, 0.9850)],
)
def test_interval_of_a_difference_is_that_of_newcombe(counts, low, high):
    right = np.repeat([True, True, False, False], counts)
    other = np.repeat([True, False, True, False], counts)
    found = measure_difference(right, other, paired=True, against="other")
    assert found.points == pytest.approx(100 * (right.mean() - other.mean()))
    assert found.interval == (pytest.approx(100 * low, abs=0.01), pytest.approx(100 * high, abs=0.01))


def test_interval_of_a_difference_between_other_samples_is_that_of_newcombe():
    right, other = np.arange(70) < 56, np.arange(80) < 48  # from the paper on independent proportions
    found = measure_difference(right, other, paired=False, against="other")
    assert found.interval == (pytest.approx(5.24, abs=0.01), pytest.approx(33.39, abs=0.01))
    swapped = measure_difference(other, right, paired=False, against="other")
    assert swapped.interval == (pytest.approx(-found.interval[1]), pytest.approx(-found.interval[0]))
