"""Labels that are no class numbers: values of a regression and multi-hot rows, from arrays, files and streams."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfkd import data
from tfkd.data import manifest, splitting
from tfkd.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
VALUES = RNG.normal(5, 2, (40, 2))
SETS = (RNG.random((40, 3)) < 0.5).astype("int64")


def loaded(y, **options):
    return data.from_arrays((X, y), (X + 1, y), **options)


@pytest.mark.parametrize(
    ("y", "labels", "kind", "shape"),
    [
        (VALUES, None, "values", (2,)),
        (VALUES[:, 0], None, "values", (1,)),
        (np.arange(40), "values", "values", (1,)),
        (np.arange(40.0), "values", "values", (1,)),
        (SETS, None, "multi_hot", (3,)),
        (SETS.astype("float32"), None, "multi_hot", (3,)),
        (np.eye(3, dtype=int)[np.arange(40) % 3], "multi_hot", "multi_hot", (3,)),
        (np.arange(40) % 4, None, "classes", ()),
    ],
)
def test_kind_is_found_or_declared(y, labels, kind, shape):
    for split in loaded(y, labels=labels):
        assert (split.label_kind, split.y.shape[1:]) == (kind, shape)
        assert split.y.dtype == ("float32" if kind == "values" else "int64")


def test_samples_keep_their_values():
    train, val, _ = loaded(VALUES, class_names=("width", "height"), validation=0.25)
    assert (len(train), len(val), train.class_names, train.num_classes) == (30, 10, ("width", "height"), 2)
    np.testing.assert_allclose(train.y, VALUES[train.ids], rtol=1e-6)
    np.testing.assert_allclose(train.train_mean, VALUES[np.r_[train.ids, val.ids]].mean(axis=0), rtol=1e-6)
    part = train.sample(7)
    np.testing.assert_allclose(part.y, VALUES[part.ids], rtol=1e-6)
    (x, y), *_ = train.batches(4)
    assert (x.shape, y.shape, y.dtype) == ((4, 3), (4, 2), tf.float32)
    assert repr(train) == "<Split arrays/train: 30 x (3,), 2 values>"


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.arange(40.0), {}, "must be integers.*labels='values'"),
        (np.eye(3, dtype=int)[np.arange(40) % 3], {}, "one-hot labels save"),
        (np.where(np.arange(40) == 7, np.nan, VALUES[:, 0]), {}, "y_train must be finite.*1 rows, first in row 7"),
        (VALUES[:39], {}, "must have the length of x_train. Received: 39 labels for 40"),
        (VALUES, {"class_names": ("a",)}, "one name for each of the 2 columns. *of labels.*Received: 1"),
        (SETS * 2, {"labels": "multi_hot"}, "must be rows of 0 and 1"),
        (SETS * [1, 0, 1], {}, "each label needs training samples. Received: none of label 1"),
        (VALUES, {"labels": "floats"}, "must be one of classes, values, multi_hot.* masks, boxes, points. Received"),
    ],
)
def test_wrong_labels_are_refused(y, options, message):
    with pytest.raises(InputError, match=message.replace(". *of", " of")):
        loaded(y, **options)


def test_npz_has_values(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=VALUES, x_test=X + 1, y_test=VALUES)
    np.testing.assert_allclose(data.load(tmp_path / "a.npz").test.y, VALUES, rtol=1e-6)


def rows_of(labels):
    return [{"a": 3.0 * i, "b": -3.0 * i, **label} for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("suffix", "labels", "declared", "kind", "names", "y"),
    [
        ("csv", [{"label": i + 0.5} for i in range(20)], None, "values", ("label",), [[0.5], [1.5]]),
        ("csv", [{"label": i} for i in range(20)], "values", "values", ("label",), [[0], [1]]),
        ("csv", [{"label:w": i, "label:h": i / 2} for i in range(20)], None, "values", ("w", "h"), [[0, 0], [1, 0.5]]),
        ("jsonl", [{"label": [i, i / 2]} for i in range(20)], None, "values", ("0", "1"), [[0, 0], [1, 0.5]]),
        ("csv", [{"label:cat": i % 2, "label:dog": i % 3 > 0} for i in range(20)], None, None, None, None),
        ("csv", [{"label:cat": i % 2, "label:dog": 1} for i in range(20)], None, "multi_hot", ("cat", "dog"),
         [[0, 1], [1, 1]]),
        ("csv", [{"label": ("cat|dog", "", "dog")[i % 3]} for i in range(20)], "multi_hot", "multi_hot",
         ("cat", "dog"), [[1, 1], [0, 0]]),
        ("jsonl", [{"label": (["cat", "dog"], [])[i % 2]} for i in range(20)], None, "multi_hot", ("cat", "dog"),
         [[1, 1], [0, 0]]),
        ("csv", [{"label": i % 2} for i in range(20)], None, "classes", ("0", "1"), [0, 1]),
    ],
)  # fmt: skip
def test_manifest_has_labels_of_each_kind(tmp_path, suffix, labels, declared, kind, names, y):
    path = tmp_path / f"rows.{suffix}"
    manifest.write_rows(path, rows_of(labels))
    if kind is None:  # True and False are no numbers
        with pytest.raises(InputError, match="rows.csv, line 2: column 'label:dog' must be a finite number"):
            data.load(path)
        return
    splits = data.load(path, labels=declared)
    assert {split.label_kind for split in splits} == {kind}
    assert splits.train.class_names == names
    assert splits.train.input_shape == (2,)
    x, every = (np.concatenate([getattr(split, name) for split in splits]) for name in ("x", "y"))
    every = every[np.argsort(x[:, 0])]
    np.testing.assert_allclose(every[:2], y)


@pytest.mark.parametrize(
    ("rows", "declared", "message"),
    [
        ([{"label": "0.5"}, {"label": "x"}], "values", "line 3: column 'label' must be a finite number. Received: 'x'"),
        ([{"label": "a", "label:b": "1"}] * 2, None, "either a column label or columns label:b"),
    ],
)
def test_wrong_labels_of_a_manifest_name_the_line(tmp_path, rows, declared, message):
    path = tmp_path / "rows.csv"
    manifest.write_rows(path, rows_of(rows))
    with pytest.raises(InputError, match=message):
        data.load(path, labels=declared)


def test_folder_of_classes_is_no_regression(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("L", (4, 4), i).save(tmp_path / name / f"{i}.png")
    with pytest.raises(InputError, match="labels of the kind 'values' need a manifest or arrays"):
        data.load(tmp_path, labels="values")


def test_rows_with_values_are_divided_at_random(tmp_path):
    path = tmp_path / "rows.csv"
    manifest.write_rows(path, rows_of([{"label": i + 0.5} for i in range(20)]))
    rows = splitting.rows_of(data.Request(str(path)), tmp_path / "out.csv")
    divided = splitting.split(rows, {"test": 0.2, "val": 0.1})
    assert splitting.summary(divided) == {"train": 14, "val": 2, "test": 4}


@pytest.mark.parametrize(("y", "kind"), [(VALUES, "values"), (VALUES[:, 0], "values"), (SETS, "multi_hot")])
def test_stream_has_labels_of_each_kind(y, kind):
    split = data.as_split(tf.data.Dataset.from_tensor_slices((X, y)).batch(8), "test")
    assert split.label_kind == kind
    np.testing.assert_allclose(split.y, y.reshape(40, -1), rtol=1e-6)


def test_kind_of_a_stream_is_that_of_its_first_batch():
    rows = np.eye(3, dtype="int64")[np.arange(8) % 3]
    batches = tf.data.Dataset.from_tensor_slices((X[:16], np.concatenate([rows, SETS[:8]]))).batch(8)
    assert data.as_split(batches, "test", labels="multi_hot").label_kind == "multi_hot"
    with pytest.raises(InputError, match="batch 1: labels must be class numbers"):
        data.as_split(batches, "test")


@pytest.mark.parametrize(
    ("kind", "header", "labels"),
    [
        ("values", "label", ["0.1", "2.5", "3"]),
        ("values", "label:wide,label:high", ["0.1,7", "2.5,8", "1.5,9"]),
        ("multi_hot", "label", ["cat|dog", "", "dog"]),
        ("abnormal", "label", ["normal", "normal", "bad"]),
    ],
    ids=["value", "values", "labels", "anomalies"],
)
def test_files_are_listed_with_labels_of_each_kind(tmp_path, kind, header, labels):
    rows = [f"{i}.png,{labels[i % 3]},{'test' if i % 3 == 2 else 'train'}" for i in range(12)]
    for i in range(12):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    (tmp_path / "m.csv").write_text("\n".join([f"path,{header},split", *rows]) + "\n")
    splits = data.load(tmp_path / "m.csv", labels=kind)
    manifest.write(tmp_path / "data.csv", splits, tmp_path)
    for one, other in zip(splits, data.load(tmp_path / "data.csv", labels=kind), strict=True):
        order, again = np.argsort(one.paths), np.argsort(other.paths)
        np.testing.assert_array_equal(one.y[order], other.y[again])
        assert one.class_names == other.class_names


def test_files_with_masks_are_listed_without_labels(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(10):
            Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 2).save(tmp_path / folder / f"{i}.png")
    splits = data.load(tmp_path)
    manifest.write(tmp_path / "data.csv", splits, tmp_path)
    header, *rows = (tmp_path / "data.csv").read_text().splitlines()
    assert (header, len(rows)) == ("path,split", 10)


@pytest.mark.parametrize("kind", ["values", "multi_hot", "frames"])
def test_manifest_without_labels_is_refused_whatever_their_kind(tmp_path, kind):
    (tmp_path / "m.csv").write_text("Id,mpg\n1,2.5\n")
    with pytest.raises(InputError, match="must have a column label .* Received: the columns Id, mpg"):
        data.load(tmp_path / "m.csv", labels=kind)


@pytest.mark.parametrize(
    ("kind", "form"),
    [("masks", "folders images/ and masks/"), ("boxes", "train.json .*COCO"), ("frames", "a manifest or arrays")],
    ids=["masks", "boxes", "frames"],
)
def test_folder_of_another_form_names_the_form_of_the_labels(tmp_path, kind, form):
    for name in ("train", "trainannot"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{kind!r} need {form}.*Received: train/, trainannot/"):
        data.load(tmp_path, labels=kind)
