"""Images that resemble each other, and images that do not."""

import io

import numpy as np
from PIL import Image, ImageEnhance

from tfkd import data
from tfkd.data import resemblance


def scene(seed, size=96):
    """A smooth random image, as a photo of a scene."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def variants(image):
    """The same scene with another compression, brightness and size."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=30)
    return [
        Image.open(file).convert("RGB"),
        ImageEnhance.Brightness(image).enhance(0.8),
        image.resize((60, 60)).resize(image.size),
    ]


def splits(train, test):
    x, y = np.stack([np.asarray(one) for one in train]), np.arange(len(train)) % 2
    return data.from_arrays((x, y), (np.stack([np.asarray(one) for one in test]), np.arange(len(test)) % 2))


def test_variants_of_a_scene_are_found_and_other_scenes_and_equal_images_are_not():
    scenes = [scene(seed) for seed in range(200)]
    copies = [one for seed in (3, 50) for one in variants(scenes[seed])]
    others = [scene(seed) for seed in range(1000, 1040)]
    found = splits(scenes, [*copies, *others, scenes[7], scenes[8]])
    train = found.train
    pairs = resemblance.pairs(train, found.test)
    kept = {int(one): row for row, one in enumerate(train.ids)}
    expected = {(kept[seed], column) for column, seed in enumerate([3, 3, 3, 50, 50, 50]) if seed in kept}
    assert {tuple(pair) for pair in pairs.tolist()} == expected
    assert len(expected) >= 3


def test_flat_and_small_images_and_other_samples_are_not_compared():
    flat = [Image.new("RGB", (96, 96), (level, level, level)) for level in range(10, 50)]
    assert len(resemblance.pairs(*splits(flat, flat[:6])[::2])) == 0
    small = [scene(1, size=32)] * 20
    assert len(resemblance.pairs(*splits(small, variants(small[0]) * 2)[::2])) == 0
    digits = data.load("digits")
    assert len(resemblance.pairs(digits.train, digits.test)) == 0


def test_files_that_resemble_each_other_are_one_group(tmp_path):
    scenes = [scene(seed) for seed in range(12)]
    files = [*scenes, *variants(scenes[3]), scenes[5], *variants(scene(8, size=32))]
    paths = [tmp_path / f"{number}.png" for number in range(len(files))]
    for path, image in zip(paths, files, strict=True):
        image.save(path)
    groups = resemblance.groups(paths)
    assert {*groups[12:15]} == {groups[3]}
    assert groups[15] == groups[5]
    assert len({*groups[:12], *groups[16:]}) == 15
