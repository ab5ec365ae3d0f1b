"""litert-quantizer: precision per layer, choice of activation ranges, and refusals."""

import keras
import numpy as np
import pytest

from tfkd import QuantizerSettings, data, targets
from tfkd.conversion import layer_errors, refinement
from tfkd.conversion.converter import convert
from tfkd.conversion.quantizer import quantize, select
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError


@pytest.fixture(scope="session")
def reference(converted):
    """The student in float32."""
    return converted("float32")


def labels(model, split, target="host:plain"):
    return targets.get(target).run(model, model.quantize_input(split.x), latency=False).outputs[0].argmax(axis=1)


def dtypes(model):
    """For each op its name, the type of its weights and the type of its output."""
    tensors = model.graph.tensors
    return [
        (op.name, tensors[op.inputs[1]].dtype if len(op.inputs) > 1 else None, tensors[op.outputs[0]].dtype)
        for op in model.graph.ops
    ]


@pytest.mark.parametrize(("mode", "dtype"), [("full_int8", "int8"), ("int16x8", "int16"), ("dynamic_range", "float32")])
def test_mode_has_its_types_and_agrees_with_float(mode, dtype, converted, reference, splits):
    model = converted(mode, "litert")
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == (dtype, dtype)
    assert dtypes(model)[0] == ("CONV_2D", "int8", dtype)
    assert (labels(model, splits.test) == labels(reference, splits.test)).mean() > 0.95


def test_full_int8_runs_on_a_microcontroller_and_has_an_audit(converted, splits):
    model = converted("full_int8", "litert")
    assert model.is_quantized
    assert model.audit.samples == 256
    assert (labels(model, splits.test, "tflm") == labels(model, splits.test)).mean() > 0.99


def test_layers_have_the_selected_precision(student, splits, tmp_path):
    settings = QuantizerSettings(keep_float=["^conv1_conv$"], int16=["^logits$", "pool"], int4=["block2_pointwise"])
    model = convert(student, tmp_path / "m.tflite", quantizer=settings, calibration=splits.train)
    ops = [op for op in dtypes(model) if op[0] not in ("QUANTIZE", "DEQUANTIZE")]
    assert ops == [
        ("CONV_2D", "float32", "float32"),
        ("DEPTHWISE_CONV_2D", "int8", "int8"),
        ("CONV_2D", "int8", "int8"),
        ("DEPTHWISE_CONV_2D", "int8", "int8"),
        ("CONV_2D", "int4", "int8"),
        ("MEAN", "int32", "int16"),
        ("FULLY_CONNECTED", "int8", "int16"),
    ]
    assert model.inputs[0].dtype == model.outputs[0].dtype == "int8"
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(model.ops)


def test_layer_in_16_bits_has_less_noise(converted, reference, splits):
    measured = []
    for settings in ("litert", QuantizerSettings(int16=("^block1_depthwise$",))):
        model = converted("full_int8", settings)
        same_ops = TFLiteModel(refinement.refine_as(reference.content, model))
        ops, unmatched = layer_errors.measure(model, same_ops, Samples((splits.val.x[:16],)))
        assert unmatched == []
        measured.append(next(op for op in ops if "block1_depthwise" in op.tensor))
    int8, int16 = measured
    assert int16.steps == 65536
    assert int16.sqnr_db > int8.sqnr_db + 1


def test_float_io_keeps_float_input_and_output(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", quantizer="litert", calibration=splits.train, float_io=True)
    assert model.inputs[0].dtype == model.outputs[0].dtype == "float32"
    assert model.float_ops == ()


def test_narrower_ranges_clip_outliers_and_report_them(converted):
    full = converted("full_int8", "litert")
    # It clips so much that the comparison with the Keras model refuses it.
    percentile = converted("full_int8", QuantizerSettings(ranges="percentile", percentile=99), check=False)
    mse = converted("full_int8", QuantizerSettings(ranges="mse"))

    def step(model):
        return model.graph.tensors[model.graph.ops[0].outputs[0]].scales[0]

    assert step(percentile) < step(mse) <= step(full)
    assert percentile.inputs == full.inputs  # the range of the input is never clipped
    assert "lie outside 0.." in percentile.audit.findings[0]
    assert len(percentile.audit.findings) == 6
    assert percentile.audit.findings[5].startswith("Quantized by litert-quantizer: activation ranges by percentile")


@pytest.mark.parametrize("name", ["keep_float", "int16", "int4"])
def test_expression_without_a_match_suggests_a_layer(name, reference, splits):
    settings = QuantizerSettings(**{name: ["^logitz$"]})
    with pytest.raises(InputError, match=rf"{name}: no layer matches '\^logitz\$'.*Did you mean 'logits'"):
        quantize(reference.content, settings, mode="full_int8", samples=Samples((splits.train.x[:2],)))


def test_unsupported_precision_of_an_op_is_refused(student, splits, tmp_path):
    with pytest.raises(
        ModelError, match=r"DEPTHWISE_CONV_2D 'dig.*does not support 8-bit activations with 4-bit weights"
    ):
        convert(
            student, tmp_path / "m.tflite", quantizer=QuantizerSettings(int4=["depthwise"]), calibration=splits.train
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("float16", QuantizerSettings(), r"quantizer 'litert' takes the modes dynamic_range.*Received: mode='float16'"),
        ("dynamic_range", QuantizerSettings(ranges="mse"), r"mode 'dynamic_range' does not quantize activations"),
        ("dynamic_range", QuantizerSettings(int16=["x"]), r"mode 'dynamic_range' does not quantize activations"),
    ],
)
def test_mode_that_does_not_fit_the_settings_is_refused(mode, settings, message, student, splits, tmp_path):
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


def test_select_returns_the_quantizer_that_the_options_need():
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


def test_ops_with_their_own_rules_are_quantized(tmp_path):
    # litert-quantizer has special rules for transposed convolution, concatenation, multiplication and softmax.
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up")(image)
    y = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Concatenate()([y, keras.layers.Activation("sigmoid")(y)])
    x = keras.layers.Dense(10, name="out")(keras.layers.Flatten()(x))
    model = keras.Model(image, keras.layers.Softmax()(x))
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(60, 8, 8, 2)), axis=1).astype("float32")
    splits = data.from_arrays((x, np.arange(60) % 10), (x[::-1] + 1, np.arange(60) % 10))
    quantized = convert(
        model,
        tmp_path / "m.tflite",
        quantizer=QuantizerSettings(int16=["^up$"]),
        calibration=splits.train,
        calibration_samples=20,
    )
    tensors, ops = quantized.graph.tensors, {op.name: op for op in quantized.graph.ops}
    assert tensors[ops["TRANSPOSE_CONV"].outputs[0]].dtype == "int16"
    expected = model.predict(splits.test.x, verbose=0)
    measured = targets.get("host:plain").run(quantized, quantized.quantize_input(splits.test.x), latency=False)
    assert np.abs(quantized.dequantize_output(measured.outputs[0]) - expected).mean() < 0.01
