"""Explanations of accuracy loss: planted faults rank first, with their cause and a remedy."""

import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfkd.conversion import layer_errors, layer_names, refinement
from tfkd.conversion.converter import convert, float_counterpart
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError
from tfkd.validation import origin
from tfkd.validation.diagnosis import Cause
from tfkd.validation.explanation import explain

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def sound(student, modes, splits):
    return explain(student, modes["full_int8"], splits, teacher=student, targets=["host:plain", "host"])


def planted(student, name):
    """The student with the weights of one channel of one layer multiplied by 100."""
    model = keras.models.clone_model(student)
    model.set_weights(student.get_weights())
    kernel = model.get_layer(name).kernel
    values = kernel.numpy()
    channel = values[..., 2, :] if name.endswith("depthwise") else values[..., 2]
    channel *= 100
    kernel.assign(values)
    return model


@pytest.mark.parametrize(
    "name",
    ["block1_depthwise", "logits"]
    + [
        pytest.param(name, marks=pytest.mark.campaign)
        for name in ("conv1_conv", "block1_pointwise_conv", "block2_pointwise_conv")
    ],
)
def test_layer_with_an_outlier_channel_is_named_first(name, student, splits, tmp_path):
    model = planted(student, name)
    found = explain(model, convert(model, tmp_path / "m.tflite", calibration=splits.train), splits, targets=[])
    first = found.worst[0]
    assert (first.layer, first.cause) == (name, Cause.OUTLIER_CHANNEL)
    assert first.at_fault
    assert "Channel 2 reaches " in "\n".join(found.lines())
    assert f'QuantizerSettings(int16=("^{name}$",))' in "\n".join(found.lines())
    assert f"--int16 '^{name}$'" in "\n".join(found.lines(command_line=True))


def test_layers_that_an_outlier_channel_affects_rank_after_their_cause(student, splits, tmp_path):
    model = planted(student, "block1_pointwise_conv")
    found = explain(model, convert(model, tmp_path / "m.tflite", calibration=splits.train), splits, targets=[])
    assert "block2_depthwise" in found.worst[0].affected
    assert "Affected layers: block2_depthwise" in "\n".join(found.lines())
    assert found.worst[1].layer not in found.worst[0].affected


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(1 / 255, Cause.INPUT_OUT_OF_RANGE), pytest.param(64, Cause.INPUT_RANGE_TOO_WIDE, marks=pytest.mark.campaign)],
)
def test_calibration_in_another_input_range_ranks_first(factor, cause, student, splits, tmp_path):
    # Conversion refuses such samples where it can tell: not for a SavedModel without a test split.
    scaled = dataclasses.replace(splits.train, x=splits.train.x.astype("float32") * factor, held_out=None)
    student.export(str(tmp_path / "saved"), verbose=False)
    model = convert(tmp_path / "saved", tmp_path / "m.tflite", calibration=scaled)
    found = explain(student, model, splits, targets=[])
    assert (found.worst[0].layer, found.worst[0].cause) == ("input", cause)
    assert "Calibrate with samples in the input range of the Keras model" in "\n".join(found.lines())


def test_sound_model_has_no_layer_at_fault(sound):
    assert not any(finding.at_fault for finding in sound.layers)
    assert len(sound.worst) == 5
    assert sound.unmatched == ()
    names = [finding.layer for finding in sound.layers]
    assert names == [
        "input",
        "conv1_conv",
        "block1_depthwise",
        "block1_pointwise_conv",
        "block2_depthwise",
        "block2_pointwise_conv",
        "pool",
        "logits",
    ]


def test_stages_have_the_accuracy_of_keras_and_of_the_targets(sound, student, splits):
    outputs = student.predict(splits.test.batches(256), verbose=0)
    assert [stage.name for stage in sound.stages] == ["teacher", "student", "host:plain", "host"]
    assert sound.stages[0].accuracy == pytest.approx((outputs.argmax(axis=1) == splits.test.y).mean())
    assert (sound.stages[1].regressed, sound.stages[1].fixed) == (0, 0)
    plain = sound.stages[2]
    rows = len(splits.test)
    assert (plain.accuracy - sound.stages[1].accuracy) * rows == pytest.approx(plain.fixed - plain.regressed)


def test_target_that_refuses_the_model_is_a_stage_with_a_note(student, modes, splits):
    found = explain(student, modes["float16"], splits, targets=["tflm"])
    assert found.stages[-1].accuracy is None
    assert "tflm             no result: tflm: " in "\n".join(found.lines())


def test_json_is_plain(sound):
    record = json.loads(json.dumps(sound.to_json()))
    assert record["schema"] == "tfkd.explanation/1"
    assert record["worst"][0] in [layer["layer"] for layer in record["layers"]]
    assert all(layer["cause"] in {*Cause} and layer["sentence"] and layer["remedy"] for layer in record["layers"])
    assert len(record["stages"]) == 4


def with_ops_of(model, reference):
    """The float32 model with the ops that a conversion to another mode has."""
    return TFLiteModel(refinement.refine_as(reference.content, model))


def test_int16_has_less_noise_than_int8(modes, splits):
    def measured(mode):
        reference = with_ops_of(modes[mode], modes["float32"])
        return layer_errors.measure(modes[mode], reference, Samples((splits.val.x[:16],)))[0]

    eight, sixteen, floats = map(measured, ("full_int8", "int16x8", "float32"))
    pool = [one for one in eight if one.op == "MEAN"], [one for one in sixteen if one.op == "AVERAGE_POOL_2D"]
    assert pool[1][0].sqnr_db > pool[0][0].sqnr_db + 30  # 8 bits are 48 dB
    assert all(one.sqnr_db == one.total_sqnr_db == layer_errors.EXACT_DB for one in floats)
    assert {one.steps for one in eight} == {256}
    assert {one.steps for one in sixteen} == {65536}


def test_noise_of_the_input_is_what_numpy_computes(modes, splits):
    x = splits.val.x[:16].astype("float64")
    tensor = modes["int16x8"].inputs[0]
    steps = np.clip(np.round(np.float32(x) / np.float32(tensor.scales[0])), -32768, 32767)
    error = steps * tensor.scales[0] - x
    one = layer_errors.measure(modes["int16x8"], modes["float32"], Samples((splits.val.x[:16],)))[0][0]
    assert one.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / (error**2).sum()), abs=0.1)
    assert one.steps_used == steps.max() - steps.min() + 1


def test_noise_of_an_op_excludes_the_noise_of_its_inputs(modes, splits):
    measured = layer_errors.measure(modes["full_int8"], modes["float32"], Samples((splits.val.x[:16],)))[0]
    assert measured[1].sqnr_db == pytest.approx(measured[1].total_sqnr_db)  # the input of the first is exact
    assert all(one.sqnr_db > one.total_sqnr_db + 1 for one in measured[2:])


def test_float_input_before_a_quantize_op_counts_as_the_input(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", calibration=splits.train, float_io=True)
    found = explain(student, model, splits, targets=[])
    assert found.layers[0].layer == "input"
    assert found.layers[0].noise.steps == 256


def retrained(student, name, change):
    """The student with another kernel in one layer."""
    model = keras.models.clone_model(student)
    model.set_weights(student.get_weights())
    kernel = model.get_layer(name).kernel
    kernel.assign(change(kernel.numpy()))
    return model


def test_model_of_another_structure_is_refused(modes, splits):
    other = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match=r"was not converted from 'sequential.*: the .keras has no CONV_2D"):
        explain(other, modes["full_int8"], splits, targets=[])


def test_model_with_other_weights_or_options_is_refused(student, modes, references):
    rng = np.random.default_rng(0)
    other = retrained(student, "logits", lambda kernel: kernel + 0.05 * rng.normal(size=kernel.shape))
    message = r"was not converted from 'student': .* of the weights of 'logits' differ by more than quantization"
    reference, names = references(other)
    for mode in modes.values():
        with pytest.raises(ModelError, match=message):
            origin.check(mode, with_ops_of(mode, reference), names, "student")
    config = student.get_config()
    (logits,) = (layer["config"] for layer in config["layers"] if layer["config"]["name"] == "logits")
    logits["activation"] = "relu"
    other = keras.Model.from_config(config)
    other.set_weights(student.get_weights())
    reference, names = references(other)
    with pytest.raises(ModelError, match="FULLY_CONNECTED of 'logits' has fusedActivationFunction 0 in the .tflite"):
        origin.check(modes["full_int8"], with_ops_of(modes["full_int8"], reference), names, "student")


@pytest.fixture(scope="module")
def references():
    """A function that converts a model to float32, and names its layers."""

    def convert_float(model, ops=()):
        reference = float_counterpart(model, SimpleNamespace(ops=ops, graph=SimpleNamespace(ops=[], tensors=[])))
        return reference, layer_names.by_tensor(reference, model)

    return convert_float


def twins():
    """Two nested models with layers of equal names, an LSTM, and a softmax at the end."""

    def branch(name):
        layers = [keras.layers.Conv2D(3, 3, name="conv"), keras.layers.BatchNormalization(name="bn")]
        return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.ReLU(name="act")], name=name)

    inputs = keras.Input(SHAPE)
    joined = keras.layers.Concatenate(name="join")([branch("right")(inputs), branch("left")(inputs)])
    hidden = keras.layers.Conv2D(2, 3, name="conv")(joined)
    hidden = keras.layers.Conv2D(2, 3, name="conv_1", activation="relu")(hidden)
    hidden = keras.layers.Reshape((4, 2), name="flat")(hidden)
    hidden = keras.layers.LSTM(3, name="memory")(hidden)
    return keras.Model(inputs, keras.layers.Softmax(name="end")(keras.layers.Dense(10, name="logits")(hidden)))


def test_layers_of_nested_models_have_their_path(references):
    keras.utils.set_random_seed(0)
    reference, names = references(twins(), ["UNIDIRECTIONAL_SEQUENCE_LSTM"])
    found = {*names.values()}
    assert {"left/conv", "right/conv", "join", "conv", "conv_1", "flat", "memory", "logits", "end"} == found
    assert [op.name for op in reference.graph.ops].count("CONV_2D") == 4


def test_samples_of_another_shape_are_refused(modes, splits):
    with pytest.raises(ValueError, match=r"the quantized model must take one input of shape \(1, 4, 4, 1\)"):
        layer_errors.measure(modes["full_int8"], modes["float32"], Samples((splits.val.x[:2, :4, :4],)))


def test_number_of_samples_must_be_positive(student, modes, splits):
    with pytest.raises(ValueError, match=r"samples and worst must be > 0. Received: 0 and 5"):
        explain(student, modes["full_int8"], splits, samples=0)


def test_model_with_two_outputs_is_refused(splits, tmp_path):
    inputs = keras.Input(splits.train.input_shape)
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(4)(flat), keras.layers.Dense(3)(flat)])
    converted = convert(model, tmp_path / "two.tflite", mode="float32")
    with pytest.raises(
        ModelError, match="labels belong to one output. Received: a model with the 2 outputs output_0, output_1"
    ):
        explain(model, converted, splits)
