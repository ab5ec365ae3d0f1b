"""Conversion of Keras models: modes, types of model, refusals, and the audit of the calibration set."""

import dataclasses
import re
import threading

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.conversion.execution import outputs
from tfkd import data, models
from tfkd._internal import isolation
from tfkd.conversion import calibration
from tfkd.conversion.converter import MODES, convert
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data.model_inputs import ModelInput

SHAPE = (8, 8, 1)

pytestmark = pytest.mark.slow


@keras.saving.register_keras_serializable(package="test_conversion")
class Gate(keras.layers.Layer):
    """A custom layer, which the child process cannot load."""

    def build(self, shape):
        self.weight = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, x):
        return x * keras.ops.sigmoid(self.weight * x)


class Custom(keras.Model):
    """A subclassed model with a custom layer."""

    def __init__(self):
        super().__init__()
        self.gate, self.flatten = Gate(), keras.layers.Flatten()
        self.norm, self.out = keras.layers.BatchNormalization(), keras.layers.Dense(10)

    def call(self, x, training=False):
        return self.out(self.norm(self.flatten(self.gate(x)), training=training))


@keras.saving.register_keras_serializable(package="test_conversion")
def erf(x):
    import tensorflow as tf

    return tf.math.erf(x)


@keras.saving.register_keras_serializable(package="test_conversion")
def cumsum(x):
    return keras.ops.cumsum(x, axis=1)


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def dense(**options):
    return sequential(SHAPE, keras.layers.Flatten(), keras.layers.Dense(10, **options))


def sequences(n=60):
    walks = np.cumsum(np.random.default_rng(0).normal(size=(2 * n, 5, 3)), 1, dtype="float32")
    labels = np.arange(n) % 2
    return data.from_arrays((walks[:n], labels), (walks[n:], labels), validation=0).train


def agreement(model, student, x):
    expected = student.predict(x.astype("float32"), verbose=0).argmax(1)
    return np.mean([outputs(model, sample[None])[0].argmax() for sample in x] == expected)


def replaced(split, x):
    """The split with other samples and the same test split."""
    return dataclasses.replace(split, x=np.asarray(x, "float32"))


# Modes.


@pytest.mark.parametrize("mode", MODES)
def test_convert_mode_agrees_with_keras(mode, converted, student, splits, capfd):
    model = converted(mode)
    assert capfd.readouterr() == ("", "")
    dtypes = {"full_int8": "int8", "int16x8": "int16"}
    assert model.inputs[0].dtype == model.outputs[0].dtype == dtypes.get(mode, "float32")
    assert model.inputs[0].shape == (1, *SHAPE)
    assert (model.float_ops == ()) == (mode in dtypes)
    assert ("DEQUANTIZE" in model.ops) == (mode == "float16")
    assert (model.audit is not None) == (mode in dtypes)
    assert TFLiteModel.load(model.path).sha256 == model.sha256
    assert agreement(model, student, splits.test.x[:100]) >= (0.95 if mode == "full_int8" else 0.99)


def test_convert_dynamic_range_stores_large_weights_in_bytes(tmp_path):
    model = sequential(SHAPE, keras.layers.Flatten(), keras.layers.Dense(200), keras.layers.Dense(10))
    assert convert(model, tmp_path / "m.tflite", mode="dynamic_range").size_bytes < 1.4 * model.count_params()


def test_convert_file_returns_the_same_bytes_and_prints_nothing(converted, student, splits, tmp_path, capfd):
    student.save(tmp_path / "student.keras")
    model = convert(tmp_path / "student.keras", tmp_path / "m.tflite", calibration=splits.train)
    assert capfd.readouterr() == ("", "")
    assert model.content == converted("full_int8").content
    assert model.audit == converted("full_int8").audit


# Types of model.


def test_convert_saved_model_with_variable_batch_size_and_float_io(student, splits, tmp_path):
    student.export(str(tmp_path / "saved"), verbose=False)
    model = convert(tmp_path / "saved", tmp_path / "m.tflite", calibration=splits.train, float_io=True)
    assert model.inputs[0].shape == (1, *SHAPE)
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == ("float32", "float32")
    assert model.float_ops == ()
    assert (model.ops["QUANTIZE"], model.ops["DEQUANTIZE"]) == (1, 1)
    assert agreement(model, student, splits.test.x[:100]) >= 0.95


def test_convert_subclassed_model_with_a_custom_layer(splits, tmp_path):
    model = Custom()
    x = splits.test.x[:1] / np.float32(255)
    expected = model(x)
    np.testing.assert_allclose(
        outputs(convert(model, tmp_path / "m.tflite", mode="float32"), x)[0], expected, rtol=1e-4
    )


def test_convert_layer_with_tensorflow_variables(tmp_path):
    import tensorflow as tf

    class Scale(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.factors = tf.Variable([1.0, 2.0, 3.0])

        def call(self, x):
            return x * self.factors

    model = sequential((3,), Scale(), keras.layers.Dense(2))
    x = np.float32([[4, 5, 6]])
    made = convert(model, tmp_path / "m.tflite", mode="float32")
    # Two engines, whose float kernels differ from CPU to CPU.
    np.testing.assert_allclose(outputs(made, x)[0], model(x), rtol=1e-4, atol=1e-5)


class Count(keras.layers.Layer):
    """Adds the number of its calls to the input."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(1,), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1.0)
        return x + self.calls


@pytest.mark.parametrize("layer", [Count, lambda: keras.layers.GRU(3, stateful=True, unroll=True)])
def test_convert_model_that_assigns_variables_keeps_state(layer, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3), batch_size=1)
    model = keras.Model(inputs, layer()(inputs))
    made = convert(model, tmp_path / "m.tflite", mode="float32")
    interpreter = Interpreter(model_content=made.content)
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
    answers = []
    for _ in range(3):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    np.testing.assert_allclose(answers, [model(x).numpy() for _ in range(3)], rtol=1e-4)
    assert not np.allclose(answers[0], answers[1])


def test_convert_integer_input_is_calibrated_in_its_own_type(tmp_path):
    rng = np.random.default_rng(0)
    tokens = (rng.integers(0, 50, (120, 6)) * rng.random((120, 1))).astype(int)
    split = data.from_arrays((tokens[:60], np.arange(60) % 2), (tokens[60:], np.arange(60) % 2), validation=0).train
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(50, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    converted = convert(model, tmp_path / "m.tflite", calibration=split, float_io=True)
    assert converted.inputs[0].dtype == "int32"


def test_convert_unrolled_lstm_to_int8(tmp_path):
    model = sequential((5, 3), keras.layers.LSTM(16, unroll=True), keras.layers.Dense(2))
    converted = convert(model, tmp_path / "m.tflite", calibration=sequences(), allow_float=True)
    # For some weights the converter leaves a SPLIT in float.
    assert all(op.startswith("SPLIT") for op in converted.float_ops)
    assert converted.ops["FULLY_CONNECTED"] >= 5


# Refusals.


def test_convert_loop_to_int8_crashes_only_the_child(tmp_path):
    model = sequential((5, 3), keras.layers.LSTM(4), keras.layers.Dense(2))
    signature = [keras.InputSpec(shape=(1, 5, 3), dtype="float32", name="input")]
    model.export(str(tmp_path / "saved"), verbose=False, input_signature=signature)
    message = r"to full_int8: the converter crashed \(signal SIG\w+\). .*Give the Keras model"
    with pytest.raises(isolation.ChildCrashed, match=message) as raised:
        convert(tmp_path / "saved", tmp_path / "m.tflite", calibration=sequences())
    assert not (tmp_path / "m.tflite").exists()
    assert "\n" not in str(raised.value)


def test_convert_loop_with_variable_batch_size_names_the_remedy(tmp_path):
    sequential((5, 3), keras.layers.LSTM(4, name="memory")).export(str(tmp_path / "saved"), verbose=False)
    message = r"refused the model at '.*memory.*'. TensorListReserve: .*Give the Keras model"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32")


def test_convert_op_without_builtin_names_layer_and_op(tmp_path):
    model = sequential(SHAPE, keras.layers.Flatten(), keras.layers.Dense(10, activation=erf, name="odd_one"))
    message = (
        r"converting .* to float32: the converter refused the model at '.*odd_one.*Erf'. TensorFlow Lite has no "
        r"builtin op for Erf. Replace it"
    )
    with pytest.raises(ValueError, match=message) as raised:
        convert(model, tmp_path / "m.tflite", mode="float32")
    assert not list(tmp_path.iterdir())
    assert "\n" not in str(raised.value)
    assert "loc(" in str(raised.value.__cause__)  # the converter's own output, which Python shows


def test_convert_op_left_in_float_is_refused_unless_allowed(splits, tmp_path):
    model = dense(activation=cumsum)
    message = (
        r"every op must compute in integers. Received: floating point in CUMSUM \(.*Use mode='dynamic_range'.*tried"
    )
    with pytest.raises(ValueError, match=message):
        convert(model, tmp_path / "m.tflite", calibration=splits.train)
    allowed = convert(model, tmp_path / "m.tflite", calibration=splits.train, allow_float=True)
    assert len(allowed.float_ops) == 1
    assert not allowed.is_quantized


def test_convert_op_without_int16_kernel_names_it(splits, tmp_path):
    with pytest.raises(ValueError, match=r"CUMSUM \(layer 'dense.*'\) cannot be quantized to int16. Convert"):
        convert(dense(activation=cumsum), tmp_path / "m.tflite", mode="int16x8", calibration=splits.train)


def test_convert_variable_sample_shape_is_refused(tmp_path):
    model = sequential((None, 3), keras.layers.GlobalAveragePooling1D())
    message = r"must have a fixed sample shape. Received: \(None, 3\) for input .*Pass tfkd.models.with_input_shape"
    with pytest.raises(ValueError, match=message):
        convert(model, tmp_path / "m.tflite", mode="float32")
    fixed = models.with_input_shape(model, (5, 3))  # as the message says
    assert convert(fixed, tmp_path / "fixed.tflite", mode="float32").inputs[0].shape == (1, 5, 3)
    model.export(str(tmp_path / "saved"), verbose=False)
    with pytest.raises(
        ValueError, match=r"must have a fixed sample shape. Received: \(None, 3\). Export the model with"
    ):
        convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32")


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_convert_of_mixed_precision_computes_in_float32(dtype, tmp_path, splits):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, activation="relu", dtype=dtype)(inputs)
    x = keras.Sequential([keras.layers.BatchNormalization(dtype=dtype), keras.layers.Flatten(dtype=dtype)])(x)
    mixed = keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(x))
    policies = [layer.dtype_policy.name for layer in mixed.layers]
    converted = convert(mixed, tmp_path / "m.tflite", mode="full_int8", calibration=splits.train)
    assert not converted.findings
    assert [layer.dtype_policy.name for layer in mixed.layers] == policies
    assert dtype in policies


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_convert_other_precision_is_refused(dtype, tmp_path):
    model = dense(dtype=dtype, name="half")
    message = rf"Dense 'half' must have weights in float32. Received: {dtype}. Build the model again"
    with pytest.raises(ValueError, match=message):
        convert(model, tmp_path / "m.tflite", mode="float32")
    model = dense(name="half")  # as the message says
    model.set_weights(dense(dtype=dtype).get_weights())
    convert(model, tmp_path / "m.tflite", mode="float32")


def test_convert_model_never_called_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have known input shapes. .*Call it on a batch, or wrap it"):
        convert(Custom(), tmp_path / "m.tflite", mode="float32")


def test_convert_damaged_saved_model_is_refused(tmp_path):
    (tmp_path / "saved").mkdir()
    with pytest.raises(ValueError, match=r"saved: must be a SavedModel. Received: a folder without saved_model.pb"):
        convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(
        ValueError, match=r"converting .*saved to float32: TensorFlow cannot load the SavedModel \(OSError\)"
    ):
        convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "int8"}, r"mode must be one of float32, .*Received: mode='int8'. Use 'full_int8'"),
        ({}, r"mode 'full_int8' needs a calibration split. Received: none. Pass the train split"),
        ({"calibration": np.zeros((9, *SHAPE))}, r"from 'an array without labels' must vary. Received: 9 equal"),
        ({"calibration": [0.5]}, r"must be a split of tfkd.data, arrays .*Received: list"),
        ({"mode": "dynamic_range", "refine": True}, r"refine changes full_int8 only. Received: .*mode='dynamic_range'"),
        ({"mode": "float32", "model": 3}, r"model must be a Keras model or a path. Received: int"),
        ({"mode": "float32", "model": "none.keras"}, r"none.keras does not exist"),
    ],
)
def test_convert_bad_argument_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert(options.pop("model", None) or dense(), tmp_path / "m.tflite", **options)


def test_convert_existing_file_needs_overwrite(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"m.tflite already exists"):
        convert(dense(), path, mode="float32")
    assert path.read_bytes() == b"precious"
    assert convert(dense(), path, mode="float32", overwrite=True).content == path.read_bytes()


def test_convert_too_slow_is_stopped(tmp_path):
    with pytest.raises(isolation.ChildTimedOut, match=r"converting .* to float32: timed out after 0.02 s"):
        convert(dense(), tmp_path / "m.tflite", mode="float32", timeout_s=0.02)
    assert not list(tmp_path.iterdir())


# The audit of the calibration set, which runs before the converter.


def audited(split, count=256):
    return calibration.audit(split if len(split) <= count else split.sample(count))


def test_audit_describes_the_samples(converted, splits):
    audit = converted("full_int8").audit
    x = splits.train.sample(256, seed=0).x
    assert (audit.samples, audit.classes_covered, audit.classes_total, audit.overlap) == (256, 10, 10, 0)
    assert (audit.minimum, audit.maximum, audit.mean) == (x.min(), x.max(), pytest.approx(x.mean()))
    assert (audit.findings, audit.saturation) == ((), 0)


def test_audit_digest_differs_between_draws(splits):
    assert audited(splits.train.sample(100, seed=1)).digest != audited(splits.train.sample(100, seed=2)).digest


def test_audit_finds_few_samples_and_missing_classes(splits):
    rows = np.flatnonzero(splits.train.y < 4)[:30]
    findings = audited(splits.train.take(rows)).findings
    assert findings == ("Only 30 samples: use 100 or more for stable ranges.", "6 of 10 classes have no sample.")


def test_saturation_is_the_share_outside_the_quantized_range(converted):
    model = converted("full_int8")
    top = (127 - model.inputs[0].zero_points[0]) * model.inputs[0].scales[0]
    samples = np.array([0, top, 1.01 * top, 2 * top], "float32")
    assert calibration.saturation(model, Samples((samples,))) == 0.5


def test_calibration_of_the_test_split_is_refused(splits, tmp_path):
    with pytest.raises(ValueError, match=r"calibration needs a split with role train or val. Received: .*digits/test"):
        convert(dense(), tmp_path / "m.tflite", calibration=splits.test)


def test_calibration_without_samples_is_refused(splits, tmp_path):
    with pytest.raises(ValueError, match=r"calibration must have samples. Received: 0. Use 100 or more"):
        convert(dense(), tmp_path / "m.tflite", calibration=data.load("digits", validation=0).val)
    with pytest.raises(ValueError, match=r"calibration must have samples. Received: 0. Use 100 or more"):
        convert(dense(), tmp_path / "m.tflite", calibration=splits.train, calibration_samples=0)


def test_calibration_of_another_shape_is_refused(splits, tmp_path):
    model = sequential((4, 4, 1), keras.layers.Flatten())
    message = r"must have the model's input shape \(4, 4, 1\). Received: \(8, 8, 1\) from 'digits'"
    with pytest.raises(ValueError, match=message):
        convert(model, tmp_path / "m.tflite", calibration=splits.train)
    model.export(str(tmp_path / "saved"), verbose=False)
    with pytest.raises(ValueError, match=r"one input of the calibration's shape \(8, 8, 1\). Received: \(4, 4, 1\)"):
        convert(tmp_path / "saved", tmp_path / "m.tflite", calibration=splits.train)


def test_calibration_with_test_samples_is_refused(splits):
    x = splits.train.sample(256).x.copy()
    x[:3] = splits.test.x[:3]
    leaky = replaced(splits.train.sample(256), x)
    with pytest.raises(ValueError, match=r"share no sample with the test split. Received: 3 equal samples"):
        audited(leaky)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, rng: np.where(x > 254, np.nan, x), r"must be finite. Received: NaN"),
        (lambda x, rng: np.zeros_like(x), r"must vary. Received: 256 equal samples, or one value"),
        (lambda x, rng: np.broadcast_to(x[:1] + 0.5, x.shape), r"must vary. Received: 256 equal samples"),
        (lambda x, rng: x / 255, r"must span the range of the data, 0..255. Received: 0..1, 0% of it outside"),
        (lambda x, rng: x - 128, r"must span the range of the data, 0..255. Received: -128..127, \d\d% of it outside"),
        (lambda x, rng: x * 3, r"must span the range of the data, 0..255. Received: 0..765"),
        (lambda x, rng: rng.uniform(0, 255, x.shape), r"must be real samples. Received: .* like noise"),
        (lambda x, rng: rng.normal(90, 60, x.shape).clip(0, 255), r"must be real samples. Received: .* like noise"),
    ],
)
def test_calibration_with_wrong_ranges_is_refused(change, message, splits):
    split = splits.train.sample(256)
    changed = replaced(split, change(split.x.astype("float32"), np.random.default_rng(0)))
    with pytest.raises(ValueError, match=f"convert: calibration from 'digits' {message}"):
        audited(changed)


def test_calibration_scaled_before_a_model_that_scales_is_refused(student, tmp_path):
    splits = data.load("digits")
    scaled = data.from_arrays((splits.train.x / 255, splits.train.y), (splits.test.x / 255, splits.test.y))
    message = rf"multiplies its input by {re.escape(f'{1 / 255:g}')} itself. Received: values in 0..1, which are"
    with pytest.raises(ValueError, match=message):
        convert(student, tmp_path / "m.tflite", calibration=scaled.train)


def features(kind, n, rng):
    """[n, ...] inputs that do not look like images: sound, a spectrum and tables."""
    time = np.linspace(0, 1, 400)
    return {
        "waveform": lambda: np.sin(rng.uniform(50, 200, (n, 1)) * time) * rng.gamma(1, 0.3, (n, 1)),
        "log_mel": lambda: np.log(np.cumsum(rng.gamma(1, 1, (n, 49, 10)), axis=2) + 1e-3),
        "normalised_table": lambda: rng.normal(size=(n, 30)),
        "long_tailed_table": lambda: np.exp(2 * rng.normal(size=(n, 20))),
        "uniform_table": lambda: rng.uniform(size=(n, 12)),
        "one_hot": lambda: np.eye(50)[rng.integers(0, 50, (n, 12))],
        "sparse": lambda: rng.gamma(1, 1, (n, 100)) * (rng.random((n, 100)) < 0.1),
    }[kind]().astype("float32")


@pytest.mark.parametrize(
    "kind", ["waveform", "log_mel", "normalised_table", "long_tailed_table", "uniform_table", "one_hot", "sparse"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_with_real_features_is_accepted(kind, seed):
    rng, labels = np.random.default_rng(seed), np.arange(400) % 4
    splits = data.from_arrays((features(kind, 400, rng), labels), (features(kind, 400, rng), labels), validation=0)
    assert audited(splits.train).samples == 256


@pytest.mark.parametrize("kind", ["waveform", "log_mel", "normalised_table"])
def test_calibration_with_uniform_noise_instead_of_features_is_refused(kind):
    rng, labels = np.random.default_rng(0), np.arange(400) % 4
    splits = data.from_arrays((features(kind, 400, rng), labels), (features(kind, 400, rng), labels), validation=0)
    held_out = splits.test.x
    noise = replaced(splits.train, rng.uniform(held_out.min(), held_out.max(), splits.train.x.shape))
    with pytest.raises(ValueError, match=r"must be real samples"):
        audited(noise)


def test_calibration_without_a_test_split_is_still_checked_for_noise(splits):
    alone = dataclasses.replace(splits.train.sample(256), held_out=None)
    assert audited(alone).samples == 256
    with pytest.raises(ValueError, match="must be real samples"):
        audited(replaced(alone, np.random.default_rng(0).uniform(0, 255, alone.x.shape)))


def test_array_without_labels_is_calibrated_with(tmp_path):
    """Ids of tokens may look like noise; values that do are refused."""
    x = np.random.default_rng(0).integers(0, 30, (128, 10)).astype("int32")
    ids = keras.Input((10,), dtype="int32")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(30, 8)(ids))
    model = convert(keras.Model(ids, keras.layers.Dense(3)(embedded)), tmp_path / "m.tflite", calibration=x)
    assert (model.audit.samples, model.audit.maximum) == (128, 29)
    values = keras.Sequential([keras.Input((10,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="from 'an array without labels' must be real samples"):
        convert(values, tmp_path / "noise.tflite", calibration=x.astype("float32"))
    pixels = calibration.Source(tmp_path, forms=(ModelInput("x", ("x",), (10,), "uint8"),))
    with pytest.raises(ValueError, match="must be real samples"):
        calibration.draw(x.astype("uint8"), pixels, 128, 0, "full_int8")
    with pytest.raises(ValueError, match="each sample needs a label. Received: none"):
        data.as_split(x, "train")


class Calling(keras.layers.Layer):
    """Doubles its input, and calls a function each time."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        self.function()
        return 2 * x


def test_conversions_in_two_threads_leave_keras_as_it_was(tmp_path):
    """Without a lock the second one begins while Keras is changed for the first, and ends after it."""
    before, inside, done, files = keras.Layer._open_name_scope, threading.Event(), threading.Event(), []

    def build(function):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, Calling(lambda: None)(inputs))
        model.layers[-1].function = function
        return model

    def run(model):
        files.append(convert(model, tmp_path / f"{model.name}.tflite", mode="float32"))

    def enter():
        inside.set()
        done.wait(30)

    second = threading.Thread(target=run, args=[build(enter)])

    def start():
        if second.ident is None:
            second.start()
            inside.wait(0.5)  # all of it where the second one waits

    run(build(start))
    done.set()
    second.join()
    assert keras.Layer._open_name_scope is before
    assert [model.findings for model in files] == [(), ()]
