"""Code of the user: imported where it is named, and errors that name its file and line."""

import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd import cli, models
from tfkd.errors import InputError, ModelError
from tfkd.models import own_code

MODULE = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Scale(keras.layers.Layer):
    def call(self, x):
        return x / 16

def student(input_shape, num_classes, width=4, kind="relu", name=None):
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(width, activation=kind)(keras.layers.Flatten()(Scale()(inputs)))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name=name)

def nothing(input_shape, num_classes):
    return None

def broken(input_shape, num_classes):
    return 1 / 0
"""


@pytest.fixture
def mine(own_module):
    """The name of a module in the working directory."""
    yield own_module(MODULE)
    for key in [key for key in keras.saving.get_custom_objects() if key == "mine>Scale"]:
        keras.saving.get_custom_objects().pop(key)


def test_model_of_a_function_is_built_with_its_options(mine):
    built = own_code.build_model(f"{mine}:student", (8, 8, 1), 10, width=3, kind="tanh", name="own")
    assert (built.name, built.layers[3].activation.__name__) == ("own", "tanh")
    assert built.count_params() == 64 * 3 + 3 + 3 * 10 + 10
    assert [file.name for file in own_code.source_files([f"{mine}:student", "resnet8"])] == [f"{mine}.py"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none_such:student", "module 'none_such' does not exist in the working directory"),
        ("{mine}:none", "must have a function 'none'"),
        ("{mine}:nothing", "must return a Model. Received: NoneType"),
        ("{mine}:broken", r"raised ZeroDivisionError: .*\.py, line 18"),
        ("resnet9", "unknown model 'resnet9'"),
    ],
)
def test_wrong_function_is_refused(mine, name, message):
    with pytest.raises(InputError, match=message):
        own_code.build_model(name.format(mine=mine), (8, 8, 1), 10)


def test_module_that_raises_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "raises_when_imported.py").write_text("x = 1\nint('a')\n")
    with pytest.raises(InputError, match=r"raised ValueError: .*raises_when_imported.py, line 2"):
        own_code.allow(["raises_when_imported"])


RAISING = """
import keras
import tensorflow as tf

def augment(x, seed):
    return x + {}["none"]

def in_numpy(x, seed):
    def change(sample):
        raise ValueError("no such pixel")

    return tf.ensure_shape(tf.numpy_function(change, [x], tf.float32), x.shape)

def in_python(x, seed):
    return tf.ensure_shape(tf.py_function(lambda sample: sample + {}["none"], [x], tf.float32), x.shape)

class Callback(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        raise RuntimeError("the disk of the logs is away")
"""


@pytest.mark.parametrize(
    ("option", "name", "message", "line"),
    [
        ("--augment", "augment", "KeyError: 'none'", 6),
        ("--augment", "in_numpy", "ValueError: no such pixel", 10),
        ("--augment", "in_python", "KeyError: 'none'", 15),
        ("--callback", "Callback", "RuntimeError: the disk of the logs is away", 19),
    ],
)
def test_error_in_code_of_the_user_is_theirs_with_its_traceback(own_module, option, name, message, line):
    mine = own_module(RAISING)
    arguments = ["train", "digits_student", "--epochs", "1", "--out", "m.keras", option, f"{mine}:{name}"]
    ran = CliRunner().invoke(cli.app, arguments)
    assert ran.exit_code == 2, ran.output
    assert message in ran.stderr
    assert "Traceback" in ran.stderr
    assert "your own code raised this error: " in ran.stderr
    assert f"{mine}.py, line {line}. Correct it." in ran.stderr
    assert "inside tfkd" not in ran.stderr


def test_error_of_tfkd_beside_code_of_the_user_is_not_theirs(mine):
    own_code.find(f"{mine}:student")
    with pytest.raises(TypeError) as raised:
        own_code.source_files(None)
    assert own_code.raised_at(raised.value) is None


def test_command_imports_a_module_for_a_file_with_its_layers(mine, tmp_path):
    own_code.build_model(f"{mine}:student", (8, 8, 1), 10).save("student.keras")
    keras.saving.get_custom_objects().pop("mine>Scale")
    sys.modules.pop(mine)
    arguments = ["convert", "student.keras", "student.tflite", "--mode", "float32"]
    refused = CliRunner().invoke(cli.app, arguments)
    assert refused.exit_code == 2
    assert "--import" in refused.output
    done = CliRunner().invoke(cli.app, [*arguments, "--import", mine])
    assert done.exit_code == 0, done.output


def test_lambda_layers_are_loaded_only_where_they_are_allowed(tmp_path, monkeypatch):
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="--allow-lambda"):
        models.load(tmp_path / "lambda.keras")
    try:
        own_code.allow(lambdas=True)
        loaded = models.load(tmp_path / "lambda.keras")
    finally:  # Keras has no public way to turn safe mode on again
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)
    np.testing.assert_array_equal(loaded(np.ones((1, 3), "float32")), [[2, 2, 2]])
