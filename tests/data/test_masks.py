"""Folders of images and PNG masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfkd import data
from tfkd.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 4, 6, 3), dtype=np.uint8)
MASKS = (np.arange(12 * 4 * 6).reshape(12, 4, 6) % 3).astype(np.uint8)
MASKS[0, 0, 0] = 255


def write(root, rows, *, palette=True, below=""):
    for row in rows:
        image, mask = (root / below / kind / "street" / f"{row:02}.png" for kind in ("images", "masks"))
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[row]).save(image)
        saved = Image.fromarray(MASKS[row])
        if palette:
            saved.putpalette([value for colour in range(256) for value in (colour, 7 * colour % 256, 9)])
        saved.save(mask)
    (root / "classes.txt").write_text("ground\ntree\nhouse\n")
    return root


@pytest.mark.parametrize("palette", [True, False], ids=["palette", "gray"])
def test_parts_are_read_with_their_masks(tmp_path, palette):
    for below, rows in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 12))):
        write(tmp_path, rows, palette=palette, below=below)
    splits = data.load(tmp_path)
    assert (splits.train.label_kind, splits.train.class_names) == ("masks", ("ground", "tree", "house"))
    for split, (first, end) in zip(splits, ((0, 6), (6, 8), (8, 12)), strict=True):
        np.testing.assert_array_equal(split.x, IMAGES[first:end])
        np.testing.assert_array_equal(split.y, MASKS[first:end])
        assert split.paths[0] == f"{split.role}/images/street/{first:02}.png"


def test_masks_are_resized_without_mixing_classes(tmp_path):
    write(tmp_path, range(12))
    for crop in ("none", "center", "pad"):
        splits = data.load(tmp_path, image_size=(8, 8), crop=crop)
        assert set(np.unique(splits.train.y)) <= {0, 1, 2, 255}
        assert splits.train.y.shape[1:] == splits.train.input_shape[:2] == (8, 8)
    train = data.load(tmp_path, image_size=(8, 12)).train
    number = int(train.paths[0][-6:-4])
    np.testing.assert_array_equal(train.y[0], MASKS[number].repeat(2, axis=0).repeat(2, axis=1))
    # Borders do not count.
    padded = data.load(tmp_path, image_size=(8, 6), crop="pad").train
    assert (padded.y[:, :2] == 255).all()
    assert (padded.x[:, :2] == 0).all()


def broken_size(root):
    Image.fromarray(MASKS[3][:, :5]).save(root / "masks/street/03.png")


def broken_mode(root):
    Image.fromarray(IMAGES[3]).save(root / "masks/street/03.png")


def broken_file(root):
    (root / "masks/street/03.png").write_bytes(b"no image")


def missing(root):
    (root / "masks/street/03.png").unlink()


def unknown(root):
    Image.fromarray(MASKS[3] + 1).save(root / "masks/street/03.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken_size, r"masks.street.03.png must have the size of its image, 6 x 4. Received: 5 x 4"),
        (broken_mode, r"03.png must be a PNG of class numbers.*Received: the mode RGB"),
        (broken_file, r"03.png must be a readable PNG"),
        (missing, r"03.png needs a mask. Received: no file .*03.png"),
        (unknown, r"03.png must have classes in 0..2, those of classes.txt. Received: 3"),
    ],
    ids=["size", "mode", "file", "missing", "class"],
)
def test_wrong_mask_is_an_error_that_names_the_file(tmp_path, change, message):
    change(write(tmp_path, range(12)))
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)
