"""The generated data set `shapes`: its labels of every kind agree with its images and with each other."""

from __future__ import annotations

import numpy as np
import pytest

from tfkd import data
from tfkd.data.sources import shapes
from tfkd.errors import InputError

KINDS = ("classes", "multi_hot", "values", "masks", "boxes", "points")


@pytest.fixture(scope="module")
def splits():
    return {kind: data.load("shapes", labels=kind, sample_count=60, image_size=(40, 56)) for kind in KINDS}


def test_samples_do_not_depend_on_labels_and_number(splits):
    more = data.load("shapes", sample_count=80, image_size=(40, 56), validation=0)
    for kind in KINDS:
        train, val, test = splits[kind]
        assert (len(train), len(val), len(test), train.input_shape, train.x.dtype) == (38, 4, 18, (40, 56, 3), np.uint8)
        assert train.label_kind == kind
        np.testing.assert_array_equal(train.ids, splits["values"].train.ids if kind != "classes" else train.ids)
    np.testing.assert_array_equal(more.train.x[splits["masks"].train.ids], splits["masks"].train.x)
    assert splits["masks"].train.class_names == ("background", "circle", "square", "triangle")


def test_labels_of_all_kinds_agree(splits):
    test = {kind: splits[kind].test for kind in KINDS}
    for row in range(len(test["masks"])):
        mask, boxes = test["masks"].y[row], test["boxes"].y[row]
        real = boxes[boxes[:, 4] >= 0]
        counts = np.bincount(real[:, 4].astype(int), minlength=3)
        np.testing.assert_array_equal(test["values"].y[row], counts)
        np.testing.assert_array_equal(test["multi_hot"].y[row], counts > 0)
        np.testing.assert_array_equal(test["points"].y[row, :, 2], counts > 0)
        assert set(np.unique(mask)) - {0} == set(np.flatnonzero(counts) + 1)
        assert counts[test["classes"].y[row]] > 0
        covered = np.zeros_like(mask)
        for left, top, right, bottom, shape in real:
            columns, rows = slice(round(left * 56), round(right * 56)), slice(round(top * 40), round(bottom * 40))
            inside = mask[rows, columns] == shape + 1
            # The box is tight: the shape touches each of its sides.
            assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            covered[rows, columns] = 1
        assert not mask[covered == 0].any()
        for shape in np.flatnonzero(counts):
            x, y, _ = test["points"].y[row, shape]
            assert mask[int(y * 40), int(x * 56)] == shape + 1


def test_a_shape_has_its_area_and_its_colour():
    for number in range(30):
        scene = shapes.scene(number, 96, 96)
        for one in scene.objects:
            factor = {"circle": np.pi, "square": 2.0, "triangle": 0.75 * 3**0.5}[shapes.SHAPES[one.shape]]
            covered = one.covers(96, 96)
            assert covered.sum() == pytest.approx(factor * one.radius**2, rel=0.1)
            mean = scene.image[covered].mean(axis=0)
            wanted = np.array(tuple(shapes.COLORS.values())[one.color], float)
            assert mean @ wanted / np.linalg.norm(mean) / np.linalg.norm(wanted) > 0.995
        assert scene.caption.count(",") == len(scene.objects) - 1


def test_captions_are_token_ids_of_the_same_samples(splits):
    captions = data.load("shapes", labels="values", sample_count=60, image_size=(40, 56), content="caption")
    for found, images in zip(captions, splits["values"], strict=True):
        np.testing.assert_array_equal(found.ids, images.ids)
        np.testing.assert_array_equal(found.y, images.y)
        assert found.input_shape == (20,)
        for tokens, counts in zip(found.x, found.y, strict=True):
            words = [shapes.VOCABULARY[token] for token in tokens]
            np.testing.assert_array_equal([words.count(shape) for shape in shapes.SHAPES], counts)


@pytest.mark.parametrize(
    "options",
    [{"sample_count": 19}, {"image_size": (15, 48)}, {"sample_count": -1}, {"content": "text"}, {"color": "gray"}],
    ids=["few", "small", "negative", "content", "color"],
)  # fmt: skip
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="Received"):
        data.load("shapes", **options)


@pytest.mark.parametrize("labels", ["abnormal", "frames", "identities"])
def test_labels_that_shapes_do_not_have_are_refused(labels):
    with pytest.raises(InputError, match=f"shapes has labels of the kinds classes.*Received: labels='{labels}'"):
        data.load("shapes", labels=labels, sample_count=20)
