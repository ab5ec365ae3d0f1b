"""Prints which known defects of distillation code the installed `keras.distillation` has, next to tfkd.

Each check states a property that a distiller must have. `tests/distillation/test_properties.py` asserts that tfkd has
all of them; nothing asserts that another library lacks one, so a fix there changes this table only.

    python tools/bench/peer_defects.py
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfkd
from tfkd import losses

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.arange(64) % 3
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

Make = Callable[..., Any]  # (student, teacher) -> a compiled distiller
SoftLoss = Callable[[Any, Any], Any]  # (teacher logits, student logits) -> scalar


class Counter(keras.layers.Layer):
    """Passes its input on and counts its calls, by training flag."""

    def build(self, shape: Any) -> None:
        self.trainings = self.add_weight(shape=(), initializer="zeros", trainable=False, name="trainings")
        self.inferences = self.add_weight(shape=(), initializer="zeros", trainable=False, name="inferences")

    def call(self, x: Any, training: bool = False) -> Any:
        (self.trainings if training else self.inferences).assign_add(1.0)
        return x


def net(
    units: int = 6, *, end: str | None = None, input_dtype: str | None = None, width: int = 8, **options: Any
) -> keras.Model:
    """A small classifier of 3 classes with a call counter and batch normalization."""
    inputs = keras.Input((width,), dtype=input_dtype)
    x = Counter(name="counter")(inputs)
    x = keras.layers.Dense(units, name="hidden", **options)(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation=end, name="logits")(x))


def make_tfkd(student: keras.Model, teacher: keras.Model, loss: Any = None, **options: Any) -> Any:
    """A compiled `tfkd.Distiller`."""
    distiller = tfkd.Distiller(student, teacher, **{"alpha": 0.5, "temperature": 3.0, "soft_loss": loss, **options})
    distiller.compile(keras.optimizers.SGD(0.1), loss=HARD, weighted_metrics=[])
    return distiller


def make_keras(student: keras.Model, teacher: keras.Model, loss: Any = None, **options: Any) -> Any:
    """A compiled `keras.distillation.Distiller`."""
    loss = loss or keras.distillation.LogitsDistillation()
    distiller = keras.distillation.Distiller(teacher, student, loss, **options)
    distiller.compile(keras.optimizers.SGD(0.1), loss=HARD)
    return distiller


def make_keras_with_features(student: keras.Model, teacher: keras.Model) -> Any:
    """A compiled `keras.distillation.Distiller` with a feature loss."""
    names = {"teacher_layer_name": "logits", "student_layer_name": "logits"}  # of equal shape in both models
    feature = keras.distillation.FeatureDistillation(loss="mse", **names)
    return make_keras(student, teacher, [keras.distillation.LogitsDistillation(), feature])


def tfkd_soft_loss(teacher: Any, student: Any) -> Any:
    """The default loss of tfkd at temperature 3."""
    return tf.reduce_mean(losses.SoftTarget(3.0)(teacher, student))


def keras_soft_loss(teacher: Any, student: Any) -> Any:
    """The default loss of `keras.distillation` at temperature 3."""
    return keras.distillation.LogitsDistillation(temperature=3.0).compute_loss(teacher, student)


def keras_soft_loss_of_instance(teacher: Any, student: Any) -> Any:
    """The loss of `keras.distillation` with an instance of KLDivergence."""
    loss = keras.distillation.LogitsDistillation(temperature=3.0, loss=keras.losses.KLDivergence())
    return loss.compute_loss(teacher, student)


def check_soft_loss_is_the_divergence_of_softened_outputs(soft_loss: SoftLoss) -> None:
    teacher, student = np.array([[2.0, -1.0, 0.5]], "float32"), np.array([[-1.0, 2.0, 0.0]], "float32")
    p, q = (np.exp(z / 3) / np.exp(z / 3).sum() for z in (teacher, student))
    np.testing.assert_allclose(float(soft_loss(teacher, student)), 9 * (p * np.log(p / q)).sum(), rtol=1e-4)


def check_negative_logits_have_a_gradient(soft_loss: SoftLoss) -> None:
    assert _gradient(soft_loss, [[-1.0, -3.0, -2.0]], [[-2.0, -1.0, -3.0]]) > 0.1


def check_confident_disagreement_has_a_gradient(soft_loss: SoftLoss) -> None:
    assert _gradient(soft_loss, [[120.0, 0.0, 0.0]], [[0.0, 120.0, 0.0]]) > 0.1


def _gradient(soft_loss: SoftLoss, teacher: Any, student: Any) -> float:
    student_logits = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student_logits)
        loss = soft_loss(tf.constant(teacher), student_logits)
    return float(np.abs(tape.gradient(loss, student_logits).numpy()).max())


def check_student_runs_once_per_step(make: Make) -> None:
    student = net()
    make(student, net(32)).fit(X, Y, batch_size=32, epochs=1, verbose=0)
    assert float(student.get_layer("counter").trainings) == 2.0


def check_evaluate_changes_no_state(make: Make) -> None:
    student = net()
    distiller = make(student, net(32))
    distiller.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    before = [weight.numpy() for weight in student.get_layer("norm").weights]
    distiller.evaluate(X, Y, verbose=0)
    _assert_equal(before, [weight.numpy() for weight in student.get_layer("norm").weights])


def check_evaluate_does_not_run_the_teacher(make: Make) -> None:
    teacher = net(32)
    make(net(), teacher).evaluate(X, Y, batch_size=32, verbose=0)
    assert float(teacher.get_layer("counter").inferences) == 0.0


def check_sample_weight_zero_stops_training(make: Make) -> None:
    _check_no_training(make, sample_weight=np.zeros(len(X)))


def check_class_weight_zero_stops_training(make: Make) -> None:
    _check_no_training(make, class_weight=dict.fromkeys(range(3), 0.0))


def _check_no_training(make: Make, **options: Any) -> None:
    student = net()
    before = student.get_layer("hidden").get_weights()
    make(student, net(32)).fit(X, Y, epochs=1, verbose=0, **options)
    _assert_equal(before, student.get_layer("hidden").get_weights())


def check_regularization_of_the_student_is_in_the_loss(make: Make) -> None:
    values = []
    for factor in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        student = net(kernel_regularizer=keras.regularizers.L2(factor))
        values.append(make(student, net(32)).fit(X, Y, epochs=1, batch_size=64, verbose=0).history["loss"][0])
    assert values[1] > values[0] + 1


def check_own_loss_with_labels_trains_its_weights(make: Make) -> None:
    @keras.saving.register_keras_serializable(package="peer_defects")
    class Scaled(losses.DistillationLoss):
        def build(self, *shapes: Any) -> None:
            self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

        def call(self, teacher: Any, student: Any, y: Any = None, step: Any = None) -> Any:
            target = keras.ops.one_hot(keras.ops.cast(y, "int32"), 3)
            return keras.ops.sum((self.scale * target * (teacher - student)) ** 2, axis=-1)

    loss = Scaled()
    distiller = make(net(), net(32), loss)
    distiller.fit(X, Y, epochs=1, verbose=0)
    assert any(weight is loss.scale for weight in distiller.trainable_weights)
    assert np.abs(loss.scale.numpy() - 1).max() > 1e-4


def check_float16_student_learns_from_a_float32_teacher(make: Make) -> None:
    make(net(dtype="mixed_float16", input_dtype="float16"), net(32)).fit(X, Y, epochs=1, verbose=0)


def check_probabilities_are_refused(make: Make) -> None:
    message = "none: a student that ends in softmax is trained"
    try:
        make(net(end="softmax"), net(32)).fit(X, Y, epochs=1, verbose=0)
    except ValueError as error:
        message = str(error)
    assert "must return logits" in message, message


def check_teacher_stays_trainable(make: Make) -> None:
    teacher = net(32)
    make(net(), teacher).fit(X, Y, epochs=1, verbose=0)
    assert teacher.trainable
    assert teacher.trainable_weights


def check_teacher_may_have_another_input_shape(make: Make) -> None:
    x = tfkd.data.TeacherStudentInputs(teacher=np.repeat(X, 2, axis=1), student=X)
    history = make(net(), net(32, width=16)).fit(x, Y, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"][0])


def check_weight_of_the_soft_loss_changes_the_loss(train: Callable[[float], float]) -> None:
    assert abs(train(0.2) - train(0.8)) > 1e-3


def train_tfkd(weight: float) -> float:
    """The loss of the first epoch of `tfkd.Distiller` with this weight of the soft loss."""
    keras.utils.set_random_seed(0)
    return make_tfkd(net(), net(32), alpha=weight).fit(X, Y, epochs=1, batch_size=64, verbose=0).history["loss"][0]


def train_keras(weight: float) -> float:
    """The loss of the first epoch of `keras.distillation.Distiller` with this weight of its only soft loss."""
    keras.utils.set_random_seed(0)
    distiller = make_keras(net(), net(32), distillation_loss_weights=[weight], student_loss_weight=0.0)
    return distiller.fit(X, Y, epochs=1, batch_size=64, verbose=0).history["loss"][0]


def check_teacher_is_not_in_a_checkpoint(make: Make, folder: Path) -> None:
    sizes = []
    for units in (32, 3200):
        distiller = make(net(), net(units))
        distiller.fit(X, Y, epochs=1, verbose=0)  # Keras saves no model that is not built
        distiller.save_weights(folder / f"{units}.weights.h5")
        sizes.append((folder / f"{units}.weights.h5").stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]


def check_saved_file_is_the_student_and_can_be_trained(make: Make, folder: Path) -> None:
    distiller = make(net(), net(3200))
    distiller.fit(X, Y, epochs=1, verbose=0)
    distiller.save(folder / "distiller.keras")
    loaded = keras.saving.load_model(folder / "distiller.keras", custom_objects={"Counter": Counter})
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), distiller.student.predict(X, verbose=0))
    assert loaded.count_params() == distiller.student.count_params()
    loaded.compile(keras.optimizers.SGD(0.1), loss=HARD)
    loaded.fit(X, Y, epochs=1, verbose=0)


def _assert_equal(before: list[Any], after: list[Any]) -> None:
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


# Checks of a distiller, of its default loss, and of the files that it writes.
CHECKS = (
    check_student_runs_once_per_step,
    check_evaluate_changes_no_state,
    check_evaluate_does_not_run_the_teacher,
    check_sample_weight_zero_stops_training,
    check_class_weight_zero_stops_training,
    check_regularization_of_the_student_is_in_the_loss,
    check_own_loss_with_labels_trains_its_weights,
    check_float16_student_learns_from_a_float32_teacher,
    check_probabilities_are_refused,
    check_teacher_stays_trainable,
    check_teacher_may_have_another_input_shape,
)
LOSS_CHECKS = (
    check_soft_loss_is_the_divergence_of_softened_outputs,
    check_negative_logits_have_a_gradient,
    check_confident_disagreement_has_a_gradient,
)
FILE_CHECKS = (check_teacher_is_not_in_a_checkpoint, check_saved_file_is_the_student_and_can_be_trained)


def outcome(check: Callable[..., None], *arguments: Any) -> str:
    """`ok`, or the exception or warning with which a check fails."""
    keras.utils.set_random_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            check(*arguments)
    except Exception as error:  # a defect shows as a wrong number, an exception or a warning of any type
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return f"{type(error).__name__}: {reason}"[:70]
    return "ok"


def rows() -> list[tuple[str, str, str]]:
    """The check, the outcome of tfkd and the outcome of keras.distillation; one row per check and variant."""
    found = []
    for check in CHECKS:
        found.append((check.__name__, outcome(check, make_tfkd), outcome(check, make_keras)))
    for check in (check_student_runs_once_per_step, check_evaluate_changes_no_state):
        name = f"{check.__name__}, with features"
        found.append((name, outcome(check, make_tfkd), outcome(check, make_keras_with_features)))
    for loss_check in LOSS_CHECKS:
        name = loss_check.__name__
        found.append((name, outcome(loss_check, tfkd_soft_loss), outcome(loss_check, keras_soft_loss)))
        name = f"{name}, KLDivergence()"
        found.append((name, outcome(loss_check, tfkd_soft_loss), outcome(loss_check, keras_soft_loss_of_instance)))
    weight_check = check_weight_of_the_soft_loss_changes_the_loss
    found.append((weight_check.__name__, outcome(weight_check, train_tfkd), outcome(weight_check, train_keras)))
    for file_check in FILE_CHECKS:
        with tempfile.TemporaryDirectory() as folder:
            ours, peer = (outcome(file_check, make, Path(folder)) for make in (make_tfkd, make_keras))
        found.append((file_check.__name__, ours, peer))
    return found


def main() -> None:
    """Prints the table in Markdown."""
    print(f"| property | tfkd {tfkd.__version__} | keras.distillation of Keras {keras.__version__} |")
    print("|---|---|---|")
    for name, ours, peer in rows():
        print(f"| {name.removeprefix('check_').replace('_', ' ')} | {ours} | {peer.replace('|', ' ')} |")


if __name__ == "__main__":
    main()
