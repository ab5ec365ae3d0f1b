"""Students and teachers with several outputs."""

import keras
import numpy as np
import pytest

import tfkd
from tfkd.distillation.features import Feature
from tfkd.errors import InputError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
KIND, PLACE = RNG.integers(0, 3, 64), RNG.normal(size=(64, 2)).astype("float32")
LABELS = {"kind": KIND, "place": PLACE}
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LOSSES = {"kind": HARD, "place": "mse"}
TASKS = {"place": "regression"}
# The order of the heads differs from that of their names.
STRUCTURES = {
    "dict": lambda kind, place: {"place": place, "kind": kind},
    "list": lambda kind, place: [place, kind],
    "tuple": lambda kind, place: (kind, place),
}


def heads(structure="dict", units=0, kinds=3, names=("kind", "place"), end=None, **options):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(units, activation="relu", name="hidden", **options)(inputs) if units else inputs
    kind = keras.layers.Dense(kinds, name=names[0], activation=end)(x)
    return keras.Model(inputs, STRUCTURES[structure](kind, keras.layers.Dense(2, name=names[1])(x)))


def distil(student, teacher, *, y=LABELS, compile_options=None, fit_options=None, **options):
    distiller = tfkd.Distiller(student, teacher, **{"task": TASKS, **options})
    # Eagerly, since a trace takes longer than one step; two tests trace.
    defaults = {"optimizer": keras.optimizers.SGD(0.1), "loss": LOSSES, "run_eagerly": True}
    distiller.compile(**{**defaults, **(compile_options or {})})
    history = distiller.fit(X, y, **{"batch_size": 64, "shuffle": False, "verbose": 0, **(fit_options or {})})
    return distiller, history.history


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


FORMS = {
    "dict": dict,
    "list": lambda by_name: [by_name["place"], by_name["kind"]],  # the order of the student with a list
    "tuple": lambda by_name: (by_name["kind"], by_name["place"]),
}


@pytest.mark.parametrize(
    ("structure", "form"), [("dict", "dict"), ("list", "list"), ("list", "dict"), ("tuple", "tuple")]
)
def test_train_step_matches_float64_numpy(structure, form):
    """The soft loss of classes at T = 2, squares of the place, weights of outputs and of samples by output."""
    student, teacher = heads(structure), heads("dict")
    weights = {"kind": RNG.uniform(0, 2, 64), "place": RNG.uniform(0, 2, 64)}
    alphas, factors, temperature = {"kind": 0.7, "place": 0.2}, {"kind": 3.0, "place": 0.5}, 2.0
    before = {name: [w.astype("float64") for w in student.get_layer(name).get_weights()] for name in LABELS}
    x = X.astype("float64")
    z = {name: x @ kernel + bias for name, (kernel, bias) in before.items()}
    t = {name: value.numpy().astype("float64") for name, value in teacher(X).items()}

    _, history = distil(
        student,
        teacher,
        y=FORMS[form](LABELS),
        alpha=alphas,
        temperature=temperature,
        compile_options={"loss_weights": FORMS[form](factors), "loss": FORMS[form](LOSSES)},
        fit_options={"sample_weight": FORMS[form](weights)},
    )

    p, q = softmax(t["kind"] / temperature), softmax(z["kind"] / temperature)
    soft = {
        "kind": (temperature**2 * (p * np.log(p / q)).sum(-1), temperature * (q - p)),
        "place": (((z["place"] - t["place"]) ** 2).mean(-1), z["place"] - t["place"]),
    }
    hard = {
        "kind": (-np.log(softmax(z["kind"])[np.arange(64), KIND]), softmax(z["kind"]) - np.eye(3)[KIND]),
        "place": (((z["place"] - PLACE) ** 2).mean(-1), z["place"] - PLACE),
    }
    expected = {"loss": 0.0, "soft_loss": 0.0, "hard_loss": 0.0}
    for name, alpha in alphas.items():
        soft_mean, hard_mean = ((weights[name] * one[name][0]).mean() for one in (soft, hard))
        expected |= {f"{name}_soft_loss": soft_mean, f"{name}_loss": hard_mean}
        expected["soft_loss"] += factors[name] * soft_mean
        expected["hard_loss"] += factors[name] * hard_mean
        expected["loss"] += factors[name] * (alpha * soft_mean + (1 - alpha) * hard_mean)
        gradient = alpha * soft[name][1] + (1 - alpha) * hard[name][1]
        gradient *= factors[name] * weights[name][:, None] / 64
        kernel, bias = student.get_layer(name).get_weights()
        np.testing.assert_allclose(kernel, before[name][0] - 0.1 * x.T @ gradient, atol=1e-5)
        np.testing.assert_allclose(bias, before[name][1] - 0.1 * gradient.sum(0), atol=1e-5)
    assert {name: value for name, (value,) in history.items()} == pytest.approx(expected, rel=1e-4)


def test_alpha_zero_equals_plain_training_bit_for_bit():
    """Weights, logs and their names are those of keras.Model.fit."""
    options = {
        "loss": LOSSES,
        "loss_weights": {"kind": 2.0, "place": 0.5},
        "metrics": {"kind": ["accuracy"], "place": ["mae"]},
    }
    student = heads("list", 4)
    plain = keras.models.clone_model(student)
    plain.set_weights(student.get_weights())
    plain.compile(keras.optimizers.SGD(0.1), jit_compile=False, **options)
    fit_options = {"epochs": 2, "batch_size": 32, "shuffle": False, "validation_data": (X, LABELS)}
    expected = plain.fit(X, LABELS, verbose=0, **fit_options).history
    compile_options = {**options, "run_eagerly": False}
    _, received = distil(
        student, heads("dict", 16), alpha=0.0, compile_options=compile_options, fit_options=fit_options
    )
    added = {"soft_loss", "kind_soft_loss", "place_soft_loss", "hard_loss", "val_hard_loss"}
    assert set(received) == set(expected) | added
    for name, values in expected.items():
        assert received[name] == pytest.approx(values, rel=1e-6), name
    for one, another in zip(plain.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)


def test_weight_of_the_only_output_holds_for_both_losses():
    teacher, results = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]), []
    for weights in (None, [2.0]):
        keras.utils.set_random_seed(1)
        student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        options = {"loss": HARD, "loss_weights": weights}
        results.append(distil(student, teacher, y=KIND, task="classification", compile_options=options)[1])
    for name in ("loss", "soft_loss", "hard_loss"):
        assert results[1][name] == pytest.approx([2 * results[0][name][0]], rel=1e-5)


def test_output_without_labels_learns_from_the_teacher_alone():
    student, teacher = heads("list", 4), heads("list", 16)
    options = {"loss": {"kind": HARD}, "metrics": {"kind": ["accuracy"]}}
    alpha = {"kind": 0.5, "place": 1.0}
    before = student.get_layer("place").get_weights()[0]
    _, history = distil(student, teacher, y={"kind": KIND}, alpha=alpha, compile_options=options)
    assert set(history) == {"loss", "soft_loss", "hard_loss", "kind_soft_loss", "place_soft_loss", "kind_accuracy"}
    expected = 0.5 * (history["kind_soft_loss"][0] + history["hard_loss"][0]) + history["place_soft_loss"][0]
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert np.abs(student.get_layer("place").get_weights()[0] - before).max() > 0


def test_output_without_soft_loss_learns_from_labels_alone():
    """The teacher lacks the output; the student's may end in a softmax."""
    inputs = keras.Input((8,))
    teacher = keras.Model(inputs, keras.layers.Dense(2, name="place")(inputs))
    student = heads("dict", end="softmax")
    loss = {"kind": "sparse_categorical_crossentropy", "place": "mse"}
    squared = {"place": tfkd.losses.MeanSquared()}
    _, history = distil(
        student, teacher, alpha=0.9, soft_loss=squared, task="regression", compile_options={"loss": loss}
    )
    expected = 0.9 * history["place_soft_loss"][0] + 0.1 * history["place_loss"][0] + history["kind_loss"][0]
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert "kind_soft_loss" not in history


def test_outputs_that_nobody_named_are_found_by_position():
    """The teacher's names are others, since Keras numbers all layers of a process."""
    student, teacher = heads("list", names=(None, None)), heads("list", 16, names=(None, None))
    names = student.output_names
    assert set(names).isdisjoint(teacher.output_names)
    expected = np.square(student(X)[0] - teacher(X)[0]).mean()
    options = {"loss": ["mse", HARD]}
    _, history = distil(student, teacher, y=[PLACE, KIND], task={names[0]: "regression"}, compile_options=options)
    assert history[f"{names[0]}_soft_loss"][0] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ModelError, match=f"must have the output '{names[0]}'.*named place, kind"):
        tfkd.Distiller(student, heads("list"))


def test_names_that_keras_gave_pair_no_outputs_of_another_number():
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="dense_1")])
    with pytest.raises(ModelError, match=r"must have the output 'dense_1'.*named dense_1 \(a name that Keras gave"):
        tfkd.Distiller(student, heads("list", names=("dense", "dense_1")))


def test_two_teachers_features_and_schedules_work_with_several_outputs():
    student, teachers = heads("dict", 4), [heads("list", 16), heads("dict", 8)]
    schedule = keras.optimizers.schedules.PolynomialDecay(0.8, 10, 0.2)
    feature = Feature(tfkd.losses.Hint(), student="hidden", teacher="hidden", weight=2.0)
    options = {"alpha": {"kind": schedule, "place": 0.5}, "teacher_weights": [3, 1], "features": [feature]}
    targets = (teachers[0](X)[0], teachers[1](X)["place"])
    places = [np.square(student(X)["place"] - target).mean() for target in targets]
    distiller, history = distil(student, teachers, **options)
    assert history["place_soft_loss"][0] == pytest.approx(0.75 * places[0] + 0.25 * places[1], rel=1e-4)
    kind = 0.8 * history["kind_soft_loss"][0] + 0.2 * history["kind_loss"][0]
    place = 0.5 * history["place_soft_loss"][0] + 0.5 * history["place_loss"][0]
    assert history["loss"][0] == pytest.approx(kind + place + history["feature_loss"][0], rel=1e-4)
    assert history["alpha"] == pytest.approx([0.8])
    lines = []
    distiller.summary(print_fn=lines.append)
    assert "Loss of 'place': 0.5 · MeanSquared() + 0.5 · hard loss" in lines


def test_mixed_float16_trains_several_outputs_with_a_scaled_loss():
    student = heads("dict", 8, dtype="mixed_float16")
    student.dtype_policy = keras.DTypePolicy("mixed_float16")
    options = {"compile_options": {"run_eagerly": False}, "fit_options": {"epochs": 15}}
    distiller, history = distil(student, heads("dict", 16), **options)
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert history["loss"][-1] < history["loss"][0]


def test_evaluate_predict_and_save_are_those_of_the_student(tmp_path):
    distiller, _ = distil(heads("list", 4), heads("list", 8), compile_options={"metrics": {"kind": ["accuracy"]}})
    student = distiller.student
    student.compile(loss=LOSSES, metrics={"kind": ["accuracy"]}, run_eagerly=True)
    expected = student.evaluate(X, [PLACE, KIND], verbose=0, return_dict=True)
    received = distiller.evaluate(X, LABELS, verbose=0, return_dict=True)
    assert {name: float(received[name]) for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}
    )
    distiller.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    for one, another in zip(distiller.predict(X, verbose=0), loaded.predict(X, verbose=0), strict=True):
        np.testing.assert_array_equal(one, another)


def test_stores_by_output_equal_the_teacher(tmp_path):
    """The labels of both heads come from columns of a split."""
    train = tfkd.data.from_arrays(
        (X, np.column_stack([PLACE, KIND]).astype("float32")), (X[:2], np.zeros((2, 3), "float32"))
    ).train
    weights, results = heads("list").get_weights(), []
    teacher = heads("dict", 16)
    outputs = teacher(train.x)
    stores = {}
    for name, kind in (("place", "values"), ("kind", "classes")):
        stores[name] = tfkd.SoftLabels.create(
            tmp_path / name, train.ids, outputs[name].shape[-1], dtype="float32", kind=kind
        )
        stores[name].write(train.ids, outputs[name])
    for learned in (teacher, stores):
        student = heads("list")
        student.set_weights(weights)
        batches = train.batches(32, shuffle=True, soft_labels=stores if learned is stores else None)
        distiller = tfkd.Distiller(student, learned, task=TASKS)
        distiller.compile(keras.optimizers.SGD(0.1), loss=LOSSES, run_eagerly=True)
        distiller.fit(batches.map(lambda x, y: (x, {"place": y[:, :2], "kind": y[:, 2]})), verbose=0)
        results.append(student.get_weights())
    for one, another in zip(*results, strict=True):
        np.testing.assert_allclose(one, another, atol=1e-6)
    with pytest.raises(InputError, match="one store for the outputs"):
        tfkd.Distiller(student, stores["kind"], task=TASKS)
    with pytest.raises(ModelError, match="must have the output 'place'.*named kind"):
        tfkd.Distiller(student, {"kind": stores["kind"]}, task=TASKS)
    other = tfkd.SoftLabels.create(tmp_path / "other", train.ids, 3, seed=1)
    with pytest.raises(InputError, match="same views, seed and augmentation"):
        train.batches(32, soft_labels={**stores, "kind": other})
    with pytest.raises(ModelError, match="must have one output.*kind, place.*stores have one label"):
        tfkd.SoftLabels.build(tmp_path / "built", teacher, train)


# Refused before the training ------------------------------------------------------------------------------------------


def nested():
    inputs = keras.Input((8,))
    return keras.Model(inputs, {"a": [keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)]})


def one_name():
    inputs = keras.Input((8,))
    shared = keras.layers.Dense(3, name="both")
    return keras.Model(inputs, [shared(inputs), shared(keras.layers.ReLU()(inputs))])


@pytest.mark.parametrize(
    ("student", "teacher", "error", "cause"),
    [
        (
            heads,
            lambda: heads(names=("sort", "place"), structure="list"),
            ModelError,
            "must have the output 'kind'.*sort",
        ),
        (heads, lambda: heads(kinds=4), ModelError, "the same classes.*output 'kind'"),
        (heads, lambda: heads(end="softmax"), ModelError, "'kind' applies softmax.*output 'kind'"),
        (nested, heads, ModelError, "a list or dictionary of tensors"),
        (heads, one_name, ModelError, "different names.*both, both"),
    ],
    ids=["missing", "shape", "softmax", "nested", "one name"],
)
def test_models_that_do_not_fit_are_refused(student, teacher, error, cause):
    with pytest.raises(error, match=cause):
        tfkd.Distiller(student(), teacher(), task=TASKS)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"alpha": {"sort": 0.5}}, "alpha must be a dictionary by output.*kind, place.*keys sort"),
        ({"alpha": {"kind": 0.5}}, "alpha must be a number.*alpha=None.*output 'place'"),
        ({"soft_loss": {"kind": tfkd.losses.DKD()}, "alpha": {"kind": 0.5, "place": 0.5}}, "'place' must be 0"),
        ({"soft_loss": tfkd.losses.CTKD()}, "belongs to one output"),
        ({"task": "classification", "compile_options": {}}, "one of regression.*output 'place'"),
        ({"compile_options": {"loss": {"kind": HARD}}}, "alpha=0.9 < 1 of the output 'place' needs labels"),
        ({"compile_options": {"loss_weights": {"kind": "2", "place": 1.0}}}, "loss_weights must be a number"),
        ({"compile_options": {"loss": [HARD]}}, "loss must be.*Received: 1 values"),
        ({"y": KIND}, "y, the labels, must be a dictionary by output"),
        ({"y": {"kind": KIND}}, "'place' has a compiled loss and needs labels"),
        ({"y": {"kind": np.eye(3)[KIND] * 2, "place": PLACE}}, "exactly one class.*output 'kind'"),
    ],
    ids=[
        "unknown",
        "alpha",
        "no soft loss",
        "learned",
        "task",
        "no loss",
        "weights",
        "length",
        "array",
        "labels",
        "classes",
    ],
)
def test_settings_and_labels_that_do_not_fit_are_refused(options, cause):
    student = heads()
    before = student.get_weights()
    with pytest.raises(InputError, match=cause):
        distil(student, heads(), **options)
    for one, another in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)
