"""Stored labels and augmentations of data that are read when they are used."""

import keras
import numpy as np
import pytest
from PIL import Image

import tfkd
from tests.data.data_sets import folder
from tfkd import data
from tfkd.data import augmentations, lazy
from tfkd.data.lazy import LazySamples
from tfkd.data.mixing import Mixing
from tfkd.errors import InputError


@pytest.fixture
def pets(tmp_path):
    return folder(tmp_path / "pets", sizes=(8, 8, 8), size=(12, 10))


@pytest.fixture
def small(pets):
    """The training split in memory."""
    train = data.load(pets, image_size=(8, 8)).train
    assert isinstance(train.x, np.ndarray)
    return train


@pytest.fixture
def streamed(pets, small, monkeypatch):
    """The same split, read when it is used."""
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 0)
    train = data.load(pets, image_size=(8, 8)).train
    assert isinstance(train.x, LazySamples)
    return train


def net(filters=3):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


AUGMENT, _ = augmentations.build(["resized_crop", "flip", "rotation", "color_jitter", "cutout"], {})


def test_labels_of_streamed_data_are_those_of_the_same_data_in_memory(tmp_path, small, streamed):
    teacher = net()
    stores = [
        tfkd.SoftLabels.build(tmp_path / f"labels{number}", teacher, split, views=3, augment=AUGMENT, dtype="float32")
        for number, split in enumerate((small, streamed))
    ]
    for view in range(3):
        np.testing.assert_array_equal(*(store.read(small.ids, view) for store in stores))


def test_streamed_batches_have_the_label_of_each_sample_as_the_student_sees_it(tmp_path, streamed):
    teacher = net()
    store = tfkd.SoftLabels.build(tmp_path / "labels", teacher, streamed, views=2, augment=AUGMENT, dtype="float32")
    batches = streamed.batches(5, shuffle=True, soft_labels=store)
    first, second = (list(batches.as_numpy_iterator()) for _ in range(2))
    for (x, y), (other, _) in zip(first, second, strict=True):
        assert set(y.tolist()) <= {0, 1, 2}
        for one in (x, other):
            np.testing.assert_allclose(one.soft_labels, teacher(one.student), atol=1e-4)
    originals = {sample.tobytes() for sample in streamed.x[:].astype("float32")}
    assert all(sample.tobytes() in originals for x, _ in first for sample in x.student)
    assert not any(sample.tobytes() in originals for x, _ in second for sample in x.student)


def test_distiller_learns_from_streamed_data_and_stored_labels(tmp_path, streamed):
    store = tfkd.SoftLabels.build(tmp_path / "labels", net(), streamed, views=2, augment=AUGMENT)
    distiller = tfkd.Distiller(net(2), store)
    distiller.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(streamed.batches(8, shuffle=True, soft_labels=store), epochs=4, verbose=0).history
    assert np.mean(history["loss"][-2:]) < np.mean(history["loss"][:2])


def test_labels_of_a_changed_file_are_refused(tmp_path, pets, streamed):
    store = tfkd.SoftLabels.build(tmp_path / "labels", net(), streamed)
    Image.new("RGB", (12, 10)).save(pets / streamed.paths[0])
    changed = data.load(pets, image_size=(8, 8)).train
    assert changed.ids.tolist() == streamed.ids.tolist()
    with pytest.raises(InputError, match="data"):
        changed.batches(8, soft_labels=store)


@pytest.mark.parametrize(
    "mixing",
    [*(pytest.param(one, marks=pytest.mark.campaign) for one in (None, Mixing(mixup=0.4))), Mixing(cutmix=1.0)],
    ids=["none", "mixup", "cutmix"],
)
def test_augmentations_of_streamed_data_are_those_of_the_same_data_in_memory(small, streamed, mixing):
    batches = (split.batches(7, shuffle=True, augment=AUGMENT, mixing=mixing, seed=5) for split in (small, streamed))
    for (x, y), (other, labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, other)
        np.testing.assert_array_equal(y, labels)
