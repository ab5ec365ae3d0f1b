"""Corrections of the biases of quantized models."""

import numpy as np
import pytest

from tfkd.conversion import biases
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.tflite import TFLiteModel


def _with_first_bias(content, change):
    editor = ModelEditor(content)
    op = next(op for op in editor.graph.operators if editor.name(op) == "CONV_2D")
    editor.replace_constant(op, 2, change(editor.constant(int(op.inputs[2]))))
    return editor.pack()


def _first_bias(content):
    editor = ModelEditor(content)
    op = next(op for op in editor.graph.operators if editor.name(op) == "CONV_2D")
    return editor.constant(int(op.inputs[2]))


@pytest.mark.parametrize(("mode", "quantizer"), [("full_int8", "litert"), ("full_int8", "tensorflow")])
def test_right_biases_stay_as_they_are(converted, mode, quantizer):
    content = converted(mode, quantizer).content
    assert biases.correct(content, converted("float32").content) is content


def test_a_wrong_bias_is_corrected(converted):
    content = converted("full_int8", "litert").content
    wrong = _with_first_bias(content, lambda bias: (bias + 5).astype(bias.dtype))
    np.testing.assert_array_equal(
        _first_bias(biases.correct(wrong, converted("float32").content)), _first_bias(content)
    )


def test_a_bias_beyond_32_bits_enlarges_the_weight_scale(converted):
    content = converted("full_int8", "litert").content
    original = _with_first_bias(converted("float32").content, lambda bias: bias + np.float32(1e9))
    corrected = TFLiteModel.load(biases.correct(content, original)).graph
    op = next(op for op in corrected.ops if op.name == "CONV_2D")
    scales = corrected.tensors[op.inputs[2]].scales
    np.testing.assert_allclose(_first_bias(biases.correct(content, original)) * scales, 1e9, rtol=1e-3)


def test_a_bias_beyond_32_bits_enlarges_the_scale_of_four_bit_weights(converted):
    content = converted("full_int8", QuantizerSettings(int4=(".*conv.*",))).content
    original = _with_first_bias(converted("float32").content, lambda bias: bias + np.float32(1e9))
    corrected = biases.correct(content, original)
    graph = TFLiteModel.load(corrected).graph
    op = next(op for op in graph.ops if op.name == "CONV_2D")
    assert graph.tensors[op.inputs[1]].dtype == "int4"
    np.testing.assert_allclose(_first_bias(corrected) * graph.tensors[op.inputs[2]].scales, 1e9, rtol=1e-3)
