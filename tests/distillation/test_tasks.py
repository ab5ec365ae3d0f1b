"""Distillation for other tasks than image classification: each student becomes better than at the start."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfkd
from tfkd import losses
from tfkd.distillation import features


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(0)


def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy rising, falling and arched curves [count, 20, 2], and their classes [count]."""
    numbers = np.random.default_rng(seed)
    y = numbers.integers(0, 3, count)
    time = np.linspace(-1, 1, 20)
    shapes = np.stack([time, -time, 1 - 2 * time**2])
    x = shapes[y][..., None] * numbers.uniform(0.5, 1.5, (count, 1, 2)) + numbers.normal(0, 0.5, (count, 20, 2))
    return x.astype("float32"), y


def distil(student: keras.Model, teacher: keras.Model, x: np.ndarray, y: np.ndarray, **options: object) -> dict:
    """Trains a student for a few epochs and returns the logs."""
    distiller = tfkd.Distiller(student, teacher, **options)
    distiller.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return distiller.fit(x, y, epochs=6, batch_size=32, verbose=0).history


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((20, 2)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.Conv1D(16, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )


def rnn() -> keras.Model:
    return keras.Sequential([layers.Input((20, 2)), layers.LSTM(32), layers.Dense(3)])


def gru() -> keras.Model:
    return keras.Sequential([layers.Input((20, 2)), layers.GRU(6), layers.Dense(3)])


def lstm() -> keras.Model:
    return keras.Sequential([layers.Input((20, 2)), layers.LSTM(6), layers.Dense(3)])


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(gru, cnn)] + [pytest.param(lstm, teacher, marks=pytest.mark.campaign) for teacher in (cnn, rnn)],
)
def test_recurrent_student_learns_from_its_teacher(student, teacher) -> None:
    x, y = sequences(400, seed=0)
    test_x, test_y = sequences(300, seed=1)
    big, small = teacher(), student()
    big.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    big.fit(x, y, epochs=6, batch_size=32, verbose=0)

    def accuracy(model: keras.Model) -> float:
        return float((model.predict(test_x, verbose=0).argmax(-1) == test_y).mean())

    before = accuracy(small)
    history = distil(small, big, x, y, alpha=1.0, temperature=2.0)  # without labels
    assert accuracy(big) > 0.9
    assert accuracy(small) > max(before + 0.2, 0.8)
    assert history["loss"][-1] < 0.5 * history["loss"][0]


@pytest.mark.campaign
def test_regression_student_learns_the_outputs_of_its_teacher() -> None:
    numbers = np.random.default_rng(0)
    x = numbers.uniform(-1, 1, (400, 3)).astype("float32")
    weights = np.array([[1.0, -2.0], [0.5, 1.0], [2.0, 0.0]])
    y = (np.tanh(x @ weights)).astype("float32")
    teacher = keras.Sequential([layers.Input((3,)), layers.Dense(32, activation="tanh"), layers.Dense(2)])
    teacher.compile(keras.optimizers.Adam(0.01), loss="mse")
    teacher.fit(x, y, epochs=30, verbose=0)
    student = keras.Sequential([layers.Input((3,)), layers.Dense(8, activation="tanh"), layers.Dense(2)])
    start = float(np.mean((student.predict(x, verbose=0) - y) ** 2))
    distiller = tfkd.Distiller(student, teacher, alpha=0.5, soft_loss=losses.MeanSquared())
    distiller.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    history = distiller.fit(x, y, epochs=15, verbose=0).history
    assert float(np.mean((student.predict(x, verbose=0) - y) ** 2)) < 0.2 * start
    assert history["soft_loss"][-1] < 0.2 * history["soft_loss"][0]


@pytest.mark.parametrize(
    "loss",
    [losses.RelationalKD]
    + [
        pytest.param(loss, marks=pytest.mark.campaign)
        for loss in (losses.SimilarityPreserving, losses.ProbabilisticTransfer)
    ],
)
def test_embedding_student_learns_the_distances_of_its_teacher(loss) -> None:
    """Embeddings of different widths without labels: the student learns the distances between samples."""
    x, _ = sequences(256, seed=0)
    teacher = keras.Sequential(
        [layers.Input((20, 2)), layers.Flatten(), layers.Dense(24, activation="tanh"), layers.Dense(16)]
    )
    student = keras.Sequential(
        [layers.Input((20, 2)), layers.Conv1D(4, 3, strides=2, activation="relu"), layers.Flatten(), layers.Dense(5)]
    )

    def agreement() -> float:
        """Correlation of the cosines between samples."""
        cosines = []
        for model in (teacher, student):
            z = model.predict(x[:100], verbose=0)
            z = z / np.linalg.norm(z, axis=1, keepdims=True)
            cosines.append((z @ z.T)[np.triu_indices(100, 1)])
        return float(np.corrcoef(*cosines)[0, 1])

    before = agreement()
    distiller = tfkd.Distiller(student, teacher, alpha=1.0, soft_loss=loss())
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(x, epochs=12, batch_size=64, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert agreement() > before + 0.05


@pytest.mark.campaign
def test_segmentation_student_learns_each_pixel_inside_the_mask() -> None:
    """The divergence is taken per pixel; pixels with weight 0 have no influence."""
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(200, 8, 8, 1)).astype("float32")
    y = (x[..., 0] > 0).astype("int64")
    teacher = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same", activation="relu"), layers.Conv2D(2, 1)]
    )
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile(keras.optimizers.Adam(0.01), loss=cross_entropy)
    teacher.fit(x, y, epochs=8, verbose=0)

    def student() -> keras.Model:
        keras.utils.set_random_seed(1)
        return keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(2, 3, padding="same")])

    def fit(model: keras.Model, targets: np.ndarray, mask: np.ndarray) -> dict:
        distiller = tfkd.Distiller(model, teacher, alpha=0.7, temperature=2.0)
        distiller.compile(keras.optimizers.Adam(0.02), loss=cross_entropy)
        return distiller.fit(x, targets, sample_weight=mask, epochs=5, batch_size=50, shuffle=False, verbose=0).history

    mask = np.zeros((200, 8, 8), "float32")
    mask[:, :, :4] = 1.0
    first, second = student(), student()
    before = float((first.predict(x, verbose=0).argmax(-1) == y).mean())
    history = fit(first, y, mask)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert float((first.predict(x, verbose=0).argmax(-1) == y).mean()) > before + 0.3
    wrong = y.copy()
    wrong[:, :, 4:] = 1 - wrong[:, :, 4:]
    fit(second, wrong, mask)
    for expected, received in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.campaign
def test_teacher_of_images_and_student_of_column_sums_share_features(digits_teacher_file: Path) -> None:
    splits = tfkd.data.load("digits")
    rows = splits.train.x.astype("float32").sum(axis=2)[..., 0]
    tests = splits.test.x.astype("float32").sum(axis=2)[..., 0]
    sums = tfkd.data.from_arrays((rows, splits.train.y), (tests, splits.test.y), validation=0)
    images = tfkd.data.from_arrays((splits.train.x, splits.train.y), (splits.test.x, splits.test.y), validation=0)
    teacher = keras.saving.load_model(digits_teacher_file)
    student = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Rescaling(1 / 1000),
            layers.Dense(24, activation="relu", name="inner"),
            layers.Dense(10),
        ]
    )
    last = next(
        layer.name
        for layer in reversed(teacher.layers)
        if len(layer.output.shape) == 2 and layer.name != teacher.layers[-1].name
    )
    distiller = tfkd.Distiller(student, teacher, features=[features.Feature(losses.Hint(), "inner", last, weight=0.01)])
    distiller.compile(
        keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = distiller.fit(
        sums.train.batches(64, shuffle=True, partner=tfkd.data.Partner(images.train)),
        validation_data=sums.test.batches(256),
        epochs=8,
        verbose=0,
    ).history
    assert history["val_accuracy"][-1] > history["val_accuracy"][0] + 0.1
    assert history["feature_loss"][-1] < history["feature_loss"][0]


def test_schedules_of_temperature_and_of_a_feature_are_logged() -> None:
    x, y = sequences(64, seed=0)
    falling = keras.optimizers.schedules.PolynomialDecay(8.0, 10, 2.0)
    rising = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    teacher, student = cnn(), gru()
    inner = [feature_layer.name for feature_layer in (student.layers[0], teacher.layers[2])]
    feature = features.Feature(losses.SimilarityPreserving(), *inner, weight=rising)
    distiller = tfkd.Distiller(student, teacher, temperature=falling, features=[feature])
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(x, y, epochs=3, batch_size=16, verbose=0).history
    assert history["temperature"] == pytest.approx(
        [float(np.mean([falling(s) for s in range(4 * e, 4 * e + 4)])) for e in range(3)], rel=1e-5
    )
    assert (
        history["feature_weight"][0]
        < history["feature_weight"][-1]
        == pytest.approx(float(np.mean([rising(s) for s in range(8, 12)])), rel=1e-5)
    )
    assert ops.convert_to_numpy(distiller.optimizer.iterations) == 12
