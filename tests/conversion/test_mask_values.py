"""Masked attention in integers: the number behind a mask does not set the scale of the scores."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfkd
from tfkd import micro
from tfkd.conversion import mask_values
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.targets import get
from tfkd.validation.task_results import real_outputs

TOKENS = np.random.default_rng(0).integers(1, 20, (64, 6)).astype(np.int32)
TOKENS[np.arange(6) >= np.arange(64)[:, None] % 6 + 1] = 0  # one to six tokens, and padding
DATA = (TOKENS, np.arange(64) % 4)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0))(tokens)
    real = keras.ops.not_equal(tokens, 0)[:, None, :]
    x = keras.layers.MultiHeadAttention(2, 8, name="attention")(x, x, attention_mask=real)
    return keras.Model(tokens, keras.layers.Dense(4)(keras.layers.Reshape((48,))(x)))


@pytest.fixture(scope="module")
def floats(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "float32.tflite"
    return tfkd.convert(model, path, mode="float32", calibration=DATA).content


@pytest.mark.parametrize("quantizer", ["tensorflow", "litert"])
def test_masked_attention_keeps_its_scores_in_8_bits(model, quantizer, tmp_path):
    converted = tfkd.convert(model, tmp_path / "m.tflite", mode="full_int8", calibration=DATA, quantizer=quantizer)
    tokens = np.concatenate([TOKENS, np.zeros_like(TOKENS[:1])])  # the last with scores that are all masked
    outputs = get("host").run(converted, converted.quantize_input(tokens), latency=False).outputs[0]
    expected = model.predict(tokens, verbose=0)
    error = np.abs(real_outputs(converted, outputs).reshape(expected.shape) - expected).max()
    assert error < 0.05 * np.ptp(expected)
    assert "LOGICAL_AND" in " ".join(micro.emit(converted).steps)


def values(content):
    editor = ModelEditor(content)
    (op,) = (op for op in editor.graph.operators if editor.name(op) in ("SELECT", "SELECT_V2"))
    return editor.constant(int(op.inputs[2]))


@pytest.mark.parametrize("steps", [2**8, 2**15], ids=["8 bits", "16 bits"])
def test_masked_scores_have_no_step_of_probability(floats, steps):
    limited = mask_values.limit(floats, Samples((TOKENS,)), int16=steps > 256)
    least = values(limited).item()
    assert values(floats).item() < -1e30
    assert -40 < least < -np.log(2 * steps * 6) < 0
    assert 6 * np.exp(least) < 0.5 / steps  # five masked scores beside one of 0
    assert mask_values.limit(limited, Samples((TOKENS,)), int16=steps > 256) == limited


def test_mask_beside_a_loop_is_kept(tmp_path):
    """LiteRT does not show the tensors of a loop, so that the ranges of the scores are unknown."""
    x = keras.Input((6, 4))
    scores = keras.ops.where(x > 0, keras.layers.Dense(4)(x), -1e9)
    looped = keras.layers.LSTM(4, activation="relu")(keras.layers.Softmax()(scores))
    content = tfkd.convert(keras.Model(x, looped), tmp_path / "m.tflite", mode="float32").content
    assert {"SOFTMAX", "WHILE"} <= {*TFLiteModel(content).ops}
    assert mask_values.limit(content, Samples((np.ones((8, 6, 4), np.float32),)), int16=False) is content


def test_selection_without_a_softmax_is_kept(tmp_path):
    x = keras.Input((4,))
    selected = keras.ops.where(x > 0, x, -1e9)
    kept = keras.Model(x, keras.layers.Softmax()(keras.layers.Dense(3)(x)) + keras.layers.Dense(3)(selected))
    content = tfkd.convert(kept, tmp_path / "m.tflite", mode="float32", calibration=np.ones((8, 4))).content
    assert {"SOFTMAX", "SELECT_V2"} <= {*TFLiteModel(content).ops}
    assert mask_values.limit(content, Samples((np.ones((8, 4), np.float32),)), int16=False) is content


def added(form):
    """Attention with a mask that is multiplied by a number and added to the scores; and calibration samples."""
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((6, 4), name="x"), keras.Input((6,), name="mask")
    query, key, value = (keras.layers.Dense(4)(x) for _ in range(3))
    scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1)))
    attention = keras.layers.Softmax()(form(scores, mask[:, None, :]))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.ops.matmul(attention, value)))
    real = (TOKENS != 0).astype("float32")
    return keras.Model([x, mask], outputs), {"x": np.random.default_rng(1).normal(size=(64, 6, 4)), "mask": real}


@pytest.mark.parametrize(
    "form",
    [
        lambda scores, mask: scores + (1.0 - mask) * -1e9,
        lambda scores, mask: scores - 1e4 * (1.0 - mask),
        lambda scores, mask: scores * mask + (mask - 1.0) * 1e9,
    ],
    ids=["added", "subtracted", "multiplied and added"],
)
def test_added_mask_keeps_its_scores_in_8_bits(form, tmp_path):
    model, samples = added(form)
    # The comparison with the Keras model refuses a file whose attention is the same for each token.
    assert tfkd.convert(model, tmp_path / "m.tflite", calibration=samples).is_quantized


def test_added_numbers_that_are_no_mask_are_kept(tmp_path):
    model, samples = added(lambda scores, mask: scores + (mask - 0.5) * 1e3)  # scores of real tokens rise
    content = tfkd.convert(model, tmp_path / "m.tflite", mode="float32").content
    arrays = tuple(values.astype("float32") for values in samples.values())
    assert mask_values.limit(content, Samples(arrays), int16=False) is content


def test_added_mask_of_token_ids_computes_in_integers(tmp_path):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0))(tokens)
    real = keras.ops.cast(keras.ops.not_equal(tokens, 0), "float32")[:, None, :]
    query, key, value = (keras.layers.Dense(8)(x) for _ in range(3))
    scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1))) + (1.0 - real) * -1e9
    x = keras.ops.matmul(keras.layers.Softmax()(scores), value)
    model = keras.Model(tokens, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    converted = tfkd.convert(model, tmp_path / "m.tflite", calibration=DATA)
    assert converted.float_ops == ()
    assert "CAST" not in converted.ops
    ran = [get(name).run(converted, TOKENS[:8], latency=False).outputs[0] for name in ("tflm", "cortex-m4")]
    np.testing.assert_array_equal(*ran)
