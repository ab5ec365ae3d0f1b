"""JPEG files that TensorFlow decodes have the pixels of Pillow, and all others are decoded by Pillow."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfkd import data
from tfkd.data import images, lazy
from tfkd.data.reading import ReadingOptions

pytestmark = pytest.mark.filterwarnings("ignore:Metadata Warning, tag 274 had too many entries")  # of Pillow

FORMS = {
    "plain.jpg": {},
    "low.jpg": {"quality": 30},
    "full.jpg": {"quality": 100, "subsampling": 0},
    "half.jpg": {"subsampling": 1},
    "progressive.jpg": {"progressive": True},
    "other.png": {},
    "jpeg_in_disguise.png": {"format": "jpeg"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of color images of many forms, all decoded when they are used."""
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 1)
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    image = Image.fromarray(noise).resize((83, 61))
    turned, upright, little = Image.Exif(), Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112], little[0x0112] = 3, 1, 3  # upside down, and not
    little.endian = "<"
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for name, settings in FORMS.items():
            image.save(tmp_path / label / name, **settings)
        image.save(tmp_path / label / "turned.jpg", exif=turned)
        image.save(tmp_path / label / "upright.jpg", exif=upright)
        image.save(tmp_path / label / "turned_by_xmp.jpg", xmp=b'<x tiff:Orientation="6"/>')
        image.save(tmp_path / label / "turned_little_endian.jpg", exif=little)
        for name, one, several in (
            ("turned", b"\x03\0\0\0\x01\0", b"\x03\0\0\0\x02\0"),
            ("turned_little_endian", b"\x03\0\x01", b"\x03\0\x02"),
        ):
            content = (tmp_path / label / f"{name}.jpg").read_bytes()
            (tmp_path / label / f"{name}_by_two_values.jpg").write_bytes(content.replace(one, several, 1))
        image.convert("L").save(tmp_path / label / "gray.jpg")
        image.convert("CMYK").save(tmp_path / label / "cmyk.jpg")
        image.resize((50, 40)).save(tmp_path / label / "small.jpg")
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (61, 83)},
        {"image_size": (40, 40), "crop": "center"},
        {"image_size": (90, 70), "crop": "pad", "resize": "lanczos"},
        {"image_size": (61, 30), "resize": "nearest"},
        {"image_size": (37, 53), "resize": "bilinear_aliased"},
        {"image_size": (40, 40), "resize": "bilinear_aliased", "crop": "center"},
    ],
    ids=["decoded", "center", "pad", "nearest", "aliased", "aliased_center"],
)
def test_batches_have_the_pixels_of_pillow(folder, options):
    train = data.load(folder, color="rgb", validation=0, **options).train
    expected = [images.decode(folder / path, ReadingOptions(color="rgb", **options)) for path in train.paths]
    assert {path.split("/")[1] for path in train.paths} >= {"turned.jpg", "small.jpg", "progressive.jpg"}
    found = np.concatenate([x for x, _ in train.batches(4).as_numpy_iterator()])
    np.testing.assert_array_equal(found, np.stack(expected))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:2] + b"\x00" * 40 + content[-2:],
        lambda content: content[:200] + b"\xff\xc4\x00\x05\x00\xff\xff" + content[200:],
        lambda content: b"no image",
    ],
    ids=["cut", "header", "table", "text"],
)
def test_damaged_file_is_named(folder, damage):
    train = data.load(folder, image_size=(61, 83), color="rgb", validation=0).train
    file = folder / next(path for path in train.paths if path.endswith(("plain.jpg", "low.jpg")))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(tf.errors.OpError, match=f"InputError: load: {file} must be a readable PNG, JPEG"):
        list(train.batches(4))
    shutil.copy(folder / "a" / "full.jpg", file)
    assert len(list(train.batches(4))) > 0


@pytest.mark.parametrize("name", ["é.jpg", "100%.jpg"])
def test_paths_of_any_characters_are_found(folder, name):
    (folder / "a" / "plain.jpg").rename(folder / "a" / name)
    train, _, test = data.load(folder, image_size=(61, 83), color="rgb", validation=0)
    assert any(path.endswith(name) for split in (train, test) for path in split.paths)
    for split in (train, test):
        found = np.concatenate([x for x, _ in split.batches(4).as_numpy_iterator()])
        np.testing.assert_array_equal(found, split.x[:])


def test_absolute_paths_of_a_manifest_are_found(folder, tmp_path):
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.jpg"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    train = data.load(tmp_path / "list.csv", image_size=(61, 83), color="rgb", validation=0).train
    assert len(list(train.batches(4))) == -(-len(train) // 4)


def test_many_small_files_are_decoded_when_they_are_used(folder, monkeypatch):
    monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", 1 << 30)
    assert isinstance(data.load(folder, image_size=(8, 8)).train.x, np.ndarray)
    monkeypatch.setattr(lazy, "IN_MEMORY_FILES", 10)
    assert isinstance(data.load(folder, image_size=(8, 8)).train.x, lazy.LazySamples)
