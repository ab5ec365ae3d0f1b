"""Changes of the float model and of biases by which int8 loses less."""

import itertools

import keras
import numpy as np
import pytest

from tests.conversion.execution import outputs
from tfkd import data
from tfkd.conversion import bias_correction, channel_scales, equalization, full_pooling, layer_inputs, weight_rounding
from tfkd.conversion.converter import convert, float_counterpart
from tfkd.conversion.interpreter import TensorRecorder
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.validation import diagnosis_texts, origin
from tfkd.validation.diagnosis import Cause
from tfkd.validation.explanation import explain

layers = keras.layers

_SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def train():
    """Smooth images in three colours."""
    values = np.random.default_rng(0).normal(size=(96, *_SHAPE)).cumsum(axis=1).cumsum(axis=2).astype("float32")
    labels = np.arange(96) % 4
    return data.from_arrays((values, labels), (-values, labels), validation=0.0).train


def _tied(x):
    """Layers tied by a sum, a concatenation, pooling and a flattening; the last ones end at a ReLU6 and a sigmoid."""
    a = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    h = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(a)
    h = layers.Add()([layers.Conv2D(8, 1, name="project")(h), layers.Conv2D(8, 1, name="shortcut")(a)])
    h = layers.MaxPooling2D()(layers.ReLU()(h))
    h = layers.Concatenate()(
        [layers.LeakyReLU()(layers.Conv2D(4, 3, strides=2, padding="same")(h)), layers.MaxPooling2D()(h)]
    )
    wide = layers.Dense(6, activation="relu6", name="bounded")(layers.Flatten()(layers.AveragePooling2D(2)(h)))
    return [layers.Dense(4, name="logits")(wide), layers.Dense(2, activation="sigmoid", name="gates")(wide)]


def _unequal(x):
    """Two convolutions between which one channel has values 200 times as large as the others."""
    first, second = layers.Conv2D(6, 3, activation="relu", name="first"), layers.Conv2D(4, 3, name="second")
    h = second(first(x))
    outputs = layers.Flatten()(layers.AveragePooling2D(4)(h))
    factors = np.float32([1, 1, 1, 200, 1, 1])
    kernel, bias = first.get_weights()
    first.set_weights([kernel * factors, bias * factors])
    kernel, bias = second.get_weights()
    second.set_weights([kernel / factors[:, None], bias])
    return outputs


def _model(branch):
    keras.utils.set_random_seed(0)
    x = keras.Input(_SHAPE)
    return keras.Model(x, branch(x))


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """The float .tflite of `_tied`."""
    return convert(_model(_tied), tmp_path_factory.mktemp("tied") / "float.tflite", mode="float32")


@pytest.fixture(scope="module")
def unequal():
    """The Keras model of `_unequal`."""
    return _model(_unequal)


@pytest.fixture(scope="module")
def converted(unequal, train, tmp_path_factory):
    """Its conversions by `quantizer`, with and without refinement."""
    folder, made = tmp_path_factory.mktemp("unequal"), {}

    def conversion(quantizer="tensorflow", refine=True):
        if (quantizer, refine) not in made:
            path = folder / f"{len(made)}.tflite"
            made[quantizer, refine] = convert(
                unequal, path, quantizer=quantizer, calibration=train, refine=refine, allow_mismatch=True
            )
        return made[quantizer, refine]

    return conversion


def _error(model, keras_model, x):
    received = np.concatenate([outputs(model, sample[None])[0] for sample in x])
    return float(np.sqrt(np.square(received - np.asarray(keras_model(x))).mean()))


def test_free_channels_take_any_power_of_2_and_the_outputs_keep_their_bits(tied, train):
    editor = ModelEditor(tied.content)
    scales = channel_scales.ChannelScales(editor)
    factors = np.where(scales.free, np.exp2(np.random.default_rng(0).integers(-6, 7, len(scales.free))), 1.0)
    scales.apply(factors)
    changed = TFLiteModel(editor.pack())
    for sample in train.x[:4]:
        for before, after in zip(outputs(tied, sample[None]), outputs(changed, sample[None]), strict=True):
            np.testing.assert_array_equal(before, after)
    # first (8), depthwise (8), the sum that ties project and shortcut and is part of the concatenation (8), the other
    # part of it (4); the input, the ReLU6 and the outputs are not free.
    assert scales.free.sum() == 28


def test_channels_of_a_relu6_keep_their_factor(tied):
    editor = ModelEditor(tied.content)
    scales = channel_scales.ChannelScales(editor)
    bounded = next(layer for layer in scales.layers if "bounded" in editor.tensors[layer.output].name.decode())
    assert not scales.free[scales.ids[bounded.output]].any()
    assert scales.free[scales.ids[bounded.source]].all()


@pytest.mark.parametrize("quantizer", ["tensorflow", "litert"])
def test_a_channel_with_large_values_is_equalized(converted, unequal, train, quantizer):
    refined, plain = converted(quantizer), converted(quantizer, refine=False)
    assert _error(refined, unequal, train.x[:32]) < _error(plain, unequal, train.x[:32]) / 3
    assert any("equalized by powers of 2" in change and "first" in change for change in refined.changes)
    assert len(plain.changes) == 1
    assert "MEAN" in plain.changes[0]


def test_factors_are_found_again_in_the_weights(converted, unequal):
    model = converted()
    counterpart = float_counterpart(unequal, model)
    origin.check(model, counterpart, {}, unequal.name)  # raises where weights differ
    plain = float_counterpart(unequal, converted(refine=False))
    assert counterpart.content != plain.content
    layer = layer_inputs.layers(ModelEditor(counterpart.content))[0]
    first, before = (np.abs(one.constant(int(layer.op.inputs[1]))).max(axis=(1, 2, 3)) for one in (counterpart, plain))
    assert first[3] / first[0] < before[3] / before[0] / 50


def test_even_channels_stay_as_they_are(train, tmp_path):
    model = _model(lambda x: layers.Conv2D(4, 3)(layers.Conv2D(8, 3, activation="relu")(x)))
    samples = train.x[:16].astype("float32")
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel / np.abs(kernel).sum(axis=(0, 1, 2)), bias])
    content = convert(model, tmp_path / "float.tflite", mode="float32").content
    assert equalization.equalize(content, Samples((samples,))) == (content, ())


@pytest.mark.parametrize("quantizer", ["tensorflow", "litert"])
def test_pooling_of_the_whole_image_has_a_scale_of_its_own(converted, quantizer):
    for model in (converted(quantizer), converted(quantizer, refine=False)):
        assert "AVERAGE_POOL_2D" not in model.ops
        (index,) = [op.outputs[0] for op in model.graph.ops if op.name == "MEAN"]
        (source,) = [op.inputs[0] for op in model.graph.ops if op.name == "MEAN"]
        assert model.graph.tensors[index].scales[0] < model.graph.tensors[source].scales[0]


def test_advice_of_explain_takes_away_the_noise_of_the_layers_that_it_is_for(converted, unequal, train):
    def findings(model):
        return explain(unequal, model, (train.x, train.y), targets=("host:plain",)).layers

    def advises(finding):
        return "refine=True" in diagnosis_texts.remedy(finding, diagnosis_texts.PYTHON)

    advised = [finding for finding in findings(converted(refine=False)) if advises(finding)]
    assert Cause.OUTLIER_CHANNEL in {finding.cause for finding in advised}
    assert any(finding.at_fault for finding in advised)
    followed = {finding.layer: finding for finding in findings(converted())}
    for finding in advised:
        gained = followed[finding.layer].noise.channel_sqnr_db - finding.noise.channel_sqnr_db
        assert gained > (6 if finding.at_fault else -1)
        assert not advises(followed[finding.layer])


def test_pooling_of_windows_stays(tmp_path):
    model = _model(lambda x: layers.AveragePooling2D((8, 4))(layers.AveragePooling2D((1, 2))(x)))
    content = convert(model, tmp_path / "float.tflite", mode="float32").content
    changed, names = full_pooling.replace(content)
    ops = [op.name for op in TFLiteModel(changed).graph.ops]
    assert (ops, len(names)) == (["AVERAGE_POOL_2D", "MEAN"], 1)


def test_rows_times_weights_are_the_layer(tied, train):
    editor = ModelEditor(tied.content)
    found = layer_inputs.layers(editor)
    outputs_of = {layer.output: int(layer.op.outputs[0]) for layer in found}
    sample = train.x[0].astype("float32")
    read = TensorRecorder(tied.content).run([sample[None]])
    means = layer_inputs.mean_rows(tied.content, found, Samples((sample[None],)))
    for layer in found:
        rows = layer_inputs.rows(layer, read(layer.source))
        np.testing.assert_allclose(rows.mean(axis=0), means[layer.output], atol=1e-4)
        weights = layer.by_rows(editor.constant(int(layer.op.inputs[1])))
        bias = editor.constant(int(layer.op.inputs[2])) if layer.op.inputs[2] >= 0 else 0.0  # left out where it is 0
        product = np.einsum("ptc,tc->pc" if layer.is_depthwise else "ptc,otc->po", rows, weights) + bias
        actual = read(outputs_of[layer.output]).reshape(product.shape)
        fused = layer.op.builtinOptions.fusedActivationFunction
        expected = np.clip(product, 0 if fused else -np.inf, 6 if fused == 3 else np.inf)
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_corrected_biases_make_the_mean_error_vanish(converted, unequal, train):
    """Weights that were rounded down make each output too small; the correction moves it back."""
    content = float_counterpart(unequal, converted()).content
    editor = ModelEditor(converted().content)
    layer = layer_inputs.layers(editor)[1]
    weights = TFLiteModel(editor.pack()).constant(int(layer.op.inputs[1])).astype(np.int16)
    editor.replace_constant(layer.op, 1, np.clip(weights - 3, -127, 127).astype(np.int8))
    spoilt = TFLiteModel(editor.pack())
    samples = train.x.astype("float32")
    repaired = TFLiteModel(
        bias_correction.correct(spoilt.content, content, bias_correction.mean_inputs(content, Samples((samples,))))
    )
    means = [
        np.abs(np.mean([outputs(one, x[None])[0] - np.asarray(unequal(x[None])) for x in samples[:48]], axis=0)).max()
        for one in (spoilt, repaired)
    ]
    assert means[1] < means[0] / 4


def test_calibrated_rounding_has_a_smaller_error_in_4_bits(train, tmp_path, unequal):
    settings = QuantizerSettings(int4=("first", "second"))
    options = {"quantizer": settings, "calibration": train, "allow_mismatch": True, "refine": True}
    nearest = convert(unequal, tmp_path / "nearest.tflite", rounding="nearest", **options)
    calibrated = convert(unequal, tmp_path / "calibrated.tflite", **options)
    assert _error(calibrated, unequal, train.x[:32]) < _error(nearest, unequal, train.x[:32]) * 0.8
    assert {tensor.dtype for tensor in calibrated.graph.tensors} >= {"int4", "int8", "int32"}
    origin.check(calibrated, float_counterpart(unequal, calibrated), {}, unequal.name)


def test_rounding_is_nearly_the_best_of_all_ways_to_round():
    """Of one output with six weights, for inputs that go together, beside all 2**6 ways to round down or up."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(64, 1)) + 0.2 * rng.normal(size=(64, 6))
    product = inputs.T @ inputs / len(inputs)
    ratios = []
    for weights in rng.normal(size=(20, 1, 6)):
        steps = np.abs(weights).max(axis=1) / 7
        integers, _ = weight_rounding._rounded(weights, product, steps, np.zeros(1), "int8")
        down = np.floor(weights / steps[:, None])
        ways = [down + np.array(up) for up in itertools.product((0, 1), repeat=6)]
        errors = [
            float((difference @ product @ difference.T).item())
            for rounded in (integers, np.round(weights / steps[:, None]), *ways)
            for difference in [rounded * steps[:, None] - weights]
        ]
        ratios.append(np.array(errors[:2]) / min(errors[2:]))
    calibrated, nearest = np.mean(ratios, axis=0)
    assert calibrated < 1.2
    assert nearest > 3


def test_another_rounding_is_refused(tmp_path, train, unequal):
    with pytest.raises(InputError, match="rounding must be 'calibrated' or 'nearest'"):
        convert(unequal, tmp_path / "m.tflite", calibration=train, rounding="up")
