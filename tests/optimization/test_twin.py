"""The tf_keras copy: equal outputs, training as a Keras 3 model, no effect on the process environment."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfkd
from tfkd.optimization.twin import Twin, load_tfmot


def small(*extra):
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 16)(image)
    x = layers.Conv2D(4, 3, use_bias=False, kernel_regularizer="l2", name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    for layer in extra:
        x = layer(x)
    return keras.Model(image, layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x)), name="small")


def nested():
    block = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.LeakyReLU(0.3)], name="block")
    shared = layers.DepthwiseConv2D(3, padding="same")
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3)(image)
    y = layers.Add()([block(x), shared(shared(x))])
    y = layers.Concatenate()([y, layers.SeparableConv2D(3, 3, padding="same")(y)])
    y = layers.Multiply()([y, layers.Activation("sigmoid")(y)])
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize("student", [small, nested])
def test_twin_has_the_outputs_of_its_student(student):
    student = student()
    student.set_weights([value + 0.1 for value in student.get_weights()])
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype("float32")
    twin = Twin.of(student, "prune")
    expected = student(x, training=False).numpy()
    np.testing.assert_allclose(twin.model(x, training=False), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_layers_that_keras_2_lacks_are_named_in_one_error():
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    student = small(Twice(name="twice"), layers.Lambda(lambda x: x, name="code"), layers.Conv2D(2, 1, name="last"))
    with pytest.raises(ValueError, match=r"(?s)prune: .*layers of 'small'.*twice \(Twice\).*code \(Lambda\).*Replace"):
        Twin.of(student, "prune")


def test_layer_that_computes_otherwise_in_keras_2_is_named():
    student = small(layers.Activation("hard_sigmoid", name="odd"))
    with pytest.raises(ValueError, match="outputs of the tf_keras copy.*first in layer odd"):
        Twin.of(student, "prune")


def test_student_with_nan_outputs_is_refused():
    student = small()
    student.get_layer("logits").set_weights([np.full((144, 10), np.nan), np.zeros(10)])
    with pytest.raises(ValueError, match="Received: a difference of nan, first in layer logits"):
        Twin.of(student, "prune")


def test_subclassed_model_is_refused():
    class Code(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="prune: the student must be a functional or a built Sequential"):
        Twin.of(Code(), "prune")


def test_probabilities_are_refused():
    image = keras.Input((4,))
    with pytest.raises(ValueError, match="student must return logits"):
        Twin.of(keras.Model(image, layers.Dense(3, activation="softmax")(image)), "prune")


def test_trained_twin_brings_its_weights_back():
    train = tfkd.data.load("digits").train
    student = small()
    before = student.get_weights()
    twin = Twin.of(student, "prune")
    model = twin.trainable(twin.model)
    assert float(model.losses[0]) == pytest.approx(float(student.losses[0]), rel=1e-5)
    teacher = small()
    feature = tfkd.features.Feature(tfkd.losses.Hint(), student="relu", teacher="relu")
    distiller = tfkd.Distiller(model, teacher, alpha=0.5, features=[feature])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(1e-3), loss=loss, jit_compile=False)
    history = distiller.fit(train.batches(128), epochs=2, verbose=0).history
    assert history["feature_loss"][1] < history["feature_loss"][0]
    restored = twin.restore(twin.model).student
    x = train.x[:64].astype("float32")
    np.testing.assert_allclose(restored(x), model(x, training=False), rtol=0, atol=1e-4)
    assert all((old == new).all() for old, new in zip(before, student.get_weights(), strict=True))
    assert any((old != new).any() for old, new in zip(before, restored.get_weights(), strict=True))


def test_weights_of_a_trained_twin_are_saved_and_loaded(tmp_path):
    student = small()
    first, second = (Twin.of(student, "prune") for _ in range(2))
    trained, fresh = first.trainable(first.model), second.trainable(second.model)
    for variable in trained.trainable_variables:
        variable.assign_add(tf.ones_like(variable.value))
    trained.save(tmp_path / "trained.keras")
    fresh.load_weights(tmp_path / "trained.keras")
    x = np.ones((2, 8, 8, 1), "float32")
    np.testing.assert_array_equal(second.model(x), first.model(x))


@pytest.mark.parametrize("found", [None, pytest.param("1", marks=pytest.mark.campaign)])
def test_legacy_keras_variable_stays_as_found(found):
    code = (
        "import os, warnings, subprocess, sys\n"
        "import tfkd.optimization.twin as twin\n"
        "twin.load_tfmot()\n"
        "import tensorflow as tf\n"
        "child = subprocess.check_output([sys.executable, '-c', "
        "'import os; print(os.environ.get(\"TF_USE_LEGACY_KERAS\"))'], text=True).strip()\n"
        "print('FOUND', os.environ.get('TF_USE_LEGACY_KERAS'), child, tf.keras.__name__.split('.')[0])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment |= {} if found is None else {"TF_USE_LEGACY_KERAS": found}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert child.returncode == 0, child.stderr
    kind = "tf_keras" if found == "1" else "keras"
    assert child.stdout.split("FOUND")[1].split() == [str(found), str(found), kind]


def test_tfmot_is_loaded_once_and_is_what_it_says():
    tf_keras, tfmot = load_tfmot()
    assert tf_keras.__version__.startswith("2.")
    assert hasattr(tfmot.sparsity.keras, "prune_low_magnitude")
