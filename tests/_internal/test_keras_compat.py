"""The private attributes of Keras that tfkd uses: that this version has them, and that they mean what they meant."""

import importlib.metadata

import keras
import numpy as np
import pytest

from tfkd._internal import keras_compat

VERSION = importlib.metadata.version("keras")


def functional():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden + 1))


def sequential():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.ReLU()])


def attribute(thing, name):
    """A private attribute; fails with its name and the place that uses it."""
    assert hasattr(thing, name), (
        f"Keras {VERSION} has no {type(thing).__name__}.{name}. Find what replaces it, and change "
        "tfkd/_internal/keras_compat.py, the only place that uses it."
    )
    return getattr(thing, name)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (functional, "_flatten_layers"),
        (functional, "_inputs_struct"),
        (functional, "_open_name_scope"),
        (functional, "_nodes_by_depth"),
        (functional, "_run_through_graph"),
        (lambda: functional().outputs[0], "_keras_history"),
        (lambda: functional().inputs[0], "_dtype"),
        (lambda: functional().layers[0], "_dtype"),
        (lambda: functional().get_layer("hidden"), "_inbound_nodes"),
        (sequential, "_functional"),
    ],
)
def test_keras_has_private_attribute(make, name):
    attribute(make(), name)


@pytest.mark.parametrize("name", ["operation", "input_tensors", "outputs", "is_input"])
def test_node_has_attribute(name):
    for node in keras_compat.nodes(functional()):
        attribute(node, name)


def test_traced_ops_are_named_by_the_path_of_their_layer():
    """Layers of equal names in two models, a name with a number, a layer called twice, a name TensorFlow refuses."""
    import tensorflow as tf

    def branch(name):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense")], name=name)

    inputs, twice = keras.Input((4,)), keras.layers.Dense(4, name="dense_1")
    hidden = twice(twice(branch("left")(inputs) + branch("right")(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(4, name="the last")(hidden), name="m")
    with keras_compat.scopes_by_path():
        graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 4))).graph
    multiplied = [op.name for op in graph.get_operations() if op.type == "MatMul"]
    names = ["left/dense/MatMul", "right/dense/MatMul", "dense_1/MatMul", "dense_1/MatMul_1", "the_last/MatMul"]
    assert multiplied == [f"m/{name}" for name in names]


@pytest.mark.parametrize(
    ("first", "second", "biased"),
    [
        ((1, 6, 1), (1, 6, 1), False),
        ((1, 6, 6), (1, 6, 1), False),
        ((1, 6, 1), (1, 1, 6), False),
        ((1, 5, 6), (6,), True),
        ((1, 4, 5, 6), (1, 1, 1, 6), True),
        ((1, 4, 5, 6), (1, 4, 1, 1), True),
        ((1, 6, 5, 6), (1, 6, 1, 1), False),
    ],
)
def test_sums_by_broadcasting(first, second, biased):
    """A bias is still added by BiasAdd; all sums are those of NumPy."""
    import tensorflow as tf

    def add(x, y):
        return keras.ops.add(x, y)

    with keras_compat.sums_by_broadcasting():
        graph = tf.function(add).get_concrete_function(tf.TensorSpec(first), tf.TensorSpec(second)).graph
        x, y = np.random.default_rng(0).normal(size=first), np.random.default_rng(1).normal(size=second)
        on_cpu = not (biased and second == (1, 4, 1, 1))  # TensorFlow has no BiasAdd along axis 1 on CPUs
        if on_cpu:
            np.testing.assert_allclose(keras.ops.add(x, y), x + y, rtol=1e-6)
    assert any(op.type == "BiasAdd" for op in graph.get_operations()) == biased


@pytest.mark.parametrize(("axis", "epsilon"), [(-1, 1e-12), ((1, 2), None), (1, 0.5), (-1, 1e-30)])
def test_finite_normalization_has_the_values_of_keras(axis, epsilon):
    from keras.src.ops import nn

    attribute(nn, "_normalize")
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    x[0, 1], x[1] = 0, x[1] * 1e-2
    expected = keras.ops.normalize(x, axis, epsilon=epsilon)
    with keras_compat.finite_normalization():
        received = keras.ops.normalize(x, axis, epsilon=epsilon)
        of_order_1 = keras.ops.normalize(x, axis, order=1, epsilon=epsilon)
    with keras_compat.finite_normalization(halves=True):
        divided = keras.ops.normalize(x, axis, epsilon=epsilon)
    np.testing.assert_allclose([received, divided], [expected, expected], rtol=1e-5)
    np.testing.assert_allclose(of_order_1, keras.ops.normalize(x, axis, order=1, epsilon=epsilon))


def test_mask_is_attached_to_tensors():
    masked = keras.layers.Masking()(np.zeros((1, 2, 3), "float32"))
    attribute(masked, "_keras_mask")


def test_missing_attribute_is_named():
    class Model:
        pass

    with pytest.raises(AssertionError, match=r"has no Model._functional. Find what replaces it.*keras_compat.py"):
        attribute(Model(), "_functional")


def test_inner_layers_are_recursive_or_not():
    inner, outer = functional(), keras.Sequential([keras.Input((4,))])
    outer.add(inner)
    shallow = keras_compat.inner_layers(outer, recursive=False)
    assert inner in shallow
    assert inner.get_layer("hidden") not in shallow
    assert inner.get_layer("hidden") in keras_compat.inner_layers(outer)
    assert outer not in keras_compat.inner_layers(outer)


def test_shows_layers_of_functional_and_built_sequential_only():
    class Subclass(keras.Model):
        def call(self, x):
            return x

    assert keras_compat.shows_layers(functional())
    assert keras_compat.shows_layers(sequential())
    assert not keras_compat.shows_layers(keras.Sequential([keras.layers.Dense(2)]))
    assert not keras_compat.shows_layers(Subclass())


@pytest.mark.parametrize("make", [functional, sequential])
def test_nodes_are_in_the_order_of_computation(make):
    model, computed = make(), set()
    for node in keras_compat.nodes(model):
        assert node.is_input or {id(tensor) for tensor in node.input_tensors} <= computed
        computed |= {id(tensor) for tensor in node.outputs}
    assert id(keras_compat.functional(model).outputs[0]) in computed


def test_producer_and_first_call_of_a_layer():
    model = functional()
    hidden, logits = model.get_layer("hidden"), model.get_layer("logits")
    assert keras_compat.producer(model.outputs[0]) is logits
    assert keras_compat.node(model.outputs[0]).operation is logits
    assert keras_compat.node(model.inputs[0]).is_input
    assert keras_compat.first_inputs(hidden)[0] is model.inputs[0]
    assert keras_compat.producer(keras_compat.first_outputs(hidden)[0]) is hidden


def test_input_structure_is_that_of_construction():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(inputs, keras.layers.Add()(list(inputs.values())))
    assert set(keras_compat.input_structure(model)) == {"a", "b"}
    assert keras_compat.input_structure(sequential()).shape == (None, 4)


@pytest.mark.parametrize("make", [functional, sequential])
def test_run_through_replaces_operations(make):
    model = make()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    same = keras_compat.run_through(model, keras.ops.convert_to_tensor(x), lambda operation: operation)
    np.testing.assert_allclose(same, model(x), rtol=1e-6)

    def doubled(operation):
        return (lambda *a, **k: 2 * operation(*a, **k)) if operation.name == "hidden" else operation

    changed = keras_compat.run_through(model, keras.ops.convert_to_tensor(x), doubled)
    assert not np.allclose(changed, same)


def test_mask_can_be_set_and_read():
    tensor = keras.ops.ones((1, 2))
    assert keras_compat.mask_of(tensor) is None
    keras_compat.set_mask(tensor, keras.ops.convert_to_tensor([[True, False]]))
    np.testing.assert_array_equal(keras_compat.mask_of(tensor), [[True, False]])


def test_training_step_is_traced_once_where_its_variables_exist():
    traces = []

    class Counting(keras.Model):
        def train_step(self, data):
            traces.append(data)
            return super().train_step(data)

    model = functional()
    model = Counting(model.inputs, model.outputs)
    model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x, y = np.zeros((6, 4), "float32"), np.zeros(6, "int32")
    attribute(model, "_compile_metrics")
    keras_compat.build_training_state(model, y, [(6, 2)])
    model.fit(x, y, batch_size=3, verbose=0)
    assert len(traces) == 1
