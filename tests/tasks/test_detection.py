"""Object detection: anchors, decoder, loss and metrics against slow counterparts and pycocotools."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfkd
from tfkd import data, losses, models, tasks
from tfkd.distillation.features import Feature
from tfkd.errors import InputError, ModelError
from tfkd.tasks import anchors, bootstrap, detection
from tfkd.tasks.anchor_loss import AnchorLoss, targets_of
from tfkd.validation import keras_rows


def scored_task(task: tasks.Task) -> tasks.ScoredTask:
    """A task, which has metrics of its own."""
    assert isinstance(task, tasks.ScoredTask)
    return task


RNG = np.random.default_rng(0)
N, SHAPE = 40, (32, 48, 3)
X = RNG.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
LAYOUT = anchors.of(32, 48, (8, 16))


def random_boxes():
    boxes = np.zeros((N, 3, 5))
    boxes[..., 4] = -1
    for row in range(N):
        for place in range(int(RNG.integers(0, 4))):
            centre, size = RNG.random(2) * 0.6 + 0.2, RNG.random(2) * 0.2 + 0.1
            boxes[row, place] = (*(centre - size / 2), *(centre + size / 2), RNG.integers(0, 2))
    return boxes


BOXES = random_boxes()
TEST = data.from_arrays((X, BOXES), (X, BOXES), labels="boxes", class_names=("cat", "dog")).test
TASK = scored_task(tasks.find(TEST))


def outputs_of(split, noise, seed=1):
    """Outputs that are the targets of the anchors with noise."""
    rng = np.random.default_rng(seed)
    offsets, one_hot, mask = (np.asarray(one, float) for one in targets_of(split.y, LAYOUT, 2))
    logits = 6 * one_hot - 4 + rng.normal(0, noise, one_hot.shape)
    moved = np.where(mask[..., None] > 0, offsets, 0) + rng.normal(0, noise, offsets.shape)
    return np.concatenate([moved, logits], axis=-1)


def test_anchors_follow_from_the_number_of_rows():
    assert len(LAYOUT) == 3 * (4 * 6 + 2 * 3)
    np.testing.assert_array_equal(anchors.for_outputs(SHAPE, len(LAYOUT)), LAYOUT)
    # Each cell has three boxes of equal area around its centre, in pixels.
    pixels = LAYOUT * [48, 32, 48, 32]
    np.testing.assert_allclose(pixels[:3, :2], [[4, 4]] * 3)
    np.testing.assert_allclose(pixels[:3, 2] / pixels[:3, 3], [1, 2, 0.5])
    np.testing.assert_allclose(pixels[:72, 2:].prod(axis=1), (0.2 * 32) ** 2)
    np.testing.assert_allclose(pixels[72:, 2:].prod(axis=1), (0.4 * 32) ** 2)
    np.testing.assert_allclose(pixels[72:75, :2], [[8, 8]] * 3)
    with pytest.raises(ModelError, match="Received: 91 rows for images of 32 x 48"):
        anchors.for_outputs(SHAPE, 91)
    for other in ((96, 96, 3), (320, 320, 3)):  # no number of rows has two meanings
        counts = [len(anchors.of(*other[:2], strides)) for strides in anchors.STRIDES]
        assert len(set(counts)) == len(counts)


def slow_iou(one, other):
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(ends[2] - ends[0]) * (ends[3] - ends[1]) for ends in (one, other)]
    return width * height / (sum(areas) - width * height)


def test_targets_are_those_of_a_loop():
    offsets, one_hot, mask = (np.asarray(one) for one in targets_of(TEST.y, LAYOUT, 2))
    corners = np.concatenate([LAYOUT[:, :2] - LAYOUT[:, 2:] / 2, LAYOUT[:, :2] + LAYOUT[:, 2:] / 2], axis=1)
    for row in range(6):
        real = [box for box in TEST.y[row].astype(float) if box[4] >= 0]
        overlaps = np.array([[slow_iou(box, ends) for ends in corners] for box in real]).reshape(len(real), -1)
        # The best anchor of each box; of two boxes with the same best anchor the one that overlaps more has it.
        by_overlap = sorted(enumerate(overlaps), key=lambda entry: entry[1].max())
        best = {int(one.argmax()): place for place, one in by_overlap}
        for place in range(len(LAYOUT)):
            number = best.get(place)
            if number is None and len(real) and overlaps[:, place].max() >= 0.5:
                number = int(overlaps[:, place].argmax())
            assert mask[row, place] == (number is not None)
            assert one_hot[row, place].sum() == (number is not None)
            if number is not None:
                assert one_hot[row, place, int(real[number][4])] == 1
                decoded = anchors.boxes_of(offsets[row, place][None].astype(float), LAYOUT[place][None])[0]
                np.testing.assert_allclose(decoded, real[number][:4], atol=1e-5)


def slow_decode(outputs, threshold):
    """Boxes by a loop: all above the threshold, the most certain first, without those that overlap."""
    found = []
    for row, anchor in zip(outputs, LAYOUT, strict=True):
        x, y = anchor[0] + 0.1 * row[0] * anchor[2], anchor[1] + 0.1 * row[1] * anchor[3]
        w, h = anchor[2] * np.exp(0.2 * row[2]), anchor[3] * np.exp(0.2 * row[3])
        for number, logit in enumerate(row[4:]):
            score = 1 / (1 + np.exp(-logit))
            if score >= threshold:
                found.append((score, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), number))
    kept = []
    for one in sorted(found, key=lambda one: -one[0]):
        if all(other[2] != one[2] or slow_iou(other[1], one[1]) <= 0.5 for other in kept):
            kept.append(one)
    return kept


def test_decoder_equals_a_loop():
    for one in outputs_of(TEST, 1.0)[:8]:
        found, expected = anchors.decode(one, LAYOUT, 0.2), slow_decode(one, 0.2)
        assert [*found.scores] == pytest.approx([score for score, *_ in expected])
        np.testing.assert_allclose(found.ends, np.clip([ends for _, ends, _ in expected], 0, 1).reshape(-1, 4))
        assert [*found.classes] == [number for *_, number in expected]
    many = np.zeros((len(LAYOUT), 6))
    assert len(anchors.decode(many, LAYOUT, 0.4).scores) <= 100


def test_values_are_those_of_pycocotools():
    scored = TASK.score(outputs_of(TEST, 1.0), TEST)
    found = [anchors.decode(one, LAYOUT, 0.05) for one in outputs_of(TEST, 1.0)]
    evaluation = detection._run(found, TEST)
    precision = evaluation.eval["precision"][..., -1]  # of at most 100 boxes in an image
    assert scored.values["map"] == pytest.approx(100 * precision[precision > -1].mean())
    assert scored.values["ap50"] == pytest.approx(100 * precision[0][precision[0] > -1].mean())
    assert 5 < scored.values["map"] < scored.values["ap50"] < 95
    # The weighted average precision of the bootstrap is the same for weights of 1.
    ones = detection._means(np.ones((1, N)), detection.evaluate(found, TEST))[0]
    assert ones == pytest.approx([scored.values["map"], scored.values["ap50"]])
    assert scored.constant.better is True
    low, high = bootstrap.interval(scored.replicates["map"])
    assert low < scored.values["map"] < high
    rows = np.repeat(np.arange(N), next(bootstrap.counts(N))[0].astype(int))
    resampled = TASK.score(outputs_of(TEST, 1.0)[rows], TEST.take(rows))
    assert scored.replicates["map"][0] == pytest.approx(resampled.values["map"])


def test_perfect_and_uninformed_outputs():
    perfect = TASK.score(outputs_of(TEST, 0.0), TEST)
    assert perfect.values["map"] > 90
    assert perfect.errors.sum() <= 3  # objects of one class that overlap
    same = TASK.score(np.repeat(outputs_of(TEST, 1.0)[:1], N, axis=0), TEST)
    assert same.constant.better is False
    nothing = TASK.score(np.full((N, len(LAYOUT), 6), -9.0), TEST)
    assert (nothing.values["map"], nothing.constant.better) == (0.0, False)
    few = TEST.take(np.arange(5))
    assert TASK.score(outputs_of(few, 0.1), few).constant.better is None


def test_loss_equals_numpy():
    outputs = outputs_of(TEST, 1.0).astype("float32")
    offsets, one_hot, mask = (np.asarray(one, float) for one in targets_of(TEST.y, LAYOUT, 2))
    p = 1 / (1 + np.exp(-outputs[..., 4:].astype(float)))
    focal = np.where(one_hot > 0, 0.25 * (1 - p) ** 2 * -np.log(p), 0.75 * p**2 * -np.log(1 - p)).sum((1, 2))
    error = np.abs(outputs[..., :4] - offsets)
    huber = np.where(error < 1, error**2 / 2, error - 0.5).mean(-1)
    expected = (focal + 2 * (mask * huber).sum(-1)) / np.maximum(mask.sum(-1), 1)
    assert float(AnchorLoss(SHAPE[:2], box_weight=2.0)(TEST.y, outputs)) == pytest.approx(expected.mean(), rel=1e-4)
    assert isinstance(TASK.hard_loss(), AnchorLoss)
    with pytest.raises(InputError, match="the loss needs the size of the images"):
        tasks.get("object_detection").hard_loss()


def test_distillation_loss_equals_numpy():
    teacher, student = (outputs_of(TEST, 1.0, seed).astype("float32") for seed in (1, 2))
    p, q = (1 / (1 + np.exp(-z[..., 4:].astype(float))) for z in (teacher, student))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum((1, 2))
    weights = p.max(-1)
    moved = (weights * np.abs(teacher[..., :4] - student[..., :4]).mean(-1)).sum(-1)
    expected = (divergence + 3 * moved) / np.maximum(weights.sum(-1), 1)
    found = losses.build("anchor_target", box_weight=3.0)(teacher, student)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(losses.AnchorTarget()(teacher, teacher), 0, atol=1e-6)
    with pytest.raises(ModelError, match=r"outputs must be \[B, anchors, 4 \+ classes\]"):
        losses.AnchorTarget()(np.zeros((2, 6)), np.zeros((2, 6)))


def test_localization_distillation_equals_numpy():
    rng = np.random.default_rng(3)
    teacher, student = (rng.normal(0, 2, (N, len(LAYOUT), 4, 5)).astype("float32") for _ in range(2))
    p, q = (np.exp(z / 4 - np.log(np.exp(z / 4.0).sum(-1, keepdims=True))) for z in (teacher, student))
    divergence = 16 * (p * np.log(p / q)).sum(-1).mean(-1)
    corners = np.concatenate([LAYOUT[:, :2] - LAYOUT[:, 2:] / 2, LAYOUT[:, :2] + LAYOUT[:, 2:] / 2], axis=1)
    expected, unclear = np.zeros(N), 0
    for row in range(N):
        overlaps = [[slow_iou(box, ends) for ends in corners] for box in TEST.y[row].astype(float) if box[4] >= 0]
        best = [one.index(max(one)) for one in overlaps]
        counted = [place in best or any(one[place] >= 0.3 for one in overlaps) for place in range(len(LAYOUT))]
        expected[row] = (divergence[row] * counted).sum() / max(1, sum(counted))
        if any(sorted(one)[-2] > max(one) - 1e-5 for one in overlaps):  # either of two anchors is the best one
            unclear, expected[row] = unclear + 1, np.nan
    assert unclear < 5
    loss = losses.build_feature("localization", image_size=[32, 48], temperature=4.0, least_iou=0.3)
    clear = np.isfinite(expected)
    np.testing.assert_allclose(np.asarray(loss(teacher, student, TEST.y))[clear], expected[clear], rtol=1e-3)
    np.testing.assert_allclose(loss(teacher, student), divergence.mean(-1), rtol=1e-3)
    np.testing.assert_allclose(loss(teacher, teacher, TEST.y), 0, atol=1e-5)
    with pytest.raises(ModelError, match=r"features must be \[B, anchors, 4, bins\]"):
        loss(teacher[..., 0], student[..., 0])
    with pytest.raises(InputError, match="Received: no image_size"):
        losses.LocalizationDistillation()(teacher, student, TEST.y)


def test_detector_with_distributions_learns_them_from_its_teacher():
    teacher, student = (
        models.build("ssdlite", SHAPE, TASK.outputs(TEST), alpha=alpha, head=16, bins=7) for alpha in (0.5, 0.35)
    )
    assert student.output_shape == (None, len(LAYOUT), 6)
    # A distribution with all its weight on one value has that offset.
    inner = keras.Model(student.get_layer("distributions").output, student.get_layer("offsets").output)
    peaks = np.eye(7)[RNG.integers(0, 7, (1, len(LAYOUT), 4))]
    np.testing.assert_allclose(inner(100 * peaks)[0], 2 * peaks[0].argmax(-1) - 6, atol=1e-4)
    loss = losses.LocalizationDistillation(SHAPE[:2])
    features = [Feature(loss, "distributions", "distributions")]
    distiller = tfkd.Distiller(student, teacher, features=features, task=TASK.name)
    distiller.compile("adam", loss=TASK.hard_loss())
    logs = distiller.fit(TEST.batches(8, shuffle=True), epochs=4, verbose=0).history
    assert logs["feature_loss"][-1] < logs["feature_loss"][0]
    assert not student.get_layer("mean_offsets").trainable_weights


def test_outputs_of_another_shape_are_refused():
    for shape in ((90, 7), (91, 6), (90 * 6,)):
        with pytest.raises(ModelError, match="a row of 6 values, four offsets and the logits, for each anchor"):
            keras_rows.check_shapes("model", [(None, *SHAPE), (None, *shape)], TEST, TASK)
