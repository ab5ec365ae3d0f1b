"""Causes of quantization noise from the numbers of each op, and the texts about them."""

import dataclasses

import pytest

from tfkd.conversion import layer_errors
from tfkd.validation.diagnosis import Cause, Channels, Finding, diagnose, find_cause, rank
from tfkd.validation.diagnosis_texts import COMMAND_LINE, PYTHON, remedy, sentence


def one_op(**changes):
    """The numbers of a sound int8 convolution, some of them changed."""
    sound = layer_errors.OpNoise(
        op="CONV_2D",
        tensor="m/conv_1/convolution",
        reference="m/conv/convolution",
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
    ("changes", "cause", "words"),
    [
        ({}, Cause.ROUNDING, "No fault found"),
        ({"saturated": 0.05}, Cause.CLIPPING, "5.0% of its values are outside of its range"),
        ({"steps_used": 20}, Cause.RANGE_TOO_WIDE, "It uses 20 of 256 quantization steps"),
        ({"channel_peaks": (1.0, 1.0, 50.0)}, Cause.OUTLIER_CHANNEL, "Channel 2 reaches 50, 50 times the median"),
        ({"rounding": 0.1}, Cause.WEIGHT_ROUNDING, "Most of its noise comes from rounding its weights"),
        ({"rounding": 0.1, "weight_scales": 1}, Cause.SHARED_WEIGHT_SCALE, "All its 8 channels share one scale"),
        ({"rounding": 0.1, "weight_dtype": "int4"}, Cause.INT4_WEIGHTS, "to 4 bits"),
        ({"op": "MAX_POOL_2D"}, Cause.SAME_SCALE, "must have the same scale as its input"),
        ({"steps": None, "steps_used": None, "limits": None}, Cause.FLOAT, "It computes in floating point"),
        ({"op": "INPUT", "saturated": 0.5}, Cause.INPUT_OUT_OF_RANGE, "50% of the input values are outside"),
        ({"op": "INPUT", "steps_used": 5}, Cause.INPUT_RANGE_TOO_WIDE, "The input uses 5 of 256"),
        (
            {"op": "INPUT", "channel_peaks": (1.0, 1.0, 50.0), "channel_sqnr_db": 9.0},
            Cause.INPUT_OUTLIER_FEATURE,
            "Feature 2 reaches 50, 50 times the median feature",
        ),
        ({"op": "INPUT", "channel_peaks": (1.0, 1.0, 50.0)}, Cause.ROUNDING, "its range is that of the data"),
        ({"rounding": 0.1, "weight_scales": 1, "op": "SUB"}, Cause.WEIGHT_ROUNDING, "comes from rounding its weights"),
        ({"op": "INPUT"}, Cause.ROUNDING, "its range is that of the data"),
    ],
)
def test_cause_follows_from_the_numbers(changes, cause, words):
    noise = one_op(**changes)
    (finding,) = diagnose([noise], {"m/conv/convolution": "conv"})
    assert (find_cause(noise), finding.cause) == (cause, cause)
    assert finding.layer == ("input" if noise.op == "INPUT" else "conv")
    assert words in sentence(finding)


def test_part_of_a_concatenation_has_its_range():
    part = one_op(tensor="part", steps_used=20)
    flat = one_op(op="RESHAPE", tensor="flat", sources=("part",))
    joined = one_op(op="CONCATENATION", tensor="joined", sources=("flat",))
    assert diagnose([part, flat, joined], {})[0].cause == Cause.CONCATENATED
    requantized = dataclasses.replace(part, limits=(-2.0, 2.0))
    assert diagnose([requantized, flat, joined], {})[0].cause == Cause.RANGE_TOO_WIDE


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("op", ["CONV_2D", "INPUT"])
def test_texts_are_sentences_without_settings_of_the_other_interface(cause, op):
    finding = Finding("conv", cause, one_op(op=op, saturated=0.1))
    texts = [sentence(finding), remedy(finding, COMMAND_LINE), remedy(finding, PYTHON)]
    assert all(not text[0].islower() and text.endswith(".") for text in texts)
    assert "QuantizerSettings" not in texts[1]
    assert "--" not in texts[2]


def test_outlier_channel_affects_the_layers_behind_it_through_a_pooling():
    def op(name, source, **changes):
        return one_op(tensor=f"m/{name}_1/x", reference=name, sources=(f"m/{source}_1/x",), **changes)

    found = diagnose(
        [
            op("a", "input", channel_peaks=(1.0, 1.0, 50.0)),
            op("pool", "a", op="MAX_POOL_2D"),
            op("b", "pool", steps_used=20, channel_sqnr_db=1.0),
            op("c", "b", saturated=0.5),
        ],
        {name: name for name in ("a", "pool", "b", "c")},
    )
    assert {finding.layer: finding.affected for finding in found} == {"a": ("pool", "b"), "pool": (), "b": (), "c": ()}
    assert [finding.layer for finding in rank(found)] == ["a", "c", "b", "pool"]
    assert [finding.at_fault for finding in found] == [True, False, True, True]


def test_channels_need_three_nonzero_peaks():
    assert Channels.of((1.0, 5.0, 0.0)) is None
    assert Channels.of((1.0, 8.0, 2.0)).ratio == 4.0
