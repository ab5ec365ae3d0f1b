"""Each loss: a number from independent NumPy float64, an invariant, a gradient check, a config round trip, float16."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import losses

RNG = np.random.default_rng(0)
TEACHER = RNG.normal(0, 3, (6, 5))
STUDENT = RNG.normal(0, 3, (6, 5))


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def soft_target(teacher, student, temperature):
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


def gradient(loss, teacher, student):
    student = tf.constant(student, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = tf.reduce_sum(loss(tf.constant(teacher, tf.float32), student))
    return tape.gradient(value, student).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_target_matches_float64_numpy(temperature):
    expected = soft_target(TEACHER, STUDENT, temperature)
    assert losses.SoftTarget(temperature)(TEACHER, STUDENT).numpy() == pytest.approx(expected, rel=1e-5)


def test_soft_target_of_hand_computed_case():
    # p = (e/(1+e), 1/(1+e)), q = (1/2, 1/2): T² · (log 2 − H(p)) with T = 2
    p = np.e / (1 + np.e)
    expected = 4 * (np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p))
    assert losses.SoftTarget(2.0)([[2.0, 0.0]], [[0.0, 0.0]]).numpy() == pytest.approx([expected], rel=1e-6)


def test_soft_target_is_zero_only_where_teacher_and_student_agree():
    loss = losses.SoftTarget(4.0)
    assert np.abs(loss(TEACHER, TEACHER + 7.0).numpy()).max() < 1e-5  # a constant added to all logits changes nothing
    assert (loss(TEACHER, STUDENT).numpy() > 0.01).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_target_gradient_matches_finite_differences(temperature):
    step, expected = 1e-6, np.zeros_like(STUDENT)
    for index in np.ndindex(STUDENT.shape):
        up, down = STUDENT.copy(), STUDENT.copy()
        up[index] += step
        down[index] -= step
        difference = soft_target(TEACHER, up, temperature).sum() - soft_target(TEACHER, down, temperature).sum()
        expected[index] = difference / (2 * step)
    assert gradient(losses.SoftTarget(temperature), TEACHER, STUDENT) == pytest.approx(expected, abs=1e-4)


def test_soft_target_gives_no_gradient_to_the_teacher():
    teacher = tf.constant(TEACHER, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        value = tf.reduce_sum(losses.SoftTarget(2.0)(teacher, STUDENT))
    assert tape.gradient(value, teacher) is None


def test_soft_target_with_large_temperature_has_gradient_of_centred_logits():
    # T -> infinity: T² KL tends to matching logits, gradient (z_s − mean − z_t + mean) / C
    expected = ((STUDENT - STUDENT.mean(-1, keepdims=True)) - (TEACHER - TEACHER.mean(-1, keepdims=True))) / 5
    assert gradient(losses.SoftTarget(1000.0), TEACHER, STUDENT) == pytest.approx(expected, abs=0.02)


def test_soft_target_in_float16_stays_close_to_float64():
    teacher, student = TEACHER.astype("float16"), STUDENT.astype("float16")
    value = losses.SoftTarget(4.0)(teacher, student)
    assert value.dtype == tf.float32
    assert value.numpy() == pytest.approx(
        soft_target(teacher.astype("float64"), student.astype("float64"), 4.0), rel=1e-5
    )


def test_soft_target_stays_float32_under_a_half_precision_policy():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        value = losses.SoftTarget(1.0)([[60000.0, 0.0]], [[0.0, 60000.0]])
    finally:
        keras.config.set_dtype_policy(previous)
    assert value.numpy() == pytest.approx([60000.0])


def test_soft_target_round_trips_through_its_config():
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(losses.SoftTarget(3.0)))
    assert isinstance(loss, losses.SoftTarget)
    assert loss.temperature == 3.0


def test_soft_target_keeps_one_value_per_position():
    assert losses.SoftTarget(2.0)(np.zeros((2, 7, 3)), np.zeros((2, 7, 3))).shape == (2, 7)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "4"])
def test_soft_target_refuses_temperature(temperature):
    with pytest.raises(ValueError, match="temperature must be a finite number > 0. Received"):
        losses.SoftTarget(temperature)


def test_soft_target_refuses_other_class_count():
    with pytest.raises(ValueError, match=r"same rank and class count. Received: teacher \(2, 3\), student \(2, 4\)"):
        losses.SoftTarget()(np.zeros((2, 3)), np.zeros((2, 4)))


def test_soft_target_refuses_a_single_logit():
    with pytest.raises(ValueError, match="at least 2 classes"):
        losses.SoftTarget()(np.zeros((2, 1)), np.zeros((2, 1)))
