"""The model that is sent to a browser, run by LiteRT here: QUANTIZE, DEQUANTIZE and CAST change no value."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfkd import targets
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError
from tfkd.targets import browser_model


def run(content, inputs):
    return targets.get("host").run(TFLiteModel.load(content), inputs, latency=False).outputs


def test_model_that_litert_js_takes_is_sent_as_it_is(digits_int8):
    assert browser_model.prepare(digits_int8).content != digits_int8.content
    plain = ModelEditor(browser_model.prepare(digits_int8).content).pack()
    assert browser_model.prepare(TFLiteModel.load(plain)).content == plain


def test_quantized_ends_give_the_same_integers(digits_int8, splits):
    x = digits_int8.quantize_input(splits.test.x[:50])
    sent = browser_model.prepare(digits_int8)
    (raw,) = run(sent.content, [sent.inputs[0].encode(x)])
    assert raw.dtype == np.float32
    assert np.array_equal(sent.outputs[0].decode(raw, exact=True), run(digits_int8.content, [x])[0])
    with pytest.raises(DeviceError, match="no int8 stands for"):
        sent.outputs[0].decode(raw + np.float32(1e-3), exact=True)


def test_several_inputs_and_outputs_keep_their_order_and_types(several_ends):
    several, inputs = several_ends
    assert {tensor.dtype for tensor in several.outputs} == {"float32", "int64", "bool"}
    sent = browser_model.prepare(several)
    raw = run(sent.content, [end.encode(array) for end, array in zip(sent.inputs, inputs, strict=True)])
    found = [end.decode(array, exact=True) for end, array in zip(sent.outputs, raw, strict=True)]
    for one, expected in zip(found, run(several.content, inputs), strict=True):
        assert one.dtype == expected.dtype
        assert np.array_equal(one, expected)
    assert [text.split()[0] for text in sent.changes] == ["CAST", "CAST", "CAST"]
    assert sent.names == (["input_0", "input_1"], ["output_0", "output_1", "output_2"])
    (tokens,) = (end for end in sent.inputs if end.op)
    with pytest.raises(InputError, match="must be within int32"):
        tokens.encode(np.array([[2**40, 0, 0]]))


def test_integers_without_a_usable_scale_are_cast(digits_int8):
    """A scale whose products leave float32 would not come back."""
    editor = ModelEditor(digits_int8.content)
    editor.tensors[int(editor.graph.inputs[0])].quantization.scale = np.array([1e-45], "float32")
    sent = browser_model.prepare(TFLiteModel.load(editor.pack()))
    assert sent.inputs[0].op == "CAST"
    assert np.array_equal(sent.inputs[0].encode(np.array([[-128]], "int8")), [[-128]])


def test_other_data_types_are_refused(several_ends):
    editor = ModelEditor(several_ends[0].content)
    for index in editor.graph.outputs:
        editor.tensors[index].type = schema.TensorType.FLOAT64
    with pytest.raises(ModelError, match="Received: float64"):
        browser_model.prepare(TFLiteModel.load(editor.pack()))


def test_variable_tensors_are_refused(digits_int8):
    editor = ModelEditor(digits_int8.content)
    editor.tensors[-1].isVariable = True
    with pytest.raises(ModelError, match="no variable tensor"):
        browser_model.prepare(TFLiteModel.load(editor.pack()))
