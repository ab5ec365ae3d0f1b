"""Augmentations by name: what they do to a sample, and that a seed repeats it."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import data
from tfkd.data import augmentations
from tfkd.data.augmentation import augment_batch
from tfkd.data.image_augmentation import ColorJitter, Cutout, Flip, RandAugment, ResizedCrop, Rotation
from tfkd.data.mixing import Mixing
from tfkd.data.sound_augmentation import Noise, SpecAugment, TimeShift
from tfkd.errors import InputError

IDS = np.arange(40)


def images(count=40, channels=3, side=16):
    coarse = np.random.default_rng(0).integers(60, 200, (count, 4, 4, channels))
    return np.kron(coarse, np.ones((1, side // 4, side // 4, 1))).astype(np.float32)


def apply(augment, x, view=1):
    return np.asarray(augment_batch(augment, tf.constant(x), data.view_seeds(IDS[: len(x)], view)))


IMAGES = [Flip(), ResizedCrop(), Rotation(), ColorJitter(), Cutout(), RandAugment()]
SOUNDS = [Noise(), TimeShift(), SpecAugment()]


@pytest.mark.parametrize("augment", [*IMAGES, *SOUNDS], ids=lambda one: one.name)
def test_augmentation_repeats_by_seed_and_differs_by_sample_and_view(augment):
    x = images(12)
    if augment in SOUNDS:
        x = x[..., 0]
    function = tf.function(lambda x, seeds: augment_batch(augment, x, seeds))
    first, second = (np.asarray(function(x, data.view_seeds(IDS[:12], view))) for view in (1, 2))
    order = np.random.default_rng(1).permutation(12)
    shuffled = np.asarray(function(x[order], data.view_seeds(IDS[:12][order], 1)))
    np.testing.assert_allclose(shuffled, first[order], atol=1e-3)  # whatever else is in the batch
    assert first.shape == x.shape
    assert np.isfinite(first).all()
    for one, other in ((first, x), (first, second)):
        assert np.any(one != other, axis=tuple(range(1, x.ndim))).mean() > 0.3
    if augment in IMAGES:
        assert first.min() >= 0
        assert first.max() <= 255


def test_flip_mirrors_half_of_the_images():
    x = images()
    out = apply(Flip(), x)
    mirrored = [np.array_equal(one, source[:, ::-1]) for one, source in zip(out, x, strict=True)]
    kept = [np.array_equal(one, source) for one, source in zip(out, x, strict=True)]
    assert all(np.logical_or(mirrored, kept))
    assert 10 < sum(mirrored) < 30


def test_resized_crop_shows_parts_of_the_area_that_is_asked_for():
    """The slope of a ramp of gray values is the side of the part as a share of the side of the image."""
    ramp = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (32, 32, 1)).astype(np.float32)
    x = np.stack([np.concatenate([ramp, ramp.transpose(1, 0, 2)], axis=2)] * 40)
    out = apply(ResizedCrop(smallest=0.5, stretch=1.0), x)
    widths = (out[:, 8, 24, 0] - out[:, 8, 8, 0]) / (x[0, 8, 24, 0] - x[0, 8, 8, 0])
    heights = (out[:, 24, 8, 1] - out[:, 8, 8, 1]) / (x[0, 24, 8, 1] - x[0, 8, 8, 1])
    np.testing.assert_allclose(widths, heights, atol=0.08)
    areas = widths * heights
    assert 0.45 < areas.min() < 0.6
    assert 0.85 < areas.max() < 1.05


def test_rotation_by_up_to_degrees():
    x = np.zeros((40, 33, 33, 1), np.float32)
    x[:, 16, 17:] = 200  # a line from the centre to the right
    rows, columns = np.indices((33, 33)) - 16
    out = apply(Rotation(degrees=30), x)[..., 0]
    angles = np.degrees(np.arctan2((out * rows).sum((1, 2)), (out * columns).sum((1, 2))))
    assert np.abs(angles).max() <= 31
    assert angles.min() < -20
    assert angles.max() > 20


def test_color_jitter_changes_brightness_and_contrast_in_both_directions():
    x = np.stack([images(1, channels=1)[0]] * 40)
    brighter = apply(ColorJitter(brightness=0.1, contrast=0.0), x).mean((1, 2, 3)) - x[0].mean()
    assert -0.1 * 255 <= brighter.min() < -10
    assert 10 < brighter.max() <= 0.1 * 255 + 1e-3
    contrast = apply(ColorJitter(brightness=0.0, contrast=0.2), x).std((1, 2, 3)) / x[0].std()
    assert 0.8 - 1e-4 <= contrast.min() < 0.9
    assert 1.1 < contrast.max() <= 1.2 + 1e-4


def test_cutout_blackens_one_rectangle():
    out = apply(Cutout(largest=0.25), np.full((40, 16, 16, 3), 100, np.float32))
    for image in out:
        rows, columns = np.nonzero(image[..., 0] == 0)
        if len(rows):
            assert (image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 0).all()
        assert len(rows) <= 0.25 * 256 + 16
        assert set(np.unique(image)) <= {0, 100}
    assert np.mean([(image == 0).any() for image in out]) > 0.8


def test_noise_has_the_level():
    x = np.random.default_rng(0).normal(scale=3.0, size=(40, 4000)).astype(np.float32)
    levels = (apply(Noise(level=0.5), x) - x).std(1) / 3
    assert 0 <= levels.min() < 0.1
    assert 0.4 < levels.max() < 0.52


def test_time_shift_moves_a_sample_and_fills_with_zeros():
    x = np.stack([np.arange(1.0, 21.0, dtype=np.float32)] * 40)[..., None]
    shifts = set()
    for one in apply(TimeShift(share=0.2), x)[..., 0]:
        shift = next(s for s in range(-4, 5) if np.array_equal(one, [20 >= t - s >= 1 and t - s for t in range(1, 21)]))
        shifts.add(shift)
    assert {-4, 0, 4} <= shifts


def test_spec_augment_masks_ranges_with_the_mean():
    x = np.random.default_rng(0).normal(size=(40, 50, 20)).astype(np.float32)
    for one, source in zip(apply(SpecAugment(time_masks=1, frequency_masks=1), x), x, strict=True):
        changed = one != source
        np.testing.assert_allclose(one[changed], source.mean(), atol=1e-5)
        for frames, share in ((changed.all(1), 0.2), (changed.all(0), 0.2)):
            (places,) = np.nonzero(frames)
            assert len(places) <= share * len(frames)
            assert not len(places) or places[-1] - places[0] + 1 == len(places)


# Mixing --------------------------------------------------------------------------------------------------------------


def test_mixup_mixes_labels_as_it_mixes_samples():
    x, classes = np.eye(30, dtype=np.float32), np.eye(5, dtype=np.float32)[np.arange(30) % 5]
    mixed, labels = map(np.asarray, Mixing(mixup=1.0)(tf.constant(x), tf.constant(classes), tf.constant([1, 2])))
    np.testing.assert_allclose(labels, mixed @ classes, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(1), 1, atol=1e-6)
    assert ((mixed > 0).sum(1) <= 2).all()
    assert ((mixed > 0.05) & (mixed < 0.95)).any(1).mean() > 0.5


def test_cutmix_mixes_labels_by_the_area():
    x = np.broadcast_to(np.arange(30.0)[:, None, None, None], (30, 32, 32, 1)).astype(np.float32)
    mixed, labels = Mixing(cutmix=1.0)(tf.constant(x), tf.constant(np.eye(30, dtype=np.float32)), tf.constant([1, 2]))
    shares = np.stack([(np.asarray(mixed) == one).mean((1, 2, 3)) for one in range(30)], axis=1)
    np.testing.assert_allclose(labels, shares, atol=0.07)  # edges lie between pixels
    assert (np.asarray(labels) > 0.2).sum(1).max() == 2


def test_batches_are_mixed_the_same_way_in_each_pass_over_the_same_epoch():
    train = data.load("digits").train
    mixing = Mixing(mixup=0.4, cutmix=1.0)
    passes = [list(train.batches(256, shuffle=True, mixing=mixing, seed=3).as_numpy_iterator()) for _ in range(2)]
    for (x, y), (x_again, y_again) in zip(*passes, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
        np.testing.assert_allclose(y.sum(1), 1, atol=1e-5)
    whole = [np.isin(x, train.x.astype("float32")).all() for x, _ in passes[0]]
    assert 0 < sum(whole) < len(whole)  # CutMix keeps the values of pixels, mixup does not


@pytest.mark.parametrize("given", ["soft_labels", "partner"])
def test_mixing_with_stored_labels_or_a_partner_is_refused(given):
    train = data.load("digits").train
    other = {"partner": data.Partner(train)} if given == "partner" else {"soft_labels": object()}
    with pytest.raises(InputError, match=f"mixing needs a teacher that sees.*{given}"):
        train.batches(32, mixing=Mixing(mixup=0.2), **other)


# Names and chains ----------------------------------------------------------------------------------------------------


def test_chain_gives_each_step_random_numbers_of_its_own():
    x = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    augment, mixing = augmentations.build(["noise", "mine:double"], {}, {"mine:double": Noise(level=0.1)})
    assert mixing is None
    steps = [apply(augmentations.Chain((Noise(), Noise(level=0.0))), x) - x, apply(augment, x) - x]
    np.testing.assert_array_equal(steps[0], apply(Noise(), x) - x)  # the first step has the seed itself
    second = steps[1] - steps[0]
    assert abs(np.corrcoef(second.ravel(), steps[0].ravel())[0, 1]) < 0.5


def test_augmentation_is_rebuilt_from_the_key_of_a_store():
    chain, mixing = augmentations.build(["crop_flip", "cutmix", "rotation"], {"rotation": {"degrees": 5}})
    assert mixing == Mixing(cutmix=1.0)
    assert augmentations.from_key(augmentations.to_key(chain)) == chain
    assert augmentations.from_key(augmentations.to_key(lambda x, seed: x)) is None
    with_own = augmentations.Chain((Flip(), lambda x, seed: x))
    assert augmentations.from_key(augmentations.to_key(with_own)) is None


def test_every_name_is_built_with_its_defaults():
    for name in augmentations.NAMES:
        assert any(augmentations.build([name], {}))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["rotate"], {}, "'rotate' is unknown. Did you mean 'rotation'"),
        (["flip", "flip"], {}, "each name may occur once"),
        (["flip"], {"rotation": {"degrees": 5}}, "the options of 'rotation' need it in augment"),
        (["rotation"], {"rotation": {"angle": 5}}, "rotation has the options degrees. Received: angle"),
        (["rotation"], {"rotation": {"degrees": True}}, "degrees of rotation must be a number. Received: True"),
        (["rand_augment"], {"rand_augment": {"operations": 1.5}}, "must be a whole number. Received: 1.5"),
        (["rotation"], {"rotation": {"degrees": 200}}, "degrees of rotation must be in 0..180. Received: 200"),
        (["cutmix"], {"cutmix": {"alpha": 0}}, "alpha of cutmix must be in 0.001..1. Received: 0"),
    ],
)
def test_wrong_names_and_options_are_refused(names, options, message):
    with pytest.raises(InputError, match=message):
        augmentations.build(names, options)


@pytest.mark.parametrize(
    ("augment", "shape", "message"),
    [
        (Rotation(), (4, 8), r"rotation needs images \[H, W, C\]. Received: shape \(8,\)"),
        (SpecAugment(), (4, 8), r"spec_augment needs features"),
    ],
)
def test_sample_of_another_form_is_refused(augment, shape, message):
    with pytest.raises(InputError, match=message):
        apply(augment, np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="cutmix needs images"):
        Mixing(cutmix=1.0)(tf.zeros((4, 8)), tf.zeros((4, 2)), tf.constant([0, 0]))
