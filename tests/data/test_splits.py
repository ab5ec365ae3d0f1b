import dataclasses
import pickle

import numpy as np
import pytest

from tests.data.data_sets import arrays, saved
from tfkd import data
from tfkd.errors import InputError


def test_arrays_are_read_only_even_after_pickling():
    train = data.load("digits").train
    for split in (train, pickle.loads(pickle.dumps(train)), train.sample(20)):
        with pytest.raises(ValueError, match="read-only"):
            split.x[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        train.role = "test"


def test_require_refuses_the_test_split():
    train, val, test = data.load("digits")
    train.require("train", "val", purpose="calibration")
    val.require("train", "val", purpose="calibration")
    with pytest.raises(
        InputError, match="calibration needs a split with role train or val. Received: <Split digits/test"
    ):
        test.require("train", "val", purpose="calibration")
    with pytest.raises(InputError, match="needs a split with role test"):
        train.require("test", purpose="validation")


def test_sample_is_stratified_seeded_and_keeps_the_role():
    train = data.load("digits").train
    sample = train.sample(100, seed=1)
    assert (sample.role, sample.held_out) == ("train", train.held_out)
    assert np.bincount(sample.y).tolist() == [10] * 10
    assert len(set(sample.ids)) == 100
    np.testing.assert_array_equal(sample.ids, train.sample(100, seed=1).ids)
    assert set(sample.ids) != set(train.sample(100, seed=2).ids)


def test_sample_has_rare_classes(tmp_path):
    y = np.repeat(np.arange(3), [100, 20, 3])
    path = saved(tmp_path, x_train=arrays(123)["x_train"], y_train=y, y_test=np.arange(20) % 3)
    train = data.load(path).train
    assert set(train.sample(3).y) == {0, 1, 2}
    assert len(train.sample(len(train))) == len(train)


@pytest.mark.parametrize("n", [0, 10_000])
def test_sample_of_impossible_size_is_refused(n):
    with pytest.raises(InputError, match="n must be in 1..1132"):
        data.load("digits").train.sample(n)


def test_overlap_finds_copies_of_test_samples(tmp_path):
    source = arrays()
    source["x_test"][[3, 5]] = source["x_train"][[7, 8]]
    train, val, test = data.load(saved(tmp_path, **source))
    found = np.concatenate([train.overlap(test), val.overlap(test)])
    assert sorted(found) == [7, 8]
    assert sorted([*test.overlap(train), *test.overlap(val)]) == [43, 45]


def test_overlap_compares_values_of_different_dtypes(tmp_path):
    source = arrays()
    pixels = data.load(saved(tmp_path))
    floats = data.from_arrays(
        (source["x_train"].astype(np.float32), source["y_train"]), (source["x_test"], source["y_test"])
    )
    np.testing.assert_array_equal(floats.test.overlap(pixels.test), pixels.test.ids)


def test_digits_have_no_copy_of_a_test_image():
    train, val, test = data.load("digits")
    assert not len(train.overlap(test))
    assert not len(val.overlap(test))


def test_content_hash_depends_on_samples_and_labels(tmp_path):
    source = arrays()
    hashes = {data.load(saved(tmp_path)).test.content_hash}
    source["x_test"][0, 0, 0, 0] ^= 1
    hashes.add(data.load(saved(tmp_path, x_test=source["x_test"])).test.content_hash)
    hashes.add(data.load(saved(tmp_path, y_test=source["y_test"][::-1])).test.content_hash)
    assert len(hashes) == 3


def test_equal_samples_are_named_by_their_ids_or_files(tmp_path):
    source = arrays()
    source["x_test"][3] = source["x_train"][7]
    train, val, test = data.load(saved(tmp_path, **source))
    (one,) = [part for part in (train, val) if len(part.overlap(test))]
    assert one.equal_samples(test) == f"1 equal sample ({one.role} 7 and test 43)"
    named = dataclasses.replace(test, paths=np.array([f"{number}.png" for number in range(len(test))]))
    assert named.equal_samples(named).endswith(
        "(" + ", ".join(f"test {n}.png and test {n}.png" for n in range(5)) + f" and {len(test) - 5} more)"
    )
