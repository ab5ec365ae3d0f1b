"""Each loss against NumPy in float64: values, gradients, invariants; configuration, float16, refusals, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import losses
from tfkd.errors import InputError, ModelError

RNG = np.random.default_rng(0)
TEACHER = RNG.normal(0, 3, (6, 5))
STUDENT = RNG.normal(0, 3, (6, 5))
Y = np.array([0, 1, 2, 3, 4, 0])
F_TEACHER = RNG.normal(size=(4, 3, 3, 5))
F_STUDENT = RNG.normal(size=(4, 3, 3, 5))
F_Y = np.array([0, 1, 0, 2])


# Independent implementations, in float64.


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)


def soft_target(t, s, y, temperature=4.0):
    return temperature**2 * kl(softmax(t / temperature), softmax(s / temperature))


def standardized(t, s, y):
    def z(x):
        return (x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True)

    return 9 * soft_target(z(t), z(s), y, 2.0)


def dkd(t, s, y):
    rows, values = np.arange(len(y)), []
    p, q = softmax(t / 4), softmax(s / 4)
    for i in rows:
        others = [c for c in range(t.shape[1]) if c != y[i]]
        b_t, b_s = ([x[i, y[i]], 1 - x[i, y[i]]] for x in (p, q))
        p_hat, q_hat = (softmax(x[i, others] / 4) for x in (t, s))
        values.append(16 * (kl(np.array(b_t), np.array(b_s)) + 8 * kl(p_hat, q_hat)))
    return np.array(values)


def dist(t, s, y):
    p, q = softmax(t / 4), softmax(s / 4)
    rows = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return 16 * (2 * rows + 2 * columns)


def ctkd(t, s, y):
    return soft_target(t, s, y, 1 + 20 * 0.5)


def wsld(t, s, y, frozen=None):
    rows = np.arange(len(y))
    ce_s, ce_t = (-np.log(softmax(x)[rows, y]) for x in (s if frozen is None else frozen, t))
    entropy = -(softmax(t / 2) * np.log(softmax(s / 2))).sum(-1)
    return 4 * (1 - np.exp(-ce_s / ce_t)) * entropy


def mean_squared(t, s, y):
    return ((t - s) ** 2).mean(-1)


def sigmoid_target(t, s, y):
    p, q = (np.stack([1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))], axis=-1) for z in (t, s))
    return kl(p, q).mean(-1)


def channel_wise(t, s, y):
    p, q = (softmax(np.moveaxis(z, -1, 1).reshape(len(z), z.shape[-1], -1) / 4) for z in (t, s))
    return 16 * kl(p, q).mean(-1)


def vectors(x):
    return x.reshape(len(x), -1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def hint(t, s, y):
    return ((vectors(t) - vectors(s)) ** 2).mean(-1)


def attention(t, s, y):
    def maps(x):
        return unit((x**2).mean(-1).reshape(len(x), -1))

    return ((maps(t) - maps(s)) ** 2).sum(-1)


def similarity(t, s, y):
    g_t, g_s = (unit(vectors(x) @ vectors(x).T) for x in (t, s))
    return ((g_t - g_s) ** 2).sum(-1) / len(t)


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def relational(t, s, y):
    def distances(x):
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        return d / d[d > 0].mean()

    def cosines(x):
        e = x[None] - x[:, None]  # [k, i, D]
        length = np.linalg.norm(e, axis=-1, keepdims=True)
        e = np.divide(e, length, out=np.zeros_like(e), where=length > 0)
        return np.einsum("kid,kjd->kij", e, e)

    t, s = vectors(t), vectors(s)
    parts = huber(distances(s) - distances(t)).mean(-1), huber(cosines(s) - cosines(t)).mean((1, 2))
    return 25 * parts[0] + 50 * parts[1]


def probabilistic(t, s, y):
    def p(x):
        kernel = (unit(vectors(x)) @ unit(vectors(x)).T + 1) / 2
        return kernel / kernel.sum(-1, keepdims=True)

    return kl(p(t), p(s))


def variational(t, s, y):
    return (0.5 * ((s - t) ** 2 / (5 + 1e-5) + np.log(5 + 1e-5))).reshape(len(t), -1).mean(-1)


OUTPUT_LOSSES = {
    losses.SoftTarget: soft_target,
    losses.StandardizedSoftTarget: standardized,
    losses.DKD: dkd,
    losses.DIST: dist,
    losses.CTKD: ctkd,
    losses.WSLD: wsld,
    losses.MeanSquared: mean_squared,
    losses.SigmoidTarget: sigmoid_target,
}
FEATURE_LOSSES = {
    losses.Hint: hint,
    losses.SimKD: hint,
    losses.ChannelWise: channel_wise,
    losses.AttentionTransfer: attention,
    losses.SimilarityPreserving: similarity,
    losses.RelationalKD: relational,
    losses.ProbabilisticTransfer: probabilistic,
    losses.VariationalInformation: variational,
}
CASES = [(kind, f, TEACHER, STUDENT, Y) for kind, f in OUTPUT_LOSSES.items()]
CASES += [(kind, f, F_TEACHER, F_STUDENT, F_Y) for kind, f in FEATURE_LOSSES.items()]
each_loss = pytest.mark.parametrize(
    ("kind", "expected", "teacher", "student", "y"), CASES, ids=[case[0].__name__ for case in CASES]
)
KINDS = [*OUTPUT_LOSSES, *FEATURE_LOSSES, losses.ContrastiveDistillation]


def gradient(loss, teacher, student, y):
    student = tf.constant(student, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = tf.reduce_sum(loss(tf.constant(teacher, tf.float32), student, y))
    return tape.gradient(value, student).numpy()


def slope(f, x, step=1e-6):
    """The gradient of sum(f(x)) by central differences."""
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        result[index] = (f(up).sum() - f(down).sum()) / (2 * step)
    return result


@each_loss
def test_values_match_float64_numpy(kind, expected, teacher, student, y):
    np.testing.assert_allclose(kind()(teacher, student, y), expected(teacher, student, y), rtol=2e-4, atol=1e-6)


@each_loss
def test_gradient_matches_finite_differences(kind, expected, teacher, student, y):
    frozen = {"frozen": student} if expected is wsld else {}  # no gradient through its weight
    numeric = slope(lambda x: expected(teacher, x, y, **frozen), student)
    np.testing.assert_allclose(gradient(kind(), teacher, student, y), numeric, rtol=2e-3, atol=2e-4)


@each_loss
def test_teacher_has_no_gradient(kind, expected, teacher, student, y):
    teacher = tf.constant(teacher, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        value = tf.reduce_sum(kind()(teacher, tf.constant(student, tf.float32), y))
    assert tape.gradient(value, teacher) is None


@each_loss
def test_float16_inputs_return_float32_close_to_float64(kind, expected, teacher, student, y):
    teacher, student = teacher.astype("float16"), student.astype("float16")
    values = kind()(teacher, student, y)
    assert values.dtype == tf.float32
    exact = expected(teacher.astype("float64"), student.astype("float64"), y)
    np.testing.assert_allclose(values, exact, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(kind):
    loss = kind()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(copy) is kind
    assert copy.get_config() == loss.get_config()


@pytest.mark.parametrize("kind", [losses.SoftTarget, losses.DKD, losses.DIST, losses.StandardizedSoftTarget])
def test_schedule_round_trip_and_value_at_the_step(kind):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10], [4.0, 1.0])
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(kind(schedule)))
    np.testing.assert_allclose(loss(TEACHER, STUDENT, Y, step=5), kind(4.0)(TEACHER, STUDENT, Y), rtol=1e-6)
    np.testing.assert_allclose(loss(TEACHER, STUDENT, Y, step=11), kind(1.0)(TEACHER, STUDENT, Y), rtol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in KINDS
        if kind not in (losses.WSLD, losses.VariationalInformation, losses.ContrastiveDistillation)
    ],
)
def test_loss_is_zero_where_student_equals_teacher(kind):
    x, y = (TEACHER, Y) if kind in OUTPUT_LOSSES else (F_TEACHER, F_Y)
    assert np.abs(kind()(x, x, y)).max() < 2e-4
    other = STUDENT if kind in OUTPUT_LOSSES else F_STUDENT
    assert np.mean(kind()(x, other, y)) > 1e-3


def test_wsld_is_minimal_where_the_softened_student_equals_the_teacher():
    assert np.abs(slope(lambda s: wsld(TEACHER, s, Y, frozen=STUDENT), TEACHER)).max() < 1e-6
    entropy = -(softmax(TEACHER / 2) * np.log(softmax(TEACHER / 2))).sum(-1)
    expected = 4 * (1 - np.exp(-1)) * entropy  # equal cross-entropies: the weight is 1 − 1/e
    np.testing.assert_allclose(losses.WSLD()(TEACHER, TEACHER, Y), expected, rtol=1e-4)


def test_variational_information_has_its_analytic_minimum():
    loss = losses.VariationalInformation(variance=2.0)
    np.testing.assert_allclose(loss(F_TEACHER, F_TEACHER), np.full(4, 0.5 * np.log(2)), rtol=1e-4)


@pytest.mark.parametrize("kind", [losses.SoftTarget, losses.StandardizedSoftTarget, losses.DKD, losses.DIST])
def test_constant_added_to_all_logits_changes_nothing(kind):
    moved = kind()(TEACHER + 5, STUDENT - 3, Y)
    np.testing.assert_allclose(moved, kind()(TEACHER, STUDENT, Y), rtol=1e-4)


def test_standardized_ignores_the_scale_of_logits():
    np.testing.assert_allclose(losses.StandardizedSoftTarget()(TEACHER, 7 * TEACHER), np.zeros(6), atol=1e-5)


def test_soft_target_keeps_a_gradient_on_confident_disagreement():
    assert np.abs(gradient(losses.SoftTarget(1.0), [[120.0, 0.0]], [[0.0, 120.0]], None)).max() > 0.9


def test_soft_target_stays_float32_under_a_half_precision_policy():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        value = losses.SoftTarget(1.0)([[60000.0, 0.0]], [[0.0, 60000.0]])
    finally:
        keras.config.set_dtype_policy(previous)
    assert value.numpy() == pytest.approx([60000.0])


def test_soft_target_returns_one_value_per_position():
    assert losses.SoftTarget(2.0)(np.zeros((2, 7, 3)), np.zeros((2, 7, 3))).shape == (2, 7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("temperature", [1.0, 20.0, 300.0, 1e4])
def test_high_temperatures_match_float64_numpy(temperature, dtype):
    """Teacher logits of lower precision, values and gradients: float32 must not cancel at high temperatures."""
    teacher, student = tf.cast(TEACHER, dtype), STUDENT.astype("float32").astype("float64")
    t = tf.cast(teacher, "float64").numpy()
    scaled = t / temperature, student / temperature
    exact = soft_target(t, student, None, temperature)
    np.testing.assert_allclose(losses.SoftTarget(temperature)(teacher, student), exact, rtol=2e-6)
    slopes = temperature * (softmax(scaled[1]) - softmax(scaled[0]))
    received = gradient(losses.SoftTarget(temperature), tf.cast(teacher, "float32"), student, None)
    np.testing.assert_allclose(received, slopes, rtol=2e-5, atol=2e-6)
    rows = np.arange(len(Y))
    b_t, b_s = (np.stack([softmax(z)[rows, Y], 1 - softmax(z)[rows, Y]], axis=-1) for z in scaled)
    others = [z[np.arange(5) != Y[:, None]].reshape(6, 4) for z in (t, student)]
    exact = temperature**2 * kl(b_t, b_s) + 8 * soft_target(others[0], others[1], None, temperature)
    np.testing.assert_allclose(losses.DKD(temperature)(teacher, student, Y), exact, rtol=2e-6)
    p, q = map(softmax, scaled)
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    exact = 2 * temperature**2 * (np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]) + columns)
    np.testing.assert_allclose(losses.DIST(temperature)(teacher, student), exact, rtol=2e-5)


@pytest.mark.parametrize("kind", [losses.SoftTarget, losses.DKD, losses.DIST])
def test_equal_logits_have_no_loss_at_a_high_temperature(kind):
    np.testing.assert_allclose(kind(1e4)(TEACHER, TEACHER, Y), np.zeros(6), atol=1e-12)


def dense(x):
    """Logits or labels [6, ...] as those of two images of 1 x 3 pixels."""
    return x.reshape(2, 1, 3, *x.shape[1:])


@pytest.mark.parametrize("kind", OUTPUT_LOSSES)
@pytest.mark.parametrize("form", ["indices", "column", "one-hot"])
def test_dense_outputs_are_compared_per_pixel(kind, form):
    y = {"indices": Y, "column": Y[:, None], "one-hot": np.eye(5)[Y]}[form]
    values = kind()(dense(TEACHER), dense(STUDENT), dense(y))
    np.testing.assert_allclose(values, dense(OUTPUT_LOSSES[kind](TEACHER, STUDENT, Y)), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [losses.DKD, losses.WSLD])
def test_ignored_pixels_have_no_loss(kind):
    y = Y.copy()
    y[[1, 4]] = 255, -1
    values = kind()(dense(TEACHER), dense(STUDENT), dense(y)).numpy().reshape(-1)
    expected = kind()(TEACHER, STUDENT, Y).numpy()
    expected[[1, 4]] = 0
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_dkd_takes_the_most_probable_class_of_soft_labels():
    soft = 0.9 * np.eye(5)[Y] + 0.02
    np.testing.assert_allclose(losses.DKD()(TEACHER, STUDENT, soft), losses.DKD()(TEACHER, STUDENT, Y), rtol=1e-6)


@pytest.mark.parametrize("kind", [losses.DKD, losses.WSLD])
def test_labels_of_other_positions_are_refused(kind):
    with pytest.raises(ValueError, match="one class index, or one one-hot row, for each row"):
        kind()(dense(TEACHER), dense(STUDENT), Y[:2])


@pytest.mark.parametrize("kind", [losses.SoftTarget, losses.DKD, losses.DIST, losses.WSLD, losses.MeanSquared])
def test_different_positions_are_refused(kind):
    with pytest.raises(ValueError, match="must have the same positions"):
        kind()(dense(TEACHER)[:, :, :1], dense(STUDENT), dense(Y))


def test_dist_of_a_constant_student_is_finite():
    assert np.isfinite(losses.DIST()(TEACHER, np.zeros((6, 5)))).all()
    assert np.isfinite(gradient(losses.DIST(), TEACHER, np.zeros((6, 5)), None)).all()


@pytest.mark.parametrize("kind", [losses.DKD, losses.DIST, losses.StandardizedSoftTarget])
def test_two_classes_are_refused_where_the_formula_is_empty(kind):
    with pytest.raises(ValueError, match="needs at least 3 classes.*Received: 2. Use SoftTarget"):
        kind()(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(4, int))


@pytest.mark.parametrize("kind", [losses.DKD, losses.WSLD])
def test_missing_labels_are_refused(kind):
    with pytest.raises(ValueError, match="needs labels"):
        kind()(TEACHER, STUDENT)


@pytest.mark.parametrize("kind", [losses.DKD, losses.WSLD])
def test_labels_in_columns_or_one_hot_are_accepted(kind):
    expected = kind()(TEACHER, STUDENT, Y)
    np.testing.assert_array_equal(kind()(TEACHER, STUDENT, Y[:, None]), expected)
    np.testing.assert_array_equal(kind()(TEACHER, STUDENT, np.eye(5)[Y]), expected)


@pytest.mark.parametrize("kind", [losses.SoftTarget, losses.DKD, losses.DIST, losses.WSLD, losses.MeanSquared])
def test_different_class_counts_are_refused(kind):
    with pytest.raises(ValueError, match=r"same rank and class count. Received: teacher \(2, 3\), student \(2, 4\)"):
        kind()(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2, int))


def test_single_logit_is_refused():
    with pytest.raises(ValueError, match="two logits instead of one"):
        losses.SoftTarget()(np.zeros((2, 1)), np.zeros((2, 1)))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "4", True])
def test_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be a finite number > 0. Received"):
        losses.SoftTarget(temperature)


@pytest.mark.parametrize(
    "kind",
    [losses.SimilarityPreserving, losses.RelationalKD, losses.ProbabilisticTransfer, losses.ContrastiveDistillation],
)
def test_relational_losses_refuse_a_batch_of_one_and_accept_different_shapes(kind):
    with pytest.raises(ValueError, match="compares the samples of a batch"):
        kind()(F_TEACHER[:1], F_STUDENT[:1])
    assert kind()(F_TEACHER, RNG.normal(size=(4, 7))).shape == (4,)


def test_relational_loss_is_finite_where_samples_coincide():
    same = np.ones((4, 6))
    assert np.isfinite(losses.RelationalKD()(same, same)).all()
    assert np.isfinite(gradient(losses.RelationalKD(), F_TEACHER, np.ones((4, 6)), None)).all()


def test_attention_without_positions_is_refused():
    with pytest.raises(ValueError, match="must have positions"):
        losses.AttentionTransfer()(np.zeros((2, 4)), np.zeros((2, 4)))


def test_attention_accepts_different_channel_counts():
    assert losses.AttentionTransfer()(F_TEACHER, F_STUDENT[..., :2]).shape == (4,)


def contrastive(loss, t, s, y):
    w_t, w_s = (w.numpy().astype("float64") for w in (loss.project_teacher, loss.project_student))
    scores = unit(vectors(s) @ w_s) @ unit(vectors(t) @ w_t).T / 0.07
    values = []
    for i in range(len(y)):
        candidates = [j for j in range(len(y)) if j == i or y[j] != y[i]]
        values.append(0.5 * (np.log(np.exp(scores[i, candidates]).sum()) + np.log(np.exp(scores[candidates, i]).sum())))
        values[-1] -= scores[i, i]
    return np.array(values)


def test_contrastive_matches_float64_numpy_and_its_gradient():
    loss = losses.ContrastiveDistillation(width=8)
    values = loss(F_TEACHER, F_STUDENT, F_Y)
    np.testing.assert_allclose(values, contrastive(loss, F_TEACHER, F_STUDENT, F_Y), rtol=1e-3, atol=1e-4)
    numeric = slope(lambda s: contrastive(loss, F_TEACHER, s, F_Y), F_STUDENT)
    np.testing.assert_allclose(gradient(loss, F_TEACHER, F_STUDENT, F_Y), numeric, rtol=1e-2, atol=2e-3)


def net(units):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(units, activation="relu", name="inner")(inputs)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


@pytest.mark.parametrize("kind", [losses.CTKD, *(kind for kind in OUTPUT_LOSSES if kind is not losses.CTKD)])
def test_every_output_loss_trains_in_the_distiller(kind):
    keras.utils.set_random_seed(0)
    distiller = tfkd.Distiller(net(8), net(32), soft_loss=kind(), alpha=0.9)
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = RNG.normal(size=(64, 6)).astype("float32")
    history = distiller.fit(x, RNG.integers(0, 5, 64), epochs=12, batch_size=32, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_learned_temperature_moves_against_the_student():
    loss = losses.CTKD()
    before = float(loss.raw.numpy())
    distiller = tfkd.Distiller(net(8), net(32), soft_loss=loss, alpha=1.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    x = RNG.normal(size=(64, 6)).astype("float32")
    distiller.fit(x, verbose=0)
    after = float(loss.raw.numpy())
    teacher, student = distiller._teachers()[0](x), distiller.student(x)

    def value(raw):
        loss.raw.assign(raw)
        return float(np.mean(loss(teacher, student)))

    assert after != before
    assert value(before + 100 * (after - before)) > value(before)  # one step is below the precision of the loss


@pytest.mark.parametrize("kind", [losses.VariationalInformation, losses.ContrastiveDistillation])
def test_weights_of_feature_losses_train(kind):
    loss = kind()
    feature = tfkd.features.Feature(loss, "inner", "inner")
    distiller = tfkd.Distiller(net(8), net(32), features=[feature])
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.numpy() for w in loss.trainable_weights]
    assert before
    distiller.fit(RNG.normal(size=(64, 6)).astype("float32"), RNG.integers(0, 5, 64), verbose=0)
    for old, new in zip(before, loss.trainable_weights, strict=True):
        assert np.abs(old - new.numpy()).max() > 0


def test_keras_loss_on_logits_is_wrapped():
    wrapped = losses.get(keras.losses.MeanSquaredError())
    np.testing.assert_allclose(wrapped(TEACHER, STUDENT), mean_squared(TEACHER, STUDENT, None), rtol=1e-5)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapped))
    np.testing.assert_array_equal(copy(TEACHER, STUDENT), wrapped(TEACHER, STUDENT))


def test_loss_of_keras_distillation_is_wrapped():
    peer = keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence())
    values = losses.get(peer)(TEACHER, STUDENT)
    assert values.shape == (6,)
    np.testing.assert_allclose(values, np.full(6, soft_target(TEACHER, STUDENT, None).mean()), rtol=1e-3)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.KLDivergence(),
        "kl_divergence",
        keras.distillation.LogitsDistillation(),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        keras.losses.BinaryCrossentropy(from_logits=True),
    ],
)
def test_losses_on_probabilities_are_refused(loss):
    with pytest.raises(ValueError, match="FromKeras: .*use SoftTarget|FromKeras: .*Use SoftTarget"):
        losses.get(loss)


def test_build_by_name():
    assert losses.build("dkd", beta=2.0).beta == 2.0
    with pytest.raises(ValueError, match="Did you mean 'dist'"):
        losses.build("dits")
    with pytest.raises(ValueError, match="dist takes .*gamma.*Received: delta=1"):
        losses.build("dist", delta=1)


def test_teacher_bounds_the_error():
    """The student is worse than the teacher, better, and better by less than the margin."""
    y = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], "float32")
    teacher, student = y + [[1.0, 1.0], [2.0, 0.0], [1.0, -1.0]], y + [[2.0, 0.0], [1.0, 0.0], [0.9, 0.9]]
    np.testing.assert_allclose(losses.TeacherBounded()(teacher, student, y), [2.0, 0.0, 0.0], rtol=1e-5)
    bounded = losses.TeacherBounded.from_config(losses.TeacherBounded(margin=0.5).get_config())
    np.testing.assert_allclose(bounded(teacher, student, y), [2.0, 0.0, 0.81], rtol=1e-5)
    of_column = losses.TeacherBounded()(teacher[:, :1], student[:, :1], y[:, 0])
    np.testing.assert_allclose(of_column, [4.0, 0.0, 0.0], rtol=1e-5)
    assert gradient(losses.TeacherBounded(), teacher, student, y)[1:].any() == 0
    with pytest.raises(InputError, match="needs labels"):
        losses.TeacherBounded()(teacher, student)
    with pytest.raises(ModelError, match="TeacherBounded, labels"):
        losses.TeacherBounded()(teacher, student, y[:, :1])
