"""Known defects of keras.distillation: checks that our Distiller passes and, where they run there, theirs fails."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import losses

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.arange(64) % 3
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Counter(keras.layers.Layer):
    """Passes its input on and counts its calls, by training flag."""

    def build(self, shape):
        self.trainings = self.add_weight(shape=(), initializer="zeros", trainable=False, name="trainings")
        self.inferences = self.add_weight(shape=(), initializer="zeros", trainable=False, name="inferences")

    def call(self, x, training=False):
        (self.trainings if training else self.inferences).assign_add(1.0)
        return x


def net(units=6, *, end=None, **options):
    inputs = keras.Input((8,), dtype=options.pop("input_dtype", None))
    x = Counter(name="counter")(inputs)
    x = keras.layers.Dense(units, name="hidden", **options)(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation=end, name="logits")(x))


def ours(student, teacher, **options):
    distiller = tfkd.Distiller(student, teacher, **{"alpha": 0.5, "temperature": 3.0, **options})
    distiller.compile(keras.optimizers.SGD(0.1), loss=HARD, weighted_metrics=[])
    return distiller


def peer(student, teacher, distillation_losses=None, **options):
    distiller = keras.distillation.Distiller(
        teacher, student, distillation_losses or keras.distillation.LogitsDistillation(), **options
    )
    distiller.compile(keras.optimizers.SGD(0.1), loss=HARD)
    return distiller


def peer_with_features(student, teacher):
    feature = keras.distillation.FeatureDistillation(loss="mse", teacher_layer_name="norm", student_layer_name="norm")
    return peer(student, teacher, [keras.distillation.LogitsDistillation(), feature])


def check_default_loss_is_the_divergence_of_softened_outputs(soft_loss):
    teacher, student = np.float32([[2.0, -1.0, 0.5]]), np.float32([[-1.0, 2.0, 0.0]])
    p, q = (np.exp(z / 3) / np.exp(z / 3).sum() for z in (teacher, student))
    assert float(soft_loss(teacher, student)) == pytest.approx(9 * (p * np.log(p / q)).sum(), rel=1e-4)


def check_all_negative_logits_have_a_gradient(soft_loss):
    student = tf.constant([[-2.0, -1.0, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = soft_loss(tf.constant([[-1.0, -3.0, -2.0]]), student)
    assert np.abs(tape.gradient(loss, student).numpy()).max() > 0.1


def check_confident_disagreement_has_a_gradient(soft_loss):
    student = tf.constant([[0.0, 120.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = soft_loss(tf.constant([[120.0, 0.0, 0.0]]), student)
    assert np.abs(tape.gradient(loss, student).numpy()).max() > 0.1


def check_student_runs_once_a_step(make):
    student = net()
    make(student, net(32)).fit(X, Y, batch_size=32, epochs=1, verbose=0)
    assert float(student.get_layer("counter").trainings) == 2.0


def check_evaluate_changes_no_state(make):
    student = net()
    distiller = make(student, net(32))
    distiller.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    before = [w.numpy() for w in student.get_layer("norm").weights]
    distiller.evaluate(X, Y, verbose=0)
    for old, new in zip(before, student.get_layer("norm").weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def check_evaluate_leaves_the_teacher_alone(make):
    teacher = net(32)
    make(net(), teacher).evaluate(X, Y, batch_size=32, verbose=0)
    assert float(teacher.get_layer("counter").inferences) == 0.0


def check_sample_weight_zero_stops_learning(make):
    student = net()
    before = student.get_layer("hidden").get_weights()
    make(student, net(32)).fit(X, Y, sample_weight=np.zeros(len(X)), epochs=1, verbose=0)
    for old, new in zip(before, student.get_layer("hidden").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def check_class_weight_zero_stops_learning(make):
    student = net()
    before = student.get_layer("hidden").get_weights()
    make(student, net(32)).fit(X, Y, class_weight=dict.fromkeys(range(3), 0.0), epochs=1, verbose=0)
    for old, new in zip(before, student.get_layer("hidden").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def check_regularization_of_the_student_is_in_the_loss(make):
    values = []
    for factor in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        student = net(kernel_regularizer=keras.regularizers.L2(factor))
        values.append(make(student, net(32)).fit(X, Y, epochs=1, batch_size=64, verbose=0).history["loss"][0])
    assert values[1] > values[0] + 1


def check_loss_of_the_user_sees_labels_and_trains_its_weights(make):
    @keras.saving.register_keras_serializable(package="test")
    class Scaled(losses.DistillationLoss):
        def build(self, *shapes):
            self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

        def call(self, teacher, student, y=None, step=None):
            target = keras.ops.one_hot(keras.ops.cast(y, "int32"), 3)
            return keras.ops.sum((self.scale * target * (teacher - student)) ** 2, axis=-1)

    loss = Scaled()
    distiller = make(net(), net(32), loss)
    distiller.fit(X, Y, epochs=1, verbose=0)
    assert any(w is loss.scale for w in distiller.trainable_weights)
    assert np.abs(loss.scale.numpy() - 1).max() > 1e-4


def check_half_precision_student_learns_from_a_float32_teacher(make):
    make(net(dtype="mixed_float16", input_dtype="float16"), net(32)).fit(X, Y, epochs=1, verbose=0)


def check_probabilities_are_refused(make):
    with pytest.raises(ValueError, match="must end in logits"):
        make(net(end="softmax"), net(32)).fit(X, Y, epochs=1, verbose=0)


def check_teacher_is_not_in_a_checkpoint(make, folder):
    distiller = make(net(), net(32))
    distiller.save_weights(folder / "small.weights.h5")
    sizes = [(folder / "small.weights.h5").stat().st_size]
    distiller = make(net(), net(3200))
    distiller.save_weights(folder / "large.weights.h5")
    sizes.append((folder / "large.weights.h5").stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]


def check_saved_file_is_the_student_and_trains_on(make, folder):
    distiller = make(net(), net(3200))
    distiller.fit(X, Y, epochs=1, verbose=0)
    distiller.save(folder / "distiller.keras")
    loaded = keras.saving.load_model(folder / "distiller.keras", custom_objects={"Counter": Counter})
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), distiller.student.predict(X, verbose=0))
    assert loaded.count_params() == distiller.student.count_params()
    loaded.compile(keras.optimizers.SGD(0.1), loss=HARD)
    loaded.fit(X, Y, epochs=1, verbose=0)


def check_teacher_stays_trainable(make):
    teacher = net(32)
    make(net(), teacher).fit(X, Y, epochs=1, verbose=0)
    assert teacher.trainable
    assert teacher.trainable_weights


CHECKS = [
    check_evaluate_leaves_the_teacher_alone,
    check_sample_weight_zero_stops_learning,
    check_class_weight_zero_stops_learning,
    check_regularization_of_the_student_is_in_the_loss,
    check_half_precision_student_learns_from_a_float32_teacher,
    check_probabilities_are_refused,
    check_teacher_stays_trainable,
]
LOSS_CHECKS = [
    check_default_loss_is_the_divergence_of_softened_outputs,
    check_all_negative_logits_have_a_gradient,
    check_confident_disagreement_has_a_gradient,
]
FILE_CHECKS = [check_teacher_is_not_in_a_checkpoint, check_saved_file_is_the_student_and_trains_on]
# What a defect looks like from outside: a wrong number, a missing refusal, an exception or a warning from within.
DEFECT = (AssertionError, pytest.fail.Exception, ValueError, TypeError, AttributeError, UserWarning)


def our_soft_loss(teacher, student):
    return tf.reduce_mean(losses.SoftTarget(3.0)(teacher, student))


def peer_soft_loss(teacher, student):
    return keras.distillation.LogitsDistillation().compute_loss(teacher, student)


def peer_soft_loss_with_an_instance(teacher, student):
    loss = keras.distillation.LogitsDistillation(temperature=3.0, loss=keras.losses.KLDivergence())
    return loss.compute_loss(teacher, student)


@pytest.mark.parametrize("check", CHECKS)
def test_distiller_passes(check):
    check(ours)


@pytest.mark.parametrize("check", LOSS_CHECKS)
def test_soft_target_passes(check):
    check(our_soft_loss)


@pytest.mark.parametrize("check", FILE_CHECKS)
def test_distiller_files_pass(check, tmp_path):
    check(ours, tmp_path)


def test_distiller_runs_its_student_once_a_step():
    check_student_runs_once_a_step(ours)


def test_distiller_changes_no_state_in_evaluate():
    check_evaluate_changes_no_state(ours)


def test_distiller_trains_a_loss_with_weights_and_labels():
    check_loss_of_the_user_sees_labels_and_trains_its_weights(lambda s, t, loss: ours(s, t, soft_loss=loss))


def test_distiller_takes_a_teacher_of_other_input_size():
    inputs = keras.Input((16,))
    teacher = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    x = {"teacher": np.repeat(X, 2, axis=1), "student": X}
    history = ours(net(), teacher).fit(x, Y, epochs=1, verbose=0).history
    assert history["soft_loss"][0] > 0


def test_distiller_weighs_the_soft_loss_as_told():
    # The peer turns a weight of 5 for its one loss into 1; ours has one alpha, and the logged terms add up to the loss.
    keras.utils.set_random_seed(0)
    history = ours(net(), net(32), alpha=0.75).fit(X, Y, epochs=1, verbose=0).history
    expected = 0.75 * history["soft_loss"][0] + 0.25 * history["hard_loss"][0]
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("check", CHECKS)
def test_peer_fails(check):
    with pytest.raises(DEFECT):
        check(peer)


@pytest.mark.parametrize("check", LOSS_CHECKS[:2])
def test_peer_default_loss_fails(check):
    with pytest.raises(DEFECT):
        check(peer_soft_loss)


def test_peer_loss_on_clipped_probabilities_fails():
    with pytest.raises(DEFECT):
        check_confident_disagreement_has_a_gradient(peer_soft_loss_with_an_instance)


@pytest.mark.parametrize("check", FILE_CHECKS)
def test_peer_files_fail(check, tmp_path):
    with pytest.raises(DEFECT):
        check(peer, tmp_path)


def test_peer_with_features_runs_its_student_twice_a_step():
    with pytest.raises(DEFECT):
        check_student_runs_once_a_step(peer_with_features)


def test_peer_with_features_changes_state_in_evaluate():
    with pytest.raises(DEFECT):
        check_evaluate_changes_no_state(peer_with_features)


def test_peer_refuses_a_teacher_of_other_input_size():
    inputs = keras.Input((16,))
    with pytest.raises(ValueError, match="incompatible"):
        peer(net(), keras.Model(inputs, keras.layers.Dense(3)(inputs)))


def test_peer_turns_a_weight_of_five_into_one():
    values = []
    for weight in (1.0, 5.0):
        keras.utils.set_random_seed(0)
        distiller = peer(
            net(),
            net(32),
            keras.distillation.LogitsDistillation(),
            distillation_loss_weights=[weight],
            student_loss_weight=0.0,
        )
        values.append(distiller.fit(X, Y, epochs=1, batch_size=64, verbose=0).history["loss"][0])
    assert values[0] == values[1]
