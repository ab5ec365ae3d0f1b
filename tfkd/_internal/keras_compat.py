"""All uses of private attributes of Keras.

Keras has no public API for them. `tests/_internal/test_keras_compat.py` names the attribute that a new version of Keras
lacks.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tfkd._internal.types import Nest, Node, Tensor

if TYPE_CHECKING:
    import keras


# Held by a thread while a conversion replaces functions of Keras or computations of layers: another conversion would
# keep what it finds as the original, and put it back at its end.
REPLACING = threading.RLock()


def inner_layers(layer: keras.Layer, *, recursive: bool = True) -> list[keras.Layer]:
    """The layers inside a layer or model, without itself.

    Args:
        layer: Any layer or model.
        recursive: Whether layers of nested models are included.
    """
    return list(layer._flatten_layers(include_self=False, recursive=recursive))


def shows_layers(model: keras.Model) -> bool:
    """Whether a model is a graph of layers: functional or a built Sequential, not a subclass with its own `call`."""
    return getattr(model, "outputs", None) is not None


def functional(model: keras.Model) -> keras.Model:
    """The functional model inside a built Sequential; a functional model itself."""
    import keras  # here, since recipes are read without Keras

    return model._functional if isinstance(model, keras.Sequential) else model


def input_structure(model: keras.Model) -> Nest:
    """The symbolic inputs of a functional model: a tensor, or the list or dict that it was built with."""
    import keras

    return model.inputs[0] if isinstance(model, keras.Sequential) else model._inputs_struct


def nodes(model: keras.Model) -> Iterator[Node]:
    """The nodes of a functional model in the order of computation.

    A node has `operation`, `input_tensors`, `outputs` and `is_input`.
    """
    by_depth = functional(model)._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def producer(tensor: Tensor) -> keras.Operation:
    """The layer or operation that computes a symbolic tensor."""
    return tensor._keras_history.operation


def node(tensor: Tensor) -> Node:
    """The node of a symbolic tensor: `arguments`, `input_tensors`, `outputs` and `is_input` of the call."""
    return tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]


def first_inputs(layer: keras.Layer) -> list[Tensor]:
    """The symbolic inputs of a layer's first call."""
    return list(layer._inbound_nodes[0].input_tensors)


def first_outputs(layer: keras.Layer) -> list[Tensor]:
    """The symbolic outputs of a layer's first call."""
    return list(layer._inbound_nodes[0].outputs)


def run_through(model: keras.Model, inputs: Nest, operation: Callable[[keras.Operation], Callable[..., Nest]]) -> Nest:
    """The outputs of a functional model in which each operation is replaced by another.

    Args:
        model: A functional model.
        inputs: Inputs in the structure that the model was built with.
        operation: Function from an operation of the model to the callable that replaces it.
    """
    return functional(model)._run_through_graph(inputs, operation_fn=operation)


def scope_name(layer: keras.Layer) -> str:
    """The name of a layer as part of the name of a TensorFlow op, which has fewer characters to choose from."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", layer.name)


@contextlib.contextmanager
def scopes_by_path() -> Iterator[None]:
    """Names TensorFlow ops that are traced while the context is open by the path of their layer: `model/backbone/conv`.

    Keras opens the scope of a layer to build it and again to call it, so that TensorFlow appends a number to its name:
    `conv_1` is then the layer `conv` or the layer `conv_1`. TensorFlow adds no number to a scope that ends in a slash.
    """
    import keras
    import tensorflow as tf

    opened: list[tuple[keras.Layer, str]] = []

    @contextlib.contextmanager
    def open_scope(layer: keras.Layer) -> Iterator[None]:
        name = scope_name(layer)
        if not opened:
            path = name if name[:1].isalnum() else f".{name}"  # a name of TensorFlow does not begin with "_"
        elif opened[-1][0] is layer:  # Keras opens the scope of a layer again inside it
            path = opened[-1][1]
        else:
            path = f"{opened[-1][1]}/{name}"
        opened.append((layer, path))
        try:
            with tf.name_scope(f"{path}/"):
                yield
        finally:
            opened.pop()

    original = keras.Layer._open_name_scope
    keras.Layer._open_name_scope = open_scope
    try:
        yield
    finally:
        keras.Layer._open_name_scope = original


@contextlib.contextmanager
def sums_by_broadcasting() -> Iterator[None]:
    """Makes `keras.ops.add` add tensors as NumPy does while the context is open.

    Keras adds a second operand that has one dimension above 1 with BiasAdd, along the last axis or along axis 1 of the
    first one, whichever has its size. At batch size 1 this takes for a bias what is none: [1, N, 1] is added to
    [1, N, N] along the last axis, [1, 1, N] to [1, N, 1] along axis 1. BiasAdd along axis 1 of three dimensions, as of
    [1, N, 1] to [1, N, 1], does not convert. Sums of one axis that is the last of both, and along axis 1 of images,
    stay BiasAdd, so that convolutions take their bias.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy

    original = numpy.add

    def add(x1: Tensor, x2: Tensor) -> Tensor:
        if not (hasattr(x1, "shape") and hasattr(x2, "shape")) or _adds_bias(list(x1.shape), list(x2.shape)):
            return original(x1, x2)
        dtype = keras.backend.result_type(x1.dtype, x2.dtype)
        return tf.add(keras.ops.convert_to_tensor(x1, dtype), keras.ops.convert_to_tensor(x2, dtype))

    numpy.add = add
    try:
        yield
    finally:
        numpy.add = original


@contextlib.contextmanager
def finite_normalization(*, halves: bool = False) -> Iterator[None]:
    """Makes `keras.ops.normalize` of order 2 compute x · rsqrt(max(Σx², ε²)) while the context is open.

    Keras computes x · min(rsqrt(Σx²), 1/ε), which is equal in real numbers. Of a vector of zeros, such as a pixel of a
    zero padding, rsqrt is infinite there, and XNNPACK's is NaN. ε² is at least the least normal float32.

    Args:
        halves: Whether constants will be float16, where ε² is 0 and 1/ε infinite: then x / max(√Σx², ε), with an ε of
            at least the least float16 above 0.
    """
    import keras
    from keras.src.ops import nn

    original = nn._normalize

    def normalize(x: Tensor, axis: int | Sequence[int] = -1, order: int = 2, epsilon: float | None = None) -> Tensor:
        if order != 2:
            return original(x, axis, order, epsilon)
        least = keras.config.epsilon() if epsilon is None else epsilon
        squares = keras.ops.sum(keras.ops.square(x), axis=axis, keepdims=True)
        if halves:
            return x / keras.ops.maximum(max(least, 2.0**-24), keras.ops.sqrt(squares))
        return keras.ops.rsqrt(keras.ops.maximum(max(least**2, 2.0**-126), squares)) * x

    nn._normalize = normalize
    try:
        yield
    finally:
        nn._normalize = original


def _adds_bias(first: list[int | None], second: list[int | None]) -> bool:
    """Whether a tensor is added along the last axis of another one, or along axis 1 of images."""
    axes = [axis - len(second) for axis, size in enumerate(second) if size != 1]
    if len(second) == 1 or len(axes) != 1:
        return True
    size = second[axes[0]]
    if axes[0] == -1:
        return len(first) > 1 and first[-1] == size
    return len(first) == 4 and axes[0] == -3 and first[1] == size and first[-1] != size


def set_dtype(end: keras.Layer | Tensor, dtype: str) -> None:
    """Sets the type of a symbolic input of a functional model, or of its input layer."""
    end._dtype = dtype


def compiled_loss(model: keras.Model) -> Callable[..., Tensor] | None:
    """The loss that a model was compiled with, as a function of (y, y_pred, sample_weight); None without a loss."""
    return model._compile_loss


def compiled_losses(model: keras.Model, y: Nest, outputs: Nest, sample_weight: Nest) -> list[Tensor | None]:
    """The compiled loss of each output, multiplied by its weight, in the order of `keras.tree.flatten`.

    Args:
        model: A compiled model.
        y: Labels in the structure of the outputs; None for an output without a loss.
        outputs: Outputs of a batch.
        sample_weight: Weights in the structure of the outputs, one tensor for all, or None.

    Returns:
        Scalars, None for an output without a loss.
    """
    import keras

    compiled = model._compile_loss
    if compiled is None or y is None:
        return [None] * len(keras.tree.flatten(outputs))
    if not compiled.built:
        compiled.build(y, outputs)
    found: dict[tuple[int | str, ...], Tensor] = {}

    def recorded(path: tuple[int | str, ...], loss: Callable[..., Tensor], weight: float | None) -> Callable:
        def call(*arguments: Tensor) -> Tensor:
            value = loss(*arguments)
            weighted = value if weight is None else value * weight
            found[path] = found[path] + weighted if path in found else weighted  # several losses of one output
            return value

        return call

    # A copy, since the replicas of a strategy may trace the step at the same time.
    recording = object.__new__(type(compiled))
    flat = [one._replace(loss=recorded(one.path, one.loss, one.loss_weights)) for one in compiled._flat_losses]
    vars(recording).update(vars(compiled) | {"_flat_losses": flat})
    recording(y, outputs, sample_weight)  # which also updates the metric of each loss
    return [found.get(path) for path, _ in keras.tree.flatten_with_path(outputs)]


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric that averages the loss over the batches of an epoch."""
    return model._loss_tracker


def may_add_weights(layer: keras.Layer) -> bool:
    """Whether a layer that was not called yet may create weights, of its own or of its layers, when it is."""
    import keras

    return not layer.built and (type(layer).build is not keras.Layer.build or bool(inner_layers(layer)))


def build_training_state(model: keras.Model, y: Nest, shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Creates the variables of a compiled model's optimizer and metrics, where they do not exist yet.

    Keras creates them while TensorFlow traces the first training step, which is then traced a second time.

    Args:
        model: A compiled model with weights.
        y: Labels of a few samples, in the structure of the outputs, or None.
        shapes: Shape of each output [B, ..., C]; without a rank the metrics are left to Keras.
    """
    import keras

    with model.distribute_strategy.scope():
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        metrics = model._compile_metrics
        if y is not None and all(len(shape) > 1 for shape in shapes) and metrics is not None and not metrics.built:
            zeros = [keras.ops.zeros([size or 1 for size in shape]) for shape in shapes]
            metrics.build(y, keras.tree.pack_sequence_as(y, zeros))


def mask_of(value: Tensor) -> Tensor | None:
    """The mask that Keras attached to a tensor, or None."""
    return getattr(value, "_keras_mask", None)


def set_mask(value: Tensor, mask: Tensor) -> None:
    """Attaches a mask to a tensor, as a layer that supports masking does."""
    value._keras_mask = mask


@contextlib.contextmanager
def random_numbers_of(layer: keras.Layer, seed: Tensor) -> Iterator[None]:
    """Lets a preprocessing layer of Keras draw its random numbers from a seed while the context is open.

    Args:
        layer: Layer of `keras.layers` with an attribute `generator`, and layers inside of it.
        seed: Tensor, int32 [2]. Each draw uses another number that follows from it.
    """
    import keras
    import tensorflow as tf

    class Draws(keras.random.SeedGenerator):
        def __init__(self) -> None:  # without the variable in which Keras counts the draws
            self._draws = 0

        def next(self, ordered: bool = True) -> Tensor:
            self._draws += 1
            return tf.cast(tf.random.fold_in(seed, self._draws), keras.src.backend.random_seed_dtype())

    layers = [one for one in (layer, *inner_layers(layer)) if "generator" in vars(one)]
    before = [vars(one)["generator"] for one in layers]
    draws = Draws()
    for one in layers:
        vars(one)["generator"] = draws  # not by an assignment, which Keras tracks
    try:
        yield
    finally:
        for one, generator in zip(layers, before, strict=True):
            vars(one)["generator"] = generator
