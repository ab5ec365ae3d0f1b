"""Models that end in a softmax or a sigmoid as models that end in logits, and back."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import keras
import numpy as np
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Node, Tensor
from tfkd.errors import InputError, ModelError
from tfkd.models import outputs
from tfkd.models.final_activation import final_activation
from tfkd.models.logits import are_softmax

# The activations that have an inverse, up to a constant for each sample.
_INVERTIBLE = ("softmax", "sigmoid")
# Layers and operations after which the softmax of the logits is still the same probabilities.
_LAYERS = ("Activation", "AlphaDropout", "Dropout", "Flatten", "GaussianDropout", "Identity", "Permute", "Reshape",
           "SpatialDropout1D", "SpatialDropout2D")  # fmt: skip
_OPERATIONS = ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")
# Probabilities are not smaller than this before the logarithm: below, float32 has fewer digits.
_LEAST = 1e-30
# Size of the dimensions of random samples that a model leaves open.
_UNKNOWN = 64
# The largest difference of probabilities that rounding explains, by the type in which the model computes.
_TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2}


class _Hidden(Exception):
    """The graph of layers does not show where the activation is."""


def to_logits(model: keras.Model, names: Collection[str] | None = None) -> keras.Model:
    """A model that returns the logits of a model that ends in a softmax or a sigmoid.

    The activation is removed where the graph of layers shows it: an activation of the last layer, a layer or operation
    of its own, inside a nested model, before a reshape, cast or dropout. The removal is checked on random inputs.
    Elsewhere, as in a Lambda or custom layer or a subclassed model, the logarithm of the probabilities is appended,
    `log(p)` for a softmax, `log(p / (1 − p))` for a sigmoid, with a warning. Their softmax or sigmoid is p again.

    Args:
        model: A built model. The result shares layers with it, except the last.
        names: Names of the outputs that are changed, see `tfkd.models.outputs.names`; None for all.

    Returns:
        The new model, whose outputs keep the names that were given to them; `model` itself if it does not end in
        probabilities, cannot be run, or ends in `hard_sigmoid` or `sparsemax`, which have no inverse.

    Raises:
        InputError: The model has no output of one of the names.
    """
    if names is not None or outputs.are_nested(model):
        return _each_to_logits(model, names)
    if not model.built or _shapes(model) is None or _is_stateful(model):
        return model
    if _ends_in_linear_layer(model):
        return model
    try:
        x = _random_inputs(model)
        source = final_activation(model, None if keras_compat.shows_layers(model) else x)
        values = _compute(model, x)
    except Exception:  # a model of the user may not take random inputs, such as token ids of another range
        return model
    if source is None or source.combined:
        finite = values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]  # a softmax without care overflows
        return _with_logarithm(model, "softmax") if are_softmax(finite) else model
    if source.activation not in _INVERTIBLE or (source.activation == "softmax" and not _sum_to_one(values)):
        return model
    return _removed(model, source.activation, x, values)


def _each_to_logits(model: keras.Model, chosen: Collection[str] | None) -> keras.Model:
    """`to_logits` for each of the chosen outputs."""
    try:
        names = outputs.names(model)
    except ModelError:  # nested outputs, or some of the same name
        if chosen is None:
            return model
        raise
    if unknown := sorted(set(chosen or ()) - set(names)):
        raise InputError(
            f"models.load: logits must name outputs of the model: {', '.join(names)}. Received: {', '.join(unknown)}. "
            "Correct the name."
        )
    ends = []
    for position, (name, end) in enumerate(zip(names, model.outputs, strict=True)):
        logits = to_logits(outputs.single(model, position)).outputs[0] if chosen is None or name in chosen else end
        before, after = keras_compat.producer(end), keras_compat.producer(logits)
        if after.name != before.name and not outputs.is_unnamed(before):  # a layer of its own was removed
            logits = keras.layers.Identity(name=before.name)(logits)
        ends.append(logits)
    if all(new is old for new, old in zip(ends, model.outputs, strict=True)):
        return model
    return keras.Model(keras_compat.input_structure(model), outputs.like(model, ends), name=model.name)


def with_softmax(model: keras.Model) -> keras.Model:
    """A model that returns the probabilities of a model with logits.

    Args:
        model: A built model with one output, logits [B, ..., C]. The result shares its layers.

    Returns:
        The model with a softmax at its end; without the logarithm that `to_logits` appended, if there is one.

    Raises:
        ModelError: The model has several outputs or has never been called.
    """
    if _shapes(model) is None or (keras_compat.shows_layers(model) and len(model.outputs) != 1):
        raise ModelError(
            f"models.with_softmax: {model.name!r} must be a built model with one output. Received: a model that "
            "has several outputs, or was never called. Pass keras.Model(model.inputs, logits)."
        )
    inputs, outputs = _ends(model)
    probabilities = _before_logarithm(outputs)
    if probabilities is None:
        probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(outputs)
    return keras.Model(inputs, probabilities, name=model.name)


def _sum_to_one(outputs: np.ndarray) -> bool:
    """Whether rows are one distribution each; the softmaxes of two heads side by side are not."""
    return bool((np.abs(outputs.sum(axis=-1) - 1) <= _TOLERANCES["bfloat16"]).all())


def _removed(model: keras.Model, activation: str, x: Nest, expected: np.ndarray) -> keras.Model:
    """The model without its activation where that is exact, otherwise with the logarithm of its probabilities."""
    try:
        if not keras_compat.shows_layers(model):
            raise _Hidden
        inputs = keras_compat.input_structure(model)
        logits = keras.Model(inputs, _before_activation(model.outputs[0]), name=model.name)
        values = _compute(logits, x)
        again = ops.convert_to_numpy((ops.softmax if activation == "softmax" else ops.sigmoid)(values))
        tolerance = max(_TOLERANCES.get(layer.compute_dtype, 1e-5) for layer in keras_compat.inner_layers(model))
        if values.shape != expected.shape or not np.abs(again - expected).max() <= tolerance:
            raise _Hidden
    except _Hidden:
        return _with_logarithm(model, activation)
    return logits


def _before_activation(tensor: Tensor) -> Tensor:
    """The symbolic tensor of logits that belongs to a tensor of probabilities.

    Raises:
        _Hidden: The layers between are not known to keep logits, or the activation is not the last step of a layer.
    """
    layer, node = keras_compat.producer(tensor), keras_compat.node(tensor)
    if node.is_input or len(node.outputs) != 1 or len(node.input_tensors) != 1:
        raise _Hidden
    kind, (source,) = type(layer).__name__, node.input_tensors
    if not isinstance(layer, keras.Layer):  # an operation of keras.ops
        if kind in ("Softmax", "Sigmoid"):
            return source
        if kind not in _OPERATIONS:
            raise _Hidden
        return _called(node, layer, source, _before_activation(source))
    if keras_compat.shows_layers(layer):  # a nested model
        inner = keras_compat.functional(layer)
        end = _before_activation(inner.outputs[0])
        return _called(node, keras.Model(keras_compat.input_structure(layer), end, name=layer.name), source, source)
    if isinstance(layer, keras.layers.Softmax):
        return _in_type(source, tensor.dtype)
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if isinstance(layer, keras.layers.Activation) and not linear:
        return _in_type(source, tensor.dtype)
    if not linear:
        return _linear(layer, node, source)
    if kind not in _LAYERS or not type(layer).__module__.startswith("keras."):
        raise _Hidden
    return _called(node, type(layer).from_config(layer.get_config()), source, _before_activation(source))


def _in_type(tensor: Tensor, dtype: str) -> Tensor:
    return tensor if tensor.dtype == dtype else ops.cast(tensor, dtype)


def _linear(layer: keras.Layer, node: Node, source: Tensor) -> Tensor:
    """The output of a layer without its activation, with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of an activation that is a lambda, which is left out
        config = layer.get_config()
    if "activation" not in config:
        raise _Hidden
    copy = type(layer).from_config({**config, "activation": "linear"})
    outputs = _called(node, copy, source, source)
    copy.set_weights(layer.get_weights())
    return outputs


def _called(node: Node, operation: keras.Operation, before: Tensor, after: Tensor) -> Tensor:
    """The output of an operation that is called as a node called another, with another input."""
    args, kwargs = node.arguments.fill_in({id(before): after})
    return operation(*args, **kwargs)


def _with_logarithm(model: keras.Model, activation: str) -> keras.Model:
    """A model with logits: the logarithms of probabilities, or of the odds of a sigmoid."""
    warnings.warn(
        f"models.load: {model.name!r} returns probabilities of a {activation}, computed where the layers do not show "
        f"it. Its logits are {'log(p)' if activation == 'softmax' else 'log(p / (1 - p))'}, which lose digits of "
        "probabilities near 0 and 1. A model that returns logits itself has none of this.",
        stacklevel=4,
    )
    inputs, outputs = _ends(model)
    p = ops.cast(outputs, "float32")
    logits = ops.log(ops.maximum(p, _LEAST))
    if activation == "sigmoid":
        logits = logits - ops.log(ops.maximum(1 - p, _LEAST))
    return keras.Model(inputs, logits, name=model.name)


def _before_logarithm(tensor: Tensor) -> Tensor:
    """The probabilities whose logarithm a tensor is, as `_with_logarithm` computes it; None for other tensors."""
    for kind in ("Log", "Maximum"):
        if type(keras_compat.producer(tensor)).__name__ != kind:
            return None
        tensor = keras_compat.node(tensor).input_tensors[0]
    return tensor


def _ends(model: keras.Model) -> tuple[keras.Operation, Node]:
    """The symbolic inputs and output of a model; a model that does not show its layers is called on new inputs."""
    if keras_compat.shows_layers(model):
        return keras_compat.input_structure(model), model.outputs[0]
    shapes = _shapes(model)
    assert shapes is not None
    inputs = keras.Input(shapes[0][1:], dtype=model.input_dtype)
    return inputs, model(inputs)


def _shapes(model: keras.Model) -> list[tuple[int | None, ...]] | None:
    """The input shapes with the batch axis; None for a subclassed model that was not called on a single tensor."""
    if keras_compat.shows_layers(model):
        return [tuple(tensor.shape) for tensor in model.inputs]
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
        return None
    return [tuple(shape)]


def _is_stateful(model: keras.Model) -> bool:
    return any(getattr(layer, "stateful", False) for layer in keras_compat.inner_layers(model))


def _ends_in_linear_layer(model: keras.Model) -> bool:
    """Whether the output is that of a Dense or convolution layer of Keras without activation: any values."""
    layer = keras_compat.producer(model.outputs[0]) if keras_compat.shows_layers(model) else None
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)
    return type(layer) in kinds and getattr(layer, "activation", None) is keras.activations.linear


def _random_inputs(model: keras.Model) -> Nest:
    """Four samples for each input: half with unit variance, half in 0..255; token ids are 0 or 1."""
    random, arrays = np.random.default_rng(0), []
    tensors = model.inputs if keras_compat.shows_layers(model) else [None]
    for shape, tensor in zip(_shapes(model) or [], tensors, strict=True):
        size = (shape[0] or 4, *(one or _UNKNOWN for one in shape[1:]))
        dtype = str(model.input_dtype if tensor is None else tensor.dtype)
        x = np.where(
            np.arange(size[0]).reshape(-1, *[1] * (len(size) - 1)) % 2,
            255 * random.random(size),
            random.normal(size=size),
        )
        arrays.append(ops.cast(x if "float" in dtype else random.integers(0, 2, size), dtype))
    structure = keras_compat.input_structure(model) if keras_compat.shows_layers(model) else None
    return arrays[0] if structure is None else keras.tree.pack_sequence_as(structure, arrays)


def _compute(model: keras.Model, x: Nest) -> np.ndarray:
    with keras.StatelessScope():  # what the model assigns to its variables is dropped
        outputs = model(x, training=False)
    return np.asarray(ops.convert_to_numpy(ops.cast(outputs, "float32")))
