import numpy as np
import pytest
import tensorflow as tf

from tfkd import data
from tfkd.data.batches import output_batch_size
from tfkd.errors import InputError


def epoch(dataset):
    xs, ys = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(xs), np.concatenate(ys)


def test_batches_have_each_sample_once_as_float32_in_order():
    val = data.load("digits").val
    dataset = val.batches(50)
    assert int(dataset.cardinality()) == 3
    assert dataset.element_spec[0] == tf.TensorSpec((None, 8, 8, 1), tf.float32)
    x, y = epoch(dataset)
    np.testing.assert_array_equal(x, val.x.astype(np.float32))
    np.testing.assert_array_equal(y, val.y)


def test_shuffle_is_a_new_permutation_at_each_epoch_and_repeats_with_the_seed():
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


def test_epoch_counter_can_be_set_to_resume():
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


def test_augment_of_one_sample_equals_its_batched_form():
    val = data.load("digits").val
    augment = data.crop_flip(2)
    one_by_one = epoch(val.batches(32, shuffle=True, augment=lambda x, seed: augment(x, seed)))[0]
    np.testing.assert_array_equal(one_by_one, epoch(val.batches(32, shuffle=True, augment=augment))[0])


def test_augment_may_be_a_function_of_stateless_ops():
    val = data.load("digits").val
    dataset = val.batches(32, augment=lambda x, seed: x + tf.random.stateless_uniform(x.shape, seed))
    noise = epoch(dataset)[0] - val.x
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() <= 1
    assert len({row.tobytes() for row in noise}) == len(val)


def test_batch_size_zero_is_refused():
    with pytest.raises(InputError, match="batch_size must be > 0"):
        data.load("digits").val.batches(0)


# The epoch counter of derived data sets.


@pytest.mark.parametrize(
    "derive",
    [
        lambda dataset: dataset.map(lambda x, y: (x / 255, y)),
        lambda dataset: dataset.unbatch().batch(16),
        lambda dataset: tf.data.Dataset.zip(dataset, tf.data.Dataset.range(10)).map(lambda batch, i: batch),
        lambda dataset: dataset.map(lambda x, y: (x, y)).filter(lambda x, y: True).take(2).prefetch(1),
    ],
    ids=["map", "unbatch", "zip", "chain"],
)
def test_epoch_counter_is_found_in_a_derived_data_set(derive):
    dataset = data.load("digits").val.batches(32, shuffle=True)
    assert data.epoch_counters(derive(dataset)) == [dataset.epoch], (
        "tf.data.Dataset._inputs of this version of TensorFlow does not return the inputs of a transformation"
    )


def test_epoch_counters_of_two_combined_data_sets_are_both_found():
    first, second = (data.load("digits").val.batches(32) for _ in range(2))
    found = data.epoch_counters(first.concatenate(second).map(lambda x, y: (x, y)))
    assert {id(counter) for counter in found} == {id(first.epoch), id(second.epoch)}


def test_epoch_attribute_of_another_type_is_not_a_counter():
    dataset = tf.data.Dataset.range(3)
    dataset.epoch = tf.Variable(0)
    assert data.epoch_counters(dataset) == data.epoch_counters(np.zeros(3)) == data.epoch_counters(None) == []


def test_soft_labels_and_partner_together_are_refused():
    train = data.load("digits").train
    with pytest.raises(InputError, match="soft_labels and partner exclude each other"):
        train.batches(8, soft_labels=object(), partner=data.Partner(train))


def test_augmentation_of_samples_of_another_form_is_refused_with_its_reason():
    samples = data.from_arrays((np.zeros((20, 4), "float32"), np.arange(20) % 2), (np.ones((4, 4)), [0, 1] * 2)).train
    with pytest.raises(InputError, match="a sample must be an image"):
        samples.batches(8, augment=data.crop_flip())


def test_augment_of_the_user_may_branch_on_tensors():
    def brighter(x, seed):
        if seed[0] % 2 == 0:
            x = x + 1
        return x

    val = data.load("digits").val
    x = epoch(val.batches(32, augment=brighter))[0]
    np.testing.assert_array_equal(x - val.x, np.broadcast_to((val.ids % 2 == 0)[:, None, None, None], x.shape))


@pytest.mark.parametrize(("shape", "expected"), [((8, 8, 1), 256), ((224, 224, 3), 27), ((2048, 2048, 3), 1)])
def test_outputs_of_large_samples_are_computed_in_small_batches(shape, expected):
    part = np.zeros((2, *shape), np.uint8), [0, 1]
    samples = data.from_arrays(part, part, validation=0)
    assert output_batch_size(samples.test) == expected
    assert output_batch_size(samples.test, most=20) == min(20, expected)
