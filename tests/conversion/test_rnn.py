"""Recurrent layers as ops that TensorFlow Lite and its Micro runtime have."""

import keras
import numpy as np
import pytest

from tfkd import data, targets
from tfkd.conversion import layer_errors, rnn
from tfkd.conversion.converter import convert

STEPS, FEATURES = 12, 5


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(300, STEPS, FEATURES)), axis=1).astype("float32") / 3
    y = (x[:, -1, 0] > 0).astype(int) + (x[:, -1, 1] > 0)
    return data.from_arrays((x[:250], y[:250]), (x[250:], y[250:]))


def built(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((STEPS, FEATURES)), *layers, keras.layers.Dense(3)])


def stacked():
    return built(keras.layers.LSTM(16, return_sequences=True), keras.layers.LSTM(8))


def difference(model, graph, x, target):
    """The largest difference to Keras, over the range of its outputs."""
    raw = targets.get(target).run(model, model.quantize_input(x), latency=False).outputs[0]
    expected = graph.predict(x, verbose=0)
    return np.abs(model.dequantize_output(raw) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("target", ["host", "tflm"])
@pytest.mark.parametrize(("mode", "most"), [("float32", 1e-5), ("full_int8", 0.1)])
def test_lstm_becomes_one_op_that_gives_the_same(mode, most, target, splits, tmp_path):
    graph = stacked()
    model = convert(graph, tmp_path / "m.tflite", mode=mode, calibration=splits.train)
    assert model.ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    assert "WHILE" not in model.ops
    assert model.is_quantized == (mode == "full_int8")
    assert difference(model, graph, splits.test.x, target) < most


def test_model_is_left_as_it_was(splits, tmp_path):
    graph = stacked()
    before, config = graph.predict(splits.test.x, verbose=0), graph.get_config()
    convert(graph, tmp_path / "m.tflite", mode="float32")
    assert all("call" not in vars(layer) for layer in graph.layers)
    np.testing.assert_array_equal(graph.predict(splits.test.x, verbose=0), before)
    assert graph.get_config() == config
    with pytest.raises(RuntimeError, match="stop"), rnn.exportable(graph, integers=True):
        raise RuntimeError("stop")
    assert all("call" not in vars(layer) for layer in graph.layers)


def test_lstm_inside_other_models_is_found(splits, tmp_path):
    graph = keras.Sequential([keras.Input((STEPS, FEATURES)), stacked()])
    assert convert(graph, tmp_path / "m.tflite", mode="float32").ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2


def test_bidirectional_lstm_gives_the_same(splits, tmp_path):
    graph = built(keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True)), keras.layers.Flatten())
    model = convert(graph, tmp_path / "m.tflite", mode="float32")
    assert model.ops["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    assert difference(model, graph, splits.test.x, "host") < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LSTM(4, activation="relu"),
        keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"),
        keras.layers.LSTM(4, use_bias=False),
    ],
    ids=["activation", "recurrent_activation", "use_bias"],
)
def test_lstm_of_another_kind_stays_a_loop_and_gives_the_same(layer, splits, tmp_path):
    graph = built(type(layer).from_config(layer.get_config()))
    model = convert(graph, tmp_path / "m.tflite", mode="float32")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" not in model.ops
    assert difference(model, graph, splits.test.x, "host") < 1e-5


def test_masked_lstm_keeps_its_mask(splits, tmp_path):
    graph = built(keras.layers.Masking(), keras.layers.LSTM(4))
    x = splits.test.x.copy()
    x[:, 8:] = 0
    assert difference(convert(graph, tmp_path / "m.tflite", mode="float32"), graph, x, "host") < 1e-5


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_layer_without_an_op_is_unrolled_for_integers(kind, splits, tmp_path):
    graph = built(getattr(keras.layers, kind)(6, name="memory"))
    model = convert(graph, tmp_path / "m.tflite", calibration=splits.train, allow_float=True)
    assert "WHILE" not in model.ops
    assert sum(model.ops.values()) > 3 * STEPS
    assert not graph.get_layer("memory").unroll
    assert difference(model, graph, splits.test.x, "host") < 0.15


def test_layer_of_too_many_steps_is_refused(tmp_path):
    graph = keras.Sequential([keras.Input((1000, 2)), keras.layers.GRU(3, name="memory"), keras.layers.Dense(2)])
    x = np.cumsum(np.random.default_rng(0).normal(size=(20, 1000, 2)), axis=1).astype("float32")
    split = data.from_arrays((x, np.arange(20) % 2), (x + 1, np.arange(20) % 2)).train
    with pytest.raises(ValueError, match=r"GRU 'memory' has no TensorFlow Lite op.* Received: 1000 steps"):
        convert(graph, tmp_path / "m.tflite", calibration=split)


def test_noise_of_a_fused_lstm_is_measured(splits, tmp_path):
    graph = stacked()
    modes = {
        mode: convert(graph, tmp_path / mode, mode=mode, calibration=splits.train) for mode in ("float32", "full_int8")
    }
    measured, unmatched = layer_errors.measure(modes["full_int8"], modes["float32"], splits.val.x[:8])
    assert unmatched == []
    assert [one.op for one in measured].count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 2
    assert all(one.sqnr_db > 15 for one in measured)
