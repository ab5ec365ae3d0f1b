"""Stores of outputs of other tasks than classification."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from scipy.stats import entropy

import tfkd
from tfkd.distillation.labels import kinds
from tfkd.distillation.labels.store import SoftLabels
from tfkd.errors import InputError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 5)).astype("float32")
LABELS = {
    "binary": RNG.integers(0, 2, 80),
    "multi_label": (RNG.random((80, 3)) < 0.4).astype(int),
    "regression": 70_000 + 2_000 * X[:, :2],  # beyond the range of float16
}


def train_of(task):
    y = LABELS[task]
    return tfkd.data.from_arrays((X, y), (X + 9, y), labels=tfkd.tasks.get(task).labels).train


def net(outputs, units=16, last="linear"):
    dense = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(outputs, activation=last)]
    return keras.Sequential([keras.Input((5,)), *dense])


def outputs_of(task):
    return tfkd.tasks.get(task).outputs(train_of(task))


@pytest.mark.parametrize("task", LABELS)
def test_online_and_stored_training_give_equal_losses(task, tmp_path):
    keras.utils.set_random_seed(0)
    train, found = train_of(task), tfkd.tasks.get(task)
    teacher = net(outputs_of(task))
    store = SoftLabels.build(tmp_path / "labels", teacher, train, task=task, dtype="float32")
    expected = teacher.predict(train.x, verbose=0)
    np.testing.assert_allclose(SoftLabels.open(store.path).read(train.ids), expected, rtol=1e-5, atol=1e-5)
    assert (store.kind, store.classes) == (found.stored, outputs_of(task))
    histories = []
    for source, data in ((teacher, train.batches(32)), (store, train.batches(32, soft_labels=store))):
        keras.utils.set_random_seed(1)
        distiller = tfkd.Distiller(net(outputs_of(task), 4), source, task=task)
        distiller.compile("adam", loss=found.hard_loss())
        histories.append(distiller.fit(data, epochs=2, verbose=0).history)
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-4), name
    assert store.verify(teacher, train) < 1e-5


def test_views_of_a_table_are_stored(tmp_path):
    train = train_of("regression")

    def noise(x, seed):
        return x + tf.random.stateless_normal(tf.shape(x), seed)

    store = SoftLabels.build(tmp_path / "labels", net(2), train, task="regression", views=2, augment=noise)
    assert np.abs(store.read(train.ids, 0) - store.read(train.ids, 1)).max() > 1e-3
    assert store.meta["dtype"] == "float32"


def test_values_that_float16_cannot_hold_are_refused(tmp_path):
    train, teacher = train_of("regression"), net(2)
    teacher.layers[-1].bias.assign([70_000.0, 1_000.0])
    with pytest.raises(InputError, match="float16 is not precise enough"):
        SoftLabels.build(tmp_path / "labels", teacher, train, task="regression", dtype="float16")


def test_outputs_of_another_task_are_refused(tmp_path):
    train = train_of("multi_label")
    store = SoftLabels.build(tmp_path / "labels", net(3), train)  # the task is found
    assert store.kind == "labels"
    with pytest.raises(InputError, match="the store holds labels. Received: the task regression"):
        tfkd.Distiller(net(3), store, task="regression")
    with pytest.raises(ModelError, match="an output for each of the 3 labels of the data. Received: 4"):
        SoftLabels.build(tmp_path / "other", net(4), train)
    with pytest.raises(InputError, match="only classes have top_k"):
        SoftLabels.create(tmp_path / "other", [1, 2], 3, kind="labels", top_k=2)


def test_divergence_of_independent_labels_is_that_of_scipy():
    a, b = RNG.normal(0, 3, (6, 4)), RNG.normal(0, 3, (6, 4))
    p, q = expit(a), expit(b)
    expected = (entropy([p, 1 - p], [q, 1 - q], axis=0)).sum(axis=1)
    np.testing.assert_allclose(kinds.divergence("labels", a, b), expected, rtol=1e-9)
    assert kinds.divergence("labels", a, np.where(b == b[0, 0], np.nan, b))[0] == np.inf
