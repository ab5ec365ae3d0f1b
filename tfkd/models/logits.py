"""Checks that models return logits and that the compiled loss takes logits."""

from __future__ import annotations

import math
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfkd._internal import keras_compat
from tfkd._internal.types import Nest, Tensor
from tfkd.errors import InputError, ModelError
from tfkd.models import outputs
from tfkd.models.final_activation import Source, final_activation

# Rows that sum to 1 up to this tolerance, or to 4 units of the precision of their values, are taken for a softmax.
_TOLERANCE = 1e-3
# Number of values of a sample above which only 2 samples are run.
_LARGE_SAMPLE = 2**17
# Regression losses of Keras; all others with logits compare classes.
_REGRESSION = {
    "cosine_similarity", "huber", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error",
    "mean_squared_error", "mean_squared_logarithmic_error",
}  # fmt: skip
# Losses of Keras that take probabilities, apart from cross-entropies.
_ON_PROBABILITIES = {"dice", "kl_divergence", "poisson", "tversky"}


def known_classes(model: keras.Model) -> int | None:
    """The size of the last axis of a model's output, or None where it is known only after a call.

    Raises:
        ModelError: The model has several outputs.
    """
    if outputs.are_nested(model):
        raise ModelError(
            f"{model.name}: the model must have one output, a tensor. Received: {', '.join(outputs.names(model))}. "
            "Commands, recipes and stores have one label for each sample: train several outputs by tfkd.Distiller in "
            "Python, or pass keras.Model(model.inputs, model.outputs[i])."
        )
    try:
        classes: int | None = model.output_shape[-1]
    except (AttributeError, ValueError):  # a subclassed model has no output shape before a call
        return None
    return classes


def check_model(role: str, model: keras.Model) -> keras.Model:
    """Returns a Keras model; refuses any other object.

    Args:
        role: `student` or `teacher`, for the message.
        model: The object.

    Raises:
        InputError: It is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise InputError(
            f"Distiller: {role} must be a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model."
        )
    return model


def check_gives_logits(role: str, model: keras.Model, *, activation: bool = True) -> None:
    """Refuses objects that are not models, models with several outputs, and models whose graph ends in probabilities.

    Args:
        role: `student` or `teacher`, for the message.
        model: Model to check. A subclassed model does not show its layers; `check_are_logits` checks its outputs.
        activation: Whether an activation at the end is refused; outputs of a regression may have one.

    Raises:
        InputError: `model` is not a Keras model.
        ModelError: It has several outputs, or returns probabilities.
    """
    check_model(role, model)
    if not keras_compat.shows_layers(model):
        return
    if not isinstance(model, keras.Sequential) and not hasattr(model.output, "shape"):
        raise ModelError(
            f"Distiller: {role} must have one output, a tensor of logits. Received: output_shape={model.output_shape}. "
            f"Pass keras.Model({role}.inputs, {role}.outputs[i])."
        )
    source = final_activation(model) if activation else None
    if source is not None and not source.combined:
        raise _probabilities(role, source)


def shape_of_outputs(role: str, model: keras.Model, *batches: Nest) -> tuple[int | None, ...]:
    """The shape of a model's output [B, ..., K] on a few samples.

    Args:
        role: `student` or `teacher`, for the message.
        model: A model whose outputs may be any values. A recurrent model that keeps its state is not run.
        *batches: Inputs, see `check_are_logits`.

    Raises:
        ModelError: The model has several outputs.
    """
    samples = [few for x in batches if (few := _few(model, x)) is not None]
    if not samples or any(getattr(layer, "stateful", False) for layer in keras_compat.inner_layers(model)):
        return tuple(model.output_shape) if keras_compat.shows_layers(model) else (None,)
    return _numbers(role, model(samples[0], training=False)).shape


def check_are_logits(role: str, model: keras.Model, *batches: Nest) -> tuple[int | None, ...]:
    """Runs a model on a few samples and refuses outputs that are probabilities, and a graph that ends in them.

    Rows that are >= 0 and sum to 1 are taken for a softmax. Sigmoids are found in the graph. Where they are not, but
    the values stay in 0..1 for inputs of any size, a warning is given.

    Args:
        role: `student` or `teacher`, for the message.
        model: Model to check. A recurrent model that keeps its state is not run.
        *batches: Inputs, at least one batch [B, ...]; the first 8 samples of each are used, 2 of large ones, or as many
            as a fixed batch size of the model.

    Returns:
        The shape of the outputs, [B, ..., C].

    Raises:
        ModelError: The model has several outputs, or returns probabilities.
    """
    samples = [few for x in batches if (few := _few(model, x)) is not None]
    if not samples or any(getattr(layer, "stateful", False) for layer in keras_compat.inner_layers(model)):
        check_gives_logits(role, model)  # it cannot be run, or would change its state
        return tuple(model.output_shape) if keras_compat.shows_layers(model) else (None,)
    outputs = [_numbers(role, model(x, training=False)) for x in samples]
    source = final_activation(model, samples[0])  # after the run, which builds a subclassed model
    rows = np.concatenate([values.reshape(-1, values.shape[-1]) for values in outputs])
    in_range = bool(rows.size) and bool(((rows >= 0) & (rows <= 1)).all())
    if source is not None and (in_range or not source.combined):
        raise _probabilities(role, source)
    if are_softmax(rows):
        raise ModelError(
            f"Distiller: {role} must return logits. Received: rows that are >= 0 and sum to 1, as after softmax. "
            f"Pass tfkd.models.load({role}), which returns logits."
        )
    if in_range and bool((rows > 0).all()) and len(rows) > 1 and _stays_in_range(model, samples[0], outputs[0]):
        warnings.warn(
            f"Distiller: the outputs of the {role} stay in 0..1, as after a sigmoid. If they are probabilities, pass a "
            "model that ends before it.",
            stacklevel=2,
        )
    return tuple(outputs[0].shape)


def are_softmax(values: Tensor) -> bool:
    """Whether outputs are the values of a softmax: rows >= 0 with the sum 1, within the precision of the values.

    One row proves nothing, nor do values that are all 0 or 1: logits may be such.

    Args:
        values: [..., C] outputs.

    >>> are_softmax([[0.5, 0.5], [0.9, 0.1]])
    True
    >>> are_softmax([[0.5, 0.5]]) or are_softmax([[1.0, 0.0], [0.0, 1.0]])
    False
    """
    values = np.asarray(values, "float32")
    rows = values.reshape(-1, values.shape[-1]) if values.size else values
    if (
        len(rows) < 2
        or rows.shape[-1] < 2
        or not np.isfinite(rows).all()
        or (rows < 0).any()
        or np.isin(rows, (0, 1)).all()
    ):
        return False
    return bool((np.abs(rows.sum(axis=-1, dtype="float64") - 1) <= max(_TOLERANCE, 4 * _precision(rows))).all())


def _precision(values: np.ndarray) -> float:
    """The relative precision of the least precise floating-point type that holds all values exactly."""
    for dtype, epsilon in (("bfloat16", 2.0**-7), ("float16", 2.0**-10)):
        if bool(tf.reduce_all(tf.cast(tf.cast(values, dtype), "float32") == values)):
            return epsilon
    return float(np.finfo("float32").eps)


def _few(model: keras.Model, x: Nest) -> Nest:
    """The first 8 samples of a batch, or as many as the model's fixed batch size; None if the batch has fewer.

    Of samples with more than 2**17 values only 2 are taken: Keras keeps the outputs of all layers during a call, for 8
    images of 224 x 224 through a ResNet-50 more than a gigabyte. A batch with a sparse tensor is returned whole.
    """
    x = keras.tree.map_structure(lambda leaf: leaf if tf.is_tensor(leaf) else ops.convert_to_tensor(leaf), x)
    leaves = keras.tree.flatten(x)
    if any(isinstance(leaf, tf.SparseTensor) for leaf in leaves):
        return x
    fixed = model.inputs[0].shape[0] if keras_compat.shows_layers(model) else None
    if fixed and leaves[0].shape[0] < fixed:
        return None
    most = 2 if any(math.prod(size or 1 for size in leaf.shape[1:]) > _LARGE_SAMPLE for leaf in leaves) else 8
    return keras.tree.map_structure(lambda leaf: leaf[: fixed or most], x)


def _numbers(role: str, outputs: Tensor) -> np.ndarray:
    """Outputs of a call as a float32 array."""
    if not hasattr(outputs, "shape"):
        raise ModelError(
            f"Distiller: {role} must have one output, the logits. Received: {type(outputs).__name__}. Call it on "
            f"x = keras.Input(...), and pass keras.Model(x, {role}(x)), which shows the names of its outputs."
        )
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))


def _stays_in_range(model: keras.Model, x: Tensor, outputs: np.ndarray) -> bool:
    """Whether the outputs for inputs 10,000 times as large, of both signs, are other values in 0..1."""
    if not all(tf.is_tensor(leaf) and leaf.dtype.is_floating for leaf in keras.tree.flatten(x)):
        return False
    large = [
        ops.convert_to_numpy(ops.cast(model(keras.tree.map_structure(lambda leaf, f=f: leaf * f, x)), "float32"))
        for f in (1e4, -1e4)
    ]
    in_range = all(((values >= 0) & (values <= 1)).all() for values in large)
    return in_range and not np.array_equal(large[0], outputs)


def _probabilities(role: str, source: Source) -> ModelError:
    remedy = f"Pass tfkd.models.load({role}), which returns logits."
    if source.activation != "softmax" and (source.combined or source.activation != "sigmoid"):  # `load` keeps them
        remedy = "Build and train it without."
    return ModelError(
        f"Distiller: {role} must return logits. Received: its layer {source.layer!r} applies {source.activation}. "
        f"{remedy}"
    )


def check_takes_logits(loss: keras.Loss | str | None) -> None:
    """Refuses a compiled loss that expects probabilities.

    Args:
        loss: Name, function or instance of a Keras loss, or a list or dictionary of one.

    Raises:
        InputError: The loss expects probabilities.
    """
    for one in keras.tree.flatten(loss):
        name = _loss_name(one)
        from_logits = one.get_config().get("from_logits") if isinstance(one, keras.losses.Loss) else None
        if name in _ON_PROBABILITIES or (name.endswith("crossentropy") and not from_logits) or from_logits is False:
            raise InputError(
                f"Distiller: the compiled loss must take logits. Received: loss={one!r}, which expects probabilities. "
                "Use keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )


def is_regression(loss: keras.Loss | str | None) -> bool:
    """Whether a compiled loss compares values, not classes, such as `mse`."""
    return any(_loss_name(one) in _REGRESSION for one in keras.tree.flatten(loss))


def is_binary(loss: keras.Loss | str | None) -> bool:
    """Whether a compiled loss takes each output as a decision of its own, such as `BinaryCrossentropy`."""
    return any(_loss_name(one).startswith("binary") for one in keras.tree.flatten(loss))


def _loss_name(loss: keras.Loss | str | None) -> str:
    """The name of the function of a Keras loss, such as `mean_squared_error` for `mse`; an empty text if it has none.

    Args:
        loss: Name, function or instance of a Keras loss; None for no loss.
    """
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # Keras reports an unknown name itself
            return loss
    return str(getattr(getattr(loss, "fn", loss), "__name__", ""))
