"""Pruned and clustered students: zeros and shared values are in the .tflite, and compressed sizes show it."""

import gzip

import keras
import numpy as np
import pytest
from keras import layers
from typer.testing import CliRunner

import tfkd
from tfkd import cli
from tfkd.conversion import converter
from tfkd.optimization import optimize, rehearse

pytestmark = pytest.mark.slow

SHAPES = {(8, 3, 3, 1): "first", (1, 3, 3, 8): "depthwise", (16, 1, 1, 8): "second", (10, 256): "logits"}
TRAIN = tfkd.data.load("digits").train


def small():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 8, offset=-1)(image)
    x = layers.Conv2D(8, 3, use_bias=False, name="first")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.8, name="bn")(x))
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="second")(x)
    return keras.Model(image, layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x)), name="small")


def fit(optimized, epochs=2, learning_rate=3e-3):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimized.model.compile(keras.optimizers.Adam(learning_rate), loss=loss, jit_compile=False)
    optimized.model.fit(
        TRAIN.batches(64, shuffle=True), epochs=epochs, verbose=0, callbacks=list(optimized.callbacks), shuffle=False
    )


def kernels(model):
    """The weights in a .tflite, [outputs, ...], by layer."""
    found = {SHAPES[values.shape]: values for values in model.weights().values() if values.shape in SHAPES}
    assert len(found) == 4
    return found


def distinct(kernel):
    """The largest number of values in an output channel: each has its own scale."""
    return max(len(np.unique(channel)) for channel in kernel.reshape(kernel.shape[0], -1))


@pytest.fixture(scope="module")
def pruned():
    optimized = optimize(small(), "prune", sparsity=0.6)
    fit(optimized)
    return optimized


@pytest.fixture(scope="module")
def clustered(pruned):
    """A pruned student, clustered."""
    optimized = optimize(pruned.student(), "cluster", clusters=8)
    fit(optimized, epochs=1)
    return optimized


@pytest.fixture(scope="module")
def kept(pruned):
    """A pruned student, trained for int8."""
    optimized = optimize(pruned.student(), "pqat")
    fit(optimized, epochs=1, learning_rate=1e-3)
    return optimized


def test_pruned_weights_are_zero_in_the_tflite(pruned, tmp_path):
    model = pruned.export(tmp_path / "pruned.tflite", calibration=TRAIN)
    found = kernels(model)
    for name in ("first", "second", "logits"):
        assert np.mean(found[name] == 0) >= 0.6 - 1 / found[name].size
    assert np.mean(found["depthwise"] == 0) < 0.2
    assert model.weight_zeros > 0.5
    assert model.compressed_bytes == len(gzip.compress(model.content, 9, mtime=0))
    assert model.zstd_bytes < model.size_bytes
    plain = tfkd.convert(small(), tmp_path / "plain.tflite", calibration=TRAIN)
    assert model.compressed_bytes < 0.9 * plain.compressed_bytes
    assert model.zstd_bytes < 0.9 * plain.zstd_bytes
    assert model.size_bytes > 0.98 * plain.size_bytes  # a .tflite stores zeros as any other weight


def test_pruned_student_is_a_keras_model_of_equal_outputs(pruned):
    x = TRAIN.x[:32].astype("float32")
    expected = pruned.model(x, training=False).numpy()
    np.testing.assert_allclose(pruned.student()(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_notes_say_what_is_pruned_and_what_not(pruned):
    assert pruned.notes == ("prune: 3 layers, 95% of the weights: first, second, logits.",)
    blocks = optimize(small(), "prune", pattern="4x1")
    assert "first (Conv2D): pattern 4x1 needs kernels of 2 dimensions" in blocks.notes[1]


def test_each_group_of_pattern_2_4_has_two_zeros():
    optimized = optimize(small(), "prune", pattern="2:4", layers="second|logits")
    fit(optimized, epochs=1)
    student = optimized.student()
    for name in ("second", "logits"):
        kernel = np.asarray(student.get_layer(name).kernel)
        groups = np.moveaxis(kernel, -2, -1).reshape(-1, 4)
        assert ((groups == 0).sum(axis=1) == 2).all()
    assert not (np.asarray(student.get_layer("first").kernel) == 0).any()


def test_blocks_of_a_dense_layer_are_zero_as_a_whole():
    optimized = optimize(small(), "prune", sparsity=0.5, pattern="4x1", schedule="constant")
    fit(optimized, epochs=1)
    blocks = np.asarray(optimized.student().get_layer("logits").kernel).reshape(-1, 4, 10)
    empty = (blocks == 0).all(axis=1)
    assert empty.mean() == pytest.approx(0.5, abs=0.01)
    assert ((blocks == 0).any(axis=1) == empty).all()


def test_untrained_student_is_not_exported_as_pruned(tmp_path):
    optimized = optimize(small(), "prune")
    with pytest.raises(ValueError, match="first must have 50% of its weights at zero.*Received: 0%. Train it"):
        optimized.export(tmp_path / "pruned.tflite", calibration=TRAIN)
    assert not list(tmp_path.iterdir())


def test_clusters_and_zeros_are_in_the_tflite(clustered, tmp_path):
    found = kernels(clustered.export(tmp_path / "clustered.tflite", calibration=TRAIN))
    for name in ("first", "second", "logits"):
        assert distinct(found[name]) <= 8
        assert np.mean(found[name] == 0) >= 0.6 - 1 / found[name].size
    assert distinct(found["logits"][:, :64].T) > 2
    kernel = np.asarray(clustered.student().get_layer("logits").kernel)
    assert len(np.unique(kernel)) <= 8


@pytest.mark.campaign  # test_quantization_aware_training_keeps_clusters_and_zeros has both
def test_quantization_aware_training_keeps_zeros(kept, tmp_path):
    found = kernels(kept.export(tmp_path / "pqat.tflite", calibration=TRAIN))
    for name in ("first", "second", "logits"):
        assert np.mean(found[name] == 0) >= 0.6 - 1 / found[name].size


def test_divergence_from_the_tflite_is_an_error_that_names_the_layer(kept, tmp_path, monkeypatch):
    (kernel,), convert = [one for one in kept.model.weights if one.shape == (1, 1, 8, 16)], converter.convert
    trained = kernel.numpy()

    def faulty(*args, **options):
        made = convert(*args, **options)
        kernel.assign(-3 * trained)  # the file has other weights than the model
        return made

    monkeypatch.setattr(converter, "convert", faulty)
    with pytest.raises(ValueError, match=r"diverge at layer 'second'"):
        kept.export(tmp_path / "pqat.tflite", calibration=TRAIN)
    assert not list(tmp_path.iterdir())
    kernel.assign(trained)


@pytest.mark.campaign
def test_quantization_aware_training_keeps_clusters(tmp_path):
    image = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 128, offset=-1)(image)
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu", name="first")(x))
    student = keras.Model(image, layers.Dense(10, name="logits")(x))
    for layer in (student.get_layer("first"), student.get_layer("logits")):
        centroids = np.linspace(-0.3, 0.3, 6)
        kernel, bias = layer.get_weights()
        layer.set_weights([centroids[np.abs(kernel[..., None] - centroids).argmin(axis=-1)], bias])
    optimized = optimize(student, "cqat")
    before = [weight.numpy() for weight in optimized.model.trainable_weights]
    fit(optimized, epochs=1, learning_rate=1e-3)
    assert all(np.any(old != new) for old, new in zip(before, optimized.model.trainable_weights, strict=True))
    model = optimized.export(tmp_path / "cqat.tflite", calibration=TRAIN)
    found = [values for values in model.weights().values() if values.shape in ((8, 3, 3, 1), (10, 288))]
    assert [2 < distinct(kernel) <= 6 for kernel in found] == [True, True]
    assert not model.float_ops


@pytest.mark.campaign
def test_quantization_aware_training_keeps_clusters_and_zeros(clustered, tmp_path):
    optimized = optimize(clustered.student(), "pcqat")
    fit(optimized, epochs=1, learning_rate=1e-3)
    model = optimized.export(tmp_path / "pcqat.tflite", calibration=TRAIN)
    found = kernels(model)
    for name in ("first", "second", "logits"):
        assert distinct(found[name]) <= 8
        assert np.mean(found[name] == 0) >= 0.6 - 1 / found[name].size
    assert not model.float_ops


def test_distill_prunes_a_student_from_a_file(tmp_path):
    small().save(tmp_path / "student.keras")
    known = [
        "distill",
        "--teacher",
        "student.keras",
        "--student",
        "student.keras",
        "--epochs",
        "1",
        "--allow-bad-teacher",
    ]
    known = [str(tmp_path / one) if one.endswith(".keras") else one for one in [*known, "--batch-size", "256"]]
    prune = [*known, "--optimize", "prune", "--set", "sparsity=0.7", "--out"]
    done = CliRunner().invoke(cli.app, [*prune, str(tmp_path / "pruned.tflite")])
    assert done.exit_code == 0, done.output
    assert "prune: 3 layers, 95% of the weights: first, second, logits." in done.output
    assert "% of the weights are zero. The file stores them all" in done.output
    done = CliRunner().invoke(cli.app, [*known, "--optimize", "qat", "--out", str(tmp_path / "qat.keras")])
    assert done.exit_code == 2
    assert "qat writes a .tflite" in done.output


def test_student_without_structure_has_nothing_to_preserve():
    with pytest.raises(ValueError, match="pqat: the student must be pruned. Received: at most 0% zeros"):
        optimize(small(), "pqat")
    with pytest.raises(ValueError, match="cqat: the student must be clustered. Received: 25"):
        optimize(small(), "cqat")
    student = small()
    kernel, bias = student.get_layer("logits").get_weights()
    student.get_layer("logits").set_weights([np.where(kernel > 0, kernel, 0), bias])
    with pytest.raises(ValueError, match="pcqat: all kernels must be pruned.*Received: none in first, second"):
        optimize(student, "pcqat")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((("prune", {}), ("cqat", {})), "2 of 2, cqat: the student must be clustered. Received: 1281"),
        ((("cluster", {}), ("prune", {"pattern": "4:2"})), "2 of 2, prune: pattern must be unstructured"),
        ((("prune", {"layers": "logits"}), ("cluster", {"clusters": 8}), ("pcqat", {})), "3 of 3, pcqat: all ker"),
        ((("cluster", {}), ("qat", {"bits": 4})), "2 of 2, qat: optimize: method 'qat' takes the options"),
    ],
)
def test_later_method_is_refused_before_the_first_is_trained(stages, message):
    with pytest.raises(ValueError, match=f"^optimization {message}"):
        rehearse(small(), stages)


@pytest.mark.campaign
def test_chain_that_fits_is_not_refused():
    rehearse(small(), [("prune", {}), ("cluster", {"clusters": 8}), ("pcqat", {})])
    rehearse(small(), [("prune", {"pattern": "2:4", "layers": "second|logits"}), ("pqat", {})])


def test_layers_that_tfmot_does_not_quantize_are_named_in_one_error():
    image = keras.Input((8, 4))
    x = layers.LayerNormalization(name="norm")(layers.Conv1D(4, 3, name="line")(image))
    student = keras.Model(image, layers.Dense(10)(layers.Flatten()(x)), name="odd")
    with pytest.raises(
        ValueError, match=r"(?s)tfmot_qat: .*layers of 'odd'.*line \(Conv1D\).*norm \(LayerNormalization\)"
    ):
        optimize(student, "tfmot_qat")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("prune", {"sparsity": 1.0}, "prune: sparsity must be in 0..1"),
        ("prune", {"pattern": "4:2"}, "prune: pattern must be unstructured, M:N"),
        ("prune", {"schedule": "linear"}, "prune: schedule must be polynomial or constant"),
        ("prune", {"layers": "("}, "prune: layers must be a regular expression"),
        ("prune", {"layers": "nowhere"}, "prune: layers='nowhere' matches no layer"),
        ("prune", {"pattern": "2:4", "layers": "first"}, r"(?s)first \(Conv2D\): pattern 2:4 needs input channels"),
        ("cluster", {"clusters": 1}, "cluster: clusters must be an integer >= 2"),
        ("cluster", {"clusters": 100, "layers": "first"}, r"(?s)first \(Conv2D\): it has 100 weights or fewer"),
    ],
)
def test_bad_option_is_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        optimize(small(), method, **options)
