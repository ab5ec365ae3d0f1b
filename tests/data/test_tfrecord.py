"""TFRecord files: features of images and numbers, parts by the name of the file, and damage."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfkd import data
from tfkd.errors import InputError

KINDS = {bytes: tf.train.BytesList, float: tf.train.FloatList, int: tf.train.Int64List}


def example(**features):
    """The bytes of a `tf.train.Example`."""
    found = {}
    for name, values in features.items():
        values = values if isinstance(values, list) else [values]
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        found[name] = tf.train.Feature(**{kind: KINDS[type(values[0])](value=values)})
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString(deterministic=True)


def write(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in examples:
            writer.write(one)
    return path


def png(value, size=(6, 5)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 255 - value)).save(file, "png")
    return file.getvalue()


def test_vectors_and_arrays_of_numbers_are_read(tmp_path, caplog):
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    path = write(tmp_path / "a.tfrecord", [example(x=one.tolist(), y=row % 2) for row, one in enumerate(x)])
    splits = data.load(path, validation=0)
    assert caplog.messages[-1].endswith("save a test part of your own.")
    order = np.argsort(np.concatenate([split.ids for split in splits]))
    np.testing.assert_array_equal(np.sort(np.concatenate([split.x for split in splits]), axis=0), np.sort(x, axis=0))
    assert len(order) == 20
    assert data.load(path, x_shape=(2, 3, 1)).train.input_shape == (2, 3, 1)
    raw = write(tmp_path / "b.tfrecord", [example(x=bytes([row] * 4), y=row % 2) for row in range(20)])
    assert data.load(raw, x_shape=(2, 2)).train.x.dtype == np.uint8


def test_encoded_images_of_several_files_are_parts(tmp_path):
    for part, count in (("train", 8), ("validation", 4), ("test", 4)):
        examples = [example(**{"image/encoded": png(row), "label": row % 2}) for row in range(count)]
        write(tmp_path / f"{part}-00000-of-00001.tfrecord", examples)
    options = {"x_feature": "image/encoded", "y_feature": "label", "image_size": (3, 4)}
    splits = data.load(tmp_path, **options)
    assert [len(split) for split in splits] == [8, 4, 4]
    assert splits.val.x.shape == (4, 3, 4, 3)
    assert (splits.val.x[2] == [2, 0, 253]).all()
    assert splits.val.y.tolist() == [0, 1, 0, 1]


def test_large_file_is_decoded_when_it_is_used(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tfrecord", [example(x=png(row), y=row % 2) for row in range(20)])
    small = data.load(path).train
    monkeypatch.setattr(data.lazy, "IN_MEMORY_BYTES", 100)
    train = data.load(path).train
    assert isinstance(train.x, data.lazy.LazySamples)
    np.testing.assert_array_equal(train.x[:], small.x)
    assert len(list(train.batches(4))) == -(-len(train) // 4)


GOOD = [example(x=[1.0, 2.0], y=row % 2) for row in range(12)]


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        (example(image=[1.0, 2.0], label=0), {}, r"record 12: must have the feature 'y'. Received: image \(float\), l"),
        (example(x=[1.0, 2.0], y=0.5), {}, r"record 12: the feature 'y' must be the class.*float \[0.5\]"),
        (example(x=[1.0, 2.0], y=-1), {}, r"record 12: .*Received: int64 \[-1\]"),
        (example(x=[1.0], y=1), {}, r"record 12: each sample must have the shape of the first, \(2,\). Received: \(1,"),
        (example(x=[1.0, float("nan")], y=1), {}, r"record 12: the feature 'x' must be finite"),
        (
            example(x=[1.0, 2.0], y=7),
            {},
            r"record 12: the class must be one of .*Received: 7, beside 3 classes",
        ),
        (example(x=[1.0, 2.0], y=1), {"x_shape": (3,)}, r"record 0: the feature 'x' must have 3 values.*Received: 2"),
        (b"no example", {}, r"record 12: must be a tf.train.Example"),
        (example(x=[1.0, 2.0], y=1), {"seconds": 1.0}, "seconds has no meaning for"),
    ],
)
def test_record_of_another_schema_is_refused_with_its_number(tmp_path, record, options, message):
    path = write(tmp_path / "a.tfrecord", [*GOOD, record])
    with pytest.raises(InputError, match=message):
        data.load(path, validation=0, **options)


def test_broken_image_is_refused_with_its_number(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(x=png(1), y=0), example(x=png(2)[:45], y=1)] * 4)
    with pytest.raises(InputError, match=r"a\.tfrecord, record 1 must be a readable PNG"):
        data.load(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], "record 11: must be complete. Received: a file that ends within it"),
        (lambda content: content[:-10] + b"!" + content[-9:], "record 11: must be undamaged. Received: a wrong checks"),
        (lambda content: b"\x1f\x8b" + content, "must not be compressed. Received: gzip"),
        (lambda content: b"", "must have records. Received: none"),
    ],
)
def test_damaged_file_is_refused(tmp_path, damage, message):
    path = write(tmp_path / "a.tfrecord", GOOD)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        data.load(path)
