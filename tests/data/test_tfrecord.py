"""TFRecord files: features of images and numbers, parts by the name of the file, and damage."""

import gzip
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
        of = type(values[0]) if values else float
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[of]
        found[name] = tf.train.Feature(**{kind: KINDS[of](value=values)})
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


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("train.record", "val.record", "test.record"), [8, 4, 4]),
        (("mnist-train.tfrecord-00000-of-00001", "mnist-test.tfrecord-00000-of-00001"), [8, 0, 8]),
        (("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001.gz"), [12, 0, 4]),
        (("train/0.tfrec", "validation/0.tfrec", "test/0.tfrec"), [8, 4, 4]),
        (("train.tfrecord", "eval.tfrecord"), r"Received: eval.tfrecord, beside 1 others"),
        (("train.tfrecord", "more.tfrecord"), r"Received: more.tfrecord"),
        (("train_test.tfrecord", "b_train.tfrecord"), r"Received: train_test.tfrecord"),
    ],
    ids=lambda one: str(one[0]) if isinstance(one, tuple) else None,
)
def test_names_of_files_give_the_parts(tmp_path, names, counts):
    share = 16 // len(names) if len(names) < 3 else 4
    rows = dict.fromkeys(names, share) | ({names[0]: 8} if len(names) == 3 else {})
    for name, count in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        content = write(tmp_path / "content", [example(x=[float(row), 0.5], y=row % 2) for row in range(count)])
        packed = gzip.compress(content.read_bytes()) if name.endswith(".gz") else content.read_bytes()
        content.unlink()
        (tmp_path / name).write_bytes(packed)
    if isinstance(counts, str):
        with pytest.raises(InputError, match=counts):
            data.load(tmp_path)
        return
    splits = data.load(tmp_path, validation=0)
    assert [len(split) for split in splits] == counts if "-00001" not in names[1] else [12, 0, 4]
    assert splits.test.x[-1, 0] == len(splits.test) - 1


def test_labels_are_names_values_or_those_of_a_task(tmp_path):
    rows = [{"name": f"{'ba'[row % 2]}".encode(), "y": row / 4, "frames": [row % 3, 1], "n": row} for row in range(12)]
    path = write(tmp_path / "a.tfrecord", [example(x=[float(row["n"])], z=row["n"], **row) for row in rows])
    named = data.load(path, y_feature="name", x_feature="n, y", validation=0)
    assert named.train.class_names == ("a", "b")
    x = np.concatenate([split.x for split in named])
    np.testing.assert_array_equal(x[:, 0], 4 * x[:, 1])
    np.testing.assert_array_equal(np.concatenate([split.y for split in named]) == 0, x[:, 0] % 2 == 1)
    assert data.load(path).train.label_kind == "values"
    assert data.load(path, y_feature="z", labels="values").train.label_kind == "values"
    assert data.load(path, y_feature="frames", labels="frames").train.y.shape[1] == 2
    with pytest.raises(InputError, match=r"record 0: the feature 'frames' must be .* declared task.*int64 \[0, 1\]"):
        data.load(path, y_feature="frames")
    with pytest.raises(InputError, match=r"record 0: each of several features .*Received: bytes in 'name'"):
        data.load(path, x_feature="n,name")


def detected(number=None, **changes):
    """A record of the Object Detection API: an image of 10 x 20 pixels with one box of each of the classes 1 and 2."""
    ends = {"xmin": [0.1, 0.5], "xmax": [0.5, 1.0], "ymin": [0.0, 0.5], "ymax": [1.0, 0.75]}
    features = {f"image/object/bbox/{end}": values for end, values in ends.items()}
    features |= {"image/object/class/text": [b"dog", b"cat"], "image/object/class/label": [1, 2], "image/width": 20}
    return example(**{"image/encoded": png(number or 1, (20, 10)), **features, **changes})


def test_boxes_of_the_object_detection_api_are_read(tmp_path):
    empty = example(**{"image/encoded": png(9, (20, 10))})
    crowd = detected(**{"image/object/is_crowd": [1, 0]})
    path = write(tmp_path / "train.record", [detected(row) for row in range(8)] + [empty, crowd])
    splits = data.load(path, validation=0)
    assert (splits.train.label_kind, splits.train.class_names) == ("boxes", ("dog", "cat"))
    assert splits.train.input_shape == (10, 20, 3)
    boxes = np.concatenate([split.y for split in splits])
    boxes = boxes[np.argsort((boxes[..., 4] >= 0).sum(axis=1))]
    np.testing.assert_allclose(boxes[-1], [[0.1, 0, 0.5, 1, 0], [0.5, 0.5, 1, 0.75, 1]], atol=1e-6)
    assert [(one[:, 4] >= 0).sum() for one in boxes[:3]] == [0, 1, 2]
    assert boxes[1, 0, 4] == 1
    # Another label that the user names is not replaced by the boxes.
    with pytest.raises(InputError, match="the feature 'image/object/class/label' must be the class"):
        data.load(path, x_feature="image/encoded", y_feature="image/object/class/label")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image/object/bbox/xmax": [0.5, 1.5]}, r"record 0: cat: a box must lie in its image of 20 x 10"),
        ({"image/object/bbox/xmax": [0.1, 1.0]}, r"record 0: dog: a box must have left < right"),
        ({"image/object/bbox/xmax": [0.5]}, r"record 0: the features of objects must have one value for each object"),
        ({f"image/object/bbox/{end}": [] for end in ("xmin", "xmax", "ymin", "ymax")}, r"record 0: .*Received: 0, 2 v"),
        ({"image/object/class/label": [1, 1]}, r"each class must have one number and one name.*1 with 'cat', and 1 wi"),
        ({"image/width": 30}, r"record 0: image/width must be that of the image.* 20. Received: \[30\]"),
        ({"image/encoded": b"none"}, r"a.tfrecord, record 0 must be a readable image"),
    ],
    ids=["outside", "empty", "lengths", "no-boxes", "class", "size", "image"],
)
def test_wrong_boxes_are_refused_with_their_record(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(write(tmp_path / "a.tfrecord", [detected(**changes)]), labels="boxes")


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
        (lambda content: b"\x1f\x8b" + content, "record 0: must be complete. Received: a file that ends within it"),
        (lambda content: gzip.compress(content)[:-12], r"a.tfrecord, record \d+: must be complete"),
        (lambda content: gzip.compress(b"\xff" * 7 + content), "record 0: must be complete"),  # a length of 2^64
        (lambda content: gzip.compress(b"\0" * 7 + b"\x10" + content), "record 0: must be complete"),  # or 2^60
        (lambda content: b"", "must have records. Received: none"),
    ],
)
def test_damaged_file_is_refused(tmp_path, damage, message):
    path = write(tmp_path / "a.tfrecord", GOOD)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        data.load(path)
