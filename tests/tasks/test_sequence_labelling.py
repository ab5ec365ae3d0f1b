"""Sequence labelling: frame accuracy is that of scikit-learn and Keras, events are those of a plain search."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tfkd import data
from tfkd.distillation import reduction
from tfkd.errors import InputError
from tfkd.tasks import events, sequence_labelling

RNG = np.random.default_rng(0)
TASK = sequence_labelling.TASK


def frames(samples=40, steps=30, classes=3):
    """Classes in runs of 3 frames, some of them ignored."""
    y = np.repeat(RNG.integers(0, classes, (samples, steps // 3)), 3, axis=1)
    return np.where(RNG.random(y.shape) < 0.1, -1, y)


def splits(y, **options):
    x = RNG.normal(size=(*y.shape, 2)).astype("float32")
    return data.from_arrays((x, y), (x, y), labels="frames", **options)


def outputs_of(predicted, classes=3):
    return 4 * np.eye(classes)[predicted] + RNG.normal(0, 0.1, (*predicted.shape, classes))


def slow_events(row):
    found, start = [], 0
    for place in range(1, len(row) + 1):
        if place == len(row) or row[place] != row[start]:
            if row[start] > 0:
                found.append((row[start], set(range(start, place))))
            start = place
    return found


def test_metrics_are_those_of_libraries_and_of_a_plain_search():
    y = frames()
    test = splits(y).test
    predicted = np.where(RNG.random(y.shape) < 0.15, RNG.integers(0, 3, y.shape), np.maximum(y, 0))
    outputs = outputs_of(predicted)
    scored = TASK.score(outputs, dataclasses.replace(test, frame_seconds=0.5))
    counted = y >= 0
    assert scored.values["frame_accuracy"] == pytest.approx(100 * accuracy_score(y[counted], predicted[counted]))
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state(np.maximum(y, 0), outputs, sample_weight=counted)
    assert scored.values["frame_accuracy"] == pytest.approx(100 * float(metric.result()), rel=1e-5)
    (own,) = TASK.training_metrics()
    own.update_state(y, outputs)
    assert 100 * float(own.result()) == pytest.approx(scored.values["frame_accuracy"], rel=1e-5)
    found = total = false = 0
    for labels, answer in zip(np.where(counted, y, 0), np.where(counted, predicted, 0), strict=True):
        found_events, labelled_events = slow_events(answer), slow_events(labels)
        total += len(found_events) + len(labelled_events)
        for label, places in found_events:
            same = [others for other, others in labelled_events if other == label]
            found += any(len(places & others) / len(places | others) > 0.5 for others in same)
            false += not any(places & others for others in same)
    assert scored.values["event_f1"] == pytest.approx(100 * 2 * found / total)
    assert scored.values["false_accepts_per_hour"] == pytest.approx(false / (counted.sum() * 0.5 / 3600))
    assert scored.constant.better is True
    json.dumps(scored.details)


def test_time_that_is_not_known_is_not_a_rate():
    y = frames()
    assert np.isnan(TASK.score(outputs_of(np.maximum(y, 0)), splits(y).test).values["false_accepts_per_hour"])


def test_metrics_without_a_frame_that_counts_are_not_known():
    test = splits(frames()).test.take([0])
    test = dataclasses.replace(test, y=np.full_like(test.y, -1))
    scored = TASK.score(outputs_of(np.zeros((1, 30), int)), test)
    assert np.isnan([scored.values["frame_accuracy"], scored.values["event_f1"], scored.constant.value]).all()
    assert scored.constant.better is None


def test_most_frequent_class_is_not_better_than_itself():
    y = np.where(RNG.random((40, 30)) < 0.8, 0, frames())
    scored = TASK.score(outputs_of(np.zeros_like(y)), splits(y).test)
    assert scored.constant.better is False
    assert scored.values["frame_accuracy"] == pytest.approx(scored.constant.value)


def test_event_matches_at_most_one_other():
    one = events.Event(1, 0, 10)
    assert one.matches(events.Event(1, 4, 10))
    assert not one.matches(events.Event(1, 5, 10))  # half of the union is not more than half
    assert not one.matches(events.Event(2, 0, 10))


def test_ignored_frames_have_no_part_in_the_losses():
    y = np.array([[0, 1, -1, -1], [2, -1, 1, -1]], "int32")
    values = RNG.random((2, 4)).astype("float32")
    found = reduction.weighted_mean(keras.ops.array(values), None, None, TASK.counts(y))
    assert float(found) == pytest.approx(values[y >= 0].mean(), rel=1e-6)
    logits = RNG.normal(size=(2, 4, 3)).astype("float32")
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y[y >= 0], logits[y >= 0])
    assert float(TASK.hard_loss()(y, logits)) == pytest.approx(float(expected), rel=1e-5)


def test_manifest_names_the_classes_of_frames(tmp_path):
    rows = [
        {"x": [[0.0, 1.0]] * 3, "label": ["silence", "yes", -1], "split": part} for part in ("train", "train", "test")
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, _, test = data.load(path, labels="frames", validation=0)
    assert (train.class_names, train.y.tolist()) == (("silence", "yes"), [[0, 1, -1]] * 2)
    assert (test.label_kind, test.y.dtype) == ("frames", np.int32)
    path.write_text(path.read_text().replace(", -1]", "]", 1))
    with pytest.raises(InputError, match="line 2: label must be a list.*as many as in line 1"):
        data.load(path, labels="frames")


def test_names_without_a_background_are_a_warning(caplog):
    y = np.tile([0, 1], (8, 5))
    splits(y, class_names=("silence", "yes"))
    assert not caplog.text
    splits(y, class_names=("run", "walk"))
    assert "class 0, run, counts as the background" in caplog.text


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((8, 5)), "must be class numbers of frames.*float64"),
        (np.full((8, 5), -2), r"must be in 0..*or -1. Received: -2 in y_train, row 0, frame 0|two classes or more"),
        (np.zeros((8, 5), int), "two classes or more"),
        (np.full((8, 5), 2) * (np.arange(5) > 2), "each class needs training frames. Received: none of class 1"),
    ],
)
def test_wrong_labels_of_frames_are_refused(y, message):
    with pytest.raises(InputError, match=message):
        splits(y)


def test_seconds_of_a_frame_come_from_the_file(tmp_path):
    y, x = frames(), RNG.normal(size=(40, 30, 2)).astype("float32")
    names = np.array(["none", "yes", "no"])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y, frame_seconds=0.02, class_names=names)
    test = data.load(tmp_path / "a.npz", labels="frames").test
    assert (test.frame_seconds, test.class_names) == (0.02, ("none", "yes", "no"))
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=y, frame_seconds=0)
    with pytest.raises(InputError, match="frame_seconds must be a number > 0. Received: 0"):
        data.load(tmp_path / "b.npz", labels="frames")
