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


def test_augmentations_that_move_what_labels_belong_to_are_refused():
    train = loaded(MASKS).train
    jitter, moving = (augmentations.build(names, {})[0] for names in (["color_jitter"], ["color_jitter", "rotation"]))
    _, y = next(iter(train.batches(5, augment=jitter)))
    np.testing.assert_array_equal(y, train.y)
    with pytest.raises(InputError, match="rotation changes the samples only, and moves them away from their masks"):
        train.batches(5, augment=moving)
    frames = loaded(np.arange(24).reshape(6, 4) % 2, "frames", X[..., 0]).train
    with pytest.raises(InputError, match="time_shift changes the samples only, and moves them away from their frames"):
        frames.batches(5, augment=augmentations.build(["time_shift"], {})[0])

    def brighten(x, seed):
        return x + 1

    with pytest.raises(InputError, match="Received: brighten without the attribute moves"):
        train.batches(5, augment=brighten)
    vars(brighten)["moves"] = False
    x, y = next(iter(train.batches(5, augment=brighten)))
    np.testing.assert_array_equal(x, train.x + 1.0)
    np.testing.assert_array_equal(y, train.y)


SEVERAL = np.random.default_rng(1).integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
CORNERS = np.random.default_rng(2).random((40, 3, 3))


def mirrored_label(label, kind):
    if kind == "masks":
        return np.array([0, 2, 1, 255], np.uint8)[np.minimum(label, 3)][:, ::-1]
    if kind == "boxes":
        return [[1 - r, t, 1 - le, b, (1, 0, -1)[int(c)]] if c >= 0 else [0, 0, 0, 0, -1] for le, t, r, b, c in label]
    return [[1 - x if visible else 0, down, visible] for x, down, visible in label[[0, 2, 1]]]


@pytest.mark.parametrize("kind", ["masks", "boxes", "points"])
@pytest.mark.parametrize("names", [["flip"], ["noise", "flip"]], ids=["alone", "in a chain"])
def test_labels_are_mirrored_with_their_image(kind, names):
    y = {
        "masks": np.where(SEVERAL[..., 1] < 200, SEVERAL[..., 0] % 3, 255),
        "boxes": np.tile(BOXES[:1], (40, 1, 1)),
        "points": np.concatenate([CORNERS[..., :2], CORNERS[..., 2:] > 0.3], axis=2),
    }[kind]
    sides = ("left_eye", "right_eye")
    class_names = sides if kind == "boxes" else ("nose", *sides)
    train = data.from_arrays((SEVERAL, y), (SEVERAL, y), labels=kind, validation=0, class_names=class_names).train
    augment, _ = augmentations.build(names, {"noise": {"level": 0.0}} if names[1:] else {})
    images, labels = next(iter(train.batches(40, augment=augment)))
    mirrored = 0
    for image, found, original, label in zip(images.numpy(), labels.numpy(), train.x, train.y, strict=True):
        flipped = not np.allclose(image, original, atol=1e-3)
        mirrored += flipped
        expected = label.copy()
        if flipped:
            np.testing.assert_allclose(image, original[:, ::-1], atol=1e-3)
            expected = mirrored_label(label, kind)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 8 < mirrored < 32


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "points without names"),
        (("nose", "left_eye"), "'left_eye' without 'right_eye'"),
        (("nose", "r_eye"), "'r_eye' without 'l_eye'"),
    ],
    ids=["none", "one side", "one letter"],
)
def test_points_are_mirrored_only_where_their_sides_are_known(names, message):
    train = loaded(POINTS, "points", class_names=names).train
    with pytest.raises(InputError, match=message):
        train.batches(5, augment=augmentations.build(["flip"], {})[0])


def test_mirrored_classes_that_would_keep_the_name_of_a_side_are_refused_or_named(caplog):
    y = np.arange(6) % 3
    flip, jitter = (augmentations.build([name], {})[0] for name in ("flip", "color_jitter"))
    signs = loaded(y, class_names=("stop", "turnLeft", "turnRight")).train
    with pytest.raises(InputError, match="Received: the classes 'turnLeft' and 'turnRight'"):
        signs.batches(2, augment=flip)
    with pytest.raises(InputError, match=r"^augment: crop_flip mirrors images.*use crop_flip with flip = false"):
        signs.batches(2, augment=data.crop_flip())
    signs.batches(2, augment=jitter)
    signs.batches(2, augment=data.crop_flip(flip=False))
    assert not caplog.records
    loaded(y, class_names=("right_whale", "cleft", "bright")).train.batches(2, augment=flip)
    assert "Received: right_whale. Leave flip out" in caplog.text
    caplog.clear()
    loaded(y, class_names=("L", "R", "copyright")).train.batches(2, augment=flip)  # letters are no sides
    assert not caplog.records


def test_partner_of_mirrored_images_is_refused():
    train = loaded(BOXES, "boxes").train
    with pytest.raises(InputError, match="would not be those of the mirrored image"):
        train.batches(5, augment=augmentations.build(["flip"], {})[0], partner=data.Partner(train))


def test_classes_whose_sides_are_letters_are_named_since_they_may_be_sizes(caplog):
    y = np.tile(BOXES[:1], (6, 1, 1))
    flip = augmentations.build(["flip"], {})[0]
    loaded(y, "boxes", class_names=("left_shoe", "right_shoe")).train.batches(2, augment=flip)
    assert not caplog.records
    loaded(y, "boxes", class_names=("size_l", "size_r")).train.batches(2, augment=flip)
    assert "Received: the classes 'size_l' and 'size_r', which exchange their names" in caplog.text
