import difflib

import keras
import numpy as np
import pytest

import tfkd
from tfkd import losses, models
from tfkd.distillation import features
from tfkd.distillation.features import Adapter, Feature
from tfkd.errors import InputError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 4, 32)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable(package="test_features")
class Distance(losses.DistillationLoss):
    """Mean squared distance per sample."""

    def call(self, teacher, student, y=None, step=None):
        return keras.ops.mean((teacher - student) ** 2, axis=tuple(range(1, len(student.shape))))


def block(x, channels, name, strides=1):
    x = keras.layers.Conv2D(channels, 3, strides, padding="same", name=f"{name}_conv")(x)
    return keras.layers.BatchNormalization(name=f"{name}_norm")(x)


def functional(channels=4, strides=1):
    inputs = keras.Input((8, 8, 3))
    x = block(inputs, channels, "one", strides)
    return keras.Model(
        inputs, keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    )


def nested(channels=6):
    inner_inputs = keras.Input((8, 8, 3))
    inner = keras.Model(inner_inputs, block(block(inner_inputs, channels, "one"), channels, "two"), name="backbone")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(inner(inputs))
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def sequential(channels=4):
    conv = keras.layers.Conv2D(channels, 3, padding="same", name="one_conv")
    return keras.Sequential(
        [keras.Input((8, 8, 3)), conv, keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(4)]
    )


class Subclassed(keras.Model):
    def __init__(self, channels=4):
        super().__init__()
        self.one_conv = keras.layers.Conv2D(channels, 3, padding="same", name="one_conv")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")
        self.dense = keras.layers.Dense(4)

    def call(self, x):
        return self.dense(self.pool(self.one_conv(x)))


@pytest.mark.parametrize("make", [functional, sequential, Subclassed])
def test_tap_returns_the_output_of_the_layer(make):
    model = make()
    with features.tap(model, ["one_conv", "pool"]) as seen:
        model(X)
    np.testing.assert_allclose(seen["one_conv"], model.get_layer("one_conv")(X), rtol=1e-5, atol=1e-6)
    assert seen["pool"].shape == (32, 4)


def encoder(heads=2, depth=1):
    keras.utils.set_random_seed(heads)
    return models.build("text_encoder", (5,), 3, vocabulary=9, width=8, heads=heads, depth=depth)


TOKENS = RNG.integers(0, 9, (16, 5))


def test_tap_returns_the_scores_of_attention_and_leaves_the_outputs():
    model = encoder()
    before = model(TOKENS)
    with features.tap(model, ["order", "block1_attention", "block1_attention/scores"]) as seen:
        after = model(TOKENS)
    layer = model.get_layer("block1_attention")
    output, scores = layer(seen["order"], seen["order"], return_attention_scores=True)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen["block1_attention"], output, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen["block1_attention/scores"], scores, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="'order/scores' must be the name or path of one layer"), \
            features.tap(model, ["order/scores"]):  # fmt: skip
        pass


@pytest.mark.parametrize("heads", [2, 4], ids=["as many", "more"])
def test_attention_loss_is_the_distance_of_the_scores(heads):
    teacher, student = (RNG.normal(size=(3, count, 4, 5)) for count in (heads, 2))
    masked = np.where(np.arange(5) < [[5], [3], [1]], 0.0, -1e9)[:, None, None]
    probabilities = [np.exp(z + masked) / np.exp(z + masked).sum(-1, keepdims=True) for z in (teacher, student)]
    if heads > 2:
        probabilities = [p.mean(axis=1, keepdims=True) for p in probabilities]
        teacher, student = (np.log(np.maximum(p, 1e-30)) for p in probabilities)
    found = losses.AttentionScores()(*(p.astype("float32") for p in probabilities))
    for row, count in enumerate((5, 3, 1)):
        centred = [z[row, ..., :count] - z[row, ..., :count].mean(-1, keepdims=True) for z in (teacher, student)]
        assert float(found[row]) == pytest.approx(((centred[0] - centred[1]) ** 2).mean(), rel=1e-3, abs=1e-6)
    with pytest.raises(ModelError, match="features must be"):
        losses.AttentionScores()(np.ones((2, 2, 4, 5)), np.ones((2, 2, 5, 5)))


def test_student_learns_the_attention_of_its_teacher():
    teacher, student = encoder(heads=4, depth=2), encoder()
    pairs = [
        Feature(losses.AttentionScores(), "block1_attention/scores", "block2_attention/scores"),
        Feature(losses.Hint(), "block1_norm2", "block2_norm2"),
    ]
    distiller = tfkd.Distiller(student, teacher, features=pairs, alpha=1.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    logs = distiller.fit(TOKENS, epochs=5, verbose=0).history
    assert logs["feature_loss"][-1] < 0.9 * logs["feature_loss"][0]


def test_tap_finds_layers_of_nested_models():
    model = nested()
    with features.tap(model, ["backbone/one_norm", "two_norm"]) as seen:
        model(X)
    backbone = model.get_layer("backbone")
    np.testing.assert_allclose(seen["two_norm"], backbone(X), rtol=1e-5, atol=1e-6)
    assert set(seen) == {"backbone/one_norm", "two_norm"}


def test_tap_restores_call_after_an_error():
    model = functional()
    with pytest.raises(ZeroDivisionError), features.tap(model, ["pool"]):
        raise ZeroDivisionError
    assert "call" not in model.get_layer("pool").__dict__


@pytest.mark.parametrize("path", ["one_cov", "backbone/on_conv", "nothing"])
def test_unknown_layer_name_lists_similar_names(path):
    with pytest.raises(InputError, match="must be the name or path of one layer") as error:
        features.find_layer(nested(), path)
    if difflib.get_close_matches(path, ["one_conv"]):
        assert "backbone/one_conv" in str(error.value)


def test_name_of_two_layers_is_refused_with_both_paths():
    inner = [sequential(), sequential()]
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Add()([part(inputs) for part in inner]))
    with pytest.raises(InputError, match="several layers. Use one of .*/one_conv, .*/one_conv"):
        features.find_layer(model, "one_conv")


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((8, 8, 4), (8, 8, 4)),
        ((8, 8, 4), (4, 4, 6)),
        ((4, 4, 4), (8, 8, 4)),
        ((6, 5), (4, 7)),
        ((8, 8, 4), (16,)),
        ((5,), (9,)),
    ],
)
def test_adapter_changes_to_the_shape_of_the_teacher(student, teacher):
    assert Adapter(teacher)(np.ones((2, *student), "float32")).shape == (2, *teacher)


def test_adapter_averages_blocks_and_keeps_corners():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    np.testing.assert_allclose(Adapter((2, 2, 1))(x)[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])
    larger = np.asarray(Adapter((7, 7, 1))(x))[0, ..., 0]
    np.testing.assert_allclose(larger[[0, 0, 3, -1], [0, -1, 3, -1]], [0, 3, 7.5, 15])


def test_adapter_of_equal_shapes_has_no_weights():
    adapter = Adapter((8, 8, 4))
    x = RNG.normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_array_equal(adapter(x), x)
    assert not adapter.weights


def test_adapter_from_a_vector_to_a_map_is_refused():
    with pytest.raises(InputError, match="cannot change a feature of shape"):
        Adapter((8, 8, 4)).build((None, 16))


def test_adapter_round_trips_through_its_config():
    copy = Adapter.from_config(Adapter((4, 4, 2), channels=False).get_config())
    assert copy.shape == (4, 4, 2)
    assert copy.channels is False


def distil(student, teacher, feature, epochs=1, **options):
    distiller = tfkd.Distiller(student, teacher, features=[feature], **options)
    distiller.compile(keras.optimizers.Adam(0.01), loss=HARD)
    return distiller, distiller.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history


@pytest.mark.parametrize(
    "make", [*(pytest.param(make, marks=pytest.mark.campaign) for make in (functional, sequential)), Subclassed]
)
def test_feature_loss_falls_and_its_adapter_trains(make):
    teacher = functional(channels=9, strides=2)
    keras.utils.set_random_seed(0)
    student = make()
    student(X)
    distiller, history = distil(student, teacher, Feature(Distance(), "one_conv", "one_conv", weight=5.0), epochs=60)
    assert history["feature_loss"][-1] < 0.5 * history["feature_loss"][0]
    (adapter,) = distiller.adapters
    assert adapter.weights
    before = adapter.get_weights()[0].copy()
    distiller.fit(X, Y, verbose=0)
    assert np.abs(adapter.get_weights()[0] - before).max() > 0


def test_features_need_no_second_forward_pass_of_the_student():
    student, teacher = functional(), functional(8)
    distiller, _ = distil(student, teacher, Feature(Distance(), "one_norm", "one_norm"))
    keras.utils.set_random_seed(0)
    single = functional()
    single.set_weights(student.get_weights())
    norm = single.get_layer("one_norm")
    distiller.train_on_batch(X, Y)
    single(X, training=True)
    np.testing.assert_allclose(student.get_layer("one_norm").moving_mean, norm.moving_mean, rtol=1e-4, atol=1e-5)


def test_saved_student_has_neither_adapter_nor_teacher(tmp_path):
    student = functional()
    distiller, _ = distil(student, functional(9), Feature(Distance(), "one_conv", "one_conv"))
    distiller.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == student.count_params()
    assert distiller.count_params() > student.count_params()


def test_summary_shows_adapters():
    lines = []
    feature = Feature(Distance(), "one_conv", "backbone/one_conv", weight=2.0)
    tfkd.Distiller(functional(), nested(), features=[feature]).summary(print_fn=lines.append)
    assert lines[-1] == (
        "Feature: 2 · Distance() of 'one_conv' to 'backbone/one_conv', student as (8, 8, 6), 1×1 convolution of 24 "
        "parameters"
    )


def test_unknown_layer_is_refused_before_training():
    with pytest.raises(InputError, match="'one_cnv' must be the name or path of one layer"):
        tfkd.Distiller(functional(), nested(), features=[Feature(Distance(), "one_conv", "one_cnv")])


def test_weight_of_a_feature_may_be_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 1.0])
    _, history = distil(
        functional(), functional(8), Feature(Distance(), "one_conv", "one_conv", schedule), epochs=3, alpha=0.0
    )
    assert history["feature_loss"][0] == 0.0  # the first epoch has steps 0 and 1
    assert history["feature_loss"][2] > 0.0


def test_alpha_may_be_a_schedule_and_is_logged():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    distiller = tfkd.Distiller(functional(), functional(8), alpha=schedule)
    distiller.compile("sgd", loss=HARD, jit_compile=True)
    history = distiller.fit(X, Y, batch_size=16, epochs=3, verbose=0, validation_data=(X, Y)).history
    assert history["alpha"] == pytest.approx([(1 + 0.75) / 2, (0.5 + 0.25) / 2, 0.0])
    assert "val_alpha" not in history


def test_several_teachers_are_weighted():
    one, two, student = functional(8), functional(5), functional()
    distiller = tfkd.Distiller(student, [one, two], alpha=1.0, teacher_weights=[3, 1])
    distiller.compile("sgd")
    loss = losses.SoftTarget(4.0)
    logits = student(X, training=True)
    expected = 0.75 * np.mean(loss(one(X), logits)) + 0.25 * np.mean(loss(two(X), logits))
    history = distiller.fit(X, batch_size=32, verbose=0).history
    assert history["soft_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_several_teachers_may_have_different_losses():
    teachers = [functional(8), functional(5)]
    distiller = tfkd.Distiller(functional(), teachers, soft_loss=[losses.SoftTarget(1.0), Distance()])
    distiller.compile("sgd", loss=HARD)
    assert np.isfinite(distiller.fit(X, Y, verbose=0).history["soft_loss"][0])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_invalid_teacher_weights_are_refused(weights):
    with pytest.raises(InputError, match="teacher_weights must be 2 numbers"):
        tfkd.Distiller(functional(), [functional(), functional()], teacher_weights=weights)


def head_pair():
    def net(channels, strides, name):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.ReLU(name="last")(block(inputs, channels, "one", strides))
        return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)), name=name)

    return net(4, 1, "small"), net(9, 2, "large")


def test_student_with_the_head_of_its_teacher_learns_its_features(tmp_path):
    keras.utils.set_random_seed(0)
    small, teacher = head_pair()
    student = features.with_teacher_head(small, "last", teacher, "last")
    feature = Feature(losses.SimKD(), "projector", "last", weight=10.0)
    distiller, history = distil(student, teacher, feature, epochs=40, alpha=1.0)
    # The logits follow from the features, in training mode, with the statistics of the batch.
    assert np.abs(student(X, training=True) - teacher(X)).mean() < np.abs(teacher(X)).mean()
    assert not distiller.adapters[0].weights  # the projector is part of the student
    assert history["feature_loss"][-1] < 0.5 * history["feature_loss"][0]
    head = student.layers[-1]
    np.testing.assert_array_equal(head.get_weights()[0], teacher.layers[-1].get_weights()[0])
    distiller.save(tmp_path / "student.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "student.keras")(X), student(X), rtol=1e-5)


def test_head_of_a_teacher_with_larger_maps_is_refused():
    small, teacher = head_pair()
    with pytest.raises(InputError, match="must be multiples of the teacher's"):
        features.with_teacher_head(teacher, "last", small, "last")
