import signal
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillation.epoch_sync import EpochSync
from tfkd.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 8)).astype("float32")
Y = RNG.integers(0, 3, 96)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(units=6, name=None, **options):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(units, activation="relu", **options)(inputs)
    x = keras.layers.Dropout(0.2, seed=1)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x), name=name)


def linear(kernel, bias):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.set_weights([kernel, bias])
    return model


def distil(student, teacher, *, epochs=1, data=(X, Y), compile_options=None, fit_options=None, **options):
    distiller = tfkd.Distiller(student, teacher, **options)
    distiller.compile(
        **{"optimizer": keras.optimizers.SGD(0.1), "loss": HARD, "metrics": ["accuracy"], **(compile_options or {})}
    )
    fit_options = {"epochs": epochs, "batch_size": 32, "shuffle": False, "verbose": 0, **(fit_options or {})}
    history = distiller.fit(*data, **fit_options)
    return distiller, history.history


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 4.0), (0.3, 1.0), (0.9, 4.0), (1.0, 2.0)])
def test_train_step_matches_float64_numpy(alpha, temperature):
    kernel, bias = RNG.normal(size=(8, 3)), RNG.normal(size=3)
    teacher = linear(RNG.normal(size=(8, 3)), RNG.normal(size=3))
    x, y = X[:32].astype("float64"), Y[:32]
    # dL/dz = [alpha · T · (q_T − p_T) + (1 − alpha) · (q − onehot)] / B
    t_kernel, t_bias = (w.astype("float64") for w in teacher.get_weights())
    z, z_teacher = x @ kernel + bias, x @ t_kernel + t_bias
    soft = temperature * (softmax(z / temperature) - softmax(z_teacher / temperature))
    gradient = (alpha * soft + (1 - alpha) * (softmax(z) - np.eye(3)[y])) / len(x)
    student = linear(kernel, bias)
    _, history = distil(student, teacher, alpha=alpha, temperature=temperature, data=(X[:32], y))
    p, q = softmax(z_teacher / temperature), softmax(z / temperature)
    soft_loss = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    hard_loss = -np.log(softmax(z)[np.arange(32), y]).mean()
    assert history["soft_loss"][0] == pytest.approx(soft_loss, rel=1e-4)
    assert history["hard_loss"][0] == pytest.approx(hard_loss, rel=1e-4)
    assert history["loss"][0] == pytest.approx(alpha * soft_loss + (1 - alpha) * hard_loss, rel=1e-4)
    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * x.T @ gradient, atol=1e-5)
    np.testing.assert_allclose(student.get_weights()[1], bias - 0.1 * gradient.sum(0), atol=1e-5)


def trained(train, **options):
    keras.utils.set_random_seed(0)
    student = net(kernel_regularizer="l2", **options)
    train(student)
    return student.get_weights()


def test_alpha_zero_equals_plain_training_bit_for_bit():
    teacher = net(32)

    def plain(student):
        student.compile(keras.optimizers.Adam(0.01), loss=HARD, jit_compile=False)
        student.fit(X, Y, epochs=3, batch_size=32, verbose=0)

    def distilled(student):
        distiller = tfkd.Distiller(student, teacher, alpha=0.0)
        distiller.compile(keras.optimizers.Adam(0.01), loss=HARD)
        distiller.fit(X, Y, epochs=3, batch_size=32, verbose=0)

    for expected, received in zip(trained(plain), trained(distilled), strict=True):
        np.testing.assert_array_equal(received, expected)


def test_alpha_one_ignores_labels():
    teacher = net(32)
    results = [
        trained(
            lambda student, data=data: distil(
                student, teacher, alpha=1.0, data=data, epochs=2, compile_options={"metrics": None}
            )
        )
        for data in [(X, Y), (X, (Y + 1) % 3), (X,)]
    ]
    for other in results[1:]:
        for expected, received in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(received, expected)


def test_soft_loss_falls_when_the_student_learns_from_its_teacher():
    teacher = net(32)
    distiller, history = distil(net(), teacher, alpha=1.0, epochs=60)
    assert history["soft_loss"][-1] < 0.5 * history["soft_loss"][0]


def test_logs_are_the_documented_ones():
    distiller, history = distil(net(), net(32), fit_options={"validation_data": (X, Y)})
    assert set(history) == {"loss", "soft_loss", "hard_loss", "accuracy", "val_loss", "val_hard_loss", "val_accuracy"}
    assert set(distiller.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "hard_loss", "accuracy"}


def test_callbacks_run_in_the_given_order_after_the_epoch_is_set():
    calls, dataset = [], tfkd.data.load("digits").train.batches(512)
    student = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs, n=n: calls.append((n, int(dataset.epoch))))
        for n in "ab"
    ]
    distiller = tfkd.Distiller(student, student)
    distiller.compile("sgd", loss=HARD)
    distiller.fit(dataset, epochs=2, callbacks=callbacks, verbose=0)
    assert calls == [("a", -1), ("b", -1), ("a", 0), ("b", 0)]  # the pass itself adds 1


def test_evaluate_equals_the_student_alone():
    distiller, _ = distil(net(), net(32))
    student = distiller.student
    student.compile(loss=HARD, metrics=["accuracy"])
    expected = student.evaluate(X, Y, verbose=0, return_dict=True)
    received = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    # Some versions of Keras return tensors.
    expected = {name: float(value) for name, value in expected.items()}
    assert {name: float(received[name]) for name in expected} == pytest.approx(expected)


def test_predict_returns_the_logits_of_the_student():
    distiller, _ = distil(net(), net(32))
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), distiller.student.predict(X, verbose=0))


def test_sample_weights_of_two_equal_repeated_samples():
    teacher, start = net(32), net(4).get_weights()
    results = []
    for data in [(X[:2], Y[:2], np.array([3.0, 1.0])), (X[[0, 0, 0, 1]], Y[[0, 0, 0, 1]])]:
        student = linear(np.ones((8, 3)), np.zeros(3))
        # Keras divides by the number of samples, 2 and 4; the learning rate compensates for it.
        rate = 0.1 if len(data) == 3 else 0.2
        options = {"optimizer": keras.optimizers.SGD(rate), "metrics": []}
        distiller = tfkd.Distiller(student, teacher, alpha=0.5)
        distiller.compile(loss=HARD, **options)
        distiller.fit(*data[:2], sample_weight=data[2] if len(data) == 3 else None, verbose=0, shuffle=False)
        results.append(student.get_weights())
    assert len(start) == 4
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_mask_of_a_sequence_student_excludes_padding():
    def sequence_net():
        inputs = keras.Input((None, 8))
        x = keras.layers.Masking()(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    keras.utils.set_random_seed(0)
    student, teacher = sequence_net(), sequence_net()
    weights = student.get_weights()
    x = RNG.normal(size=(4, 5, 8)).astype("float32")
    x[:, 3:] = 0
    _, padded = distil(student, teacher, alpha=1.0, data=(x,), compile_options={"metrics": None})
    student.set_weights(weights)
    short = tfkd.Distiller(student, teacher, alpha=1.0)
    short.compile("sgd")
    soft = short.soft_losses[0](teacher(x[:, :3]), student(x[:, :3]))
    assert padded["soft_loss"][0] == pytest.approx(float(np.mean(soft)), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"jit_compile": True}, marks=pytest.mark.campaign),
        {"steps_per_execution": 3},
        {"run_eagerly": True},
    ],
    ids=["jit_compile", "steps_per_execution", "run_eagerly"],
)
def test_compile_options_change_no_result(options):
    teacher, start = linear(RNG.normal(size=(8, 3)), np.zeros(3)), RNG.normal(size=(8, 3))

    def train(**compile_options):  # no dropout: with XLA its random numbers differ
        student = linear(start, np.zeros(3))
        distil(student, teacher, epochs=2, compile_options=compile_options)
        return student.get_weights()

    expected, received = train(), train(**options)
    for first, second in zip(expected, received, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_jit_compile_is_chosen_by_device_and_can_be_overridden():
    distiller, _ = distil(net(), net(32))
    assert distiller.jit_compile == bool(tf.config.list_logical_devices("GPU"))
    distiller, _ = distil(net(), net(32), compile_options={"jit_compile": True})
    assert distiller.jit_compile is True


def test_mixed_float16_trains_with_a_scaled_loss():
    student = net(dtype="mixed_float16")
    student = keras.Model(student.inputs, keras.layers.Activation("linear", dtype="mixed_float16")(student.output))
    student.dtype_policy = keras.DTypePolicy("mixed_float16")
    distiller, history = distil(student, net(32), epochs=20)
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert history["loss"][-1] < history["loss"][0]


def test_inputs_of_a_mixed_precision_student_keep_the_type_of_its_first_layer():
    """In float16 these inputs would be infinite."""
    layers = [keras.layers.Rescaling(1e-5, dtype="float32"), keras.layers.Dense(3, dtype="mixed_float16")]
    student = keras.Sequential([keras.Input((8,)), *layers])
    student.dtype_policy = keras.DTypePolicy("mixed_float16")
    outputs = tfkd.Distiller(student, net()).predict(1e6 * X, verbose=0)
    np.testing.assert_array_equal(outputs, student.predict(1e6 * X, verbose=0))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_soft_loss_of_a_half_precision_teacher_matches_float64_numpy(dtype):
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, dtype=dtype)])
    student = linear(RNG.normal(size=(8, 3)), np.zeros(3))
    z_teacher, z = (keras.ops.cast(model(X), "float64").numpy() / 1e4 for model in (teacher, student))
    p, q = softmax(z_teacher), softmax(z)
    _, history = distil(
        student, teacher, temperature=1e4, fit_options={"batch_size": 96}, compile_options={"optimizer": "sgd"}
    )
    assert history["soft_loss"][0] == pytest.approx(1e8 * (p * np.log(p / q)).sum(-1).mean(), rel=1e-4)


def test_input_may_be_a_dictionary():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    student = keras.Model({"a": a, "b": b}, keras.layers.Dense(3)(keras.layers.Concatenate()([a, b])))
    _, history = distil(student, student, data=({"a": X[:, :4], "b": X[:, 4:]}, Y))
    assert history["soft_loss"][0] == pytest.approx(0, abs=1e-5)


def test_outputs_that_have_other_names_are_refused():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)])
    with pytest.raises(InputError, match="teacher must have the output"):
        tfkd.Distiller(model, net())


def test_several_outputs_of_a_subclassed_model_are_refused():
    class Pair(Opaque):
        def call(self, x):
            return {"a": self.dense(x), "b": self.dense(x)}

    with pytest.raises(InputError, match="student must have one output.*keras.Model"):
        distil(Pair(None), net())


def test_nested_softmax_is_found():
    inputs = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3), keras.layers.Softmax(name="end")])
    with pytest.raises(InputError, match="'end' applies softmax"):
        tfkd.Distiller(net(), keras.Model(inputs, inner(inputs)))


class Opaque(keras.Model):
    """A subclassed model, whose last layer is not known."""

    def __init__(self, activation):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation=activation)

    def call(self, x):
        return self.dense(x)


def test_softmax_of_a_subclassed_model_is_found_by_running_it():
    with pytest.raises(InputError, match="teacher must return logits"):
        distil(net(), Opaque("softmax"))


def test_subclassed_models_distil():
    distiller, history = distil(Opaque(None), Opaque(None), epochs=30)
    assert history["soft_loss"][-1] < history["soft_loss"][0]


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()])
def test_loss_on_probabilities_is_refused(loss):
    with pytest.raises(InputError, match="must take logits"):
        tfkd.Distiller(net(), net()).compile("sgd", loss=loss)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "0.5", None])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(InputError, match="alpha must be a number in 0..1 or a schedule"):
        tfkd.Distiller(net(), net(), alpha=alpha)


def test_different_class_counts_are_refused():
    with pytest.raises(InputError, match="must have the same classes"):
        tfkd.Distiller(net(), keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]))


def test_missing_labels_are_refused_for_alpha_below_one():
    with pytest.raises(InputError, match="alpha=0.9 < 1 needs labels"):
        distil(net(), net(), data=(X,))


def test_teacher_that_is_a_path_is_refused():
    with pytest.raises(InputError, match="teacher must be a keras.Model"):
        tfkd.Distiller(net(), "teacher.keras")


def test_export_writes_the_student(tmp_path):
    distiller, _ = distil(Opaque(None), net())
    distiller.export(tmp_path / "student", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "student"))
    np.testing.assert_allclose(exported.serve(X), distiller.student(X), rtol=1e-5, atol=1e-6)


def test_sigmoid_of_a_subclassed_model_is_found_in_its_graph():
    with pytest.raises(InputError, match="student must return logits.*applies sigmoid"):
        distil(Opaque("sigmoid"), net())


def test_softmax_written_by_hand_is_found_on_the_first_batch():
    def by_hand(z):
        return keras.ops.exp(z) / keras.ops.sum(keras.ops.exp(z), axis=-1, keepdims=True)

    inputs = keras.Input((8,))
    teacher = keras.Model(inputs, keras.layers.Lambda(by_hand)(keras.layers.Dense(3)(inputs)))
    single = tf.data.Dataset.from_tensor_slices((X, Y)).batch(1)
    for data in [(X, Y), (single,), ((batch for batch in [(X, Y)]),)]:
        distiller = tfkd.Distiller(net(), teacher)
        distiller.compile("sgd", loss=HARD)
        with pytest.raises(InputError, match="teacher must return logits"):
            distiller.fit(*data, verbose=0)


def test_generator_is_trained_on_its_first_batch_too():
    """The batch that is examined is not lost: the weights are those of training on arrays."""
    results = []
    for data in [(X, Y), ((X[i : i + 32], Y[i : i + 32]) for i in range(0, 96, 32))]:
        student = linear(np.ones((8, 3)), np.zeros(3))
        teacher = linear(np.eye(8, 3), np.ones(3))
        arrays = isinstance(data, tuple)
        distiller = tfkd.Distiller(student, teacher)
        distiller.compile(keras.optimizers.SGD(0.1), loss=HARD)
        options = {"batch_size": 32} if arrays else {"steps_per_epoch": 3}
        distiller.fit(*(data if arrays else (data,)), shuffle=False, verbose=0, **options)
        results.append(student.get_weights()[0])
    np.testing.assert_array_equal(*results)


def wide(outputs):
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(outputs)])


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize("loss", ["mse", "mae", keras.losses.Huber(), keras.losses.mean_squared_error, ["mse"]])
def test_regression_loss_with_a_soft_loss_on_classes_is_refused(loss):
    with pytest.raises(InputError, match="loss is one of regression.*MeanSquared"):
        tfkd.Distiller(wide(2), wide(2)).compile("sgd", loss=loss)


@pytest.mark.parametrize("loss", [HARD, "mse"], ids=["classes", "regression"])
def test_regression_loss_is_accepted_without_a_soft_loss_on_classes(loss):
    tfkd.Distiller(wide(2), wide(2), alpha=0.0).compile("sgd", loss=loss)
    tfkd.Distiller(wide(2), wide(2), soft_loss=tfkd.losses.MeanSquared()).compile("sgd", loss=loss)


def test_one_output_with_a_soft_loss_on_classes_is_refused():
    with pytest.raises(InputError, match="needs at least 2 classes.*1 output.*MeanSquared"):
        tfkd.Distiller(wide(1), wide(1))
    tfkd.Distiller(wide(1), wide(1), soft_loss=tfkd.losses.MeanSquared())


@pytest.mark.parametrize(("loss", "rows"), [(BINARY, [1, 0, 1]), (BINARY, [0, 0, 0]), ("categorical", [1, 1, 0])])
def test_labels_of_several_classes_with_a_soft_loss_on_classes_are_refused(loss, rows):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True) if loss == "categorical" else loss
    y = np.eye(3)[Y]
    y[5] = rows
    with pytest.raises(InputError, match="samples of exactly one class.*MeanSquared"):
        distil(wide(3), wide(3), data=(X, y), compile_options={"loss": loss, "metrics": None})
    squared = tfkd.losses.MeanSquared()
    distil(wide(3), wide(3), data=(X, y), soft_loss=squared, compile_options={"loss": loss, "metrics": None})


def own_squares(y, z):
    return keras.ops.mean((y - z) ** 2, axis=-1)


@pytest.mark.parametrize("y", [X[:, :3], np.abs(X[:, :3]), -np.abs(X[:, :3])], ids=["both", "positive", "negative"])
def test_real_numbers_with_a_soft_loss_on_classes_are_refused_for_any_loss(y):
    with pytest.raises(InputError, match="Received: real numbers in .*task='regression'"):
        distil(wide(3), wide(3), data=(X, y), compile_options={"loss": own_squares, "metrics": None})
    distil(wide(3), wide(3), data=(X, y), task="regression", compile_options={"loss": own_squares, "metrics": None})


def test_summary_names_teacher_and_loss():
    lines = []
    tfkd.Distiller(net(), net(32, name="big"), temperature=3.0).summary(print_fn=lines.append)
    assert "Teacher: big, 387 parameters (not tracked)" in lines
    assert "Loss: 0.9 · SoftTarget(temperature=3.0) + 0.1 · hard loss" in lines


RESUMABLE = """
    import os, signal, sys
    import keras, numpy as np
    import tfkd

    backup, out, kill_in_epoch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    keras.utils.set_random_seed(0)
    train = tfkd.data.load("digits").train

    def net(units):
        layers = [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == kill_in_epoch and batch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    distiller = tfkd.Distiller(net(8), net(32))
    distiller.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    backups = keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False)
    distiller.fit(train.batches(128, shuffle=True), epochs=4, verbose=0, callbacks=[backups, Kill()])
    np.savez(out, *distiller.student.get_weights())
"""


def run_script(forks, script, *arguments):
    """Runs a script in a process of its own; returns its exit status and what it printed."""
    process = forks.start(textwrap.dedent(script), *arguments)
    printed = process.communicate()
    return process.returncode, printed


def test_resume_after_kill_9_continues_with_equal_weights(forks, tmp_path):
    status, printed = run_script(forks, RESUMABLE, tmp_path / "whole", tmp_path / "whole.npz", -1)
    assert status == 0, printed
    status, printed = run_script(forks, RESUMABLE, tmp_path / "backup", tmp_path / "resumed.npz", 2)
    assert status == -signal.SIGKILL, printed
    assert not (tmp_path / "resumed.npz").exists()
    status, printed = run_script(forks, RESUMABLE, tmp_path / "backup", tmp_path / "resumed.npz", -1)
    assert status == 0, printed
    with np.load(tmp_path / "whole.npz") as expected, np.load(tmp_path / "resumed.npz") as received:
        for name in expected:
            np.testing.assert_array_equal(received[name], expected[name])


MIRRORED = """
    import contextlib
    import keras, numpy as np, tensorflow as tf
    import tfkd

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8)).astype("float32"), rng.integers(0, 3, 64)
    weights = rng.uniform(0, 2, 64).astype("float32")

    class Addition(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(x**2))
            return x

    def net(units, **options):
        layers = [keras.layers.Dense(units, **options), Addition(), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((8,)), *layers])

    def run(make, replicas):
        scope = contextlib.nullcontext()
        if replicas > 1:
            devices = [f"CPU:{i}" for i in range(replicas)]
            scope = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice()).scope()
        with scope:
            keras.utils.set_random_seed(0)
            student = net(6, kernel_regularizer=keras.regularizers.L2(0.05), activity_regularizer="l2")
            model = make(student)
            model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        data = {"sample_weight": weights, "batch_size": 32, "verbose": 0}
        history = model.fit(x, y, shuffle=False, **data).history
        logs = model.evaluate(x, y, return_dict=True, **data)
        return {**history, "evaluate": [logs["loss"]]}, [w.numpy() for w in student.weights]

    def equal(one, other, names):
        for name in names:
            np.testing.assert_allclose(other[0][name], one[0][name], rtol=1e-5, err_msg=name)
        for a, b in zip(one[1], other[1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)

    def distiller(student):
        return tfkd.Distiller(student, net(32), alpha=0.6)

    def undistilled(student):
        return tfkd.Distiller(student, net(32), alpha=0.0)

    class Heads:  # a Distiller of two outputs, with weights of samples by output
        def __init__(self, student):
            heads = {"sort": keras.layers.Dense(3), "place": keras.layers.Dense(2)}
            student = keras.Model(student.inputs, {name: head(student.outputs[0]) for name, head in heads.items()})
            self.distiller = tfkd.Distiller(student, keras.models.clone_model(student), task={"place": "regression"})

        def compile(self, optimizer, loss):
            options = {"loss_weights": {"sort": 2.0, "place": 0.5}, "metrics": {"sort": ["accuracy"]}}
            self.distiller.compile(optimizer, loss={"sort": loss, "place": "mse"}, **options)

        def fit(self, x, y, sample_weight, **options):
            weights = {"sort": sample_weight, "place": 1 + sample_weight}
            return self.distiller.fit(x, {"sort": y, "place": x[:, :2]}, sample_weight=weights, **options)

        def evaluate(self, x, y, sample_weight, **options):
            return self.distiller.evaluate(x, {"sort": y, "place": x[:, :2]}, sample_weight=sample_weight, **options)

    def mutual(student):
        return tfkd.teachers.MutualLearning([student, net(5, bias_regularizer="l1")])

    equal(run(lambda student: student, 1), run(undistilled, 2), ("loss", "evaluate"))
    one = run(distiller, 1)
    for replicas in (2, 4):
        equal(one, run(distiller, replicas), one[0])
    for make in (mutual, Heads):
        one = run(make, 1)
        equal(one, run(make, 2), one[0])
"""


def test_mirrored_strategy_with_regularization_and_sample_weights_equals_one_device(forks):
    """The losses are those of one device and, with alpha = 0, of a plain Keras model."""
    status, printed = run_script(forks, MIRRORED)
    assert status == 0, printed


def test_frozen_student_is_refused():
    student = net()
    student.trainable = False
    with pytest.raises(InputError, match="student.trainable = True"):
        distil(student, net())


# Inputs of teacher and student, and the epoch of a data set.


def pair_model(first, second):
    """A model whose input is a dictionary of two entries."""
    inputs = {name: keras.Input((4,), name=name) for name in (first, second)}
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(list(inputs.values()))))


@pytest.mark.parametrize("names", [("student", "school"), ("teacher", "student"), ("soft_labels", "student")])
def test_dictionary_of_two_inputs_is_not_split(names):
    teacher, student = pair_model(*names), pair_model(*names)
    x = dict(zip(names, (X[:, :4], X[:, 4:]), strict=True))
    distiller, history = distil(student, teacher, data=(x, Y), fit_options={"validation_data": (x, Y)})
    assert np.isfinite(history["val_loss"][0])
    np.testing.assert_allclose(distiller.predict(x, verbose=0), student.predict(x, verbose=0))


def test_teacher_and_student_inputs_reach_their_models():
    student, teacher = net(), keras.Sequential([keras.Input((16,)), keras.layers.Dense(3)])
    wide = np.repeat(X, 2, axis=1)
    x = tfkd.data.TeacherStudentInputs(teacher=wide, student=X)
    distiller, history = distil(student, teacher, alpha=1.0, data=(x, Y), fit_options={"validation_data": (x, Y)})
    assert history["soft_loss"][0] > 0
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), student.predict(X, verbose=0))


def test_plain_dictionary_of_teacher_and_student_inputs_is_refused():
    with pytest.raises(InputError, match="must be a tfkd.data.TeacherStudentInputs"):
        distil(net(), net(), data=({"teacher": X, "student": X}, Y))


@pytest.mark.parametrize("callback", [False, True], ids=["distiller", "model"])
def test_resumed_run_on_a_mapped_data_set_continues_its_order(callback):
    """After `initial_epoch=2` the third pass of an undisturbed run is seen, although `map` was called."""
    val = tfkd.data.load("digits").val
    undisturbed = val.batches(64, shuffle=True)
    passes = [np.concatenate([y for _, y in undisturbed.as_numpy_iterator()]) for _ in range(3)]
    seen = []

    def record(y):
        seen.extend(y.tolist())
        return y

    mapped = val.batches(64, shuffle=True).map(
        lambda x, y: (x / 255, tf.ensure_shape(tf.numpy_function(record, [y], tf.int64), y.shape))
    )
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    if not callback:
        model = tfkd.Distiller(model, keras.models.clone_model(model))
    model.compile("sgd", loss=HARD)
    callbacks = [EpochSync(mapped)] if callback else []
    model.fit(mapped, epochs=3, initial_epoch=2, verbose=0, shuffle=False, callbacks=callbacks)
    assert seen[-len(val) :] == passes[2].tolist()


def test_epoch_sync_of_a_data_set_without_counter_is_refused():
    with pytest.raises(InputError, match="was made by Split.batches"):
        EpochSync(tf.data.Dataset.range(3))
