"""Products of [B, 1, M, K] with one right side, which end the process where TensorFlow computes them in rank 4."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops

import tfkd
from tfkd._internal import matrix_products
from tfkd.conversion import export
from tfkd.distillation.labels import teacher_pass
from tfkd.validation import keras_outputs

NAMES = ("batch_mat_mul_v2", "batch_mat_mul_v3")


@pytest.fixture
def uncorrected(monkeypatch):
    """TensorFlow's own products, corrected again by the first caller; afterwards all is as it was."""
    for name in NAMES:
        function = getattr(gen_math_ops, name)
        monkeypatch.setattr(gen_math_ops, name, function.args[0] if is_corrected(name) else function)
    matrix_products.correct.cache_clear()
    yield
    matrix_products.correct.cache_clear()


def is_corrected(name):
    function = getattr(gen_math_ops, name)
    return isinstance(function, functools.partial) and function.func is matrix_products._product


@pytest.mark.parametrize("signature", ["eager", (13, 1, 3, 4), (None, None, 3, 4), (None, 1, None, 4)], ids=str)
@pytest.mark.parametrize("right", [(4, 16), (1, 4, 16), (1, 1, 4, 16)], ids=str)
def test_products_and_gradients_are_those_of_numpy(uncorrected, right, signature):
    matrix_products.correct()
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype("float32") for shape in ((13, 1, 3, 4), right))

    def compute(x, y):
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            product = tf.matmul(x, tf.linalg.matrix_transpose(y), transpose_b=True)
            loss = tf.reduce_sum(product**2)
        return product, *tape.gradient(loss, [x, y])

    if signature != "eager":
        traced = tf.function(compute).get_concrete_function(tf.TensorSpec(signature), tf.TensorSpec(right))
        ops = traced.graph.get_operations()
        ranks = [[one.shape.rank for one in op.inputs] for op in ops if op.type.startswith("BatchMatMul")]
        assert [3, 2] in ranks
        assert all(left < 4 or other == 4 for left, other in ranks)
    function = compute if signature == "eager" else traced
    product, of_x, of_y = (value.numpy() for value in function(tf.constant(x), tf.constant(y)))
    matrix = y.reshape(4, 16).astype("float64")
    expected = x.astype("float64") @ matrix
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_x, 2 * expected @ matrix.T, rtol=1e-4, atol=1e-4)
    sums = 2 * np.einsum("abmk,abmn->kn", x.astype("float64"), expected)
    np.testing.assert_allclose(of_y, sums.reshape(right), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("left", "right"), [((13, 2, 3, 4), (4, 16)), ((1, 1, 3, 4), (4, 16)), ((13, 1, 3, 4), (13, 1, 4, 16))], ids=str
)
def test_other_products_stay_as_they_are(uncorrected, left, right):
    matrix_products.correct()
    specs = [tf.TensorSpec(left), tf.TensorSpec(right)]
    graph = tf.function(tf.matmul, input_signature=specs).get_concrete_function().graph
    assert {op.type for op in graph.get_operations()} == {"Placeholder", "BatchMatMulV2", "Identity"}


def _distil(model, data, folder):
    tfkd.Distiller(model, model)


def _label(model, data, folder):
    teacher_pass.prepare(model, data.train, None, None)


def _convert(model, data, folder):
    export.load(model)


def _validate(model, data, folder):
    keras_outputs.compute(model, data.test)


def _read(model, data, folder):
    model.save(folder / "m.keras")
    tfkd.models.read(folder / "m.keras")


@pytest.mark.parametrize("run", [_distil, _label, _convert, _validate, _read], ids=lambda run: run.__name__[1:])
def test_each_way_of_running_a_model_corrects_the_products(uncorrected, run, tmp_path):
    assert not any(map(is_corrected, NAMES))
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    run(model, tfkd.data.load("digits"), tmp_path)
    assert all(map(is_corrected, NAMES))
