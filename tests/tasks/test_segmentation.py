"""Segmentation: metrics against Keras and scikit-learn, the constant answer, and from shapes to the verdict."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score

from tfkd import data, tasks
from tfkd.data.dense_labels import IGNORED
from tfkd.distillation import reduction
from tfkd.errors import ModelError
from tfkd.tasks import bootstrap
from tfkd.validation import keras_rows


def scored_task(task: tasks.Task) -> tasks.ScoredTask:
    """A task, which has metrics of its own."""
    assert isinstance(task, tasks.ScoredTask)
    return task


RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 6, 8, 3), dtype=np.uint8)
Y = RNG.integers(0, 3, (40, 6, 8))
Y[:, :2] = 0
Y[RNG.random(Y.shape) < 0.1] = IGNORED
TEST = data.from_arrays((X, Y), (X, Y), class_names=("ground", "tree", "house")).test
TASK = scored_task(tasks.get("segmentation"))


def outputs_of(split, noise, classes=3):
    one_hot = np.eye(256)[split.y][..., :classes]
    return one_hot + np.random.default_rng(1).normal(0, noise, one_hot.shape)


def test_task_is_found_by_masks():
    assert tasks.find(TEST).name == "segmentation"
    assert TASK.outputs(TEST) == 3


def test_miou_equals_keras_and_dice_equals_scikit_learn():
    outputs = outputs_of(TEST, 0.8)
    outputs[..., 2] -= 9  # a class that is never predicted has an IoU of 0
    scored = TASK.score(outputs, TEST)
    metric = keras.metrics.MeanIoU(num_classes=3, ignore_class=IGNORED, sparse_y_pred=False)
    metric.update_state(TEST.y, outputs)
    assert scored.values["miou"] == pytest.approx(100 * float(metric.result()), rel=1e-5)
    counted = TEST.y != IGNORED
    dice = f1_score(TEST.y[counted], outputs.argmax(-1)[counted], average="macro")
    assert scored.values["dice"] == pytest.approx(100 * dice)
    by_class = f1_score(TEST.y[counted], outputs.argmax(-1)[counted], average=None)
    assert [one["dice"] for one in scored.details["per_class"]] == pytest.approx(100 * by_class)
    assert scored.errors == pytest.approx(
        [1 - (o.argmax(-1)[c] == y[c]).mean() for o, y, c in zip(outputs, TEST.y, counted, strict=True)]
    )


def test_class_that_does_not_occur_is_left_out():
    y = np.where(TEST.y == 2, 1, TEST.y)
    test = data.from_arrays((X, Y), (X, y)).test
    outputs = outputs_of(test, 0.1)
    scored = TASK.score(outputs, test)
    metric = keras.metrics.MeanIoU(num_classes=3, ignore_class=IGNORED, sparse_y_pred=False)
    metric.update_state(test.y, outputs)
    assert scored.values["miou"] == pytest.approx(100 * float(metric.result()), rel=1e-5)
    assert scored.details["per_class"][2]["iou"] is None


def test_replicates_are_metrics_of_resampled_data():
    outputs = outputs_of(TEST, 0.8)
    scored = TASK.score(outputs, TEST)
    rows = np.repeat(np.arange(40), next(bootstrap.counts(40))[0].astype(int))
    resampled = TASK.score(outputs[rows], TEST.take(rows))
    for name, value in resampled.values.items():
        assert scored.replicates[name][0] == pytest.approx(value)
        low, high = bootstrap.interval(scored.replicates[name])
        assert low < scored.values[name] < high


def test_model_without_information_is_not_better_than_a_constant():
    noise = np.random.default_rng(2).normal(0, 1, (40, 6, 8, 3))
    constant = np.broadcast_to(np.random.default_rng(3).normal(0, 1, (6, 8, 3)), noise.shape)
    assert TASK.score(noise, TEST).constant.better is False
    assert TASK.score(constant, TEST).constant.better is False
    good = TASK.score(outputs_of(TEST, 0.5), TEST)
    assert good.constant.better is True
    # The best mask for all samples, by trying each class at each pixel.
    best = np.array(
        [[np.bincount(column[column != IGNORED]).argmax() for column in row] for row in Y.transpose(1, 2, 0)]
    )
    metric = keras.metrics.MeanIoU(num_classes=3, ignore_class=IGNORED)
    metric.update_state(TEST.y, np.broadcast_to(best, TEST.y.shape))
    assert good.constant.value == pytest.approx(100 * float(metric.result()), rel=1e-5)
    few = TEST.take(np.arange(5))
    assert TASK.score(outputs_of(few, 0.5), few).constant.better is None


def test_metrics_without_a_pixel_that_counts_are_not_known():
    test = dataclasses.replace(TEST, y=np.full_like(TEST.y, IGNORED))
    scored = TASK.score(outputs_of(TEST, 0.5), test)
    assert np.isnan([*scored.values.values(), scored.constant.value]).all()
    assert scored.constant.better is None


def test_loss_and_training_metric_leave_out_ignored_pixels():
    outputs = outputs_of(TEST, 0.8).astype("float32")
    counted = TEST.y != IGNORED
    log_p = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p[counted], TEST.y[counted][:, None].astype(int), -1).mean()
    assert float(TASK.hard_loss()(TEST.y, outputs)) == pytest.approx(float(expected), rel=1e-4)
    values = -np.take_along_axis(log_p, np.minimum(TEST.y, 2)[..., None].astype(int), -1)[..., 0]
    soft = reduction.weighted_mean(keras.ops.array(values), None, None, TASK.counts(TEST.y))
    assert float(soft) == pytest.approx(float(expected), rel=1e-4)
    of_samples = reduction.weighted_mean(keras.ops.array(values[:, 0, 0]), None, None, TASK.counts(TEST.y))
    assert float(of_samples) == pytest.approx(values[:, 0, 0].mean(), rel=1e-4)
    (metric,) = TASK.training_metrics()
    metric.update_state(TEST.y, outputs)
    assert float(metric.result()) == pytest.approx(1 - TASK.score(outputs, TEST).errors.mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(6, 8, 4), (3, 4, 3), (3,), (144,)], ids=str)
def test_outputs_of_another_shape_are_refused(shape):
    with pytest.raises(ModelError, match=r"one logit per pixel and class, \(6, 8, 3\) for arrays"):
        keras_rows.check_shapes("model", [(None, 6, 8, 3), (None, *shape)], TEST, TASK)
