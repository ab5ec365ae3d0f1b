import dataclasses
import errno
import os
import signal
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.data.augmentation import crop_flip, every_crop_flip
from tfkd.distillation.labels import codec
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError, ModelError, ToolMissingError

TRAIN = tfkd.data.load("digits").train.sample(300)
AUGMENT = crop_flip(1, flip=False)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(units=16, classes=10):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dense(units, activation="relu")(x)))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def teacher():
    keras.utils.set_random_seed(0)
    return net()


def chunk_files(store):
    return sorted(path for path in (Path(store.path) / "logits" / "c").rglob("*") if path.is_file())


def test_build_stores_the_logits_of_the_teacher(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN)
    expected = teacher.predict(TRAIN.x.astype("float32"), verbose=0)
    np.testing.assert_allclose(store.read(TRAIN.ids), expected, atol=2e-3)
    order = np.random.default_rng(0).permutation(len(TRAIN))[:7]
    np.testing.assert_allclose(SoftLabels.open(store.path).read(TRAIN.ids[order]), expected[order], atol=2e-3)
    assert store.missing == 0


def test_student_sees_the_pixels_that_the_teacher_saw(tmp_path):
    seen = {}

    class Recorder(keras.Model):
        """Returns the mean of each image, so that its logits identify the pixels."""

        def call(self, x, training=False):
            flat = keras.ops.reshape(x, (-1, 64))
            return keras.ops.concatenate([flat[:, :9] / 256, keras.ops.mean(flat, axis=-1, keepdims=True)], axis=-1)

    store = SoftLabels.build(tmp_path / "labels", Recorder(), TRAIN, views=3, augment=AUGMENT, dtype="float32")
    dataset = TRAIN.batches(64, shuffle=True, soft_labels=store)
    for epoch in range(4):
        for batch, _ in dataset:
            np.testing.assert_array_equal(Recorder()(batch.student), batch.soft_labels)
        seen[epoch] = np.sort(batch.student.numpy().ravel()).sum()
    plain = {x.tobytes() for x in TRAIN.x.astype("float32")}
    for view, batches in enumerate([dataset] * 4):  # epochs 4..7 are views 1, 2, 0, 1
        same = np.mean([x.numpy().tobytes() in plain for batch, _ in batches for x in batch.student])
        assert (same == 1) == ((4 + view) % 3 == 0)


def test_views_differ(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=2, augment=AUGMENT)
    assert np.abs(store.read(TRAIN.ids, 0) - store.read(TRAIN.ids, 1)).max() > 0.1


def test_views_of_batches_are_computed_in_a_graph(teacher, tmp_path):
    """Op by op, chains of augmentations take 25 times as long."""
    in_graph = []

    class Shift:
        def batch(self, x, seeds):
            if not tf.executing_eagerly() or len(x) > 1:  # the key of an augmentation computes one sample by itself
                in_graph.append(not tf.executing_eagerly())
            return tf.roll(x, 1, axis=1)

    SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=3, augment=Shift())
    assert in_graph
    assert all(in_graph)


def test_online_and_stored_training_on_view_0_give_equal_losses(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, dtype="float32")
    histories = []
    for source, data in [
        (teacher, TRAIN.batches(64, shuffle=True)),
        (store, TRAIN.batches(64, shuffle=True, soft_labels=store)),
    ]:
        keras.utils.set_random_seed(1)
        distiller = tfkd.Distiller(net(8), source)
        distiller.compile("sgd", loss=HARD, metrics=["accuracy"])
        histories.append(distiller.fit(data, epochs=3, validation_data=TRAIN.batches(64), verbose=0).history)
    assert histories[0].keys() == histories[1].keys()
    for name, expected in histories[0].items():
        assert histories[1][name] == pytest.approx(expected, rel=1e-4)


def test_write_accepts_arrays_in_any_order(tmp_path):
    logits = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
    store = SoftLabels.create(tmp_path / "labels", np.arange(100, 110), 4, dtype="float32")
    for start in (6, 0, 3):  # any order, any batch
        store.write(np.arange(100, 110)[start : start + 4], logits[start : start + 4])
    np.testing.assert_array_equal(store.read(np.arange(100, 110)), logits)
    store.write(np.array([109, 101]), logits[[9, 1]] + 1)
    np.testing.assert_array_equal(store.read(np.array([101, 109])), logits[[1, 9]] + 1)


@pytest.mark.parametrize("classes", [101, 300, 70_000])
def test_many_classes_keep_the_largest_logits_and_the_sum_of_the_rest(classes, tmp_path):
    logits = np.random.default_rng(0).normal(0, 4, size=(5, classes)).astype("float32")
    store = SoftLabels.create(tmp_path / "labels", np.arange(5), classes, dtype="float32")
    store.write(np.arange(5), logits)
    read = store.read(np.arange(5))
    best = np.argsort(-logits, axis=1)[:, :20]
    np.testing.assert_array_equal(np.take_along_axis(read, best, 1), np.take_along_axis(logits, best, 1))
    for kept in (softmax(read.astype("float64")), softmax(logits.astype("float64"))):
        assert kept.sum() == pytest.approx(5)
    # With the log-sum-exp of the others, the probability of each kept class is exact.
    np.testing.assert_allclose(
        np.take_along_axis(softmax(read.astype("float64")), best, 1),
        np.take_along_axis(softmax(logits.astype("float64")), best, 1),
        rtol=1e-5,
    )
    packed = codec.pack(logits, 20, "float32")
    np.testing.assert_allclose(codec.unpack_in_graph(packed, classes), read, rtol=1e-6)
    assert store._group["indices"].dtype == ("uint8" if classes <= 256 else "uint16" if classes <= 65536 else "uint32")


def test_store_of_mirrored_images_of_classes_with_sides_is_to_be_built_again(teacher, tmp_path):
    """Such as a store of an earlier version, which did not know them for sides."""
    flip = crop_flip(1)
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=2, augment=flip)
    store.lookup(TRAIN)
    names = ("turn_left", "turn_right", *TRAIN.class_names[2:])
    sides = dataclasses.replace(TRAIN, class_names=names)
    with pytest.raises(InputError, match="labels: its views .*'turn_left' and 'turn_right'. Build it again"):
        sides.batches(8, soft_labels=SoftLabels.open(store.path))


# Labels of another teacher, other data or another augmentation.


def test_other_teacher_is_refused(teacher, tmp_path):
    SoftLabels.build(tmp_path / "labels", teacher, TRAIN)
    with pytest.raises(InputError, match="Received: another teacher"):
        SoftLabels.build(tmp_path / "labels", net(), TRAIN)


def test_other_data_are_refused(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN)
    with pytest.raises(InputError, match="another data"):
        tfkd.data.load("digits").train.batches(8, soft_labels=store)


def test_other_augmentation_is_refused(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=2, augment=AUGMENT)
    with pytest.raises(InputError, match="another augmentation"):
        TRAIN.batches(8, soft_labels=store, augment=crop_flip(2, flip=False))


def test_same_teacher_built_again_is_recognised(tmp_path):
    keras.utils.set_random_seed(3)
    SoftLabels.build(tmp_path / "labels", net(), TRAIN)
    keras.utils.set_random_seed(3)
    SoftLabels.build(tmp_path / "labels", net(), TRAIN)  # the automatic names of its layers differ


def test_teacher_of_other_class_count_is_refused(tmp_path):
    with pytest.raises(ModelError, match="10 classes of the data. Received: 7"):
        SoftLabels.build(tmp_path / "labels", net(classes=7), TRAIN)
    assert not (tmp_path / "labels").exists()


def test_student_of_other_class_count_is_refused(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN)
    with pytest.raises(ModelError, match="10 classes of the soft labels"):
        tfkd.Distiller(net(classes=7), store)


def test_store_of_another_format_is_refused(teacher, tmp_path):
    import zarr

    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN)
    zarr.open_group(store.path, mode="r+").attrs["schema"] = "tfkd.soft_labels/99"
    with pytest.raises(InputError, match="format tfkd.soft_labels/1. Received: 'tfkd.soft_labels/99'"):
        SoftLabels.open(store.path)


def test_folder_that_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a store of soft labels"):
        SoftLabels.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("ids", "logits", "message"),
    [
        ([0, 0], np.zeros((2, 4)), "each id must occur once. Received: 0"),
        ([0, 99], np.zeros((2, 4)), "1 unknown, the first 99"),
        ([0, 1], np.zeros((2, 3)), r"logits must be \[2, 4\]"),
        ([0, 1], np.full((2, 4), np.nan), "must be finite. Received: NaN or infinity for ids"),
        ([0, 1], np.full((2, 4), np.inf), "must be finite"),
        ([0, 1], np.full((2, 4), 0.25), "needs logits. Received: probabilities"),
        ([0, 1], np.full((2, 4), [7e4, 0, 0, 0]), "Create the store with dtype='float32'"),
        ([0, 1], np.full((2, 4), [5001.0, 5000.0, 0, 0]), "Create the store with dtype='float32'"),
        ([0.5], np.zeros((1, 4)), "must be .N. integers"),
    ],
)
def test_bad_logits_are_refused_and_change_nothing(ids, logits, message, tmp_path):
    store = SoftLabels.create(tmp_path / "labels", np.arange(5), 4)
    store.write(np.arange(5), np.ones((5, 4)) * [1, 2, 3, 4])
    with pytest.raises(InputError, match=message):
        store.write(np.array(ids), logits)
    np.testing.assert_array_equal(store.read(np.arange(5)), np.ones((5, 4)) * [1, 2, 3, 4])


def test_read_of_unlabelled_samples_names_them(tmp_path):
    store = SoftLabels.create(tmp_path / "labels", np.arange(5), 4)
    store.write(np.array([0, 1, 3]), np.eye(4)[:3] * 3)
    with pytest.raises(InputError, match="2 of 5 without labels in view 0, the first with id 2"):
        store.read(np.arange(5))


def test_verify_finds_a_changed_label(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=2, augment=AUGMENT)
    assert store.verify(teacher, TRAIN) < 1e-3
    writable = SoftLabels.open(store.path, writable=True)
    writable.write(TRAIN.ids, -5 * store.read(TRAIN.ids, 1), 1)
    with pytest.raises(InputError, match="must equal the teacher's"):
        store.verify(teacher, TRAIN)


# Damaged chunks, killed processes and several writers.


def small_chunks(path, teacher):
    """A store with several chunks."""
    store = SoftLabels.build(path, teacher, TRAIN, views=2, augment=AUGMENT)
    assert len(chunk_files(store)) >= 2
    return store


def test_student_takes_the_views_that_time_was_enough_for(teacher, tmp_path):
    every = every_crop_flip(1, flip=False)
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=every.views, augment=every, hours=1e-9)
    assert (store.views, store.labelled) == (9, 1)
    store.write(TRAIN.ids, np.ones((300, 10)), 1)
    store.write(TRAIN.ids, np.full((300, 10), 2.0), 2)
    assert (store.labelled, store.missing) == (3, 6)
    dataset = TRAIN.batches(300, soft_labels=store)
    means = [float(np.mean(x.soft_labels)) for _ in range(4) for x, _ in dataset]
    assert means[1:3] == [1.0, 2.0]
    assert means[3] == means[0]
    more = SoftLabels.build(store.path, teacher, TRAIN, views=every.views, augment=every)
    assert (more.labelled, more.missing) == (9, 0)
    x = keras.ops.convert_to_tensor(TRAIN.x[:5].astype("float32"))
    seen = teacher(every.view(x, TRAIN.ids[:5], 8, seed=0)).numpy()
    np.testing.assert_allclose(more.read(TRAIN.ids[:5], 8), seen, atol=2e-3)
    with pytest.raises(InputError, match="another augmentation"):
        SoftLabels.build(store.path, teacher, TRAIN, views=9, augment=AUGMENT)


def test_damaged_chunk_is_named_and_rewritten_alone(teacher, tmp_path):
    store = small_chunks(tmp_path / "labels", teacher)
    files = chunk_files(store)
    before = {file: file.read_bytes() for file in files}
    damaged = bytearray(before[files[-1]])
    damaged[len(damaged) // 2] ^= 1
    files[-1].write_bytes(damaged)
    times = {file: file.stat().st_mtime_ns for file in files}
    name = "logits/c/" + "/".join(files[-1].relative_to(Path(store.path) / "logits" / "c").parts[:2])
    with pytest.raises(InputError, match=f"chunk {name} must be undamaged"):
        store.read(TRAIN.ids, 1)
    assert store.missing == 1
    SoftLabels.build(store.path, teacher, TRAIN, views=2, augment=AUGMENT)
    assert {file: file.read_bytes() for file in files} == before
    assert [file for file in files if file.stat().st_mtime_ns != times[file]] == [files[-1]]


SHARD = """
    import sys, os, time
    import keras
    import tfkd
    from tfkd.data.augmentation import crop_flip

    path, shard, shards, die = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "die"
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    teacher = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Dense(16, activation="relu")(x)))

    def progress(done, total):
        if die and done == 1:
            os.kill(os.getpid(), 9)

    train = tfkd.data.load("digits").train.sample(300)
    tfkd.SoftLabels.build(path, teacher, train, views=6, augment=crop_flip(1, flip=False), shard=(shard, shards),
                          progress=progress)
"""


def test_three_machines_finish_one_store_though_one_is_killed(tmp_path, teacher, forks):
    def start(*arguments):
        return forks.start(textwrap.dedent(SHARD), *arguments)

    path = tmp_path / "labels"
    running = [start(path, 0, 3, "live"), start(path, 1, 3, "die"), start(path, 2, 3, "live")]
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, -signal.SIGKILL, 0], outputs
    assert SoftLabels.open(path).missing > 0
    again = start(path, 1, 3, "live")
    printed = again.communicate()
    assert again.returncode == 0, printed
    store = SoftLabels.open(path)
    assert store.missing == 0
    whole = SoftLabels.build(tmp_path / "whole", teacher, TRAIN, views=6, augment=AUGMENT)
    for view in range(6):
        np.testing.assert_allclose(store.read(TRAIN.ids, view), whole.read(TRAIN.ids, view), atol=2e-3)
    assert not list(tmp_path.glob("*.partial"))


def test_full_disk_raises_and_leaves_no_partial_file(teacher, tmp_path):
    resource = pytest.importorskip("resource")
    store = SoftLabels.create(tmp_path / "labels", np.arange(4096), 100)
    pid = os.fork()
    if pid == 0:  # a limit on file sizes instead of a full disk, in a separate process
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            store.write(np.arange(4096), np.random.default_rng(0).normal(size=(4096, 100)))
        except OSError as error:
            os._exit(7 if error.errno in (errno.EFBIG, errno.ENOSPC) and "must be writable" in str(error) else 8)
        os._exit(9)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert not chunk_files(store)
    assert not [file for file in Path(store.path).rglob("*") if "partial" in file.name or "tmp" in file.name]


def test_store_behind_a_url_is_shared_by_machines_and_resumed(teacher):
    url = "memory://shared/labels"
    halves = [SoftLabels.build(url, teacher, TRAIN, views=2, augment=AUGMENT, shard=(i, 2)) for i in range(2)]
    assert halves[0].missing == halves[1].missing == 0
    store = SoftLabels.open(url)
    assert store.verify(teacher, TRAIN) < 1e-3
    with pytest.raises(InputError, match="another keys?|another teacher"):
        SoftLabels.build(url, net(17), TRAIN, views=2, augment=AUGMENT)
    assert store.missing == 0


def test_interrupted_creation_behind_a_url_is_finished_or_refused():
    import fsspec

    files = fsspec.filesystem("memory")
    SoftLabels.create("memory://half/labels", np.arange(64), 10).write(np.arange(64), np.eye(64, 10) * 9)
    files.rm("/half/labels/ids", recursive=True)
    files.pipe("/half/labels/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(InputError, match="must be a store of format"):
        SoftLabels.open("memory://half/labels")
    with pytest.raises(InputError, match="another store whose creation was interrupted"):
        SoftLabels.create("memory://half/labels", np.arange(64), 12)
    store = SoftLabels.create("memory://half/labels", np.arange(64), 10)
    np.testing.assert_array_equal(store.read(np.arange(64)), np.eye(64, 10) * 9)


def test_missing_driver_of_a_url_raises_tool_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for use in (lambda url: SoftLabels.create(url, [1, 2], classes=10), SoftLabels.open):
        with pytest.raises(ToolMissingError, match="Install s3fs"):
            use("s3://bucket/labels")


# Types of stores and batches.


def test_teacher_with_an_attribute_views_is_not_taken_for_a_store(teacher):
    teacher.views = 3
    distiller = tfkd.Distiller(net(8), teacher)
    distiller.compile("sgd", loss=HARD)
    history = distiller.fit(TRAIN.x.astype("float32"), TRAIN.y, verbose=0).history
    assert np.isfinite(history["soft_loss"][0])


def test_store_without_batches_of_soft_labels_is_refused(teacher, tmp_path):
    distiller = tfkd.Distiller(net(8), SoftLabels.build(tmp_path / "labels", teacher, TRAIN))
    distiller.compile("sgd", loss=HARD)
    with pytest.raises(InputError, match="needs batches with their logits"):
        distiller.fit(TRAIN.batches(64), verbose=0)


def test_mapped_batches_of_a_store_keep_their_type_and_epoch(teacher, tmp_path):
    store = SoftLabels.build(tmp_path / "labels", teacher, TRAIN, views=2, augment=AUGMENT)
    batches = TRAIN.batches(150, soft_labels=store)
    mapped = batches.map(lambda x, y: (x._replace(student=x.student + 0.0), y))
    distiller = tfkd.Distiller(net(8), store)
    distiller.compile("sgd", loss=HARD)
    distiller.fit(mapped, epochs=5, initial_epoch=4, verbose=0)
    assert int(batches.epoch) == 4
