"""Files of Keras 2: they load with the same outputs, or the message names the version and a remedy that works."""

import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.conversion.converter import convert

tf_keras = pytest.importorskip("tf_keras")
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def functional(shape, *layers):
    """A functional model of Keras 2."""
    x = inputs = tf_keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return tf_keras.Model(inputs, x)


def recurrent():
    layers = tf_keras.layers
    return functional((4, 3), layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(2))


def convolutional():
    layers = tf_keras.layers
    return tf_keras.Sequential([layers.DepthwiseConv2D(3, input_shape=(4, 4, 2)), layers.RandomFlip()])


def scaled():
    """A backbone behind the scaling of keras.applications, with operators and functions of TensorFlow."""
    layers = tf_keras.layers
    inputs = tf_keras.Input((4, 4, 3))
    x = inputs / 127.5 - 1.0
    x = layers.Conv2D(4, 1, name="block/conv")(x)
    x = tf.gather(x * tf.nn.relu6(x + 3.0) / 6.0, [2, 0, 3, 1], axis=3)
    x = tf.concat([x, 1.0 - x, tf.nn.softmax(x), tf.clip_by_value(x, 0.0, 1.0)], axis=-1)
    x = tf.stack([tf.reduce_mean(x, [1, 2]), x[:, 0, 1], tf.reduce_max(x, axis=(1, 2))], axis=1)
    x = tf.squeeze(tf.reshape(x[:, :, ::2], (-1, 3, 8, 1)), axis=3) + tf.expand_dims(x[:, -1, 8:], 1)
    x = tf.matmul(tf.maximum(-x, 0.1 * x) ** 2, tf.transpose(x, [0, 2, 1]))
    return tf_keras.Model(inputs, layers.Dense(3, name="head/dense")(layers.Flatten()(x)))


def attention():
    layers = tf_keras.layers
    inputs = tf_keras.Input((6, 4))
    x = layers.LayerNormalization()(inputs)
    x = inputs + layers.MultiHeadAttention(num_heads=2, key_dim=3)(x, x)
    memory, *state = layers.LSTM(4, return_state=True)(x)
    return tf_keras.Model(
        inputs, layers.LSTM(3)(x, initial_state=[layers.Dense(3)(one) for one in state]) + memory[:, :3]
    )


def normalized():
    """A model in a model, with layers of equal classes in both."""
    layers = tf_keras.layers
    old = functional(
        (4, 4, 2),
        layers.BatchNormalization(),
        functional((4, 4, 2), layers.Conv2D(3, 1), layers.BatchNormalization(name="inner/norm")),
        layers.TimeDistributed(layers.Dense(2)),
        tf_keras.Sequential([layers.Conv2D(2, 1), layers.Flatten()]),
    )
    rng = np.random.default_rng(0)
    old.set_weights([rng.uniform(0.5, 1.5, one.shape) for one in old.get_weights()])
    return old


def shared():
    """A Sequential and a functional model that are called twice, inside of an output, too."""
    layers = tf_keras.layers
    tower = functional((4,), layers.Dense(3, activation="tanh"), layers.Dense(4))
    head = tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(2)])
    inputs = tf_keras.Input((4,))
    twice = tower(tower(inputs))
    return tf_keras.Model(inputs, layers.Add()([head(twice), head(inputs + twice)]))


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("build", [recurrent, convolutional, scaled, attention, normalized, shared])
def test_load_of_a_file_of_keras_2_has_the_same_outputs(build, suffix, tmp_path):
    old, path = build(), tmp_path / f"model.{suffix}"
    old.save(path)
    before = path.read_bytes()
    model = models.load(path)
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(model(x, training=False), old(x, training=False), rtol=1e-5, atol=1e-6)
    assert path.read_bytes() == before


def test_load_of_a_keras_file_of_keras_2_that_was_written_on_windows(tmp_path):
    old = recurrent()
    old.save(tmp_path / "old.keras")
    with zipfile.ZipFile(tmp_path / "old.keras") as source, zipfile.ZipFile(tmp_path / "new.keras", "w") as target:
        for name in ("config.json", "metadata.json"):
            target.writestr(name, source.read(name))
        raw = source.open("model.weights.h5")
        with raw, h5py.File(raw) as weights, h5py.File(tmp_path / "weights.h5", "w") as windows:
            weights.copy("layers/gru", windows, "layers\\gru")
            weights.copy("layers/bidirectional", windows, "layers\\bidirectional")
        target.write(tmp_path / "weights.h5", "model.weights.h5")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(models.load(tmp_path / "new.keras")(x), old(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_load_of_a_layer_that_keras_3_lacks_names_a_remedy_that_works(suffix, tmp_path):
    old = functional((4,), lambda x: tf.cumsum(x, axis=1), tf_keras.layers.Dense(2))
    old.save(tmp_path / f"model.{suffix}")
    with pytest.raises(
        ValueError, match=r"which Keras 2\.\S* wrote: .*calls tf.math.cumsum.* model.export\('folder'\)"
    ):
        models.load(tmp_path / f"model.{suffix}")
    old.export(str(tmp_path / "saved"))
    assert convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32").ops["FULLY_CONNECTED"] == 1


def test_remedy_for_a_version_without_export_works(tmp_path):
    old = functional((4,), lambda x: tf.cumsum(x, axis=1), tf_keras.layers.Dense(2))
    old.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file.attrs["keras_version"] = "2.10.0"
    with pytest.raises(ValueError, match=r"model.save\('folder', save_format='tf'\) of Keras 2.10.0"):
        models.load(tmp_path / "model.h5")
    old.save(tmp_path / "saved", save_format="tf")
    assert convert(tmp_path / "saved", tmp_path / "m.tflite", mode="float32").ops["FULLY_CONNECTED"] == 1


def test_load_of_hard_sigmoid_of_keras_2_is_refused(tmp_path):
    functional((4, 3), tf_keras.layers.LSTM(2, recurrent_activation="hard_sigmoid", name="memory")).save(
        tmp_path / "model.h5"
    )
    with pytest.raises(ValueError, match=r"layer 'memory' has the activation hard_sigmoid"):
        models.load(tmp_path / "model.h5")


def test_load_of_a_h5_file_without_a_model_is_refused(tmp_path):
    recurrent().save_weights(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"must hold a whole model. Received: weights only"):
        models.load(tmp_path / "model.h5")
    (tmp_path / "model.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be an HDF5 file"):
        models.load(tmp_path / "model.h5")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_load_of_a_file_of_keras_2_does_not_run_code_in_it(suffix, tmp_path):
    functional((2,), tf_keras.layers.Lambda(lambda x: x + 1)).save(tmp_path / f"model.{suffix}")
    with pytest.raises(ValueError, match="could not load .*replace Lambda layers"):
        models.load(tmp_path / f"model.{suffix}")


def test_message_on_a_class_that_is_not_registered_holds_no_configuration(tmp_path):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((3,))
    keras.Model(inputs, Own()(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Own.*Register custom classes") as raised:
        models.load(tmp_path / "model.keras")
    assert "object config" not in str(raised.value)


def test_load_of_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        models.load(tmp_path)


def test_load_of_a_h5_file_of_keras_3_has_the_same_outputs(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / "model.h5")
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(models.load(tmp_path / "model.h5")(x), model(x))


def test_convert_of_a_model_object_of_keras_2_names_the_remedy(tmp_path):
    old = functional((4,), tf_keras.layers.Dense(2))
    with pytest.raises(ValueError, match=r"Received: Functional. It is a model of Keras 2 .*model.save\('model.h5'\)"):
        convert(old, tmp_path / "m.tflite", mode="float32")
