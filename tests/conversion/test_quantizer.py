"""The second quantizer: precision by layer, ranges of choice, and what it refuses."""

import keras
import numpy as np
import pytest

from tfkd import QuantizerSettings, data, targets
from tfkd.conversion import layer_errors
from tfkd.conversion.converter import convert
from tfkd.conversion.quantizer import select

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def student(digits_student_file):
    return keras.saving.load_model(digits_student_file)


@pytest.fixture(scope="module")
def reference(student, tmp_path_factory):
    return convert(student, tmp_path_factory.mktemp("float") / "m.tflite", mode="float32")


def labels(model, split, target="host:plain"):
    return targets.get(target).run(model, model.quantize_input(split.x), latency=False).outputs[0].argmax(axis=1)


def dtypes(model):
    """For each op the types of its weights and of its output."""
    tensors = model.graph.tensors
    return [
        (op.name, tensors[op.inputs[1]].dtype if len(op.inputs) > 1 else None, tensors[op.outputs[0]].dtype)
        for op in model.graph.ops
    ]


@pytest.mark.parametrize(("mode", "dtype"), [("full_int8", "int8"), ("int16x8", "int16"), ("dynamic_range", "float32")])
def test_modes_give_what_the_model_gives(mode, dtype, student, reference, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", mode=mode, quantizer="litert", calibration=splits.train)
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == (dtype, dtype)
    assert dtypes(model)[0] == ("CONV_2D", "int8", dtype)
    assert (labels(model, splits.test) == labels(reference, splits.test)).mean() > 0.95


def test_full_int8_runs_on_a_microcontroller_and_has_an_audit(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", quantizer="litert", calibration=splits.train)
    assert model.is_quantized
    assert model.audit.samples == 256
    assert (labels(model, splits.test, "tflm") == labels(model, splits.test)).mean() > 0.99


def test_layers_keep_the_precision_that_is_asked_for(student, splits, tmp_path):
    settings = QuantizerSettings(keep_float=["^conv1_conv$"], int16=["^logits$", "pool"], int4=["block2_pointwise"])
    model = convert(student, tmp_path / "m.tflite", quantizer=settings, calibration=splits.train)
    found = [one for one in dtypes(model) if one[0] not in ("QUANTIZE", "DEQUANTIZE")]
    assert found == [
        ("CONV_2D", "float32", "float32"),
        ("DEPTHWISE_CONV_2D", "int8", "int8"),
        ("CONV_2D", "int8", "int8"),
        ("DEPTHWISE_CONV_2D", "int8", "int8"),
        ("CONV_2D", "int4", "int8"),
        ("AVERAGE_POOL_2D", None, "int16"),
        ("FULLY_CONNECTED", "int8", "int16"),
    ]
    assert model.inputs[0].dtype == model.outputs[0].dtype == "int8"
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(model.ops)


def test_layer_in_16_bits_has_less_noise(student, reference, splits, tmp_path):
    measured = {}
    for name, settings in (
        ("eight", QuantizerSettings()),
        ("sixteen", QuantizerSettings(int16=["^block1_depthwise$"])),
    ):
        model = convert(student, tmp_path / f"{name}.tflite", quantizer=settings, calibration=splits.train)
        ops, unmatched = layer_errors.measure(model, reference, splits.val.x[:16])
        assert unmatched == []
        measured[name] = next(one for one in ops if "block1_depthwise" in one.tensor)
    assert measured["sixteen"].steps == 65536
    assert measured["sixteen"].sqnr_db > measured["eight"].sqnr_db + 1


def test_float_io_keeps_float_ends(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", quantizer="litert", calibration=splits.train, float_io=True)
    assert model.inputs[0].dtype == model.outputs[0].dtype == "float32"
    assert model.float_ops == ()


def test_narrower_ranges_cut_off_outliers_and_say_so(student, splits, tmp_path):
    whole = convert(student, tmp_path / "a.tflite", quantizer="litert", calibration=splits.train)
    cut = convert(
        student,
        tmp_path / "b.tflite",
        quantizer=QuantizerSettings(ranges="percentile", percentile=99),
        calibration=splits.train,
    )
    least = convert(student, tmp_path / "c.tflite", quantizer=QuantizerSettings(ranges="mse"), calibration=splits.train)

    def step(model):
        return model.graph.tensors[model.graph.ops[0].outputs[0]].scales[0]

    assert step(cut) < step(least) <= step(whole)
    assert cut.inputs == whole.inputs  # the input's range is never cut
    assert "lie outside 0.." in cut.audit.findings[0]
    assert len(cut.audit.findings) == 6
    assert cut.audit.findings[5].startswith("Quantized by litert-quantizer: activation ranges by percentile")


@pytest.mark.parametrize("name", ["keep_float", "int16", "int4"])
def test_expression_that_fits_no_layer_names_a_near_one(name, student, splits, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}: no layer matches '\^logitz\$'.*Did you mean 'logits'"):
        convert(
            student,
            tmp_path / "m.tflite",
            quantizer=QuantizerSettings(**{name: ["^logitz$"]}),
            calibration=splits.train,
        )
    assert not (tmp_path / "m.tflite").exists()


def test_precision_that_an_op_cannot_have_is_refused(student, splits, tmp_path):
    with pytest.raises(
        ValueError, match=r"DEPTHWISE_CONV_2D 'dig.*does not support 8-bit activations with 4-bit weights"
    ):
        convert(
            student, tmp_path / "m.tflite", quantizer=QuantizerSettings(int4=["depthwise"]), calibration=splits.train
        )


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("float16", QuantizerSettings(), r"quantizer 'litert' takes the modes dynamic_range.*Received: mode='float16'"),
        ("dynamic_range", QuantizerSettings(ranges="mse"), r"mode 'dynamic_range' does not quantize activations"),
        ("dynamic_range", QuantizerSettings(int16=["x"]), r"mode 'dynamic_range' does not quantize activations"),
    ],
)
def test_mode_that_does_not_fit_is_refused(mode, settings, message, student, splits, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert(student, tmp_path / "m.tflite", mode=mode, quantizer=settings, calibration=splits.train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": "max"}, r"ranges must be one of min_max, percentile, mse. Received: 'max'"),
        ({"percentile": 100}, r"percentile must be in 50..100 \(exclusive\). Received: 100"),
        ({"int16": "logits"}, r"int16 must be a sequence of expressions. Received: 'logits'"),
        ({"keep_float": ["("]}, r"keep_float must hold regular expressions. Received: '\('"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        QuantizerSettings(**options)


def test_select_finds_the_quantizer_that_the_options_need():
    assert select("tensorflow") is None
    assert select(None, ranges="min_max", int16=()) is None
    assert select("litert") == QuantizerSettings()
    assert select(None, int16=["a"]) == QuantizerSettings(int16=("a",))
    with pytest.raises(ValueError, match=r"quantizer 'tensorflow' has no choice of ranges or layers. Received: int4"):
        select("tensorflow", int4=["a"])
    with pytest.raises(
        ValueError, match=r"quantizer must be 'tensorflow', 'litert' or a tfkd.QuantizerSettings. Received: 'lite'"
    ):
        select("lite")


def test_models_of_many_kinds_are_quantized(tmp_path):
    # Transposed convolution, concatenation, multiplication and softmax, which have rules of their own.
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up")(image)
    y = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Concatenate()([y, keras.layers.Activation("sigmoid")(y)])
    x = keras.layers.Dense(10, name="out")(keras.layers.Flatten()(x))
    model = keras.Model(image, keras.layers.Softmax()(x))
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(60, 8, 8, 2)), axis=1).astype("float32")
    splits = data.from_arrays((x, np.arange(60) % 10), (x[::-1] + 1, np.arange(60) % 10))
    made = convert(
        model,
        tmp_path / "m.tflite",
        quantizer=QuantizerSettings(int16=["^up$"]),
        calibration=splits.train,
        calibration_samples=20,
    )
    tensors, ops = made.graph.tensors, {op.name: op for op in made.graph.ops}
    assert tensors[ops["TRANSPOSE_CONV"].outputs[0]].dtype == "int16"
    expected = model.predict(splits.test.x, verbose=0)
    measured = targets.get("host:plain").run(made, made.quantize_input(splits.test.x), latency=False)
    assert np.abs(made.dequantize_output(measured.outputs[0]) - expected).mean() < 0.01
