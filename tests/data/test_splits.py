import dataclasses
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from tfkd import data
from tfkd.data import sources


def arrays(rows=40, shape=(6, 5, 3), classes=4, seed=0):
    """Distinct random images in the layout of keras.datasets."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return {
        "x_train": rng.integers(0, 256, (rows, *shape), np.uint8),
        "y_train": y,
        "x_test": rng.integers(0, 256, (rows // 2, *shape), np.uint8),
        "y_test": y[: rows // 2],
    }


def saved(tmp_path, **changes):
    parts = {**arrays(), **changes}
    np.savez(tmp_path / "set.npz", **{key: part for key, part in parts.items() if part is not None})
    return tmp_path / "set.npz"


def folder(path, sizes=(4, 4, 4), size=(7, 9), mode="RGB", suffix="png"):
    """A folder with one class folder per entry of `sizes`, holding that many images of (width, height) `size`."""
    rng = np.random.default_rng(len(str(path)))
    for label, count in enumerate(sizes):
        (path / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(path / f"class{label}" / f"{number}.{suffix}")
    return path


# --- what load gives


def test_digits_are_those_of_scikit_learn():
    bunch, found = load_digits(), sources.read_digits()
    np.testing.assert_array_equal(found.x_train[..., 0], np.rint(bunch.images * (255 / 16)))
    np.testing.assert_array_equal(found.y_train, bunch.target)


def test_digits_are_images_in_0_255_with_every_class_in_every_part():
    splits = data.load("digits")
    assert sum(map(len, splits)) == 1797
    for split, role in zip(splits, ("train", "val", "test"), strict=True):
        assert (split.role, split.name, split.input_shape, split.num_classes) == (role, "digits", (8, 8, 1), 10)
        assert (split.x.dtype, split.y.dtype, split.ids.dtype) == (np.uint8, np.int64, np.int64)
        assert (split.x.min(), split.x.max()) == (0, 255)
        counts = np.bincount(split.y)
        assert counts.min() > 0.9 * counts.max()


def test_test_part_does_not_depend_on_seed_or_validation():
    first, second = data.load("digits", seed=0), data.load("digits", seed=7, validation=0.3)
    assert first.test.content_hash == second.test.content_hash
    assert first.train.content_hash != second.train.content_hash
    assert first.test.held_out is None
    assert first.train.held_out is first.val.held_out is first.test


def test_load_repeats_exactly():
    assert [s.content_hash for s in data.load("digits", seed=3)] == [
        s.content_hash for s in data.load("digits", seed=3)
    ]


def test_ids_are_rows_of_the_source_whatever_the_seed(tmp_path):
    source = arrays()
    path = saved(tmp_path)
    whole = np.concatenate([source["x_train"], source["x_test"]])
    for seed, validation in ((0, 0.1), (5, 0.5), (1, 0)):
        splits = data.load(path, seed=seed, validation=validation)
        ids = np.concatenate([split.ids for split in splits])
        assert sorted(ids) == list(range(60))
        for split in splits:
            np.testing.assert_array_equal(split.x, whole[split.ids])


def test_validation_is_stratified(tmp_path):
    y = np.repeat(np.arange(3), [100, 20, 3])
    path = saved(tmp_path, x_train=arrays(123)["x_train"], y_train=y, y_test=np.arange(20) % 3)
    _, val, _ = data.load(path, validation=0.1)
    assert np.bincount(val.y).tolist() == [10, 2, 1]


def test_validation_zero_gives_an_empty_val(tmp_path):
    splits = data.load(saved(tmp_path), validation=0)
    assert [len(split) for split in splits] == [40, 0, 20]
    assert list(splits.val.batches(8)) == []


def test_npz_labels_may_be_a_column(tmp_path):
    source = arrays()
    splits = data.load(saved(tmp_path, y_train=source["y_train"][:, None].astype(np.uint8)))
    np.testing.assert_array_equal(splits.train.y, source["y_train"][splits.train.ids])


@pytest.mark.parametrize(
    ("shape", "dtype", "expected_shape", "expected_dtype"),
    [
        ((6, 5), np.uint8, (6, 5, 1), np.uint8),  # grayscale images
        ((6, 5), np.float64, (6, 5), np.float32),  # a sequence of features
        ((80,), np.float32, (80,), np.float32),
        ((6, 5, 3), np.int64, (6, 5, 3), np.uint8),
        ((6, 5, 3), np.float16, (6, 5, 3), np.float32),
    ],
)
def test_npz_shape_and_dtype(tmp_path, shape, dtype, expected_shape, expected_dtype):
    source = arrays(shape=shape)
    path = saved(tmp_path, x_train=source["x_train"].astype(dtype), x_test=source["x_test"].astype(dtype))
    train, _, test = data.load(path)
    assert (train.input_shape, train.x.dtype) == (test.input_shape, test.x.dtype) == (expected_shape, expected_dtype)


def test_integers_beyond_a_byte_in_one_part_keep_both_parts_alike(tmp_path):
    source = arrays(shape=(6, 5))
    train, _, test = data.load(saved(tmp_path, x_train=source["x_train"].astype(int) * 2, x_test=source["x_test"]))
    assert train.x.dtype == test.x.dtype == np.float32
    assert train.input_shape == test.input_shape == (6, 5)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "my_own"])
def test_name_is_looked_up_in_tfkd_data_first(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFKD_DATA", str(tmp_path))
    saved(tmp_path, **arrays(classes=10)).rename(tmp_path / f"{name}.npz")
    splits = data.load(name)
    assert splits.train.name == name
    assert splits.train.class_names[3] == ("cat" if name == "cifar10" else "3")


def test_name_not_in_tfkd_data_comes_from_the_cache_of_keras(tmp_path, monkeypatch):
    import keras

    monkeypatch.setenv("TFKD_DATA", str(tmp_path))
    source = arrays(shape=(28, 28), classes=10)
    parts = ((source["x_train"], source["y_train"]), (source["x_test"], source["y_test"]))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: parts)
    assert data.load("mnist").train.input_shape == (28, 28, 1)


def test_failed_download_says_where_to_put_the_file(monkeypatch):
    import keras

    def offline():
        raise Exception("URL fetch failure")

    monkeypatch.delenv("TFKD_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", offline)
    with pytest.raises(RuntimeError, match="URL fetch failure.* Put cifar10.npz.*TFKD_DATA"):
        data.load("cifar10")


# --- folders


@pytest.mark.parametrize(("mode", "suffix", "channels"), [("RGB", "png", 3), ("L", "jpg", 1), ("RGBA", "png", 3)])
def test_folder_of_classes_gets_a_stratified_test_part(tmp_path, mode, suffix, channels):
    splits = data.load(folder(tmp_path / "pets", sizes=(10, 10, 20), mode=mode, suffix=suffix))
    assert splits.train.input_shape == (9, 7, channels)
    assert splits.train.class_names == ("class0", "class1", "class2")
    assert splits.train.name == "pets"
    assert np.bincount(splits.test.y).tolist() == [3, 3, 6]
    assert splits.test.content_hash == data.load(tmp_path / "pets", seed=9).test.content_hash


def test_folder_with_train_and_test_is_taken_as_it_is(tmp_path):
    folder(tmp_path / "train", sizes=(5, 5))
    folder(tmp_path / "test", sizes=(2, 3))
    splits = data.load(tmp_path)
    assert np.bincount(splits.test.y).tolist() == [2, 3]
    stored = np.asarray(Image.open(tmp_path / "test" / "class1" / "0.png"))
    np.testing.assert_array_equal(splits.test.x[2], stored)


def test_folder_image_size_resizes(tmp_path):
    folder(tmp_path, size=(7, 9))
    Image.new("RGB", (20, 30)).save(tmp_path / "class0" / "large.png")
    assert data.load(tmp_path, image_size=(8, 6)).train.input_shape == (8, 6, 3)


def test_folder_mixing_grayscale_and_colour_is_colour(tmp_path):
    folder(tmp_path)
    Image.new("L", (7, 9), 77).save(tmp_path / "class0" / "0.png")
    splits = data.load(tmp_path, validation=0)
    grey = [image for split in splits for image in split.x if (image == 77).all()]
    assert [image.shape for image in grey] == [(9, 7, 3)]


def test_folder_turns_photographs_upright(tmp_path):
    folder(tmp_path, size=(7, 9), suffix="jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (9, 7)).save(tmp_path / "class0" / "photo.jpg", exif=exif)
    assert data.load(tmp_path).train.input_shape == (9, 7, 3)


# --- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"must hold y_test. Received: x_train, y_train, x_test. Save it with"),
        ({"y_train": np.zeros(39, int)}, "y_train must be as long as x_train. Received: 39 labels for 40 samples"),
        ({"y_train": np.arange(40) % 4 - 1}, r"labels must be in 0..2.*Received: -1 in y_train"),
        ({"y_test": np.full(20, 4)}, r"labels must be in 0..3, the classes of y_train. Received: 4 in y_test"),
        ({"y_train": np.arange(40) % 4 + 0.0}, "y_train must be integers. Received: dtype float64"),
        ({"y_train": np.eye(4, dtype=int)[np.arange(40) % 4]}, r"one-hot labels save y_train.argmax\(axis=1\)"),
        ({"y_train": np.array([0, 1, 3, 3] * 10)}, "Received: none of class 2, while there are 4 classes"),
        ({"y_train": np.array([0, 10**15] * 20)}, "Received: none of class 1, while"),
        (
            {"x_train": np.full((40, 6, 5, 3), np.nan)},
            "x_train must be finite.*NaN or infinity in 40 samples, first in",
        ),
        ({"x_test": np.full((20, 6, 5, 3), 1e300)}, "x_test must be finite in float32"),
        ({"x_test": np.zeros((20, 6, 6, 3), np.uint8)}, r"must have one shape. Received: \(6, 5, 3\) and \(6, 6, 3\)"),
        ({"x_train": np.zeros((0, 6, 5, 3)), "y_train": np.zeros(0, int)}, "x_train must be .* not empty"),
        ({"x_train": np.zeros(40)}, r"x_train must be \[N, ...\]"),
        ({"x_train": np.full((40, 2), "a")}, "x_train must hold numbers. Received: dtype <U1"),
        ({"x_train": np.full((40, 2), None)}, "must hold plain, whole arrays.*allow_pickle"),
        (
            {"y_train": np.array([3] + [0, 1, 2] * 13)},
            "validation part needs 2 .* Received: 1 of class 3.*validation=0",
        ),
    ],
)
def test_npz_with_bad_content_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"load: .*set.npz.*{message}"):
        data.load(saved(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(ValueError, match="set.npz must be a .npz archive. Received: File is not a zip file. Save it"):
        data.load(tmp_path / "set.npz")


def test_npz_cut_short_inside_an_array_is_refused(tmp_path):
    with np.load(saved(tmp_path)) as archive, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for key in archive:
            cut.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match="cut.npz must hold plain, whole arrays"):
        data.load(tmp_path / "cut.npz")


def test_npz_with_a_flipped_byte_is_refused(tmp_path):
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="set.npz must hold plain, whole arrays. Received: BadZipFile: Bad CRC-32"):
        data.load(path)


def test_npz_that_decompresses_beyond_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as bomb:
        for key in arrays():
            bomb.writestr(f"{key}.npy", b"")
            bomb.getinfo(f"{key}.npy").file_size = 2**50  # what the archive's directory will say
    with pytest.raises(ValueError, match=r"bomb.npz must fit into memory .* Received: 4,503,599,627,370,496 bytes"):
        data.load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [("cifar01", "Did you mean 'cifar10'"), ("nothing/here", "Names: digits, mnist.*or a .npz file or a folder")],
)
def test_unknown_name_is_refused(name, message):
    with pytest.raises(ValueError, match=f"load: no data set and no file or folder is called '{name}'. {message}"):
        data.load(name)


@pytest.mark.parametrize("validation", [-0.1, 1.0])
def test_validation_out_of_range_is_refused(validation):
    with pytest.raises(ValueError, match=r"validation must be in \[0, 1\)"):
        data.load("digits", validation=validation)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="load: seed must be >= 0. Received: seed=-1"):
        data.load("digits", seed=-1)


def test_image_size_for_other_than_a_folder_is_refused():
    with pytest.raises(ValueError, match="image_size is for a folder of images. Received: digits"):
        data.load("digits", image_size=(8, 8))


def break_image(path):
    (path / "class1" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")


def cut_image(path):
    file = path / "class1" / "0.png"
    file.write_bytes(file.read_bytes()[:-60])


def add_text(path):
    (path / "class1" / "readme.txt").write_text("not an image")


def add_large(path):
    Image.new("RGB", (8, 9)).save(path / "class1" / "wide.png")


def add_deep(path):
    Image.new("I;16", (7, 9)).save(path / "class1" / "deep.png")


def add_empty(path):
    (path / "class9").mkdir()


def add_lone(path):
    folder(path / "more", sizes=(1,))
    (path / "more" / "class0").rename(path / "lone")
    (path / "more").rmdir()


def add_val(path):
    folder(path / "train")
    folder(path / "val")


def add_unequal(path):
    for entry in list(path.iterdir()):
        (path / "train").mkdir(exist_ok=True)
        entry.rename(path / "train" / entry.name)
    folder(path / "test", sizes=(2, 2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_image, "class1/0.png must be a readable PNG or JPEG.*Repair or remove it"),
        (cut_image, "class1/0.png must be a readable PNG or JPEG"),
        (add_text, "class1/readme.txt must be a readable PNG or JPEG"),
        (add_deep, r"class1/deep.png must be .* 8 bits a channel. Received: pixels of more than 8 bits"),
        (
            add_large,
            r"class1/wide.png must be as large as .*\(9, 7\).*Received: \(9, 8\).*image_size=\(height, width\)",
        ),
        (add_empty, "class9: each class needs images. Received: an empty folder"),
        (add_lone, "test part needs 2 training samples of each class. Received: 1 of class lone"),
        (add_val, "must hold train/ and test/ and no other folder.*Received: .*train, val"),
        (add_unequal, "train/ and test/ must have the same classes. Received: class2 in one only"),
    ],
)
def test_bad_folder_is_refused(tmp_path, spoil, message):
    spoil(folder(tmp_path / "pets"))
    with pytest.raises(ValueError, match=f"load: .*{message}"):
        data.load(tmp_path / "pets")


def test_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold one folder of images per class. Received: no folder"):
        data.load(tmp_path)


# --- the split


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
        ValueError, match="calibration needs a split with role train or val. Received: <Split digits/test"
    ):
        test.require("train", "val", purpose="calibration")
    with pytest.raises(ValueError, match="validation needs a split with role test"):
        train.require("test", purpose="validation")


def test_sample_is_stratified_seeded_and_keeps_the_role():
    train = data.load("digits").train
    sample = train.sample(100, seed=1)
    assert (sample.role, sample.held_out) == ("train", train.held_out)
    assert np.bincount(sample.y).tolist() == [10] * 10
    assert len(set(sample.ids)) == 100
    np.testing.assert_array_equal(sample.ids, train.sample(100, seed=1).ids)
    assert set(sample.ids) != set(train.sample(100, seed=2).ids)


def test_sample_covers_rare_classes(tmp_path):
    y = np.repeat(np.arange(3), [100, 20, 3])
    path = saved(tmp_path, x_train=arrays(123)["x_train"], y_train=y, y_test=np.arange(20) % 3)
    train = data.load(path).train
    assert set(train.sample(3).y) == {0, 1, 2}
    assert len(train.sample(len(train))) == len(train)


@pytest.mark.parametrize("n", [0, 10_000])
def test_sample_of_impossible_size_is_refused(n):
    with pytest.raises(ValueError, match=f"n must be in 1..1132. Received: n={n}"):
        data.load("digits").train.sample(n)


def test_overlap_finds_copies_and_load_takes_them(tmp_path):
    source = arrays()
    source["x_test"][[3, 5]] = source["x_train"][[7, 8]]
    train, val, test = data.load(saved(tmp_path, **source))
    found = np.concatenate([train.overlap(test), val.overlap(test)])
    assert sorted(found) == [7, 8]
    assert sorted([*test.overlap(train), *test.overlap(val)]) == [43, 45]


def test_overlap_sees_through_dtype(tmp_path):
    source = arrays()
    pixels = data.load(saved(tmp_path))
    floats = data.from_arrays(
        (source["x_train"].astype(np.float32), source["y_train"]), (source["x_test"], source["y_test"])
    )
    np.testing.assert_array_equal(floats.test.overlap(pixels.test), pixels.test.ids)


def test_digits_hold_no_copy_of_a_test_image():
    train, val, test = data.load("digits")
    assert not len(train.overlap(test))
    assert not len(val.overlap(test))


def test_content_hash_sees_every_change(tmp_path):
    source = arrays()
    hashes = {data.load(saved(tmp_path)).test.content_hash}
    source["x_test"][0, 0, 0, 0] ^= 1
    hashes.add(data.load(saved(tmp_path, x_test=source["x_test"])).test.content_hash)
    hashes.add(data.load(saved(tmp_path, y_test=source["y_test"][::-1])).test.content_hash)
    assert len(hashes) == 3


def test_from_arrays_checks_as_load_does():
    source = arrays()
    with pytest.raises(ValueError, match="load: mine: y_test must be as long as x_test"):
        data.from_arrays((source["x_train"], source["y_train"]), (source["x_test"], source["y_test"][:3]), name="mine")


def test_import_loads_no_tensorflow():
    program = "import sys, tfkd.data; tfkd.data.load(); print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


# --- batches


def epoch(dataset):
    xs, ys = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(xs), np.concatenate(ys)


def test_batches_hold_each_sample_once_as_float32_in_order():
    val = data.load("digits").val
    dataset = val.batches(50)
    assert int(dataset.cardinality()) == 3
    assert dataset.element_spec[0] == tf.TensorSpec((None, 8, 8, 1), tf.float32)
    x, y = epoch(dataset)
    np.testing.assert_array_equal(x, val.x.astype(np.float32))
    np.testing.assert_array_equal(y, val.y)


def test_shuffle_gives_a_new_whole_order_at_each_epoch_and_repeats_with_the_seed():
    val = data.load("digits").val
    dataset = val.batches(32, shuffle=True, seed=4)
    first, second = epoch(dataset), epoch(dataset)
    assert not np.array_equal(first[0], second[0])
    for x, y in (first, second):
        assert sorted(y) == sorted(val.y)
        pairs = {(image.tobytes(), label) for image, label in zip(x.astype(np.uint8), y, strict=True)}
        assert pairs == {(image.tobytes(), label) for image, label in zip(val.x, val.y, strict=True)}
    again = val.batches(32, shuffle=True, seed=4)
    np.testing.assert_array_equal(epoch(again)[0], first[0])
    np.testing.assert_array_equal(epoch(again)[0], second[0])
    assert not np.array_equal(epoch(val.batches(32, shuffle=True, seed=5))[0], first[0])


def test_epoch_can_be_set_to_resume():
    val = data.load("digits").val
    dataset = val.batches(32, shuffle=True, augment=data.crop_flip(1))
    passes = [epoch(dataset)[0] for _ in range(3)]
    resumed = val.batches(32, shuffle=True, augment=data.crop_flip(1))
    resumed.epoch.assign(1)
    np.testing.assert_array_equal(epoch(resumed)[0], passes[2])


def test_augmented_pixels_depend_on_sample_epoch_and_seed_only():
    val = data.load("digits").val
    augment = data.crop_flip(2)
    by_content = dict(zip((row.tobytes() for row in epoch(val.batches(7))[0]), range(len(val)), strict=True))
    assert len(by_content) == len(val)
    expected = augment.batch(tf.constant(val.x, tf.float32), data.view_seeds(val.ids, 0, seed=3)).numpy()
    np.testing.assert_array_equal(epoch(val.batches(7, augment=augment, seed=3))[0], expected)
    x, _ = epoch(val.batches(50, shuffle=True, augment=augment, seed=3))
    assert sorted(row.tobytes() for row in x) == sorted(row.tobytes() for row in expected)
    assert not np.array_equal(epoch(val.batches(7, augment=augment, seed=4))[0], expected)


def test_augment_on_one_sample_gives_what_the_batched_form_gives():
    val = data.load("digits").val
    augment = data.crop_flip(2)
    one_by_one = epoch(val.batches(32, shuffle=True, augment=lambda x, seed: augment(x, seed)))[0]
    np.testing.assert_array_equal(one_by_one, epoch(val.batches(32, shuffle=True, augment=augment))[0])


def test_augment_by_stateless_tensorflow_ops():
    val = data.load("digits").val
    dataset = val.batches(32, augment=lambda x, seed: x + tf.random.stateless_uniform(x.shape, seed))
    noise = epoch(dataset)[0] - val.x
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() <= 1
    assert len({row.tobytes() for row in noise}) == len(val)


def test_batch_size_zero_is_refused():
    with pytest.raises(ValueError, match="Split.batches: batch_size must be > 0. Received: batch_size=0"):
        data.load("digits").val.batches(0)
