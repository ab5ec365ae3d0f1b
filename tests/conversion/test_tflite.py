"""Metadata of a .tflite, and errors for bytes that are not one."""

import json
import random

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.random_graph import Net
from tfkd import micro, models
from tfkd.conversion import tflite, tflite_reader
from tfkd.conversion.converter import convert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError
from tfkd.validation.benchmark import benchmark

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def model(converted):
    """An int8 model of convolutions."""
    return converted("full_int8")


class Product(keras.layers.Layer):
    """A [6, 4] matrix times its own transpose."""

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """A float model with one op of each type that has multiply-accumulates."""
    image = keras.Input((6, 4, 3), name="image")
    x = keras.layers.Conv2D(5, 3, padding="same", use_bias=False)(image)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x)
    x = keras.layers.Conv2DTranspose(7, 3, strides=2, padding="same")(x)
    features = keras.layers.Dense(11, use_bias=False)(keras.layers.Flatten()(x))
    matrix = keras.Input((6, 4), name="matrix")
    both = keras.Model([image, matrix], [features, Product()(matrix)])
    return convert(both, tmp_path_factory.mktemp("models") / "products.tflite", mode="float32")


def test_inputs_and_outputs_equal_those_of_litert(model):
    interpreter = Interpreter(str(model.path))
    for tensors, details in (
        (model.inputs, interpreter.get_input_details()),
        (model.outputs, interpreter.get_output_details()),
    ):
        for tensor, detail in zip(tensors, details, strict=True):
            assert (tensor.name, tensor.shape) == (detail["name"], tuple(detail["shape"]))
            assert tensor.dtype == np.dtype(detail["dtype"]).name == "int8"
            assert (*tensor.scales, *tensor.zero_points) == pytest.approx(detail["quantization"])


def test_size_and_ops_of_an_int8_model(model):
    assert model.size_bytes == model.path.stat().st_size == len(model.content)
    assert model.ops == {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 1, "MEAN": 1}
    assert model.float_ops == ()
    assert model.is_quantized


def test_parameter_bytes_of_an_int8_model(model):
    # int8 kernels, an int32 bias per channel, and two axes of MEAN; BatchNorm is folded into the convolutions.
    layers = [layer for layer in models.digits_student(SHAPE, 10).layers if hasattr(layer, "kernel")]
    kernels = sum(int(np.prod(layer.kernel.shape)) for layer in layers)
    channels = sum(layer.output.shape[-1] for layer in layers)
    assert model.parameter_bytes == kernels + 4 * channels + 2 * 4


def test_macs_of_each_op(products):
    convolution = 6 * 4 * 5 * (3 * 3 * 3)
    depthwise = 3 * 2 * 10 * (3 * 3)
    transposed = 3 * 2 * 10 * (3 * 3 * 7)
    dense = 6 * 4 * 7 * 11
    matrices = 6 * 6 * 4
    assert set(products.ops) >= {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "TRANSPOSE_CONV",
        "FULLY_CONNECTED",
        "BATCH_MATMUL",
    }
    assert products.macs == convolution + depthwise + transposed + dense + matrices


def test_macs_of_an_lstm_are_its_matrices_at_each_step():
    units, features, steps = 4, 3, 10
    shapes = [(1, steps, features), *[(units, features)] * 4, *[(units, units)] * 4, (1, steps, units)]
    macs = tflite.op_macs("UNIDIRECTIONAL_SEQUENCE_LSTM", range(9), (9,), shapes)
    assert macs == steps * 4 * (units * features + units * units)


def test_macs_of_the_published_model(tmp_path):
    # MLPerf Tiny states 12.5 million for its image model.
    model = convert(models.resnet8((32, 32, 3), 10), tmp_path / "m.tflite", mode="float32")
    assert model.macs == 12_501_632


def test_float_ops_are_named(products):
    assert len(products.float_ops) == sum(products.ops.values())
    assert any(op.startswith("CONV_2D (") for op in products.float_ops)
    assert not products.is_quantized


def test_parameter_bytes_of_a_float_model(products):
    parameters = 3 * 3 * 3 * 5 + (3 * 3 * 10 + 10) + (3 * 3 * 7 * 10 + 7) + 6 * 4 * 7 * 11
    assert 4 * parameters <= products.parameter_bytes < 4 * parameters + 400


def test_quantize_input_rounds_half_to_even_and_saturates(model):
    (tensor,) = model.inputs
    scale, zero = np.float32(tensor.scales[0]), tensor.zero_points[0]
    steps = np.array([0, 1, 0.4, 0.6, 2.5, 3.5, 1e6, -1e6], np.float32)
    expected = np.clip(np.array([0, 1, 0, 1, 2, 4, 1e6, -1e6]) + zero, -128, 127)
    received = model.quantize_input(steps * scale)
    assert received.dtype == np.int8
    np.testing.assert_array_equal(received, expected)


def test_quantize_input_converts_pixels_and_keeps_quantized_values(model):
    pixels = np.arange(256, dtype=np.uint8)
    quantized = model.quantize_input(pixels)
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized, model.quantize_input(pixels.astype("float32")))
    assert model.quantize_input(quantized) is quantized


def test_quantize_input_of_a_float_model_only_casts(products):
    received = products.quantize_input(np.array([1, 2], np.uint8))
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received, [1, 2])


def test_quantize_input_of_nan_is_refused(model):
    with pytest.raises(ValueError, match=r"features contain NaN"):
        model.quantize_input(np.array([np.nan]))


def test_dequantize_output_inverts_the_scale(model):
    (tensor,) = model.outputs
    raw = np.array([[-128, 0, 127]], np.int8)
    expected = (raw.astype(float) - tensor.zero_points[0]) * tensor.scales[0]
    received = model.dequantize_output(raw)
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_dequantize_output_of_a_float_model_is_unchanged(products):
    np.testing.assert_array_equal(products.dequantize_output(np.float32([1.5])), np.float32([1.5]))


def test_to_json_has_plain_values(model):
    record = json.loads(json.dumps(model.to_json()))
    assert record["sha256"] == model.sha256
    assert record["macs"] == model.macs
    assert record["inputs"][0]["shape"] == [1, *SHAPE]


def test_load_of_a_model_returns_it(model):
    assert TFLiteModel.load(model) is model
    assert TFLiteModel.load(model.content).sha256 == model.sha256


def test_save_writes_atomically_and_needs_overwrite(model, tmp_path):
    path = tmp_path / "new" / "m.tflite"
    assert model.save(path).path == path
    assert path.read_bytes() == model.content
    with pytest.raises(ValueError, match=r"m.tflite already exists"):
        model.save(path)
    model.save(path, overwrite=True)
    assert [file.name for file in path.parent.iterdir()] == ["m.tflite"]


def test_load_of_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the .tflite file: No such file"):
        TFLiteModel.load(tmp_path / "m.tflite")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04" + bytes(100), b"\x1c\0\0\0TFL2" + bytes(100)])
def test_load_of_another_format_is_refused(content):
    with pytest.raises(ValueError, match=r"must be a .tflite file \(identifier TFL3\). Received: \d+ bytes"):
        TFLiteModel.load(content)


def test_load_of_an_empty_table_is_refused():
    with pytest.raises(ValueError, match=r"TFLiteModel: the .tflite file is damaged"):
        TFLiteModel.load(b"\x1c\0\0\0TFL3" + bytes(100))


def mutated(content, rng):
    """The bytes, changed, truncated or partly copied elsewhere, or with an invalid offset, length or index."""
    new = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:
        new[rng.integers(8, len(new))] = rng.integers(256)
    elif kind == 1:
        del new[rng.integers(16, len(new)) :]
    elif kind == 2:
        start, source = rng.integers(8, len(new) - 200, 2)
        new[start : start + 100] = new[source : source + 100]
    else:
        for word in rng.integers(2, len(new) // 4, 4):
            value = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**32 - 64, rng.integers(len(new)), rng.integers(2**32)])
            new[4 * word : 4 * word + 4] = int(value).to_bytes(4, "little")
    return bytes(new)


def test_mutated_bytes_load_or_raise_a_model_error(model, products):
    rng, refused = np.random.default_rng(0), 0
    for content in (model.content, products.content):
        for _ in range(300):
            try:
                loaded = TFLiteModel.load(mutated(content, rng))
                json.dumps(loaded.to_json())
                _ = loaded.is_quantized
            except ModelError:
                refused += 1
    assert 100 < refused < 600


def test_overlapping_vectors_stop_the_reader(model, monkeypatch):
    # A file with half a million tensors that share one huge shape vector would take an hour to read.
    monkeypatch.setattr(tflite_reader, "_MAX_ITEMS", 20)
    with pytest.raises(ValueError, match=r"the .tflite file is damaged: \d+ "):
        TFLiteModel.load(model.content)


def test_input_of_strings_is_refused_with_its_name(tmp_path):
    made = Net(random.Random(0))
    out = made.op("RESHAPE", [made.input((1, 4))], [made.output((1, 4))])
    made.graph.tensors[0].type = schema.TensorType.STRING
    (tmp_path / "text.tflite").write_bytes(made.bytes(out))
    model = TFLiteModel.load(tmp_path / "text.tflite")
    reason = "input 't0' of the model must be of a type of NumPy. Received: string.*the token ids of a text"
    with pytest.raises(ModelError, match=reason):
        model.quantize_input(np.zeros((2, 4), "float32"))
    with pytest.raises(ModelError, match=reason):
        benchmark([tmp_path / "text.tflite"], ["host"])
    with pytest.raises(ModelError, match="must be numbers. Received: 't0' of strings"):
        micro.emit(model)
