"""Layers that need a form of their own in a .tflite, or cannot be in one: parity, or a remedy that works."""

import keras
import numpy as np
import pytest

from tests.conversion.execution import outputs
from tests.micro.execution import interpret, native
from tfkd import data, micro, models, targets
from tfkd.conversion import refusals
from tfkd.conversion.converter import convert
from tfkd.micro import export

layers = keras.layers


def functional(shape, *steps, dtype="float32"):
    x = inputs = keras.Input(shape, dtype=dtype)
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def split(x):
    labels, half = np.arange(len(x)) % 2, len(x) // 2
    return data.from_arrays((x[:half], labels[:half]), (x[half:], labels[half:]), validation=0).train


def assert_same(model, keras_model, x):
    """Outputs of LiteRT and Keras for one sample are equal."""
    expected = keras.tree.flatten(keras_model.predict(x, verbose=0))
    for received, answer in zip(outputs(model, x), expected, strict=True):
        np.testing.assert_allclose(received, answer, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def walks():
    """[60, 6, 4, 2] random walks."""
    return np.cumsum(np.random.default_rng(0).normal(size=(60, 6, 4, 2)), axis=1).astype("float32")


def test_sums_of_tensors_that_look_like_a_bias_at_batch_size_1(walks, tmp_path):
    """[1, N, 1] + [1, N, 1], [1, N, 1] + [1, 1, N] and [1, N, N] + [1, N, 1], as of graph attention."""
    inputs = keras.Input((6, 1))
    x = inputs + layers.LayerNormalization()(layers.Conv1D(1, 3, padding="same")(inputs))
    pairs = x + keras.ops.transpose(x, (0, 2, 1))
    keras_model = keras.Model(inputs, [x, pairs, keras.ops.tanh(pairs) + x])
    model = convert(keras_model, tmp_path / "m.tflite", mode="float32")
    samples = walks[:4, :, 0, :1]
    for row, sample in enumerate(samples):
        received = outputs(model, sample[None])
        for array, expected in zip(received, keras_model.predict(samples, verbose=0), strict=True):
            np.testing.assert_allclose(array[0], expected[row], rtol=1e-4, atol=1e-5)


def test_sums_whose_terms_cancel_do_not_abort(walks, tmp_path):
    """A LayerNormalization over one value computes x / s - x / s with s = sqrt(epsilon)."""
    inputs = keras.Input((6, 1))
    normalized = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(1, 3, padding="same")(inputs))
    keras_model = keras.Model(inputs, inputs + normalized)
    x = walks[:, :, 0, :1]
    model = convert(keras_model, tmp_path / "m.tflite", calibration=split(x))
    expected = keras_model.predict(x[:8], verbose=0)
    received = np.concatenate([outputs(model, sample[None])[0] for sample in x[:8]])
    np.testing.assert_allclose(received, expected, atol=0.01 * np.ptp(expected))


def test_normalization_of_a_zero_padding_is_0_on_all_kernels(walks, tmp_path):
    """Keras limits the infinite reciprocal of a norm of 0, which is NaN on XNNPACK."""
    keras_model = functional((6, 4, 2), layers.ZeroPadding2D(1), layers.UnitNormalization(), layers.Conv2D(2, 3))
    assert_same(convert(keras_model, tmp_path / "m.tflite", mode="float32"), keras_model, walks[:1])
    halves = convert(keras_model, tmp_path / "halves.tflite", mode="float16")
    np.testing.assert_allclose(outputs(halves, walks[:1])[0], keras_model.predict(walks[:1], verbose=0), atol=2e-3)


def test_single_numbers_that_float16_cannot_hold_stay_float32(tmp_path):
    """Otherwise rows without variance are NaN on XNNPACK, and rows that are masked as a whole are not uniform."""
    inputs = keras.Input((4, 3))
    mask = (1 - keras.ops.cast(inputs > 0, "float32")) * -1e9
    normalized = layers.LayerNormalization(epsilon=1e-12)(inputs)
    model = keras.Model(inputs, [normalized, keras.ops.softmax(inputs + mask), keras.ops.maximum(inputs, 0.0)])
    x = np.float32([[[1, -2, 3], [2, 2, 2], [-1, -2, -3], [0.5, 4, -1]]])
    halves = convert(model, tmp_path / "m.tflite", mode="float16")
    for received, expected in zip(outputs(halves, x), model(x), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_one_hot_codes_keep_their_two_values_in_integers(tmp_path):
    """The kernel copies the values, to which TensorFlow's quantizer gives scales other than the result's."""
    x = np.random.default_rng(0).integers(0, 6, (64, 4)).astype("int32")
    signed = keras.Sequential([keras.Input((4,), dtype="int32"), OneHot(), layers.Flatten(), layers.Dense(3)])
    model = convert(signed, tmp_path / "m.tflite", calibration=x)
    assert model.ops["ONE_HOT"] == 1
    assert not model.findings
    expected = signed.predict(x[:8], verbose=0)
    received = np.concatenate([model.dequantize_output(outputs(model, sample[None])[0]) for sample in x[:8]])
    np.testing.assert_allclose(received, expected, atol=0.02 * np.ptp(expected))


class OneHot(keras.layers.Layer):
    """Codes of 3 and -1."""

    def call(self, ids):
        import tensorflow as tf

        return tf.one_hot(ids, 6, on_value=3.0, off_value=-1.0)


def upsampling():
    return functional(
        (6, 4, 2),
        layers.UpSampling2D((2, 3)),
        layers.Conv2D(2, 3),
        layers.Reshape((100, 2)),
        layers.UpSampling1D(3),
        layers.AveragePooling1D(150),
    )


def test_upsampling_runs_on_all_engines(walks, tmp_path):
    keras_model = upsampling()
    real = convert(keras_model, tmp_path / "float.tflite", mode="float32")
    assert real.ops["RESIZE_NEAREST_NEIGHBOR"] == 2
    assert_same(real, keras_model, walks[:1])
    model = convert(keras_model, tmp_path / "m.tflite", calibration=split(walks))
    x = model.quantize_input(walks[:4])
    generated = native(tmp_path, [micro.emit(model)], [x])[0]
    np.testing.assert_array_equal(generated.reshape(4, -1), interpret([model.content], [x])[0])
    expected = keras_model.predict(walks[:4], verbose=0).reshape(4, -1)
    assert np.abs(model.dequantize_output(generated.reshape(4, -1)) - expected).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_upsampling_leaves_the_model_unchanged(data_format, walks, tmp_path):
    keras_model = functional((6, 4, 2), layers.UpSampling2D(2, data_format=data_format))
    before = keras_model.predict(walks[:1], verbose=0)
    assert_same(convert(keras_model, tmp_path / "m.tflite", mode="float32"), keras_model, walks[:1])
    assert "call" not in vars(keras_model.layers[1])
    np.testing.assert_array_equal(keras_model.predict(walks[:1], verbose=0), before)


def test_embedding_of_token_ids_runs_on_a_microcontroller(tmp_path):
    rng = np.random.default_rng(0)
    tokens = np.unique((rng.integers(0, 9, (200, 6)) * rng.random((200, 1))).astype("int32"), axis=0)
    rng.shuffle(tokens)
    keras_model = functional((6,), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3), dtype="int32")
    model = convert(keras_model, tmp_path / "m.tflite", calibration=split(tokens))
    assert any("int32_t" in text for text in micro.emit(model).files.values())
    report = export.write(model, tmp_path / "firmware", format="tflm", oracle=targets.get("tflm"))
    assert report["arena_bytes"] > 0
    expected = keras_model.predict(tokens[:9], verbose=0)
    for target in ("host", "tflm"):
        raw = targets.get(target).run(model, tokens[:9], latency=False).outputs[0]
        assert np.abs(model.dequantize_output(raw) - expected).max() < 0.05 * np.ptp(expected)


def test_lookup_layer_names_a_remedy_that_works(tmp_path):
    lookup = layers.IntegerLookup(vocabulary=[7, 5, 3], name="ids")
    keras_model = functional((4,), lookup, layers.Embedding(5, 3), layers.Flatten(), dtype="int64")
    with pytest.raises(ValueError, match=r"IntegerLookup 'ids' looks up .*keras.Model\(layer.output, model.output\)"):
        convert(keras_model, tmp_path / "m.tflite", mode="float32")
    raw = np.array([[7, 3, 4, 5]])
    rest = keras.Model(lookup.output, keras_model.output)
    made = convert(rest, tmp_path / "m.tflite", mode="float32")
    np.testing.assert_allclose(outputs(made, lookup(raw).numpy())[0], keras_model(raw), rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.StringLookup(vocabulary=["a"], name="odd"),
        lambda: layers.TextVectorization(vocabulary=["a"], name="odd"),
        lambda: layers.Hashing(4, name="odd"),
    ],
)
def test_layer_of_strings_inside_a_nested_model_is_refused_by_name(layer, tmp_path):
    inner = functional((1,), layer(), dtype="string")
    with pytest.raises(ValueError, match=r"'odd' looks up or hashes values"):
        convert(functional((1,), inner, dtype="string"), tmp_path / "m.tflite", mode="float32")


@pytest.mark.filterwarnings("ignore")  # Keras and NumPy warn in `quantize`
def test_model_quantized_by_keras_names_a_remedy_that_works(tmp_path):
    keras_model = functional((4,), layers.Dense(3, name="odd"))
    quantized = keras.models.clone_model(keras_model)
    quantized.set_weights(keras_model.get_weights())
    quantized.quantize("int8")
    with pytest.raises(ValueError, match=r"Dense 'odd' was quantized by model.quantize\('int8'\)"):
        convert(quantized, tmp_path / "m.tflite", mode="float32")
    convert(keras_model, tmp_path / "m.tflite", mode="float32")


def test_batch_size_in_the_model_names_layer_and_remedy(tmp_path):
    inputs = keras.Input(batch_shape=(4, 6))
    flat = layers.Dense(6)(inputs)
    with pytest.raises(ValueError, match=r"Reshape 'reshape\w*' does not run on one sample, .*-1 as first size"):
        convert(keras.Model(inputs, keras.ops.reshape(flat, (4, 2, 3))), tmp_path / "m", mode="float32")
    model = keras.Model(inputs, keras.ops.reshape(flat, (-1, 2, 3)))
    assert convert(model, tmp_path / "m", mode="float32").outputs[0].shape == (1, 2, 3)


def test_argmax_names_a_remedy_that_works(tmp_path):
    scores = functional((4,), layers.Dense(3))
    with pytest.raises(ValueError, match=r"no builtin op for BitwiseAnd. It comes from keras.ops.argmax .*outside"):
        convert(keras.Model(scores.input, keras.ops.argmax(scores.output, -1)), tmp_path / "m", mode="float32")
    convert(scores, tmp_path / "m", mode="float32")


def test_stateful_layer_in_integers_names_a_remedy_that_works(walks, tmp_path):
    inputs = keras.Input(batch_shape=(1, 3, 8))
    keras_model = keras.Model(inputs, layers.Dense(2)(layers.GRU(3, stateful=True)(inputs)))
    sequences = split(walks.reshape(120, 3, 8))
    with pytest.raises(ValueError, match=r"floating point in READ_VARIABLE .*allow_float=True"):
        convert(keras_model, tmp_path / "m", calibration=sequences)
    model = convert(keras_model, tmp_path / "m", calibration=sequences, allow_float=True)
    assert "READ_VARIABLE" in model.ops


def test_error_of_tfkd_inside_a_library_is_no_refusal(tmp_path):
    with pytest.raises(ValueError, match="does not exist") as raised:
        models.load(tmp_path / "none.keras")
    assert refusals.is_ours(raised.value)
    with pytest.raises(ValueError, match="could not convert") as raised:
        np.array("a").astype(float)
    assert not refusals.is_ours(raised.value)
