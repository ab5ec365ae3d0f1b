"""The model that is sent to a browser, run by LiteRT here: QUANTIZE, DEQUANTIZE and CAST change no value."""

import keras
import numpy as np
import pytest

from tfkd import targets
from tfkd.conversion.converter import convert
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError
from tfkd.targets import browser_model


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A model with inputs of int64 and float32 and outputs of float32, int64 and bool, in this order."""
    tokens, x = keras.Input((3,), dtype="int64", name="b"), keras.Input((3,), name="a")
    summed = keras.layers.Dense(2)(x) + keras.ops.cast(tokens[:, :2], "float32")
    model = keras.Model([tokens, x], [summed, tokens + 1, keras.ops.greater(x, 0.5)])
    return convert(model, tmp_path_factory.mktemp("several") / "several.tflite", mode="float32")


def run(content, inputs):
    return targets.get("host").run(TFLiteModel.load(content), inputs, latency=False).outputs


def test_model_that_litert_js_takes_is_sent_as_it_is(several, digits_int8):
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


def test_several_inputs_and_outputs_keep_their_order_and_types(several):
    rng = np.random.default_rng(0)
    inputs = [rng.integers(-9, 9, (6, 3)), rng.random((6, 3), "float32")]
    assert [tensor.dtype for tensor in several.outputs] == ["float32", "int64", "bool"]
    sent = browser_model.prepare(several)
    raw = run(sent.content, [end.encode(array) for end, array in zip(sent.inputs, inputs, strict=True)])
    found = [end.decode(array, exact=True) for end, array in zip(sent.outputs, raw, strict=True)]
    for one, expected in zip(found, run(several.content, inputs), strict=True):
        assert one.dtype == expected.dtype
        assert np.array_equal(one, expected)
    assert [text.split()[0] for text in sent.changes] == ["CAST", "CAST", "CAST"]
    assert sent.names == (["input_0", "input_1"], ["output_0", "output_1", "output_2"])
    with pytest.raises(InputError, match="must be within int32"):
        sent.inputs[0].encode(np.array([[2**40, 0, 0]]))


def test_integers_without_a_usable_scale_are_cast(digits_int8):
    """A scale whose products leave float32 would not come back."""
    editor = ModelEditor(digits_int8.content)
    editor.tensors[int(editor.graph.inputs[0])].quantization.scale = np.array([1e-45], "float32")
    sent = browser_model.prepare(TFLiteModel.load(editor.pack()))
    assert sent.inputs[0].op == "CAST"
    assert np.array_equal(sent.inputs[0].encode(np.array([[-128]], "int8")), [[-128]])


def test_other_data_types_are_refused(several):
    editor = ModelEditor(several.content)
    editor.tensors[int(editor.graph.outputs[0])].type = 10  # FLOAT64
    with pytest.raises(ModelError, match="Received: float64"):
        browser_model.prepare(TFLiteModel.load(editor.pack()))
