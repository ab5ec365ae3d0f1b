"""Why a quantized model is worse: planted faults are named first, with their cause and a remedy."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tfkd import data
from tfkd.conversion.converter import convert
from tfkd.validation import explanation, layer_errors
from tfkd.validation.explanation import explain

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def student(digits_student_file):
    return keras.saving.load_model(digits_student_file)


@pytest.fixture(scope="module")
def modes(student, splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes")
    wanted = ("float32", "full_int8", "int16x8")
    return {mode: convert(student, folder / mode, mode=mode, calibration=splits.train) for mode in wanted}


@pytest.fixture(scope="module")
def sound(student, modes, splits):
    return explain(student, modes["full_int8"], splits, teacher=student, targets=["host:plain", "host"])


def planted(student, name):
    """The student with one channel of one layer made 100 times as loud."""
    model = keras.models.clone_model(student)
    model.set_weights(student.get_weights())
    kernel = model.get_layer(name).kernel
    values = kernel.numpy()
    loud = values[..., 2, :] if name.endswith("depthwise") else values[..., 2]
    loud *= 100
    kernel.assign(values)
    return model


@pytest.mark.parametrize(
    "name", ["conv1_conv", "block1_depthwise", "block1_pointwise_conv", "block2_pointwise_conv", "logits"]
)
def test_layer_with_an_outlier_channel_is_named_first(name, student, splits, tmp_path):
    model = planted(student, name)
    found = explain(model, convert(model, tmp_path / "m.tflite", calibration=splits.train), splits, targets=[])
    first = found.worst[0]
    assert (first.layer, first.kind) == (name, "outlier")
    assert first.at_fault
    assert "Channel 2 reaches " in first.sentence
    assert f"--int16 '^{name}$'" in first.remedy


def test_layers_behind_an_outlier_channel_come_after_their_cause(student, splits, tmp_path):
    model = planted(student, "block1_pointwise_conv")
    found = explain(model, convert(model, tmp_path / "m.tflite", calibration=splits.train), splits, targets=[])
    assert "block2_depthwise" in found.worst[0].passed_on
    assert "Suffer from it: block2_depthwise" in "\n".join(found.lines())
    assert found.worst[1].layer not in found.worst[0].passed_on


@pytest.mark.parametrize(("factor", "words"), [(1 / 255, "of the input lies beyond"), (64, "steps of the range")])
def test_calibration_of_another_scale_is_named_first(factor, words, student, splits, tmp_path):
    # Conversion refuses such a set wherever it can see it: by the test split, or by the model's own Rescaling.
    hidden = keras.Sequential([keras.Input(SHAPE), student])
    scaled = dataclasses.replace(splits.train, x=splits.train.x.astype("float32") * factor, held_out=None)
    model = convert(hidden, tmp_path / "m.tflite", calibration=scaled)
    first = explain(hidden, model, splits, targets=[]).worst[0]
    assert (first.layer, first.kind) == ("input", "input")
    assert words in first.sentence
    assert first.remedy.startswith("Calibrate with samples in the range that the Keras model takes")


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


def test_stages_are_those_of_keras_and_of_the_engines(sound, student, splits):
    outputs = student.predict(splits.test.batches(256), verbose=0)
    assert [stage.name for stage in sound.stages] == ["teacher", "student", "host:plain", "host"]
    assert sound.stages[0].accuracy == pytest.approx((outputs.argmax(axis=1) == splits.test.y).mean())
    assert (sound.stages[1].lost, sound.stages[1].mended) == (0, 0)
    plain = sound.stages[2]
    rows = len(splits.test)
    assert (plain.accuracy - sound.stages[1].accuracy) * rows == pytest.approx(plain.mended - plain.lost)


def test_engine_that_refuses_the_model_is_a_stage_with_a_note(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", mode="float16")
    found = explain(student, model, splits, targets=["tflm"])
    assert found.stages[-1].accuracy is None
    assert "tflm             does not run: tflm: " in "\n".join(found.lines())


def test_json_is_plain(sound):
    record = json.loads(json.dumps(sound.to_json()))
    assert record["schema"] == "tfkd.explanation/1"
    assert record["worst"][0] in [layer["layer"] for layer in record["layers"]]
    assert len(record["stages"]) == 4


def test_more_bits_have_less_noise(modes, splits):
    eight, sixteen, floats = (
        layer_errors.measure(modes[mode], modes["float32"], splits.val.x[:16])[0]
        for mode in ("full_int8", "int16x8", "float32")
    )
    pool = (
        [one for one in eight if one.op == "AVERAGE_POOL_2D"],
        [one for one in sixteen if one.op == "AVERAGE_POOL_2D"],
    )
    assert pool[1][0].sqnr_db > pool[0][0].sqnr_db + 30  # 8 bits are 48 dB
    assert all(one.sqnr_db == one.total_sqnr_db == layer_errors.EXACT_DB for one in floats)
    assert {one.steps for one in eight} == {256}
    assert {one.steps for one in sixteen} == {65536}


def test_noise_of_the_input_is_what_numpy_computes(modes, splits):
    x = splits.val.x[:16].astype("float64")
    tensor = modes["int16x8"].inputs[0]
    steps = np.clip(np.round(np.float32(x) / np.float32(tensor.scales[0])), -32768, 32767)
    error = steps * tensor.scales[0] - x
    one = layer_errors.measure(modes["int16x8"], modes["float32"], splits.val.x[:16])[0][0]
    assert one.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / (error**2).sum()), abs=0.1)
    assert one.steps_used == steps.max() - steps.min() + 1


def test_own_noise_of_an_op_leaves_out_what_came_before(modes, splits):
    measured = layer_errors.measure(modes["full_int8"], modes["float32"], splits.val.x[:16])[0]
    assert measured[1].sqnr_db == pytest.approx(measured[1].total_sqnr_db)  # the input of the first is exact
    assert all(one.sqnr_db > one.total_sqnr_db + 1 for one in measured[2:])


def test_float_input_behind_a_quantize_op_is_judged_as_the_input(student, splits, tmp_path):
    model = convert(student, tmp_path / "m.tflite", calibration=splits.train, float_io=True)
    found = explain(student, model, splits, targets=[])
    assert found.layers[0].layer == "input"
    assert found.layers[0].noise.steps == 256


def one_op(**changes):
    """The numbers of a sound int8 convolution, with some of them changed."""
    sound = layer_errors.OpNoise(
        op="CONV_2D",
        tensor="m/conv_1/convolution",
        sources=(),
        weights="",
        sqnr_db=40.0,
        channel_sqnr_db=40.0,
        total_sqnr_db=38.0,
        cosine=1.0,
        saturated=0.0,
        steps_used=250,
        steps=256,
        rounding=0.9,
        low=-1.0,
        high=1.0,
        limits=(-1.0, 1.0),
        channel_peaks=(1.0,) * 8,
        weight_scales=8,
        weight_dtype="int8",
    )
    return dataclasses.replace(sound, **changes)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, "sound", "Nothing stands out"),
        ({"saturated": 0.05}, "clipped", "5.0% of its values lie beyond its range"),
        ({"steps_used": 20}, "wide", "It uses 20 of 256 steps"),
        ({"rounding": 0.1}, "weights", "The rounding of its weights makes its error"),
        ({"rounding": 0.1, "weight_scales": 1}, "weights", "All its 8 channels share one scale"),
        ({"rounding": 0.1, "weight_dtype": "int4"}, "weights", "to 4 bits"),
        ({"op": "MAX_POOL_2D"}, "shared", "It must keep the range of its input"),
        ({"steps": None, "steps_used": None, "limits": None}, "sound", "It computes in floating point"),
    ],
)
def test_cause_follows_from_the_numbers(changes, kind, words):
    (finding,) = explanation.findings([one_op(**changes)], {"conv": True})
    assert (finding.layer, finding.kind) == ("conv", kind)
    assert words in finding.sentence


def test_model_of_another_student_is_refused(modes, splits):
    other = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match=r"must come from 'sequential.*Received: \d+ ops that it does not have"):
        explain(other, modes["full_int8"], splits, targets=[])


def test_samples_of_another_shape_are_refused(modes, splits):
    with pytest.raises(ValueError, match=r"the quantized model must take one input of shape \(1, 4, 4, 1\)"):
        layer_errors.measure(modes["full_int8"], modes["float32"], splits.val.x[:2, :4, :4])


def test_number_of_samples_must_be_positive(student, modes, splits):
    with pytest.raises(ValueError, match=r"samples and worst must be > 0. Received: 0 and 5"):
        explain(student, modes["full_int8"], splits, samples=0)
