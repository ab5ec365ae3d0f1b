"""Sequences that a .tflite takes chunk by chunk, against the Keras model that takes them whole."""

import keras
import numpy as np
import pytest

from tfkd import data, targets
from tfkd.conversion.converter import convert
from tfkd.errors import InputError, ModelError
from tfkd.targets import chunks
from tfkd.validation.validator import validate

STEPS, CHUNK = 12, 3
SPECS = ("host", "host:plain", "host:reference", "tflm")
LAYERS = {
    "lstm_op": lambda stateful, **options: keras.layers.LSTM(6, **options),
    "stateful_gru": lambda stateful, **options: keras.layers.GRU(6, stateful=stateful, unroll=stateful, **options),
}


@pytest.fixture(scope="module", params=[*LAYERS])
def streamed(request, tmp_path_factory):
    """A Keras model of whole sequences and a .tflite of chunks with its weights; both give an output for each step."""

    def build(steps, stateful):
        inputs = keras.Input((steps, 2), batch_size=1 if stateful else None)
        hidden = LAYERS[request.param](stateful, return_sequences=True)(inputs)
        return keras.Model(inputs, keras.layers.Dense(4, kernel_initializer="random_normal")(hidden))

    keras.utils.set_random_seed(0)
    whole, part = build(STEPS, False), build(CHUNK, True)
    part.set_weights(whole.get_weights())
    return whole, convert(part, tmp_path_factory.mktemp(request.param) / "m.tflite", mode="float32")


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).normal(size=(5, STEPS, 2)).astype("float32")


@pytest.mark.parametrize("spec", SPECS)
def test_chunks_of_a_sequence_give_the_outputs_of_the_whole(spec, streamed, sequences):
    whole, model = streamed
    (outputs,) = targets.get(spec).in_chunks().run(model, sequences, latency=False).outputs
    np.testing.assert_allclose(outputs, whole(sequences), rtol=1e-4, atol=1e-5)
    # The state must pass on, for else the outputs of a chunk would not depend on those before it.
    alone = targets.get(spec).run(model, sequences[:, -CHUNK:], latency=False).outputs[0]
    assert np.abs(alone - outputs[:, -CHUNK:]).max() > 1e-3


def test_emulated_core_computes_the_bits_of_tflm_on_chunks(sequences, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((CHUNK, 2))
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.LSTM(6)(inputs)))
    model = convert(model, tmp_path / "m.tflite", calibration=sequences.reshape(-1, CHUNK, 2))
    x = model.quantize_input(sequences)
    core, tflm = (targets.get(f"{spec},chunks=1").run(model, x) for spec in ("cortex-m4", "tflm"))
    np.testing.assert_array_equal(core.outputs[0], tflm.outputs[0])
    assert core.setting["chunks"] == STEPS // CHUNK
    assert (core.outputs[0] != targets.get("cortex-m4").run(model, x[:, -CHUNK:], latency=False).outputs[0]).any()


def test_sequences_stay_whole_where_cores_share_them(streamed, sequences, monkeypatch):
    whole, model = streamed
    monkeypatch.setattr("tfkd.targets.host._SMALLEST_SHARD", 1)
    (outputs,) = targets.get("host,chunks=1").run(model, sequences, latency=False).outputs
    np.testing.assert_allclose(outputs, whole(sequences), rtol=1e-4, atol=1e-5)


def test_validate_of_a_stream_compares_the_last_answer_with_the_whole(tmp_path):
    def build(steps):
        inputs = keras.Input((steps, 2))
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(6)(inputs)))

    whole, part = build(STEPS), build(CHUNK)
    part.set_weights(whole.get_weights())
    model = convert(part, tmp_path / "m.tflite", mode="float32")
    x = np.random.default_rng(0).normal(size=(60, STEPS, 2)).astype("float32")
    test = data.as_split((x, whole(x).numpy().argmax(-1)), "test", num_classes=3)
    found = validate(model, test, reference=whole, targets=["host", "tflm"], stream=True)
    streams = {row.target: row for row in found.rows if row.target}
    assert [row.accuracy for row in streams.values()] == [1.0, 1.0]
    assert [row.agreement for row in streams.values()] == [1.0, 1.0]
    assert [*streams] == ["host,chunks=1", "tflm,chunks=1"]
    with pytest.raises(InputError, match="cannot keep the state"):
        validate(model, test, targets=["ssh:board"], stream=True)
    with pytest.raises(ModelError, match="input shape"):
        validate(model, test, targets=["host"])


def test_sequences_of_another_form_are_refused(streamed):
    model = streamed[1]
    with pytest.raises(InputError, match="a multiple of 3"):
        chunks.count(model, (13, 2), "host")
    with pytest.raises(InputError, match=r"Received: \[12, 3\]"):
        chunks.count(model, (12, 3), "host")


def test_a_model_without_state_is_refused(tmp_path):
    inputs = keras.Input((3, 2))
    model = convert(keras.Model(inputs, keras.layers.Dense(2)(inputs)), tmp_path / "m.tflite", mode="float32")
    with pytest.raises(ModelError, match="keep a state"):
        targets.get("host,chunks=1").run(model, np.zeros((1, 6, 2), "float32"))
