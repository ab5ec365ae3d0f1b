"""Centroid detection on a grid: decoder, loss and F1 against slow counterparts, the threshold, and the decoder in C."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfkd import data, tasks
from tfkd.errors import ModelError
from tfkd.tasks import bootstrap, grid, matching
from tfkd.tasks.grid_loss import CellF1, GridCrossentropy, cells_of
from tfkd.validation import keras_rows


def scored_task(task: tasks.Task) -> tasks.ScoredTask:
    """A task, which has metrics of its own."""
    assert isinstance(task, tasks.ScoredTask)
    return task


RNG = np.random.default_rng(0)
TASK = scored_task(tasks.get("centroid_detection"))
# 60 samples with up to three objects of two classes, and logits of an 6 x 8 grid that fit them more or less.
BOXES = np.zeros((60, 3, 5))
for _row, _place in itertools.product(range(60), range(3)):
    _x, _y = RNG.random(2) * 0.8 + 0.1
    BOXES[_row, _place] = (_x - 0.05, _y - 0.05, _x + 0.05, _y + 0.05, RNG.integers(-1, 2))
BOXES[..., :4] *= BOXES[..., 4:] >= 0
X = RNG.integers(0, 256, (60, 6, 8, 3), dtype=np.uint8)
TEST = data.from_arrays((X, BOXES), (X, BOXES), labels="boxes", class_names=("cat", "dog")).test


def logits_of(split, noise, seed=1):
    """Logits that say what lies in each cell, with noise."""
    one_hot = np.eye(3)[np.asarray(cells_of(split.y, 6, 8))]
    return 4 * one_hot + np.random.default_rng(seed).normal(0, noise, one_hot.shape)


def slow_cells(boxes, height, width):
    cells = np.zeros((height, width), int)
    for left, top, right, bottom, number in boxes:
        if number >= 0:
            row, column = int((top + bottom) / 2 * height), int((left + right) / 2 * width)
            cells[row, column] = max(cells[row, column], int(number) + 1)
    return cells


def test_boxes_become_cells():
    expected = np.stack([slow_cells(boxes, 6, 8) for boxes in TEST.y])
    np.testing.assert_array_equal(cells_of(TEST.y, 6, 8), expected)
    assert expected.max() == 2


def slow_decode(logits, threshold):
    """The centres by a loop over all cells and classes."""
    height, width, channels = logits.shape
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = []
    for row, column, channel in itertools.product(range(height), range(width), range(1, channels)):
        own = p[row, column, channel]
        near = [
            (p[r, c, channel], (r, c) < (row, column))
            for r in range(max(0, row - 1), min(height, row + 2))
            for c in range(max(0, column - 1), min(width, column + 2))
            if (r, c) != (row, column)
        ]
        if own >= threshold and all(own > other if before else own >= other for other, before in near):
            found.append((own, (column + 0.5) / width, (row + 0.5) / height, channel - 1))
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("rounded", [False, True], ids=["float", "ties"])
def test_decoder_equals_a_loop(rounded):
    for logits in logits_of(TEST, 1.5):
        values = np.round(logits) if rounded else logits
        found, expected = grid.decode(values, 0.3), slow_decode(values, 0.3)
        assert [*found.scores] == pytest.approx([one[0] for one in expected])
        if not rounded:  # equal scores may be in another order
            assert [*zip(found.x, found.y, found.classes, strict=True)] == [one[1:] for one in expected]
        assert len(set(zip(found.x, found.y, found.classes, strict=True))) == len(expected)


def slow_counts(split, outputs, threshold):
    """Right centres, centres and objects of all samples."""
    right = called = objects = 0
    for logits, boxes in zip(outputs, split.y, strict=True):
        free = [list(one) for one in boxes if one[4] >= 0]
        objects += len(free)
        for _, x, y, number in slow_decode(logits, threshold):
            called += 1
            near = [
                (np.hypot((x - (one[0] + one[2]) / 2) * 8, (y - (one[1] + one[3]) / 2) * 6), place)
                for place, one in enumerate(free)
                if one[4] == number
            ]
            if near and min(near)[0] <= 1:
                right += 1
                del free[min(near)[1]]
    return right, called, objects


def test_f1_counts_centres_within_one_cell():
    outputs = logits_of(TEST, 1.5)
    scored = TASK.score(outputs, TEST, threshold=0.4)
    right, called, objects = slow_counts(TEST, outputs, 0.4)
    assert 0 < right < min(called, objects)
    assert scored.values["f1"] == pytest.approx(100 * 2 * right / (called + objects))
    assert sum(one["objects"] for one in scored.details["per_class"]) == objects
    assert scored.errors.sum() == called + objects - 2 * right
    perfect = TASK.score(logits_of(TEST, 0.0), TEST)
    assert perfect.values["f1"] > 90  # neighbouring objects of one class are one centre
    assert perfect.constant.better is True


def test_replicates_are_metrics_of_resampled_data():
    outputs = logits_of(TEST, 1.5)
    scored = TASK.score(outputs, TEST)
    rows = np.repeat(np.arange(60), next(bootstrap.counts(60))[0].astype(int))
    resampled = TASK.score(outputs[rows], TEST.take(rows))
    assert scored.replicates["f1"][0] == pytest.approx(resampled.values["f1"])


def test_model_without_information_is_not_better_than_a_constant():
    constant = np.broadcast_to(logits_of(TEST, 1.0)[:1], (60, 6, 8, 3))
    assert TASK.score(constant, TEST).constant.better is False
    better = [TASK.score(np.random.default_rng(n).normal(0, 2, (60, 6, 8, 3)), TEST).constant.better for n in range(20)]
    assert sum(better) <= 4
    few = TEST.take(np.arange(5))
    assert TASK.score(logits_of(few, 0.0), few).constant.better is None


def test_threshold_is_the_best_of_all():
    outputs = logits_of(TEST, 2.0)
    chosen = TASK.choose_threshold(outputs, TEST)
    best = TASK.score(outputs, TEST, threshold=chosen).values["f1"]
    others = [TASK.score(outputs, TEST, threshold=one).values["f1"] for one in np.linspace(0.05, 0.95, 19)]
    assert best >= max(others) - 1e-9
    assert (
        matching.best_threshold(
            matching.Matches(*(np.zeros(0, int),) * 3, np.zeros(0, bool), np.ones((1, 2), int)), 0.5
        )
        == 0.5
    )


def test_loss_weighs_cells_with_objects_and_metric_counts_cells():
    outputs = logits_of(TEST, 1.5).astype("float32")
    cells = np.asarray(cells_of(TEST.y, 6, 8))
    log_p = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, cells[..., None], -1)[..., 0]
    weights = np.where(cells > 0, 5.0, 1.0)
    expected = ((weights * losses).sum((1, 2)) / weights.sum((1, 2))).mean()
    assert float(GridCrossentropy(object_weight=5.0)(TEST.y, outputs)) == pytest.approx(float(expected), rel=1e-5)
    metric = CellF1()
    metric.update_state(TEST.y, outputs)
    called = outputs.argmax(-1)
    right = ((called == cells) & (cells > 0)).sum()
    assert float(metric.result()) == pytest.approx(2 * right / ((called > 0).sum() + (cells > 0).sum()), rel=1e-6)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ModelError, match="a grid of cells with 3 logits, background first, for arrays"):
        keras_rows.check_shapes("model", [(None, 6, 8, 3), (None, 6, 8, 2)], TEST, TASK)


def test_probabilities_of_cells_are_refused():
    logits = logits_of(TEST, 1.0)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for one in (p, np.round(256 * p) / 256):  # of float and int8
        for answer in (lambda one=one: TASK.score(one, TEST), lambda one=one: TASK.choose_threshold(one, TEST)):
            with pytest.raises(ModelError, match="must be logits of cells.*after a softmax"):
                answer()
