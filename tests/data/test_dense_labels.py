"""Masks, boxes and points as labels of arrays: what is refused, and what the message names."""

from __future__ import annotations

import numpy as np
import pytest

from tfkd import data
from tfkd.data import augmentations
from tfkd.errors import InputError

X = np.random.default_rng(0).integers(0, 256, (6, 4, 6, 3), dtype=np.uint8)
MASKS = np.arange(6 * 4 * 6).reshape(6, 4, 6) % 3
BOXES = np.tile(np.array([[0.1, 0.2, 0.5, 0.6, 0], [0.5, 0.5, 1, 1, 1], [0, 0, 0, 0, -1]]), (6, 1, 1))
POINTS = np.tile(np.array([[0.25, 0.5, 2], [9, 9, 0]]), (6, 1, 1))
POINTS[0, 1] = (1, 0, 1)


def loaded(y, labels=None, x=X, **options):
    return data.from_arrays((x, y), (x, y), labels=labels, validation=0.2, **options)


def changed(y, place, value):
    y = y.copy()
    y[place] = value
    return y


def test_masks_are_found_by_their_shape():
    train, val, test = loaded(MASKS)
    assert (train.label_kind, train.y.dtype, test.y.shape, train.num_classes) == ("masks", np.uint8, (6, 4, 6), 3)
    assert repr(test) == "<Split arrays/test: 6 x (4, 6, 3), 3 classes>"
    np.testing.assert_array_equal(test.y, MASKS)
    assert test.take([1, 2]).label_kind == val.label_kind == "masks"
    assert loaded(changed(MASKS, (0, 0, 0), 255)).train.num_classes == 3  # ignored, no class
    assert loaded(MASKS[..., None], "masks").test.y.shape == (6, 4, 6)


def test_boxes_and_points_are_declared():
    boxes, points = loaded(BOXES, "boxes"), loaded(POINTS, "points", class_names=("nose", "tail"))
    np.testing.assert_allclose(boxes.test.y, BOXES, rtol=1e-6)
    assert (boxes.train.num_classes, points.train.class_names) == (2, ("nose", "tail"))
    np.testing.assert_allclose(points.test.y[:2], [[[0.25, 0.5, 1], [1, 0, 1]], [[0.25, 0.5, 1], [0, 0, 0]]])
    slightly = changed(BOXES, (0, 0, 0), -0.0005)
    assert loaded(slightly, "boxes").test.y.min() == -1.0  # the class of a row that fills; the box is cut off


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        (MASKS[:, :3], None, "height and width of their images, 4 x 6. Received: 3 x 6"),
        (MASKS[:5], None, "must have the length of x_train"),
        (MASKS * 200, None, r"must be in 0..255. Received: 0..400 in row 0"),
        (MASKS // 2 * 255, None, "masks must have two classes or more. Received: one, 0.*save 1"),
        (MASKS * 2, None, "none of class 1, while there are 5 classes"),
        (MASKS * 1.5, "masks", "must be masks, integers"),
        (BOXES[..., :4], "boxes", r"must be boxes \[N, M, 5\]"),
        (changed(BOXES, (3, 1, 2), 1.2), "boxes", r"in their image.*Received: \[0.5, 0.5, 1.2, 1.0, 1.0\] in row 3"),
        (changed(BOXES, (2, 0, 3), 0.1), "boxes", "left < right and top < bottom.*in row 2"),
        (changed(BOXES, (1, 1, 0), 1.0004) * [1, 1, 1.0005, 1, 1], "boxes", "left < right and top < bottom.*in row 1"),
        (changed(BOXES, (4, 0, 4), 0.5), "boxes", "whole class number.*in row 4"),
        (changed(BOXES, (4, 0, 4), np.nan), "boxes", "finite"),
        (changed(BOXES, (slice(None), slice(None), 4), -1), "boxes", "none at all"),
        (POINTS[..., :2], "points", r"must be points \[N, K, 3\]"),
        (changed(POINTS, (5, 0, 0), -0.1), "points", r"lie in their image.*Received: \[-0.1, 0.5, 2.0\] in row 5"),
        (changed(POINTS, (0, 1, 2), 0), "points", "none of 1"),
    ],
    ids=["size", "rows", "range", "one", "gap", "float", "columns", "outside", "empty", "cut", "class", "nan", "none",
         "three", "point", "invisible"],
)  # fmt: skip
def test_wrong_labels_are_refused(y, labels, message):
    with pytest.raises(InputError, match=message):
        loaded(y, labels)


@pytest.mark.parametrize(("y", "labels"), [(BOXES, "boxes"), (POINTS, "points")], ids=["boxes", "points"])
def test_positions_in_samples_that_are_no_images_are_refused(y, labels):
    with pytest.raises(InputError, match=rf"samples with {labels} must be images.*Received: samples of shape \(24,\)"):
        loaded(y, labels, X[..., 0].reshape(6, 24))


def test_a_class_without_training_samples_is_refused():
    with pytest.raises(InputError, match="Received: 3 in y_test, row 2"):
        data.from_arrays((X, MASKS), (X, changed(MASKS, (2, 0, 0), 3)), validation=0)
    with pytest.raises(InputError, match="none of class tree"):
        loaded(MASKS, class_names=("ground", "sky", "house", "tree"))


def test_augmentations_that_move_pixels_are_refused():
    train = loaded(MASKS).train
    jitter, moving = (augmentations.build(names, {})[0] for names in (["color_jitter"], ["color_jitter", "rotation"]))
    _, y = next(iter(train.batches(5, augment=jitter)))
    np.testing.assert_array_equal(y, train.y)
    with pytest.raises(InputError, match="rotation moves its pixels away from its masks"):
        train.batches(5, augment=moving)
