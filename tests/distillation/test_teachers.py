import keras
import numpy as np
import pytest

import tfkd
from tfkd.distillation import teachers
from tfkd.errors import InputError, ModelError

RNG = np.random.default_rng(0)
DIGITS = tfkd.data.load("digits")
SHAPE, CLASSES = DIGITS.train.input_shape, DIGITS.train.num_classes
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = DIGITS.train.x[:64].astype("float32")


def net(units, shape=SHAPE, classes=CLASSES):
    inputs = keras.Input(shape)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dense(units, activation="relu")(x)))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_ensemble_of_probabilities_is_the_mean_softmax():
    one, two = net(8), net(16)
    together = teachers.ensemble([one, two], weights=[3, 1])
    expected = 0.75 * softmax(one(X).numpy()) + 0.25 * softmax(two(X).numpy())
    np.testing.assert_allclose(softmax(together(X).numpy()), expected, rtol=1e-5)


def test_ensemble_of_logits_is_their_mean():
    one, two = net(8), net(16)
    together = teachers.ensemble([one, two], combine="logits")
    np.testing.assert_allclose(together(X), (one(X) + two(X)) / 2, rtol=1e-5, atol=1e-6)


def test_ensemble_of_one_changes_no_probability():
    one = net(8)
    np.testing.assert_allclose(softmax(teachers.ensemble([one])(X).numpy()), softmax(one(X).numpy()), rtol=1e-5)


def test_ensemble_saves_and_loads(tmp_path):
    together = teachers.ensemble([net(8), net(16)])
    together.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(loaded(X), together(X), rtol=1e-6)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_ensemble_refuses_weights(weights):
    with pytest.raises(InputError, match="as many weights >= 0"):
        teachers.ensemble([net(8), net(8)], weights=weights)


def test_ensemble_refuses_models_with_different_classes():
    with pytest.raises(InputError, match="same input shape and number of logits"):
        teachers.ensemble([net(8), net(8, classes=3)])
    with pytest.raises(InputError, match="combine must be"):
        teachers.ensemble([net(8)], combine="median")


def softmaxed(model):
    """A model whose softmax is neither a layer nor an activation."""
    return keras.Model(model.inputs, keras.layers.Lambda(lambda z: keras.ops.softmax(z))(model.output))


def test_ensemble_refuses_a_subclassed_model():
    class Own(keras.Model):
        def call(self, x):
            return x

    for models in ([Own(), net(8)], [net(8), Own()]):
        with pytest.raises(ModelError, match=r"the subclassed Own\. Give keras\.Model"):
            teachers.ensemble(models)


def test_ensemble_refuses_a_model_of_probabilities():
    with pytest.raises(InputError, match="teacher must return logits"):
        teachers.ensemble([net(8), softmaxed(net(8))])


def test_ensemble_of_half_precision_is_computed_in_float32():
    inputs = keras.Input((4,))
    half = keras.Model(inputs, keras.layers.Dense(3, dtype="bfloat16")(inputs))
    x = RNG.normal(size=(6, 4)).astype("float32")
    p = softmax(keras.ops.convert_to_numpy(keras.ops.cast(half(x), "float32")).astype("float64"))
    np.testing.assert_allclose(np.exp(teachers.ensemble([half, half])(x)), p, rtol=1e-5)


def train(model, epochs=6):
    model.compile(keras.optimizers.Adam(0.01), loss=HARD, metrics=["accuracy"])
    return model.fit(DIGITS.train.batches(64, shuffle=True), epochs=epochs, verbose=0, shuffle=False)


def accuracy(model):
    return float(np.mean(model.predict(DIGITS.val.x.astype("float32"), verbose=0).argmax(-1) == DIGITS.val.y))


@pytest.mark.campaign
def test_teacher_assistant_student_chain_trains():
    keras.utils.set_random_seed(0)
    teacher = net(64)
    train(teacher)
    for units in (24, 12):  # teacher -> assistant -> student
        student = net(units)
        before = accuracy(student)
        train(tfkd.Distiller(student, teacher, alpha=1.0))
        assert accuracy(student) > before + 0.4
        teacher = student


def test_student_learns_from_a_clone_of_itself():
    keras.utils.set_random_seed(0)
    first = net(12)
    train(first)
    again = keras.models.clone_model(first)
    train(tfkd.Distiller(again, first, alpha=0.5))
    assert accuracy(again) > 0.8


@pytest.mark.campaign
def test_student_may_be_larger_than_its_teacher():
    keras.utils.set_random_seed(0)
    small = net(12)
    train(small)
    large = net(96)
    train(tfkd.Distiller(large, small))
    assert accuracy(large) > 0.8


def test_mutual_learning_trains_every_student():
    keras.utils.set_random_seed(0)
    students = [net(8), net(16), net(24)]
    before = [accuracy(student) for student in students]
    mutual = teachers.MutualLearning(students)
    history = train(mutual).history
    assert all(accuracy(student) > start + 0.4 for student, start in zip(students, before, strict=True))
    assert set(history) == {"loss", "soft_loss", "hard_loss", "accuracy"}
    received = mutual.evaluate(DIGITS.val.batches(64), verbose=0, return_dict=True)["accuracy"]
    assert received == pytest.approx(accuracy(students[0]))


@pytest.mark.campaign
def test_mutual_learning_reduces_the_distance_of_students():
    keras.utils.set_random_seed(0)
    apart, together = [net(8), net(8)], [net(8), net(8)]
    for student in apart:
        train(student, epochs=4)
    train(teachers.MutualLearning(together), epochs=4)

    def distance(pair):
        one, two = (softmax(student(X).numpy()) for student in pair)
        return float(np.abs(one - two).mean())

    assert distance(together) < distance(apart)


def test_mutual_learning_refuses_probabilities():
    def by_hand(z):
        return keras.ops.exp(z) / keras.ops.sum(keras.ops.exp(z), axis=-1, keepdims=True)

    model = net(8)
    student = keras.Model(model.inputs, keras.layers.Lambda(by_hand)(model.output))
    mutual = teachers.MutualLearning([net(8), student])
    mutual.compile("sgd", loss=HARD)
    with pytest.raises(InputError, match="student must return logits"):
        mutual.fit(X, DIGITS.train.y[:64], verbose=0)


def test_mutual_learning_needs_two_students():
    with pytest.raises(InputError, match="two students or more"):
        teachers.MutualLearning([net(8)])
