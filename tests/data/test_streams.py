"""Data in the forms of Keras and TensorFlow Lite as a split."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import data
from tfkd.errors import InputError

X = np.arange(20 * 6, dtype=np.float32).reshape(20, 2, 3)
Y = np.arange(20) % 4


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(5 * index, 5 * index + 5)
        return X[rows], keras.utils.to_categorical(Y[rows], 4), np.ones(5)


def batches():
    yield X[:12], Y[:12]
    yield X[12:], Y[12:, None]


FORMS = {
    "arrays": lambda: (X, Y),
    "batched dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
    "dataset of samples": lambda: tf.data.Dataset.from_tensor_slices((X, Y)),
    "PyDataset": lambda: Batches(),
    "generator function": lambda: batches,
    "stream": lambda: data.Stream(batches, 20),
}


@pytest.mark.parametrize("form", FORMS)
def test_labelled_data_become_a_split(form):
    split = data.as_split(FORMS[form](), "test")
    np.testing.assert_array_equal(split.x, X)
    np.testing.assert_array_equal(split.y, Y)
    assert (split.role, split.num_classes, split.ids.tolist()) == ("test", 4, list(range(20)))


def test_split_stays_as_it_is():
    train = data.load("digits").train
    assert data.as_split(train, "train") is train


def test_representative_dataset_has_one_class():
    split = data.as_split(lambda: ([x[None]] for x in X), "train", labelled=False)
    np.testing.assert_array_equal(split.x, X)
    assert split.num_classes == 1
    named = data.as_split(lambda: ({"image": x[None]} for x in X), "train", labelled=False)
    np.testing.assert_array_equal(named.x, X)


def test_draw_keeps_samples_from_all_of_the_data():
    ids = [data.as_split(FORMS[form](), "train", draw=6).ids.tolist() for form in ("arrays", "dataset of samples")]
    assert len(ids[0]) == len(set(ids[0])) == 6
    assert ids[0] == ids[1] == sorted(ids[0])
    assert max(ids[0]) > 6
    assert len(data.as_split((X, Y), "train", draw=50)) == 20


def test_draw_takes_a_part_of_endless_data():
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).repeat().batch(8)
    assert len(data.as_split(endless, "train", draw=3)) == 3
    with pytest.raises(InputError, match="tf.data.Dataset: the data must end. Received: one that repeats forever"):
        data.as_split(endless, "train")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: (X[:3],), "batch 0: each sample needs a label"),
        (lambda: [(X[:3], Y[:3]), (X[3:6],)], "batch 1: each sample needs a label"),
        (lambda: [(X[:3], Y[:3]), (X[3:6, :1], Y[3:6])], r"batch 1: inputs must be numbers \[B, 2, 3\]"),
        (lambda: [(X[:3] * np.nan, Y[:3])], "batch 0: inputs must be finite"),
        (lambda: [((X[:3], X[:3]), Y[:3])], "batch 0: samples must be one array, or of several inputs a dict"),
        (lambda: [({"a": X[:3], "b": X[:3]}, Y[:3]), ({"a": X[:3], "c": X[:3]}, Y[:3])], "batch 1.*inputs a, b, as"),
        (lambda: [({"a": X[:3], "b": X[:3]}, Y[:3]), (X[:3], Y[:3])], "Received: ndarray after another form"),
        (lambda: [(X[:3], {"digit": Y[:3], "ink": Y[:3]})], "labels must be one array.*Received: a dict of 2"),
        (lambda: [(X[:3], Y[:2])], r"batch 0: labels must be class numbers \[3\]"),
        (lambda: [(X[:3], ["a", "b", "c"])], "batch 0: labels must be class numbers"),
        (lambda: [(X[:3], [0, -1, 1])], "batch 0: labels must be in 0..3. Received: -1"),
        (lambda: [(X[:3], [0, 4, 1])], "batch 0: labels must be in 0..3. Received: 4"),
        (list, "must have samples"),
        (data.Stream(batches, 21), "must yield 21 samples. Received: 20. Pass samples=20"),
        (data.Stream(lambda: itertools.cycle([(X, Y)]), 39), "must yield 39 samples. Received: more. Pass their"),
        (X, "an array without labels, batch 0: each sample needs a label"),
        ([X], "must be a split of tfkd.data, arrays .*Received: list"),
        (lambda: [(X, Y, 1, 2)], "must yield .x, y.. Received: 4 values"),
    ],
)
def test_wrong_data_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        data.as_split(source, "test", num_classes=4)


def test_stream_without_samples_is_refused():
    with pytest.raises(InputError, match="samples must be > 0"):
        data.Stream(batches, 0)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (tf.data.Dataset.from_tensor_slices((X * np.nan, Y)).batch(8).prefetch(1), "tf.data.Dataset, batch 0: inputs"),
        (data.Stream(batches, 21), "Stream of the function batches: the function must yield"),
        ((X, Y - 5), "arrays, batch 0: labels"),
        (Batches(), "Batches, batch 0: labels"),
    ],
    ids=["dataset", "stream", "arrays", "PyDataset"],
)
def test_message_names_the_form_of_the_data_by_public_names(source, name):
    with pytest.raises(InputError, match=f"^{name}") as raised:
        data.as_split(source, "test", num_classes=2 if isinstance(source, Batches) else 4)
    assert "_" not in str(raised.value).partition("Received")[0].replace("tf.data", "")


@pytest.mark.parametrize("wrap", [lambda function: function, lambda function: data.Stream(function, 20)])
def test_error_in_a_generator_of_the_user_comes_through(wrap):
    def broken():
        yield X[:12], Y[:12]
        yield {}["camera 2"]

    with pytest.raises(KeyError, match="camera 2") as raised:
        data.as_split(wrap(broken), "test")
    assert raised.traceback[-1].name == "broken"
