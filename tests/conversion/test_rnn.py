"""Recurrent layers become ops of TensorFlow Lite and TensorFlow Lite Micro."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfkd import data, targets
from tfkd.conversion import layer_errors, rnn
from tfkd.conversion.converter import convert
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel

STEPS, FEATURES = 6, 5
# In shares of the outputs' range: the float kernels of LiteRT and TensorFlow sum in an order that depends on the CPU.
FLOAT_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(300, STEPS, FEATURES)), axis=1).astype("float32") / 3
    y = (x[:, -1, 0] > 0).astype(int) + (x[:, -1, 1] > 0)
    return data.from_arrays((x[:250], y[:250]), (x[250:], y[250:]))


@pytest.fixture(scope="module")
def stacked_model():
    """A model of two LSTM layers."""
    keras.utils.set_random_seed(0)  # module fixtures are made before the fixture that seeds each test
    return stacked()


@pytest.fixture(scope="module")
def converted(stacked_model, splits, tmp_path_factory):
    """A function that converts `stacked_model` in a mode."""
    folder = tmp_path_factory.mktemp("rnn")
    return functools.cache(lambda mode: convert(stacked_model, folder / mode, mode=mode, calibration=splits.train))


def built(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((STEPS, FEATURES)), *layers, keras.layers.Dense(3)])


def stacked():
    return built(keras.layers.LSTM(16, return_sequences=True), keras.layers.LSTM(8))


def difference(model, keras_model, x, target):
    """The largest difference to Keras, divided by the range of its outputs."""
    raw = targets.get(target).run(model, model.quantize_input(x), latency=False).outputs[0]
    expected = keras_model.predict(x, verbose=0)
    return np.abs(model.dequantize_output(raw) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("target", ["host", "tflm"])
@pytest.mark.parametrize(("mode", "limit"), [("float32", FLOAT_TOLERANCE), ("full_int8", 0.1)])
def test_lstm_becomes_one_op_with_the_same_outputs(mode, limit, target, splits, stacked_model, converted):
    model = converted(mode)
    assert model.ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    assert "WHILE" not in model.ops
    assert model.is_quantized == (mode == "full_int8")
    assert difference(model, stacked_model, splits.test.x, target) < limit


def test_model_is_unchanged_after_conversion(splits, tmp_path):
    keras_model = stacked()
    before, config = keras_model.predict(splits.test.x, verbose=0), keras_model.get_config()
    convert(keras_model, tmp_path / "m.tflite", mode="float32")
    assert all("call" not in vars(layer) for layer in keras_model.layers)
    np.testing.assert_array_equal(keras_model.predict(splits.test.x, verbose=0), before)
    assert keras_model.get_config() == config
    with pytest.raises(RuntimeError, match="stop"), rnn.exportable(keras_model, integers=True):
        raise RuntimeError("stop")
    assert all("call" not in vars(layer) for layer in keras_model.layers)


def test_lstm_that_keeps_its_state_has_a_finding_with_a_remedy(converted, splits):
    model = converted("float32")
    (finding,) = model.findings
    assert "keeps its state from one run to the next" in finding
    interpreter = Interpreter(model_content=model.content)
    interpreter.allocate_tensors()
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for reset in (False, False, True):
        if reset:
            interpreter.reset_all_variables()
        interpreter.set_tensor(given["index"], splits.test.x[:1])
        interpreter.invoke()
        results.append(interpreter.get_tensor(returned["index"]))
    assert not np.array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_lstm_inside_a_nested_model_becomes_one_op(splits, tmp_path):
    keras_model = keras.Sequential([keras.Input((STEPS, FEATURES)), stacked()])
    assert convert(keras_model, tmp_path / "m.tflite", mode="float32").ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2


def test_bidirectional_lstm_has_the_same_outputs(splits, tmp_path):
    keras_model = built(keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True)), keras.layers.Flatten())
    model = convert(keras_model, tmp_path / "m.tflite", mode="float32")
    assert model.ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    assert difference(model, keras_model, splits.test.x, "host") < FLOAT_TOLERANCE


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LSTM(4, activation="relu"),
        keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"),
        keras.layers.LSTM(4, use_bias=False),
    ],
    ids=["activation", "recurrent_activation", "use_bias"],
)
def test_lstm_with_other_settings_stays_a_loop_with_the_same_outputs(layer, splits, tmp_path):
    keras_model = built(type(layer).from_config(layer.get_config()))
    model = convert(keras_model, tmp_path / "m.tflite", mode="float32")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" not in model.ops
    assert difference(model, keras_model, splits.test.x, "host") < FLOAT_TOLERANCE


def test_masked_lstm_keeps_its_mask(splits, tmp_path):
    keras_model = built(keras.layers.Masking(), keras.layers.LSTM(4))
    x = splits.test.x.copy()
    x[:, 4:] = 0
    assert (
        difference(convert(keras_model, tmp_path / "m.tflite", mode="float32"), keras_model, x, "host")
        < FLOAT_TOLERANCE
    )


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_layer_without_an_op_is_unrolled_for_integer_modes(kind, splits, tmp_path):
    keras_model = built(getattr(keras.layers, kind)(6, name="memory"))
    model = convert(keras_model, tmp_path / "m.tflite", calibration=splits.train, allow_float=True)
    assert "WHILE" not in model.ops
    assert sum(model.ops.values()) > 3 * STEPS
    assert not keras_model.get_layer("memory").unroll
    assert difference(model, keras_model, splits.test.x, "host") < 0.15


def test_layer_with_too_many_steps_is_refused(tmp_path):
    keras_model = keras.Sequential([keras.Input((1000, 2)), keras.layers.GRU(3, name="memory"), keras.layers.Dense(2)])
    x = np.cumsum(np.random.default_rng(0).normal(size=(20, 1000, 2)), axis=1).astype("float32")
    split = data.from_arrays((x, np.arange(20) % 2), (x + 1, np.arange(20) % 2)).train
    with pytest.raises(ValueError, match=r"GRU 'memory' of 1000 steps: .*at most 256 steps"):
        convert(keras_model, tmp_path / "m.tflite", calibration=split)


def test_noise_of_a_fused_lstm_is_measured(splits, converted):
    noises, unmatched = layer_errors.measure(converted("full_int8"), converted("float32"), Samples((splits.val.x[:8],)))
    assert unmatched == []
    assert [noise.op for noise in noises].count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 2
    assert all(noise.sqnr_db > 15 for noise in noises)


def test_lstm_with_a_small_cell_state_has_the_same_outputs_on_all_engines(splits, tmp_path):
    # The outputs of these weights vary enough between samples for a bound in shares of their range.
    keras.utils.set_random_seed(2)
    layer = keras.layers.LSTM(6)
    keras_model = built(layer)
    kernel, recurrent, bias = layer.get_weights()
    layer.set_weights([kernel * 0.1, recurrent, bias])
    model = convert(keras_model, tmp_path / "m.tflite", calibration=splits.train)
    assert cell_scale(model.content)[0] == 2.0**-15
    for target in ("host", "host:reference", "tflm"):
        assert difference(model, keras_model, splits.test.x, target) < 0.05


def cell_scale(content):
    """The scale of the cell state of the first LSTM, as an array that refers to the file."""
    subgraph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    model = TFLiteModel.load(bytes(content))
    op = next(op for op in model.graph.ops if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM")
    return subgraph.Tensors(op.inputs[19]).Quantization().ScaleAsNumpy()


def test_cell_scale_changes_only_where_litert_needs_it(converted):
    content = converted("full_int8").content
    assert rnn.align_lstm_scales(content) == content
    small = bytearray(content)
    cell_scale(small)[:] = 2.0**-18
    assert cell_scale(rnn.align_lstm_scales(bytes(small)))[0] == 2.0**-15
    large = bytearray(content)
    cell_scale(large)[:] = 2.0**-8
    with pytest.raises(ValueError, match=r"cell state of the LSTM .* is beyond -64..64"):
        rnn.align_lstm_scales(bytes(large))


def bidirectional():
    """Two bidirectional LSTMs: the first one adds both directions, the second one concatenates them."""
    lstm = functools.partial(keras.layers.LSTM, return_sequences=True)
    return built(keras.layers.Bidirectional(lstm(6), merge_mode="sum"), keras.layers.Bidirectional(lstm(4)))


def gru_pair():
    return built(keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True)), keras.layers.Flatten())


def beside_a_feature():
    inputs = keras.Input((STEPS, FEATURES))
    summary = keras.layers.Bidirectional(keras.layers.LSTM(4))(inputs)
    joined = keras.layers.Concatenate()([summary, keras.layers.Flatten()(inputs)])
    return keras.Model(inputs, keras.layers.Dense(3)(joined))


def gru_with_initial_state():
    """The state comes from another layer, as in image captioning."""
    inputs = keras.Input((STEPS, FEATURES))
    state = keras.layers.Dense(6, activation="tanh")(inputs[:, 0])
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GRU(6)(inputs, initial_state=state)))


def encoder_and_decoder():
    inputs = keras.Input((STEPS, FEATURES))
    _, hidden, cell = keras.layers.LSTM(6, return_state=True)(inputs)
    steps = keras.layers.RepeatVector(3)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(6)(steps, initial_state=[hidden, cell])))


def cells():
    return built(keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.GRUCell(5)]))


def convolutional():
    inputs = keras.Input((STEPS, FEATURES))
    images = keras.layers.Reshape((2, 3, FEATURES))(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.ConvLSTM1D(3, 2)(images))))


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        pytest.param(bidirectional, "full_int8", marks=pytest.mark.campaign),
        pytest.param(gru_pair, "full_int8", marks=pytest.mark.campaign),
        (beside_a_feature, "full_int8"),
        pytest.param(stacked, "int16x8", marks=pytest.mark.campaign),
        (gru_with_initial_state, "int16x8"),
        pytest.param(encoder_and_decoder, "full_int8", marks=pytest.mark.campaign),
        pytest.param(cells, "full_int8", marks=pytest.mark.campaign),
        pytest.param(convolutional, "full_int8", marks=pytest.mark.campaign),
    ],
)
def test_recurrent_layers_in_integers_have_the_same_outputs_on_all_engines(build, mode, splits, tmp_path):
    keras.utils.set_random_seed(0)
    keras_model = build()
    model = convert(keras_model, tmp_path / "m.tflite", mode=mode, calibration=splits.train)
    assert model.is_quantized
    x = splits.test.x[:8]
    for target in ("host", "tflm"):
        assert difference(model, keras_model, x, target) < (0.02 if mode == "int16x8" else 0.1)


class Doubling(keras.layers.LSTM):
    """An LSTM whose own `call` must not be replaced."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(2 * sequences, initial_state=initial_state, mask=mask, training=training)


def test_subclass_of_lstm_keeps_its_own_call(splits, tmp_path):
    keras_model = built(Doubling(4))
    made = convert(keras_model, tmp_path / "m.tflite", mode="float32")
    assert difference(made, keras_model, splits.test.x[:8], "host") < FLOAT_TOLERANCE


def masked(splits):
    """A model with a masked LSTM, and training samples whose last steps are masked."""
    x = splits.train.x.copy()
    x[:, 4:] = 0
    keras_model = built(keras.layers.Masking(name="skip"), keras.layers.LSTM(4))
    return keras_model, dataclasses.replace(splits.train, x=x)


def test_masked_lstm_in_integers_names_remedies_that_work(splits, tmp_path):
    keras_model, split = masked(splits)
    x = split.x
    refused = (
        r"floating point in NOT_EQUAL \(layer 'skip' or before it\)\. .*pass allow_float=True.*quantizer='litert': "
        "it was tried"
    )
    with pytest.raises(ValueError, match=refused):
        convert(keras_model, tmp_path / "m", calibration=split)
    refused = r"NOT_EQUAL \(layer 'skip'\), .* cannot be quantized to int16. .*mode='dynamic_range'"
    with pytest.raises(ValueError, match=refused):
        convert(keras_model, tmp_path / "m", mode="int16x8", calibration=split)
    made = convert(keras_model, tmp_path / "m0", calibration=split, quantizer="litert")
    assert made.is_quantized
    assert difference(made, keras_model, x[:8], "host") < 0.1


@pytest.mark.campaign  # the remedies beside the one of the test before
def test_other_remedies_of_a_masked_lstm_work(splits, tmp_path):
    keras_model, split = masked(splits)
    x = split.x
    options = {"mode": "int16x8", "calibration": split, "allow_float": True, "check": False}
    with pytest.raises(ValueError, match=r"input 0 stays in floating point.*Pass float_io=True"):
        convert(keras_model, tmp_path / "m", **options)
    made = convert(keras_model, tmp_path / "m3", float_io=True, **options)
    assert difference(made, keras_model, x[:8], "host") < 0.02
    made = convert(keras_model, tmp_path / "m1", calibration=split, allow_float=True)
    assert difference(made, keras_model, x[:8], "host") < 0.1
    made = convert(keras_model, tmp_path / "m2", mode="dynamic_range")
    assert difference(made, keras_model, x[:8], "host") < 0.01


def test_no_recurrent_layer_uses_cudnn_in_an_export(stacked_model):
    with rnn.exportable(stacked_model, integers=False):
        assert [layer.use_cudnn for layer in stacked_model.layers[:2]] == [False, False]
    assert [layer.use_cudnn for layer in stacked_model.layers[:2]] == ["auto", "auto"]


@pytest.mark.parametrize(("mode", "limit"), [("float32", 1e-3), ("full_int8", 0.1)])
def test_cell_states_beyond_ten_are_those_of_keras(mode, limit, tmp_path):
    """A cell counts up for 12 steps and down for as many: a limit on the way would shift the end.

    Weights of one unit that are 0 have the shape of a state; and their biases need other steps in integers.
    """
    layer = keras.layers.LSTM(1)
    model = keras.Sequential([keras.Input((24, 1)), layer])
    gates = np.float32([50, 50, 0, 50])  # input, forget and output gate are open
    layer.set_weights([np.float32([[0, 0, 3, 0]]), np.zeros((1, 4), "float32"), gates])
    x = np.repeat(np.float32([1, -1]), 12)[None, :, None] * np.linspace(0.7, 1, 64, dtype="float32")[:, None, None]
    x[:, -1, 0] = np.linspace(-0.5, 0.5, 64)
    converted = convert(model, tmp_path / "m.tflite", mode=mode, calibration=(x, np.arange(64) % 2))
    if mode == "full_int8":
        assert cell_scale(converted.content)[0] == 2.0**-11  # -16..16: each sample starts with a state of 0
    for target in ("host", "tflm"):
        assert difference(converted, model, x, target) < limit


def test_dropout_of_a_cell_leaves_no_random_generator_in_the_file(splits, tmp_path):
    layer = keras.layers.Bidirectional(keras.layers.GRU(4, dropout=0.3, recurrent_dropout=0.2))
    model = built(layer)
    made = convert(model, tmp_path / "m.tflite", mode="float32")
    assert not {"VAR_HANDLE", "ASSIGN_VARIABLE"} & {*made.ops}
    assert difference(made, model, splits.test.x[:8], "host") < FLOAT_TOLERANCE
    assert (layer.backward_layer.cell.dropout, layer.backward_layer.cell.recurrent_dropout) == (0.3, 0.2)
