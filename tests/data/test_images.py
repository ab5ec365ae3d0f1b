"""Folders of image files: formats, sizes, colors, broken and other files, parts and the list of files."""

import csv

import numpy as np
import pytest
from PIL import Image

from tests.data.data_sets import folder
from tfkd import data
from tfkd.data import images, manifest
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError


def stripes(path, size=(30, 10)):
    """An image of (width, height) `size` that is red, green and blue from left to right."""
    pixels = np.zeros((*size[::-1], 3), np.uint8)
    for channel, part in enumerate(np.split(np.arange(size[0]), 3)):
        pixels[:, part, channel] = 255
    Image.fromarray(pixels).save(path)


def one_image(tmp_path, image, **options):
    """An image as it is read from a folder, uint8 [H, W, C]."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "test" / name).mkdir(parents=True)
        for number in (0, 1):
            image(tmp_path / "train" / name / f"{number}.png")
        image(tmp_path / "test" / name / "0.png")
    return data.load(tmp_path, **options).test.x[0]


@pytest.mark.parametrize(
    ("suffix", "options"), [("PNG", {}), ("webp", {"lossless": True}), ("bmp", {}), ("gif", {}), ("jpeg", {})]
)
def test_image_formats_are_read(tmp_path, suffix, options):
    folder(tmp_path, sizes=(4, 4))
    Image.new("RGB", (7, 9), (255, 0, 0)).save(tmp_path / "class0" / f"other.{suffix}", **options)
    splits = data.load(tmp_path, validation=0)
    x = np.concatenate([split.x for split in splits])
    paths = np.concatenate([split.paths for split in splits])
    found = x[paths == f"class0/other.{suffix}"][0].astype(int)
    assert np.abs(found - [255, 0, 0]).max() <= (2 if suffix == "jpeg" else 0)


def test_center_crop_cuts_the_longer_side(tmp_path):
    x = one_image(tmp_path, stripes, image_size=(10, 10), crop="center", resize="nearest")
    assert (x == [0, 255, 0]).all()


def test_pad_adds_black_borders(tmp_path):
    x = one_image(tmp_path, stripes, image_size=(30, 30), crop="pad", resize="nearest")
    assert not x[:10].any()
    assert not x[20:].any()
    assert (x[10:20].max(axis=2) == 255).all()


def test_without_crop_an_image_is_stretched(tmp_path):
    x = one_image(tmp_path, stripes, image_size=(5, 3), resize="box")
    np.testing.assert_array_equal(x, np.broadcast_to(255 * np.eye(3, dtype=np.uint8), (5, 3, 3)))


def test_color_gray_has_one_channel(tmp_path):
    x = one_image(tmp_path, stripes, color="gray")
    assert x.shape == (10, 30, 1)
    assert sorted(set(x.ravel().tolist())) == [29, 76, 150]  # luma of ITU-R 601


def test_color_rgb_of_gray_files_has_three_channels(tmp_path):
    folder(tmp_path, mode="L")
    assert data.load(tmp_path, color="rgb").train.input_shape == (9, 7, 3)


def test_other_files_are_listed_once_and_skipped(tmp_path, caplog):
    folder(tmp_path, sizes=(4, 4))
    for name in ("notes.txt", "b.csv", "c.xml", "d.md"):
        (tmp_path / "class0" / name).write_text("no image")
    (tmp_path / "class1" / ".DS_Store").write_text("hidden")
    splits = data.load(tmp_path)
    assert sum(map(len, splits)) == 8
    (message,) = [one.getMessage() for one in caplog.records if "skipped" in one.getMessage()]
    assert "files that are no images are skipped (4): class0/b.csv, class0/c.xml, class0/d.md and 1 more." in message


def test_images_beside_the_class_folders_are_listed_and_skipped(tmp_path, caplog):
    for part in ("train", "test"):
        folder(tmp_path / part, sizes=(2, 2), size=(30, 10))
    for name in ("a.png", "train/b.png", "__MACOSX/class0/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        stripes(tmp_path / name)
    splits = data.load(tmp_path, validation=0)
    assert (len(splits.train), len(splits.test)) == (4, 4)
    assert "images outside of the class folders are skipped (2): a.png, train/b.png." in caplog.text


def test_folder_of_one_class_is_a_warning(tmp_path, caplog):
    folder(tmp_path / "data", sizes=(2, 2))
    data.load(tmp_path)
    assert "holds one class, data. To tell classes apart give the folder" in caplog.text


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training_set", "test_set"), ("training", "validation images")], ids="-".join
)
def test_folders_that_look_like_parts_are_no_classes(tmp_path, names):
    for name in names:
        folder(tmp_path / name, sizes=(2, 2))
    with pytest.raises(InputError, match=r"must be called train, val and test. Received: .*would be classes"):
        data.load(tmp_path)


def test_skip_broken_leaves_broken_images_out_and_counts_them(tmp_path, caplog):
    folder(tmp_path, sizes=(4, 5))
    (tmp_path / "class1" / "2.png").write_bytes(b"broken")
    splits = data.load(tmp_path, skip_broken=True)
    assert np.bincount(np.concatenate([split.y for split in splits])).tolist() == [4, 4]
    assert not any((split.paths == "class1/2.png").any() for split in splits)
    assert any("left out (1): " in one.getMessage() and "2.png" in one.getMessage() for one in caplog.records)


def test_images_in_deeper_folders_belong_to_their_class(tmp_path):
    folder(tmp_path, sizes=(4, 4))
    folder(tmp_path / "class1", sizes=(2,))
    assert np.bincount(np.concatenate([split.y for split in data.load(tmp_path)])).tolist() == [4, 6]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folder_with_val_keeps_that_part(tmp_path, name):
    for part, sizes in (("train", (5, 5)), (name, (2, 1)), ("test", (2, 3))):
        folder(tmp_path / part, sizes=sizes)
    splits = data.load(tmp_path, validation=0.5)
    assert [len(split) for split in splits] == [10, 3, 5]
    assert splits.val.role == "val"
    assert splits.val.held_out is splits.test
    assert splits.val.paths.tolist() == [f"{name}/class0/0.png", f"{name}/class0/1.png", f"{name}/class1/0.png"]


def test_ids_of_files_stay_where_files_are_added(tmp_path):
    folder(tmp_path / "train", sizes=(5, 5))
    folder(tmp_path / "test", sizes=(2, 3))
    before = data.load(tmp_path, validation=0).train
    Image.new("RGB", (7, 9)).save(tmp_path / "train" / "class0" / "00.png")
    after = data.load(tmp_path, validation=0).train
    assert set(after.ids) > set(before.ids)
    assert len(set(after.ids)) == 11


def test_test_part_that_tfkd_sets_aside_is_said(tmp_path, caplog):
    data.load(folder(tmp_path / "pets", sizes=(10, 10)))
    assert any("pets has no test part: 6 of 20 samples were set aside" in one.getMessage() for one in caplog.records)


def test_manifest_lists_the_files_of_each_split(tmp_path):
    splits = data.load(folder(tmp_path / "pets", sizes=(10, 10)))
    (tmp_path / "run").mkdir()
    manifest.write(tmp_path / "run" / "data.csv", splits, tmp_path / "pets")
    with (tmp_path / "run" / "data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert all((tmp_path / "run" / row["path"]).is_file() for row in rows)
    listed = {row["path"].removeprefix("../pets/"): (row["label"], row["split"]) for row in rows}
    assert {path: listed[path] for path in splits.test.paths} == {
        path: (path.split("/")[0], "test") for path in splits.test.paths
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (0, 4)}, r"image_size must be two numbers > 0.*Received: \(0, 4\)"),
        ({"color": "blue"}, "color must be one of rgb, gray. Received: 'blue'"),
        ({"image_size": (4, 4), "resize": "area"}, "resize must be one of nearest, box"),
        ({"image_size": (4, 4), "crop": "left"}, "crop must be one of none, center, pad"),
        ({"crop": "center"}, "crop needs the size to which images are resized. Received: no image_size"),
        ({"colour": "gray"}, "colour is no option. Did you mean color?"),
    ],
)
def test_wrong_reading_option_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        data.load(tmp_path, **options)


def test_folder_of_broken_images_only_is_refused(tmp_path):
    folder(tmp_path, sizes=(2, 2))
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match="must have readable images. Received: 4 broken ones"):
        data.load(tmp_path, skip_broken=True)


def test_palette_image_with_transparency_prints_no_warning_of_pillow(tmp_path, recwarn):
    image = Image.new("P", (4, 3))
    image.putpalette([10, 20, 30] + [0] * 765)
    image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(images.decode(tmp_path / "p.png", ReadingOptions()), np.full((3, 4, 3), [10, 20, 30]))
    assert not recwarn.list
