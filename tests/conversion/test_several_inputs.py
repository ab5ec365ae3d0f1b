"""Calibration of models with several inputs, from each form of data that Keras takes for them."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tests.conversion.execution import outputs
from tfkd import cli, data
from tfkd.conversion import input_samples
from tfkd.conversion.converter import convert
from tfkd.conversion.export import export
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.data.model_inputs import ModelInput
from tfkd.errors import InputError, ModelError

COUNT = 128


@pytest.fixture(scope="module")
def arrays():
    """Inputs of different shapes and ranges, whose alphabetical order is not that of the model."""
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.normal(size=(COUNT, 6, 3)), axis=1).astype("float32")
    return {"signal": signal, "features": (50 * rng.normal(size=(COUNT, 4))).astype("float32")}


@pytest.fixture(scope="module")
def model():
    """A convolution of the first input beside the second; the order of the inputs is not alphabetical."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6, 3), name="signal"), keras.Input((4,), name="features")]
    filtered = keras.layers.Conv1D(5, 3, activation="relu", name="filter")(inputs[0])
    joined = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling1D()(filtered), inputs[1] / 50.0])
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(joined), name="pair")


def error(model, converted, arrays):
    """The largest error on 16 samples, as a share of the range of the output."""
    some = [array[:16] for array in arrays.values()]
    expected = model.predict(some, verbose=0)
    rows = [outputs(converted, *(array[row : row + 1] for array in some))[0] for row in range(16)]
    return np.abs(np.concatenate(rows) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize(
    ("mode", "quantizer", "refine"),
    [
        ("full_int8", "tensorflow", True),
        ("full_int8", "litert", False),
        ("int16x8", "tensorflow", False),
        ("int16x8", "litert", False),
        ("full_int8", QuantizerSettings(ranges="mse"), False),
    ],
)
def test_integers_agree_with_the_model(model, arrays, tmp_path, mode, quantizer, refine):
    path = tmp_path / "m.tflite"
    converted = convert(model, path, mode=mode, quantizer=quantizer, calibration=arrays, refine=refine)
    assert [tensor.shape for tensor in converted.inputs] == [(1, 6, 3), (1, 4)]
    assert converted.findings == ()
    assert error(model, converted, arrays) < (0.03 if mode == "full_int8" else 0.01)
    steps = [tensor.scales[0] for tensor in converted.inputs]
    for step, array in zip(steps, arrays.values(), strict=True):
        span = np.ptp(array) / 255 if mode == "full_int8" else np.abs(array).max() / 32767
        assert step == pytest.approx(span, rel=0.01)
    audit = converted.audit
    assert (audit.samples, audit.saturation, audit.classes_total) == (COUNT, 0, 0)
    assert audit.minimum == min(array.min() for array in arrays.values())


def test_saved_model_takes_a_dict_by_its_names(model, arrays, tmp_path):
    model.export(str(tmp_path / "saved"), verbose=False)
    converted = convert(tmp_path / "saved", tmp_path / "m.tflite", calibration=arrays)
    assert [tensor.shape for tensor in converted.inputs] == [(1, 6, 3), (1, 4)]
    assert error(model, converted, arrays) < 0.03
    wrong = {"signal": arrays["signal"], "others": arrays["features"]}
    with pytest.raises(ModelError, match="an array for each input, features, signal. Received: others, signal"):
        convert(tmp_path / "saved", tmp_path / "n.tflite", calibration=wrong)


def test_ranges_inside_an_lstm_are_those_of_its_input(arrays, tmp_path):
    """The converter itself calibrates the tensors inside an LSTM, and must feed each input its samples."""
    inputs = [keras.Input((6, 3), name="signal"), keras.Input((4,), name="features")]
    state = keras.layers.LSTM(4)(inputs[0])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()([state, inputs[1] / 50.0])))
    converted = convert(model, tmp_path / "m.tflite", calibration=tuple(arrays.values()))
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in converted.ops
    assert error(model, converted, arrays) < 0.05


class Batches(keras.utils.PyDataset):
    """Batches of 32 samples with labels and weights."""

    def __init__(self, arrays):
        super().__init__()
        self._arrays = arrays

    def __len__(self):
        return COUNT // 32

    def __getitem__(self, index):
        rows = slice(32 * index, 32 * index + 32)
        return {name: array[rows] for name, array in self._arrays.items()}, np.zeros(32), np.ones(32)


FORMS = {
    "dict": lambda x, y: x,
    "dict and labels": lambda x, y: (x, y),
    "tuple": lambda x, y: tuple(x.values()),
    "list": lambda x, y: [*x.values()],
    "tuple and labels": lambda x, y: (tuple(x.values()), y),
    "batches of dicts": lambda x, y: tf.data.Dataset.from_tensor_slices(x).batch(50),
    "single dicts with labels": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)),
    "batches of tuples with labels": lambda x, y: tf.data.Dataset.from_tensor_slices((tuple(x.values()), y)).batch(50),
    "PyDataset": lambda x, y: Batches(x),
    "Stream": lambda x, y: data.Stream(lambda: iter([(x, y)]), samples=COUNT),
    "representative_dataset": lambda x, y: (
        lambda: ([array[row : row + 1] for array in x.values()] for row in range(COUNT))
    ),
}


@pytest.fixture(scope="module")
def forms(model, tmp_path_factory):
    """What the conversion knows of the inputs of the model."""
    return export(model, tmp_path_factory.mktemp("saved") / "m", integers=True, lstm_op=False).forms


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(forms, arrays, form):
    read = input_samples.read(FORMS[form](arrays, np.zeros(COUNT)), forms, COUNT)
    assert read.names == ("signal", "features")
    for found, array in zip(read.arrays, arrays.values(), strict=True):
        np.testing.assert_array_equal(found, array)


def test_rows_of_a_draw_belong_together(forms, arrays):
    marked = {name: array.copy() for name, array in arrays.items()}
    for array in marked.values():
        array.reshape(COUNT, -1)[:, 0] = np.arange(COUNT)
    read = input_samples.read(tf.data.Dataset.from_tensor_slices(marked).repeat().batch(7), forms, 40)
    first = [array.reshape(40, -1)[:, 0] for array in read.arrays]
    np.testing.assert_array_equal(first[0], first[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"signal": x["signal"]}, "the 2 inputs 'signal' of shape .6, 3., 'features' of shape .4,.*'signal'"),
        (lambda x: tuple(reversed(x.values())), r"a tuple of an array of shape \(128, 4\)"),
        (lambda x: x["signal"], "for each of the 2 inputs"),
        (lambda x: {**x, "signal": x["signal"][:, :5]}, r"numbers for the input 'signal' of shape \(6, 3\).*128, 5, 3"),
        (
            lambda x: {**x, "signal": x["signal"][:5]},
            "as many samples for each input. Received: 5 of 'signal', 128 of 'features'",
        ),
        (lambda x: {**x, "signal": x["signal"] * np.nan}, "NaN or infinity for the input 'signal'"),
        (lambda x: lambda: iter(()), "must have samples. Received: none"),
    ],
    ids=["missing", "order", "one", "shape", "lengths", "nan", "empty"],
)
def test_data_that_do_not_fit_are_refused(forms, arrays, change, message):
    with pytest.raises(InputError, match=message):
        input_samples.read(change(arrays), forms, COUNT)


def test_tokens_must_be_whole(arrays):
    tokens = ModelInput("tokens", ("tokens",), (4,), "int32")
    with pytest.raises(InputError, match="values that int32 holds for the input 'tokens'"):
        input_samples.read((arrays["features"],), [tokens], COUNT)
    whole = np.round(arrays["features"])
    (read,) = input_samples.read((whole,), [tokens], COUNT).arrays
    assert (read.dtype, read.tolist()) == ("int32", whole.tolist())


@pytest.mark.parametrize("calibration", [None, "split"], ids=["none", "split"])
def test_missing_samples_name_the_inputs(model, tmp_path, calibration):
    given = data.load("digits").train if calibration else None
    with pytest.raises(InputError, match="signal.*features.*dict.*npz"):
        convert(model, tmp_path / "m.tflite", calibration=given)


def test_command_reads_an_array_for_each_input(model, arrays, tmp_path):
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "c.npz", **arrays, y=np.zeros(COUNT))
    names = [str(tmp_path / name) for name in ("m.keras", "m.tflite", "c.npz")]
    arguments = ["convert", *names[:2], "--calibration", names[2]]
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["findings"] == []
    done = CliRunner().invoke(cli.app, [*arguments, "--overwrite", "--golden", "3"])
    assert done.exit_code == 2
    assert "need a data set with labels" in done.output


def test_arrays_by_name_for_one_input_are_refused(splits, student, arrays, tmp_path):
    with pytest.raises(InputError, match="a model with one input must be a split.*arrays by name, signal, features"):
        convert(student, tmp_path / "m.tflite", calibration=arrays)
