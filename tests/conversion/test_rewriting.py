"""Quantized models against Keras, with layers that the quantizers compute wrongly by themselves."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.conversion.execution import outputs
from tfkd import data
from tfkd.conversion import activation_ranges, channel_slices, layer_errors, rewriting
from tfkd.conversion.converter import convert, float_counterpart
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.op_pairs import pair_ops
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.samples import Samples

ops = keras.ops
layers = keras.layers

# Largest error as a share of the output's range. Weights have 8 bits in all modes.
_SHARES = {"full_int8": 0.05, "int16x8": 0.02, "dynamic_range": 0.02}


def _branches(x):
    """Outputs by name. Each has a convolution of its own, so that none changes the range of another one."""
    keras.utils.set_random_seed(7)
    generator = np.random.default_rng(0)

    def features(bias=0.0):
        return layers.Conv2D(4, 1, bias_initializer=keras.initializers.Constant(bias))(x)

    def tokens():
        return layers.Reshape((16, 4))(features())

    def constant(*shape):
        return generator.normal(size=shape).astype(np.float32)

    def spatial_attention(h):
        pooled = layers.Concatenate()([ops.mean(h, -1, keepdims=True), ops.max(h, -1, keepdims=True)])
        return h * layers.Conv2D(1, 3, padding="same", activation="sigmoid")(pooled)

    def attention_pooling(t):
        return ops.sum(t * ops.softmax(layers.Dense(1)(t), axis=1), axis=1)

    def minimum_of_reshaped(h):
        reshaped = layers.Reshape((16, 4))(h)
        return reshaped * 0.5 + ops.minimum(reshaped, 0.0)

    def shared_layer(h, other):
        dense = layers.Dense(3, bias_initializer=keras.initializers.Constant(-1.5))
        return layers.Concatenate()([dense(h), dense(other * 5.0)])

    def without_weights(layer, h=x):
        outputs = layer(h)
        layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.linspace(-1.2, 0.8, outputs.shape[-1])])
        return outputs

    def unlike(layer, h=x):
        """Channels of which the second half is 40 times as large."""
        outputs = layer(h)
        wide = np.repeat([1.0, 40.0], outputs.shape[-1] // 2)
        kernel, bias = layer.get_weights()
        by_channel = kernel.shape[-2:] if isinstance(layer, layers.DepthwiseConv2D) else kernel.shape[-1:]
        layer.set_weights([kernel * wide.reshape(by_channel), bias * wide])
        return outputs

    image = unlike(layers.Conv2D(4, 1, activation="relu", bias_initializer="ones"))
    depthwise = unlike(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"))
    vector = ops.split(unlike(layers.Dense(6), layers.Flatten()(x)), 2, axis=-1)

    return {
        "slice of a convolution": image[..., :2],
        "other slice of a convolution": image[..., -2:],
        "slice of a depthwise convolution": depthwise[..., :4],
        "depthwise convolution read by others": ops.mean(depthwise, axis=(1, 2)),
        "first part of a dense layer": vector[0],
        "second part of a dense layer": vector[1],
        "softplus": layers.Activation("softplus")(features() * 8.0),
        "log_sigmoid": layers.Activation("log_sigmoid")(features() * 8.0),
        "elu": layers.Activation("elu")(features()) * 2.0,
        "elu of another slope": layers.ELU(0.5)(features()),
        "square": ops.square(features()),
        "celu": layers.Activation("celu")(features()),
        "product with clip": (lambda h: h * ops.clip(h, -0.5, 0.5))(features()),
        "relu and minimum": (lambda h: ops.relu(h) + ops.minimum(h, 0.0))(features()),
        "minimum of reshaped": minimum_of_reshaped(features()),
        "maximum of two": (lambda h: ops.maximum(h, features(2.0)) - h)(features()),
        "minimum of the input": x + ops.minimum(x, 0.0),
        "spatial attention": spatial_attention(features(-3.0)),
        "attention pooling": attention_pooling(tokens()),
        "sum": ops.sum(features(), (1, 2)),
        "layer normalization": layers.LayerNormalization(axis=(1, 2, 3))(features()),
        "shared layer": shared_layer(features(), features()),
        "input that is always 0": layers.Dense(3, bias_initializer="ones")(layers.ReLU()(features(-100.0))),
        "addition of zeros": features() * constant(4, 4, 4),
        "constant on the right": ops.matmul(tokens(), constant(1, 4, 5)),
        "constant on the left": ops.matmul(constant(5, 16), tokens()),
        "constant of four dimensions": ops.matmul(constant(1, 4, 5, 4), features()),
        "maximum with a constant": ops.maximum(constant(4, 4, 4), features()),
        "convolution": without_weights(layers.Conv2D(4, 3)),
        "depthwise convolution": without_weights(layers.DepthwiseConv2D(3)),
        "transposed convolution": without_weights(layers.Conv2DTranspose(4, 3, strides=2)),
        "dense": without_weights(layers.Dense(4), layers.Flatten()(x)),
    }


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).uniform(-2, 2, (96, 4, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def train(samples):
    labels = np.arange(len(samples)) % 2
    return data.from_arrays((samples, labels), (-samples, labels), validation=0.0).train


@pytest.fixture(scope="module")
def reference(samples):
    """A model with many outputs, their names, and their values on some samples."""
    x = keras.Input((4, 4, 4))
    branches = _branches(x)
    model = keras.Model(x, list(branches.values()))
    return model, list(branches), model.predict(samples[:8], verbose=0)


@pytest.mark.parametrize(
    ("mode", "quantizer"),
    [
        ("full_int8", "tensorflow"),
        ("int16x8", "tensorflow"),
        ("full_int8", "litert"),
        pytest.param("int16x8", "litert", marks=pytest.mark.campaign),
        pytest.param("dynamic_range", "litert", marks=pytest.mark.campaign),
    ],
)
def test_outputs_of_integer_modes_are_those_of_keras(reference, samples, train, tmp_path, mode, quantizer):
    model, names, expected = reference
    converted = convert(
        model,
        tmp_path / "model.tflite",
        mode=mode,
        quantizer=quantizer,
        calibration=None if mode == "dynamic_range" else train,
        allow_float=quantizer == "litert",  # it leaves REDUCE_MAX in float
    )
    received = [
        np.concatenate(values) for values in zip(*(outputs(converted, x[None]) for x in samples[:8]), strict=True)
    ]
    errors = {
        name: float(np.abs(actual.reshape(right.shape) - right).max() / max(np.ptp(right), 1.0))
        for name, actual, right in zip(names, received, expected, strict=True)
    }
    assert {name: error for name, error in errors.items() if error > _SHARES[mode]} == {}


@pytest.mark.parametrize("selected", ["selu", lambda h: ops.where(h >= 0, 2 * h, 3 * ops.exp(h) - 3)])
def test_exponentials_that_are_not_selected_do_not_widen_the_range(selected, samples, train, tmp_path):
    x = keras.Input((4, 4, 4))
    outputs_of = layers.Activation(selected)
    model = keras.Model(x, outputs_of(layers.Conv2D(4, 1, kernel_initializer=keras.initializers.Constant(0.8))(x)))
    expected = model.predict(samples[:8], verbose=0)
    converted = convert(model, tmp_path / "model.tflite", calibration=train)
    received = np.concatenate([outputs(converted, sample[None])[0] for sample in samples[:8]])
    assert np.abs(received.reshape(expected.shape) - expected).max() < 0.02 * np.ptp(expected)
    noises, _ = layer_errors.measure(converted, float_counterpart(model, converted), Samples((samples[:4],)))
    assert noises[-1].op.startswith("SELECT")


def test_separations_become_quantize_ops(train, tmp_path):
    x = keras.Input((4, 4, 4))
    h = layers.Conv2D(4, 1)(x)
    model = keras.Model(x, ops.relu(h) + ops.minimum(h, 0.0))
    converted = convert(model, tmp_path / "model.tflite", calibration=train)
    assert [op.name for op in converted.graph.ops].count("QUANTIZE") == 1
    assert "LEAKY_RELU" not in [op.name for op in converted.graph.ops]


@pytest.mark.parametrize(
    ("mode", "quantizer"), [("full_int8", "tensorflow"), ("full_int8", "litert"), ("int16x8", "litert")]
)
def test_activations_between_casts_compute_in_integers(mode, quantizer, samples, train, tmp_path):
    x = keras.Input((4, 4, 4))
    h = layers.AveragePooling2D(2)(layers.Conv2D(4, 1, activation="elu")(x))
    h = ops.square(h) + ops.max(h, axis=(1, 2), keepdims=True)
    h = layers.LeakyReLU(0.2)(layers.Dense(3)(layers.Flatten()(h)))
    model = keras.Model(x, layers.ELU(0.5)(layers.Dense(3)(h)))
    converted = convert(model, tmp_path / "model.tflite", mode=mode, calibration=train, quantizer=quantizer)
    curve = "ELU" if mode == "full_int8" else "EXP"
    assert [op.name for op in converted.graph.ops if op.name in (curve, "LEAKY_RELU")] == [curve, "LEAKY_RELU", curve]
    expected = model.predict(samples[:8], verbose=0)
    received = np.concatenate([outputs(converted, sample[None])[0] for sample in samples[:8]])
    assert np.abs(received - expected).max() < 0.05 * np.ptp(expected)


def test_a_layer_that_is_kept_in_float_keeps_its_elu(train, tmp_path):
    x = keras.Input((4, 4, 4))
    h = layers.Conv2D(4, 1, name="conv")(x)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Activation("elu", name="curve")(h))))
    settings = QuantizerSettings(keep_float=("curve",))
    converted = convert(model, tmp_path / "model.tflite", calibration=train, quantizer=settings)
    assert [op for op in converted.float_ops if op.startswith("ELU")]


def test_layers_of_slices_have_counterparts_in_the_float_model(train, tmp_path):
    x = keras.Input((4, 4, 4))
    layer = layers.Conv2D(4, 1, name="conv")
    h = layer(x)
    layer.set_weights([layer.get_weights()[0] * np.float32([1, 1, 40, 40]), np.zeros(4)])
    model = keras.Model(x, [h[..., :2], h[..., 2:]])
    converted = convert(model, tmp_path / "model.tflite", calibration=train)
    assert [op.name for op in converted.graph.ops] == ["CONV_2D", "CONV_2D"]
    pairs = pair_ops(converted.graph, float_counterpart(model, converted).graph)
    assert [len(part) for part in pairs] == [2, 0, 0]


def test_models_without_such_layers_stay_as_they_are(converted):
    content = converted("float32").content
    assert channel_slices.separate(content, {}) is content
    assert rewriting.separate_operands(content) is content
    assert rewriting.replace_sums(content) is content
    assert rewriting.for_litert(content, int16=True) is content
    assert rewriting.use_general_additions(content) is content
    assert rewriting.drop_unreachable_limits(content) is content


def test_limit_out_of_reach_is_removed_and_any_other_kept(converted):
    editor = ModelEditor(converted("full_int8").content)
    op = next(op for op in editor.graph.operators if editor.name(op) == "CONV_2D")
    op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU_N1_TO_1
    scales = editor.tensors[int(op.outputs[0])].quantization
    for scale, expected in ((1e-2, "RELU_N1_TO_1"), (1e-10, "NONE")):
        scales.scale = np.float32([scale])
        found = ModelEditor(rewriting.drop_unreachable_limits(editor.pack()))
        op = next(op for op in found.graph.operators if found.name(op) == "CONV_2D")
        assert op.builtinOptions.fusedActivationFunction == getattr(schema.ActivationFunctionType, expected)


@pytest.mark.parametrize("mode", ["full_int8", "int16x8"])
def test_relu6_of_values_near_zero_converts(train, tmp_path, mode):
    small, large = (keras.initializers.RandomNormal(0, deviation) for deviation in (1e-8, 1e8))
    inputs = keras.Input((4, 4, 4))
    hidden = layers.Conv2D(4, 1, activation="relu6", kernel_initializer=small)(inputs)
    outputs = layers.Dense(3, kernel_initializer=large)(layers.Flatten()(hidden))
    converted = convert(
        keras.Model(inputs, outputs), tmp_path / "m.tflite", mode=mode, calibration=train, quantizer="litert"
    )
    assert converted.findings == ()


@pytest.mark.parametrize("mode", ["full_int8", "int16x8"])
def test_ranges_are_those_of_the_samples_although_ops_overwrite_their_inputs(mode, splits, tmp_path):
    inputs = keras.Input(splits.train.x.shape[1:])
    x = keras.layers.Dense(8, activation="relu", name="first")(keras.layers.Flatten()(inputs))
    x = keras.layers.Dense(8, name="second")(x) + 5.0 * keras.ops.flip(x, axis=1)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    quantized = convert(model, tmp_path / "m.tflite", mode=mode, calibration=splits.train)
    floats = convert(model, tmp_path / "f.tflite", mode="float32")
    samples = splits.train.sample(256, seed=0).x.astype("float32")
    names, steps = [tensor.name for tensor in floats.graph.tensors], 255 if mode == "full_int8" else 32767
    checked = 0
    for index, (low, high) in activation_ranges.extremes(floats.content, floats.graph, Samples((samples,))).items():
        for tensor in quantized.graph.tensors:
            if tensor.name == names[index] and "BiasAdd" not in tensor.name and tensor.scales:
                width = high - low if mode == "full_int8" else max(-low, high)
                assert tensor.scales[0] == pytest.approx(width / steps, rel=0.01)
                checked += 1
    assert checked >= 3
