"""Quantization-aware training: hand-computed rounding, layers against their operators, int4, a Distiller."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfkd
from tfkd import targets
from tfkd.conversion import converter
from tfkd.optimization import int4, optimize, qat
from tfkd.optimization.quantizers import FakeQuantize, QuantizedWeights, on_grid

pytestmark = pytest.mark.slow

HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
train, val, test = tfkd.data.load("digits")


def fit(model, callbacks=(), epochs=1, learning_rate=2e-3):
    model.compile(keras.optimizers.Adam(learning_rate), loss=HARD, metrics=["accuracy"])
    model.fit(train.batches(64, shuffle=True), epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def outputs(model, x):
    return np.asarray(model(x.astype("float32"), training=False))


def run(made, x):
    return made.dequantize_output(targets.get("host:plain").run(made, made.quantize_input(x), latency=False).outputs[0])


@pytest.fixture(scope="module")
def student(digits_student_file):
    return keras.saving.load_model(digits_student_file)


@pytest.fixture(scope="module")
def trained(student):
    """The student after one epoch of quantization-aware training, and its .tflite."""
    optimized = optimize(student, "qat")
    fit(optimized.model, optimized.callbacks)
    return optimized.model


def test_fake_quantize_is_the_hand_computed_rounding():
    x = np.array([-2.0, -1.0, -0.01, 0.0, 0.0079, 1.3, 3.0, 9.0])
    low, high = -1.0, 3.0
    step = (high - low) / 255
    zero = np.round(-low / step)  # 0 must be a step: the range moves a little
    expected = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    got = np.asarray(FakeQuantize((low, high))(x.astype("float32")))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_kernel_is_the_hand_computed_rounding():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    for bits, channels in itertools.product((4, 8), ((-1,), (-2,), (-2, -1))):
        rest = tuple(axis for axis in range(4) if axis - 4 not in channels)
        step = np.abs(kernel).max(axis=rest, keepdims=True) / (2 ** (bits - 1) - 1)
        got = np.asarray(on_grid(kernel.astype("float32"), channels, bits))
        np.testing.assert_allclose(got, np.round(kernel / step) * step, atol=1e-5)


def test_kernel_with_a_channel_of_zeros_stays_finite():
    assert not np.asarray(on_grid(np.zeros((3, 2), "float32"), (-1,), 8)).any()


def test_range_follows_the_batches_until_it_is_frozen():
    layer = FakeQuantize()
    x = np.array([[-1.0, 3.0]], "float32")
    np.testing.assert_array_equal(layer(x), x)  # nothing is known yet
    layer(x, training=True)
    assert (float(layer.low), float(layer.high)) == (-1.0, 3.0)
    layer(2 * x, training=True)
    np.testing.assert_allclose([layer.low, layer.high], [-1.01, 3.03], rtol=1e-6)
    layer(2 * x, training=False)
    layer.frozen.assign(1.0)
    layer(9 * x, training=True)
    np.testing.assert_allclose([layer.low, layer.high], [-1.01, 3.03], rtol=1e-6)


def test_range_holds_zero():
    layer = FakeQuantize()
    layer(np.array([[2.0, 3.0]], "float32"), training=True)
    assert (float(layer.low), float(layer.high)) == (0.0, 3.0)


def test_gradient_of_activations_is_1_within_the_range_and_0_beyond():
    layer = FakeQuantize()
    layer(np.array([[-1.0, 1.0]], "float32"), training=True)
    x = tf.constant([[-1.5, -0.5, 0.3, 0.999, 1.5]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x) * [1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 2, 3, 4, 0]])


def test_gradient_of_weights_is_straight_through():
    layer = QuantizedWeights(layers.Dense(2, use_bias=False), bits=4)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    layer(x)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(x) ** 2)
    rounded = np.asarray(on_grid(layer.layer.kernel, (-1,), 4), "float64")
    expected = 2 * x.astype("float64").T @ (x @ rounded)  # of the plain layer at the rounded kernel
    np.testing.assert_allclose(tape.gradient(y, layer.layer.kernel), expected, rtol=1e-4)


def test_weights_of_a_pruned_student_stay_zero():
    dense = layers.Dense(10, use_bias=False, name="logits")
    student = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 16), layers.Flatten(), dense])
    kernel = np.asarray(dense.kernel)
    pruned = np.abs(kernel) < np.median(np.abs(kernel))
    dense.set_weights([np.where(pruned, 0, kernel)])
    trained = np.asarray(fit(optimize(student, "qat").model).get_layer("logits").layer.kernel)
    assert not trained[pruned].any()
    assert np.abs(trained - kernel)[~pruned].max() > 1e-3


def every_image_layer():
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(image)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(12, 3, use_bias=False)(x)
    x = layers.ReLU(6.0, name="relu6")(layers.BatchNormalization(momentum=0.5)(x))
    a = layers.SeparableConv2D(12, 3, padding="same", activation="relu", depth_multiplier=2)(x)
    b = layers.DepthwiseConv2D(3, padding="same")(x)
    b = layers.LeakyReLU(0.1)(layers.BatchNormalization(momentum=0.5)(b))
    c = layers.Conv2D(12, 1, activation="hard_swish")(x)
    x = layers.ReLU()(layers.Add(name="sum")([a, b, c]))
    gate = layers.Conv2D(12, 1, activation="relu6")(layers.Dropout(0.1)(x))
    x = layers.Concatenate()([layers.Multiply()([x, gate]), layers.MaxPooling2D(2, 1, padding="same")(x)])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2DTranspose(10, 3, strides=2, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.5)(x))
    return keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))


def every_sequence_layer():
    """Sequential, with a functional model in it."""
    inner = keras.Input((8, 16))
    y = layers.SeparableConv1D(16, 3, padding="same")(inner)
    y = layers.LeakyReLU()(layers.BatchNormalization(momentum=0.5)(y))
    body = keras.Model(inner, layers.Subtract()([y, layers.DepthwiseConv1D(3, padding="same")(inner)]), name="body")
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Reshape((8, 8)),
            layers.Rescaling(1 / 16),
            layers.Conv1D(16, 3, padding="same", activation="relu"),
            body,
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 1, activation="leaky_relu"),
            layers.AveragePooling1D(2),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )


@pytest.mark.parametrize("build", [every_image_layer, pytest.param(every_sequence_layer, marks=pytest.mark.campaign)])
def test_tflite_predicts_the_labels_of_the_simulation(build, tmp_path):
    model = fit(build(), epochs=6, learning_rate=0.01)
    optimized = optimize(model, "qat")
    fit(optimized.model, optimized.callbacks, epochs=2)
    made = optimized.export(tmp_path / "q.tflite", calibration=train)
    assert made.is_quantized
    expected, got = outputs(optimized.model, test.x), run(made, test.x)
    assert np.mean(expected.argmax(1) == test.y) > 0.6
    assert np.mean(expected.argmax(1) == got.argmax(1)) >= 0.99
    # Closer than labels show: in steps of the output.
    steps = np.abs(expected - got) / made.outputs[0].scales[0]
    assert np.mean(steps) < 1.5
    assert steps.max() < 10
    # Ranges are those that were trained, not those of the calibration.
    ranges = {layer.name: layer for layer in optimized.model.layers if isinstance(layer, FakeQuantize)}
    last = list(ranges.values())[-1]
    assert made.outputs[0].scales[0] == pytest.approx((float(last.high) - float(last.low)) / 255, rel=1e-5)


def test_folding_keeps_outputs_and_names(student):
    model = optimize(student, "qat").model  # untrained: only its weights are rounded
    for layer in model.layers:
        if isinstance(layer, QuantizedWeights):
            layer.bits = 16
    np.testing.assert_allclose(outputs(model, test.x), outputs(student, test.x), atol=0.01)
    assert {layer.name for layer in student.layers} <= {layer.name for layer in model.layers}


@pytest.mark.campaign
def test_int4_weights_take_half_a_byte(student, tmp_path):
    optimized = optimize(student, "qat", weight_bits=4, int8_layers=["logits"])
    fit(optimized.model, optimized.callbacks, epochs=4)
    made = optimized.export(tmp_path / "q4.tflite", calibration=train)
    weights = [
        (op.name, made.graph.tensors[op.inputs[1]], made.graph.constants[op.inputs[1]])
        for op in made.graph.ops
        if op.name.endswith(("CONV_2D", "CONNECTED"))
    ]
    for name, tensor, size in weights:
        assert tensor.dtype == ("int4" if name == "CONV_2D" else "int8")
        assert size == -(-np.prod(tensor.shape) // (2 if name == "CONV_2D" else 1))
        values = made.weights()[tensor.name]
        assert values.shape == tensor.shape
        assert np.abs(values.astype("int16")).max() == (7 if name == "CONV_2D" else 127)
    expected, got = outputs(optimized.model, test.x), run(made, test.x)
    assert np.mean(expected.argmax(1) == got.argmax(1)) >= 0.99
    # Compared as the kernels round, and after it as trained again.
    assert qat.compare(optimized.model, made, test.x, "q4.tflite") >= 0.998
    np.testing.assert_array_equal(outputs(optimized.model, test.x), expected)
    micro = targets.get("tflm").run(made, made.quantize_input(test.x[:100]), latency=False).outputs[0]
    assert np.mean(micro.argmax(1) == got[:100].argmax(1)) >= 0.99
    assert int4.pack(made.content[:]) == int4.pack(int4.pack(made.content))  # once packed, nothing is left to do


def test_saved_model_becomes_the_same_constants(trained, tmp_path):
    trained.save(tmp_path / "q.keras")
    loaded = keras.saving.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(outputs(trained, val.x), outputs(loaded, val.x))
    fixed = [qat.constant(model) for model in (trained, loaded)]
    np.testing.assert_array_equal(*(outputs(model, val.x) for model in fixed))
    assert np.mean(outputs(fixed[0], val.x).argmax(1) == outputs(trained, val.x).argmax(1)) == 1


def test_divergence_from_the_tflite_is_an_error_that_names_the_layer(trained, tmp_path):
    high = trained.get_layer("block2_depthwise_relu_range").high
    kept = float(high)
    high.assign(kept / 20)  # the file gets another range than the model has
    fault = converter.convert(qat.constant(trained), tmp_path / "fault.tflite", calibration=train)
    high.assign(kept)
    with pytest.raises(ValueError, match=r"diverge at layer 'block2_depthwise_relu'"):
        qat.compare(trained, fault, val.sample(50, seed=0).x, "fault.tflite")


def test_export_before_training_is_refused(student, tmp_path):
    with pytest.raises(ValueError, match="'image_range' has no activation range"):
        optimize(student, "qat").export(tmp_path / "q.tflite", calibration=train)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "int16x8"}, "qat supports mode 'full_int8' only"),
        ({"calibration": None}, "needs a calibration split"),
        ({"calibration": test}, "needs a split with role train or val"),
    ],
)
def test_export_with_bad_input_leaves_no_file(trained, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        qat.export(trained, tmp_path / "q.tflite", **{"calibration": train, **options})
    assert not list(tmp_path.iterdir())


def test_existing_file_needs_overwrite(trained, tmp_path):
    (tmp_path / "q.tflite").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"q\.tflite already exists"):
        qat.export(trained, tmp_path / "q.tflite", calibration=train)


def test_layers_without_integer_form_are_named_together():
    image = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(name="first")(image)
    x = layers.Conv2D(4, 3, activation="gelu", name="curved")(x)
    x = layers.LayerNormalization(name="norm")(x)
    shared = layers.Conv2D(4, 1, name="twice")
    x = layers.ReLU(1.0, name="one")(shared(shared(x)))
    model = keras.Model(image, layers.Dense(10)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="qat does not support 6 layers") as caught:
        optimize(model, "qat")
    message = str(caught.value)
    for sentence in (
        "'first' (BatchNormalization) cannot be folded. Put it directly after",
        "'curved' (Conv2D) has the activation gelu. Use one of relu, relu6",
        "'norm' (LayerNormalization) has no integer form. Use BatchNormalization",
        "'twice' (Conv2D) is called more than once. Use a separate layer for each call.",
        "'one' (ReLU) is neither ReLU nor ReLU6. Use max_value=6",
    ):
        assert sentence in message


def test_layer_without_weights_may_be_called_again():
    image, again = keras.Input((8, 8, 1)), layers.ReLU(name="relu")
    x = again(layers.Conv2D(4, 3)(again(layers.Conv2D(4, 3)(image))))
    model = optimize(keras.Model(image, layers.Dense(10)(layers.Flatten()(x))), "qat").model
    assert {"relu", "relu_2"} <= {layer.name for layer in model.layers}


def test_norm_whose_input_has_another_reader_is_not_folded():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.Add()([x, layers.BatchNormalization(name="norm")(x)])
    with pytest.raises(ValueError, match=r"'norm' \(BatchNormalization\) cannot be folded"):
        optimize(keras.Model(image, layers.Dense(10)(layers.Flatten()(x))), "qat")


class Coded(keras.Model):
    def call(self, x):
        return x


def two_inputs():
    given = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(given, layers.Add()(given))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (Coded, "must be a built functional or Sequential model. Received: Coded"),
        (two_inputs, "must have one input and one output. Received: 2 and 1"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype="mixed_float16")]), "computes in float16"),
    ],
)
def test_model_that_cannot_be_read_is_refused(build, match):
    with pytest.raises(ValueError, match=match):
        optimize(build(), "qat")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weight_bits": 5}, "weight_bits must be 8 or 4. Received: weight_bits=5"),
        (
            {"weight_bits": 4, "int8_layers": ["nothing"]},
            "must match layers that would get 4 bits. Received: 'nothing'",
        ),
        ({"weight_bits": 4, "int8_layers": ["("]}, "must hold regular expressions. Received: '\\('"),
        ({"weight_bits": 4, "int8_layers": "logits"}, "must be a list of regular expressions. Received: 'logits'"),
    ],
)
def test_option_out_of_range_is_refused(student, options, match):
    with pytest.raises(ValueError, match=match):
        optimize(student, "qat", **options)


@pytest.mark.campaign
def test_distiller_with_stored_labels_and_features_trains_it(student, tmp_path):
    teacher = tfkd.models.digits_teacher((8, 8, 1), 10)
    store = tfkd.SoftLabels.build(tmp_path / "labels", teacher, train)
    optimized = optimize(student, "qat")
    before = optimized.model.get_weights()
    distiller = tfkd.Distiller(optimized.model, store, alpha=0.5)
    distiller.compile(keras.optimizers.Adam(1e-3), loss=HARD, metrics=["accuracy"])
    batches = train.batches(256, shuffle=True, soft_labels=store)
    logs = distiller.fit(batches, epochs=2, verbose=0, callbacks=list(optimized.callbacks)).history
    assert len(logs["soft_loss"]) == 2
    for layer in optimized.model.layers:
        if isinstance(layer, FakeQuantize):
            assert float(layer.high) > float(layer.low)
            assert float(layer.frozen) == 1.0  # of two epochs the second holds the ranges
    moved = [np.abs(a - b).max() for a, b in zip(before, optimized.model.get_weights(), strict=True)]
    assert np.count_nonzero(moved) > len(moved) / 2
    feature = tfkd.features.Feature(tfkd.losses.Hint(), student="block2_pointwise_bn", teacher="conv3_bn")
    tapped = tfkd.Distiller(optimized.model, teacher, features=[feature])
    tapped.compile("adam", loss=HARD)
    assert tapped.fit(train.x[:64].astype("float32"), train.y[:64], verbose=0).history["feature_loss"][0] > 0
