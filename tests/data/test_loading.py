import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.data.data_sets import arrays, folder, saved
from tfkd import data
from tfkd.data.sources import SOURCES, digits
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError, ToolMissingError


def test_digits_equal_those_of_scikit_learn():
    bunch, found = load_digits(), digits.read(Request("digits"))
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


def test_test_split_does_not_depend_on_seed_or_validation():
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


def test_failed_download_names_the_folder_for_the_file(monkeypatch):
    import keras

    def offline():
        raise Exception("URL fetch failure")

    monkeypatch.delenv("TFKD_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", offline)
    with pytest.raises(ToolMissingError, match="URL fetch failure.* Put cifar10.npz.*TFKD_DATA"):
        data.load("cifar10")


# Folders of images.


@pytest.mark.parametrize(("mode", "suffix", "channels"), [("RGB", "png", 3), ("L", "jpg", 1), ("RGBA", "png", 3)])
def test_folder_of_classes_gets_a_stratified_test_part(tmp_path, mode, suffix, channels):
    splits = data.load(folder(tmp_path / "pets", sizes=(10, 10, 20), mode=mode, suffix=suffix))
    assert splits.train.input_shape == (9, 7, channels)
    assert splits.train.class_names == ("class0", "class1", "class2")
    assert splits.train.name == "pets"
    assert np.bincount(splits.test.y).tolist() == [3, 3, 6]
    assert splits.test.content_hash == data.load(tmp_path / "pets", seed=9).test.content_hash


def test_folder_with_train_and_test_keeps_its_parts(tmp_path):
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


def test_folder_applies_the_exif_orientation(tmp_path):
    folder(tmp_path, size=(7, 9), suffix="jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated by 90 degrees
    Image.new("RGB", (9, 7)).save(tmp_path / "class0" / "photo.jpg", exif=exif)
    assert data.load(tmp_path).train.input_shape == (9, 7, 3)


# Invalid input.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"must hold y_test. Received: x_train, y_train, x_test. Save it with"),
        ({"y_train": np.zeros(39, int)}, "y_train must have the length of x_train. Received: 39 labels"),
        ({"y_train": np.arange(40) % 4 - 1}, r"labels must be in 0..2.*Received: -1 in y_train"),
        ({"y_test": np.full(20, 4)}, r"labels must be in 0..3, the classes of y_train. Received: 4 in y_test"),
        ({"y_test": np.array([0] * 7 + [9] + [0] * 12)}, "Received: 9 in y_test, row 7"),
        ({"y_train": np.array(["cat", "dog"] * 20)}, "y_train must be integers. Received: texts, such as 'cat'. Save"),
        ({"y_test": np.array([b"cat"] * 20)}, "y_test must be integers. Received: texts, such as .*np.unique"),
        ({"y_train": np.arange(40) % 4 + 0.0}, "y_train must be integers. Received: dtype float64"),
        ({"y_train": np.eye(4, dtype=int)[np.arange(40) % 4]}, r"one-hot labels save y_train.argmax\(axis=1\)"),
        ({"y_train": np.array([0, 1, 3, 3] * 10)}, "Received: none of class 2, while there are 4 classes"),
        ({"y_train": np.array([0, 10**15] * 20)}, "Received: none of class 1, while"),
        (
            {"x_train": np.full((40, 6, 5, 3), np.nan)},
            "x_train must be finite.*NaN or infinity in 40 rows, first in",
        ),
        ({"x_test": np.full((20, 6, 5, 3), 1e300)}, "x_test must be finite in float32"),
        (
            {"x_test": np.zeros((20, 6, 6, 3), np.uint8)},
            r"must have the same shape. Received: \(6, 5, 3\) and \(6, 6, 3\)",
        ),
        ({"x_train": np.zeros((0, 6, 5, 3)), "y_train": np.zeros(0, int)}, "x_train must be .* not empty"),
        ({"x_train": np.zeros(40)}, r"x_train must be \[N, ...\]"),
        ({"x_train": np.full((40, 2), "a")}, "x_train must be numbers. Received: dtype <U1"),
        ({"x_train": np.full((40, 2), None)}, "must hold undamaged arrays.*allow_pickle"),
        (
            {"y_train": np.array([3] + [0, 1, 2] * 13)},
            "validation part needs 2 .* Received: 1 of class 3.*validation=0",
        ),
    ],
)
def test_npz_with_bad_content_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=f"load: .*set.npz.*{message}"):
        data.load(saved(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_file_that_is_not_an_archive_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match="must be a .npz archive. Received: File is not a zip file"):
        data.load(tmp_path / "set.npz")


def test_npz_cut_short_inside_an_array_is_refused(tmp_path):
    with np.load(saved(tmp_path)) as archive, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for key in archive:
            cut.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(InputError, match="cut.npz must hold undamaged arrays"):
        data.load(tmp_path / "cut.npz")


def test_npz_with_a_flipped_byte_is_refused(tmp_path):
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="undamaged arrays.*Bad CRC-32"):
        data.load(path)


def test_npz_that_decompresses_beyond_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as bomb:
        for key in arrays():
            bomb.writestr(f"{key}.npy", b"")
            bomb.getinfo(f"{key}.npy").file_size = 2**50  # as the central directory of the archive states
    with pytest.raises(InputError, match=r"must fit into memory .* Received: 4,503,599,627,370,496 bytes"):
        data.load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar01", "Did you mean 'cifar10'"),
        ("nothing/here", "Use one of digits, shapes, .*mnist.*a .npz file, a man.* or a folder"),
    ],
)
def test_unknown_name_is_refused(name, message):
    with pytest.raises(InputError, match=f"'{name}' is neither a known data set nor a file or folder. {message}"):
        data.load(name)


@pytest.mark.parametrize("validation", [-0.1, 1.0])
def test_validation_out_of_range_is_refused(validation):
    with pytest.raises(InputError, match=r"validation must be in \[0, 1\)"):
        data.load("digits", validation=validation)


def test_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed must be >= 0"):
        data.load("digits", seed=-1)


def test_image_size_for_other_than_a_folder_is_refused():
    with pytest.raises(InputError, match="image_size has no meaning for digits"):
        data.load("digits", image_size=(8, 8))


def break_image(path):
    (path / "class1" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")


def cut_image(path):
    file = path / "class1" / "0.png"
    file.write_bytes(file.read_bytes()[:-60])


def add_large(path):
    Image.new("RGB", (8, 9)).save(path / "class1" / "wide.png")


def add_deep(path):
    Image.new("I;16", (7, 9)).save(path / "class1" / "deep.png")


def add_empty(path):
    (path / "class9").mkdir()


def add_table(path):
    (path / "class9").mkdir()
    (path / "class9/1.csv").touch()


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
    ("damage", "message"),
    [
        (break_image, "class1/0.png must be a readable PNG, JPEG, .*Repair or remove it, or pass skip_broken=True"),
        (cut_image, "class1/0.png must be a readable PNG, JPEG"),
        (add_deep, r"class1/deep.png must be .* 8 bits per channel. Received: pixels of more than 8 bits"),
        (
            add_large,
            r"class1/wide.png must have the size of .*\(9, 7\).*Received: \(9, 8\).*image_size=\(96, 96\)",
        ),
        (add_empty, "class9: each class needs images .*Received: a folder without any"),
        (add_table, "class9: .*Received: a folder without any beside 1.csv.*one file of JSON lines"),
        (add_lone, "test part needs 2 training samples of each class. Received: 1 of class lone"),
        (add_val, "must hold either train/, val/ and test/.*Received: .*train, val"),
        (add_unequal, "train/ and test/ must have the same classes. Received: class2 in one of them only"),
    ],
)
def test_bad_folder_is_refused(tmp_path, damage, message):
    damage(folder(tmp_path / "pets"))
    with pytest.raises(InputError, match=f"load: .*{message}"):
        data.load(tmp_path / "pets")


def test_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold one folder of images per class. Received: no folder"):
        data.load(tmp_path)


def test_classes_without_test_samples_and_names_that_are_alike_are_warnings(caplog):
    x, y = np.random.default_rng(0).normal(size=(6, 2)), np.array([0, 1, 2] * 2)
    data.from_arrays((x, y), (x[:2], y[:2]), class_names=("cat", "dog", "Cat"), validation=0)
    assert "the test part has no sample of 1 of 3 classes, which are not validated: Cat." in caplog.text
    assert "classes whose names differ in capitals only: cat, Cat." in caplog.text
    data.from_arrays((x, y), (x, y), class_names=("1", "2", "1.0"), validation=0)
    assert "classes that are equal numbers: 1, 1.0." in caplog.text
    caplog.clear()
    data.from_arrays((x, y), (x, y), validation=0)
    assert not caplog.text


@pytest.mark.parametrize(("shape", "warned"), [((3, 9, 8), True), ((9, 8, 3), False), ((3, 5, 3), False)], ids=str)
def test_channels_that_come_first_are_a_warning(shape, warned, caplog):
    x, y = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8), np.arange(4) % 2
    data.from_arrays((x, y), (x[:2], y[:2]), validation=0)
    assert ("If the channels come first, save np.moveaxis(x, 1, -1)" in caplog.text) == warned


def test_from_arrays_checks_as_load_does():
    source = arrays()
    with pytest.raises(InputError, match="mine: y_test must have the length of x_test"):
        data.from_arrays((source["x_train"], source["y_train"]), (source["x_test"], source["y_test"][:3]), name="mine")


def test_import_and_load_import_no_tensorflow():
    program = "import sys, tfkd.data; tfkd.data.load(); print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


# The table of sources.


def test_new_source_is_one_row_of_the_table(monkeypatch):
    def read(request):
        x = np.arange(8, dtype=np.float32).reshape(4, 2)
        return Arrays(x, np.array([0, 1, 0, 1]), x + 8, np.array([0, 1, 0, 1]), name="dummy", location="dummy://")

    dummy = Source(accepts=lambda request: request.reference.startswith("dummy://"), read=read)
    monkeypatch.setattr("tfkd.data.loading.SOURCES", (*SOURCES, dummy))
    train, _, test = data.load("dummy://any", validation=0)
    assert (train.name, len(train), test.x.min()) == ("dummy", 4, 8)


def test_name_has_precedence_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "digits")
    assert data.load("digits").train.input_shape == (8, 8, 1)
    assert data.load("./digits").train.input_shape == (9, 7, 3)


def test_link_that_leads_back_is_refused(tmp_path):
    folder(tmp_path / "pets", sizes=(4, 4))
    (tmp_path / "pets/class0/up").symlink_to("..")
    with pytest.raises(InputError, match=r"must not lead back to a folder that it is in. Received: class0.up"):
        data.load(tmp_path / "pets")
