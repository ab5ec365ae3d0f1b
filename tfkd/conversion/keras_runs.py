"""A Keras model's run on samples: its outputs, the layers on its input, and its accuracy on labels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

# Samples in a batch: fewer where a layer has more output values in it than this, since memory that is taken anew for
# each layer costs more time than to compute it; but not so few that the calls of layers cost more.
_LARGEST_BATCH, _SMALLEST_BATCH, _VALUES = 64, 8, 2e7


class Score(NamedTuple):
    """How well outputs fit labels: the accuracy, 0..1, and the cross-entropy in nats."""

    accuracy: float
    loss: float


def run(model: keras.Model, x: np.ndarray) -> tuple[np.ndarray | None, list[keras.Layer]]:
    """The outputs of a model, None where it has several or keeps a state, and the layers of scale on its input."""
    import keras

    if any(getattr(layer, "stateful", False) for layer in keras_compat.inner_layers(model)):
        return None, []
    inputs = getattr(model, "inputs", None)
    fixed = inputs[0].shape[0] if inputs else None
    size = fixed or _batch(model)
    batches = [x[i : i + size] for i in range(0, len(x), size)]
    outputs = []

    def structured(batch: np.ndarray) -> Nest:
        """The input in the form that the model was built with, such as a list of one: Keras warns of any other."""
        if not keras_compat.shows_layers(model):
            return batch
        return keras.tree.pack_sequence_as(keras_compat.input_structure(model), [batch])

    with _watched(model, batches[0]) as layers:
        for batch in batches:
            full = np.resize(batch, (fixed, *batch.shape[1:])) if fixed else batch
            with keras.StatelessScope():  # what the model assigns to its variables is dropped
                result = model(structured(full.astype(inputs[0].dtype) if inputs else full), training=False)
            if isinstance(result, (list, tuple, dict)):
                return None, layers
            outputs.append(np.asarray(result, "float32")[: len(batch)])
    return np.concatenate(outputs), layers


def _batch(model: keras.Model) -> int:
    """The number of samples that a model computes together."""
    most = max((math.prod(shape[1:]) for _, shape in _output_shapes(model)), default=1)
    return int(np.clip(_VALUES // most, _SMALLEST_BATCH, _LARGEST_BATCH))


@contextlib.contextmanager
def _watched(model: keras.Model, x: np.ndarray) -> Iterator[list[keras.Layer]]:
    """Collects the layers Rescaling, Normalization and BatchNormalization whose input is `x`, in the order of calls."""
    import keras

    kinds = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.BatchNormalization)
    layers = [layer for layer in keras_compat.inner_layers(model) if isinstance(layer, kinds)]
    found: list[keras.Layer] = []

    def watch(layer: keras.Layer) -> Callable[..., Nest]:
        original = layer.call

        def call(inputs: Nest, *args: object, **kwargs: object) -> Nest:
            values = np.asarray(inputs)
            if layer not in found and values.size == x.size and np.array_equal(values.ravel(), x.ravel()):
                found.append(layer)
            return original(inputs, *args, **kwargs)

        return call

    try:
        for layer in layers:
            layer.__dict__["call"] = watch(layer)  # directly, since Keras tracks attributes that are assigned
        yield found
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


def score(outputs: np.ndarray | None, labelled: Split) -> Score | None:
    """The score of logits or probabilities; None where the outputs are not one value for each class."""
    classes = labelled.num_classes
    if labelled.label_kind != "classes" or outputs is None or outputs.size != len(labelled) * classes or classes < 2:
        return None
    values = outputs.reshape(len(labelled), -1).astype("float64")
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        values = np.log(np.maximum(values, 1e-30))
    values = values - values.max(axis=1, keepdims=True)
    losses = np.log(np.exp(values).sum(axis=1)) - values[np.arange(len(values)), labelled.y]
    return Score(float((values.argmax(axis=1) == labelled.y).mean()), float(losses.mean()))


def multiplications(model: keras.Model) -> float:
    """About the multiply-accumulates of one sample: each kernel's weights times the positions of the layer's output."""
    import keras

    return 1.0 + sum(
        math.prod(shape[1:-1]) * sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
        for layer, shape in _output_shapes(model)
        if not isinstance(layer, keras.layers.Embedding)
    )


def _output_shapes(model: keras.Model) -> Iterator[tuple[keras.Layer, list[int]]]:
    """The layers without layers inside, and the shapes of their outputs [B, ...]; 1 for each size that is not known."""
    for layer in keras_compat.inner_layers(model):
        if keras_compat.inner_layers(layer):
            continue
        try:
            yield layer, [size or 1 for size in layer.output.shape]
        except (AttributeError, ValueError):  # it was not called on symbolic tensors, or has several outputs
            yield layer, []
