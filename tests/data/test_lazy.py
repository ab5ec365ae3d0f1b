"""Data sets that are larger than memory: the same samples as in memory, read when they are used."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from tests.data.data_sets import arrays, folder
from tfkd import data
from tfkd.cli import app
from tfkd.data import lazy
from tfkd.data.lazy import LazySamples
from tfkd.errors import InputError


@pytest.fixture
def streamed(monkeypatch):
    """Every data set counts as large."""
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 0)


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The splits of one folder in memory, and those that are read when they are used."""
    folder(tmp_path / "pets", sizes=(10, 10, 10))
    small = data.load(tmp_path / "pets", image_size=(8, 6))
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 0)
    return small, data.load(tmp_path / "pets", image_size=(8, 6))


def test_streamed_splits_have_the_same_samples(both):
    for small, large in zip(*both, strict=True):
        assert isinstance(large.x, LazySamples)
        assert isinstance(large.take(np.arange(3)).x, LazySamples)
        assert (large.input_shape, large.x.dtype, large.x.ndim) == (small.input_shape, np.uint8, 4)
        np.testing.assert_array_equal(large.x, small.x)
        np.testing.assert_array_equal(large.x[1:3], small.x[1:3])
        np.testing.assert_array_equal(large.x[-1], small.x[-1])
        np.testing.assert_array_equal(large.digests, small.digests)
        assert (large.y.tolist(), large.ids.tolist()) == (small.y.tolist(), small.ids.tolist())


def test_streamed_batches_are_the_same(both):
    options = {"shuffle": True, "augment": data.crop_flip(1), "seed": 3}
    for (x, y), (other, labels) in zip(*(splits.train.batches(5, **options) for splits in both), strict=True):
        np.testing.assert_array_equal(x, other)
        np.testing.assert_array_equal(y, labels)
    assert x.shape[1:] == (8, 6, 3)


@pytest.mark.parametrize("by", ["row", "label"])
def test_streamed_partner_gives_the_same_samples(both, by):
    batches = (splits.train.batches(5, partner=data.Partner(splits.train, by)) for splits in both)
    for small, large in zip(*batches, strict=True):
        np.testing.assert_array_equal(small[0].teacher, large[0].teacher)


def test_content_hash_of_streamed_data_changes_with_a_file_or_an_option(tmp_path, streamed):
    pets = folder(tmp_path / "pets", sizes=(4, 4))
    first = data.load(pets, validation=0).train
    assert data.load(pets, validation=0).train.content_hash == first.content_hash
    assert data.load(pets, validation=0, color="gray").train.content_hash != first.content_hash
    Image.new("RGB", (7, 9)).save(pets / first.paths[0])
    assert data.load(pets, validation=0).train.content_hash != first.content_hash


def test_streamed_gray_data_refuse_a_color_image(tmp_path, streamed):
    folder(tmp_path, sizes=(4, 4), mode="L")
    splits = data.load(tmp_path)
    assert splits.train.input_shape == (9, 7, 1)
    Image.new("RGB", (7, 9)).save(tmp_path / splits.train.paths[0])
    with pytest.raises(InputError, match="must be gray, as the first images are. Received: colors. Pass color='rgb'"):
        splits.train.x[:2]


def test_streamed_color_is_that_of_all_files(tmp_path, streamed):
    folder(tmp_path, sizes=(4, 4))
    Image.new("L", (7, 9), 77).save(tmp_path / "class0" / "0.png")
    assert data.load(tmp_path).train.input_shape == (9, 7, 3)


def test_streamed_image_of_another_size_is_named(tmp_path, streamed):
    folder(tmp_path, sizes=(4, 4))
    Image.new("RGB", (8, 9)).save(tmp_path / "class1" / "3.png")
    with pytest.raises(InputError, match=r"class1/3.png must have the size of the first image.*image_size=\(96, 96\)"):
        [split.x[:] for split in data.load(tmp_path)]


def test_skip_broken_examines_streamed_images_first(tmp_path, streamed, caplog):
    folder(tmp_path, sizes=(4, 5))
    (tmp_path / "class1" / "2.png").write_bytes(b"broken")
    splits = data.load(tmp_path, skip_broken=True)
    assert sum(map(len, splits)) == 8
    assert "images that cannot be read are left out (1): class1/2.png" in caplog.text


def test_broken_streamed_image_ends_a_command_with_its_name(tmp_path, streamed):
    folder(tmp_path / "pets", sizes=(8, 8), size=(8, 8))
    for file in sorted((tmp_path / "pets").glob("*/*.png"))[1:]:
        file.write_bytes(b"broken")
    out = tmp_path / "m.keras"
    ran = CliRunner().invoke(app, ["train", "digits_student", "--data", str(tmp_path / "pets"), "--out", str(out)])
    assert ran.exit_code == 2
    assert "must be a readable PNG" in ran.stderr
    assert "or pass --skip-broken" in ran.stderr


@pytest.mark.parametrize("with_test", [True, False])
def test_npy_files_are_mapped(tmp_path, streamed, with_test):
    content = arrays()
    for name, array in content.items():
        if with_test or "test" not in name:
            np.save(tmp_path / f"{name}.npy", array)
    splits = data.load(tmp_path, validation=0)
    assert isinstance(splits.train.x, LazySamples)
    np.testing.assert_array_equal(splits.train.x, content["x_train"][splits.train.ids] if with_test else splits.train.x)
    assert len(splits.test) == (20 if with_test else 12)
    assert splits.train.content_hash == data.load(tmp_path, validation=0).train.content_hash


def test_small_npy_files_are_read(tmp_path):
    for name, array in arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    assert isinstance(data.load(tmp_path).train.x, np.ndarray)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("x_train", np.zeros((40, 2)), "x_train.npy must be uint8 or float32.*Received: float64"),
        ("x_train", np.full((40, 2), np.nan, np.float32), "x_train.npy must be finite.*row 0"),
        ("y_test", None, "y_test.npy must be an array of numbers"),
    ],
)
def test_bad_npy_file_is_refused(tmp_path, streamed, key, array, message):
    for name, one in arrays().items():
        if name != key or array is not None:
            np.save(tmp_path / f"{name}.npy", array if name == key else one)
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


def test_memory_mapped_arrays_are_not_read(tmp_path, streamed):
    content = arrays()
    np.save(tmp_path / "x.npy", content["x_train"])
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    splits = data.from_arrays((x, content["y_train"]), (content["x_test"], content["y_test"]), validation=0)
    assert isinstance(splits.train.x, LazySamples)
    np.testing.assert_array_equal(splits.train.x, content["x_train"])
    assert isinstance(splits.test.x, np.ndarray)


def test_batches_of_a_large_array_are_the_same(monkeypatch):
    train = data.load("digits").train.sample(20)
    small = [x.numpy() for x, _ in train.batches(8, shuffle=True)]
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 0)
    for x, (other, _) in zip(small, train.batches(8, shuffle=True), strict=True):
        np.testing.assert_array_equal(x, other)


def test_npy_folder_with_fewer_labels_than_samples_is_refused(tmp_path):
    np.save(tmp_path / "x_train.npy", np.zeros((60, 4), "float32"))
    np.save(tmp_path / "y_train.npy", np.arange(30) % 3)
    with pytest.raises(InputError, match="y_train must have the length of x_train. Received: 30 labels for 60 samples"):
        data.load(tmp_path)


@pytest.mark.parametrize("failing", [(), (0,), (2,), (0, 1, 2), (1,)], ids=["none", "first", "last", "all", "middle"])
def test_batches_at_which_a_look_up_raises_have_their_step(failing):
    rows = tf.data.Dataset.from_tensor_slices(tf.range(5, dtype=tf.int64)).batch(2)
    rows = rows.concatenate(tf.data.Dataset.from_tensors(tf.zeros(0, tf.int64)))

    def look_up(found):
        checks = [tf.debugging.assert_none_equal(found // 2, tf.constant(step, tf.int64)) for step in failing]
        with tf.control_dependencies(checks):
            return 10 * found

    dataset = lazy.first_tried(tf.data.Dataset.zip(rows, tf.data.Dataset.from_tensors(7).repeat()), look_up, 2)
    found = {int(step): (int(at), x.tolist()) for step, at, x, _, _ in dataset.as_numpy_iterator()}
    expected = [[0, 10], [20, 30], [40]]
    assert list(found) == [0, 1, 2]
    assert {step: x for step, (at, x) in found.items() if at == step} == {
        step: x for step, x in enumerate(expected) if step not in failing
    }
