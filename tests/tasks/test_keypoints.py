"""Keypoints: decoder, loss and metrics against slow counterparts and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from tfkd import data, losses, tasks
from tfkd.errors import InputError, ModelError
from tfkd.tasks import bootstrap, heatmaps, keypoints
from tfkd.tasks.heatmap_loss import HeatmapCrossentropy, NearCells, targets_of
from tfkd.validation import keras_rows


def scored_task(task: tasks.Task) -> tasks.ScoredTask:
    """A task, which has metrics of its own."""
    assert isinstance(task, tasks.ScoredTask)
    return task


RNG = np.random.default_rng(0)
N, H, W, K = 50, 8, 12, 4
X = RNG.integers(0, 256, (N, 32, 48, 3), dtype=np.uint8)
POINTS = np.concatenate([RNG.random((N, K, 2)), RNG.random((N, K, 1)) < 0.7], axis=-1)
POINTS[:, 0, 2] = 1
TEST = data.from_arrays((X, POINTS), (X, POINTS), labels="points", class_names=("nose", "left", "right", "tail")).test
TASK = scored_task(tasks.get("keypoints"))


def logits_of(split, noise, seed=1):
    """Heatmaps of the points with noise."""
    targets = np.asarray(targets_of(split.y, H, W, 1.0))
    return 6 * targets - 3 + np.random.default_rng(seed).normal(0, noise, targets.shape)


def test_targets_are_gaussians_around_visible_points():
    targets = np.asarray(targets_of(TEST.y, H, W, 1.5))
    for row, place in ((0, 0), (3, 1), (7, 3)):
        x, y, visible = TEST.y[row, place]
        for cell in ((0, 0), (4, 7), (7, 11)):
            square = (cell[1] + 0.5 - x * W) ** 2 + (cell[0] + 0.5 - y * H) ** 2
            assert targets[row, cell[0], cell[1], place] == pytest.approx(visible * np.exp(-square / 4.5), abs=1e-6)


def test_decoder_finds_the_points_between_cells():
    found = heatmaps.decode(np.asarray(targets_of(TEST.y, H, W, 0.7)) * 12 - 6)
    visible = TEST.y[..., 2] > 0
    cells = np.abs(found[..., :2] - TEST.y[..., :2]) * [W, H]
    assert cells[visible].max() <= 0.51
    assert cells[visible].mean() < 0.25  # the middle of the best cell would have 0.25 on average
    logits = RNG.normal(size=(2, H, W, K))
    for row, place in ((0, 0), (1, 2)):
        best = divmod(int(logits[row, :, :, place].argmax()), W)
        near = [
            (1 / (1 + np.exp(-logits[row, r, c, place])), r, c)
            for r in range(max(0, best[0] - 1), min(H, best[0] + 2))
            for c in range(max(0, best[1] - 1), min(W, best[1] + 2))
        ]
        mass = sum(one[0] for one in near)
        expected = (
            sum(m * (c + 0.5) for m, _, c in near) / mass / W,
            sum(m * (r + 0.5) for m, r, _ in near) / mass / H,
            1 / (1 + np.exp(-logits[row, :, :, place].max())),
        )
        assert heatmaps.decode(logits)[row, place] == pytest.approx(expected)


def test_pck_counts_visible_points_within_5_percent_of_the_longer_side():
    outputs = logits_of(TEST, 1.5)
    found, right, visible = heatmaps.decode(outputs), 0, 0
    for one, label in zip(found, TEST.y, strict=True):
        for (x, y, _), (true_x, true_y, is_visible) in zip(one, label, strict=True):
            visible += is_visible
            right += is_visible * (np.hypot((x - true_x) * 48, (y - true_y) * 32) <= 0.05 * 48)
    scored = TASK.score(outputs, TEST)
    assert 0.2 < right / visible < 0.95
    assert scored.values["pck"] == pytest.approx(100 * right / visible)
    assert scored.constant.better is True


def test_oks_ap_equals_pycocotools():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    outputs = logits_of(TEST, 1.5)
    found, sides = heatmaps.decode(outputs), np.array([48.0, 32.0])
    area = keypoints.areas(TEST.y, sides)
    annotations, results = [], []
    for row, (label, one) in enumerate(zip(TEST.y.astype(float), found, strict=True)):
        flat = np.concatenate([label[:, :2] * sides, 2 * (label[:, 2:] > 0)], axis=1)
        annotations.append(
            {"id": row + 1, "image_id": row, "category_id": 1, "area": float(area[row]), "iscrowd": 0,
             "bbox": [0, 0, 48, 32], "keypoints": flat.ravel().tolist(), "num_keypoints": int(label[:, 2].sum())}
        )  # fmt: skip
        flat = np.concatenate([one[:, :2] * sides, np.ones((K, 1))], axis=1)
        results.append(
            {"image_id": row, "category_id": 1, "keypoints": flat.ravel().tolist(), "score": float(one[:, 2].mean())}
        )
    truth = COCO()
    truth.dataset = {"images": [{"id": row} for row in range(N)], "annotations": annotations,
                     "categories": [{"id": 1}]}  # fmt: skip
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(K, 0.06)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"].mean()
    assert 0.05 < expected < 0.95
    assert TASK.score(outputs, TEST).values["oks_ap"] == pytest.approx(100 * expected, rel=1e-9)


def test_replicates_are_metrics_of_resampled_data():
    outputs = logits_of(TEST, 1.5)
    scored = TASK.score(outputs, TEST)
    rows = np.repeat(np.arange(N), next(bootstrap.counts(N))[0].astype(int))
    resampled = TASK.score(outputs[rows], TEST.take(rows))
    assert scored.replicates["pck"][0] == pytest.approx(resampled.values["pck"])
    assert scored.replicates["oks_ap"][0] == pytest.approx(resampled.values["oks_ap"])


def test_model_without_information_is_not_better_than_a_constant():
    noise = np.random.default_rng(2).normal(0, 1, (N, H, W, K))
    assert TASK.score(noise, TEST).constant.better is False
    assert TASK.score(np.repeat(noise[:1], N, axis=0), TEST).constant.better is False
    few = TEST.take(np.arange(5))
    assert TASK.score(logits_of(few, 0.1), few).constant.better is None


def test_loss_and_training_metric_equal_numpy():
    outputs = logits_of(TEST, 1.5).astype("float32")
    targets = np.asarray(targets_of(TEST.y, H, W, 1.0), float)
    p = 1 / (1 + np.exp(-outputs.astype(float)))
    losses = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
    weights = 1 + 4 * targets
    expected = ((weights * losses).sum((1, 2, 3)) / weights.sum((1, 2, 3))).mean()
    assert float(HeatmapCrossentropy(point_weight=5.0)(TEST.y, outputs)) == pytest.approx(expected, rel=1e-5)
    metric, near, visible = NearCells(), 0, 0
    metric.update_state(TEST.y, outputs)
    for logits, label in zip(outputs, TEST.y, strict=True):
        for place, (x, y, is_visible) in enumerate(label):
            row, column = np.unravel_index(logits[..., place].argmax(), (H, W))
            near += is_visible * (max(abs(row - int(y * H)), abs(column - int(x * W))) <= 1)
            visible += is_visible
    assert float(metric.result()) == pytest.approx(near / visible)


def test_distillation_loss_equals_numpy():
    teacher, student = (logits_of(TEST, 1.0, seed).astype("float32") for seed in (1, 2))
    p, q = (1 / (1 + np.exp(-z.astype(float))) for z in (teacher, student))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    weights = 1 + 7 * p
    expected = (weights * divergence).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    np.testing.assert_allclose(losses.build("heatmap_target", point_weight=8.0)(teacher, student), expected, rtol=1e-4)
    equal = losses.build("heatmap_target", point_weight=1.0, temperature=2.0)(teacher, student)
    plain = losses.build("sigmoid_target", temperature=2.0)(teacher, student)
    np.testing.assert_allclose(equal, np.mean(plain, axis=(1, 2)), rtol=1e-5)
    with pytest.raises(InputError, match="point_weight must be a finite number >= 1"):
        losses.HeatmapTarget(point_weight=0.5)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"one heatmap per point, \[rows, columns, 4\], for arrays"):
        keras_rows.check_shapes("model", [(None, 32, 48, 3), (None, 8, 12, 5)], TEST, TASK)
