"""Export of a Keras model as a SavedModel at batch size 1, with checks of what a .tflite cannot hold."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal import keras_compat, matrix_products
from tfkd._internal.types import Nest, Tensor
from tfkd.conversion import layer_forms, refusals, rnn, signatures
from tfkd.conversion.calibration import Source
from tfkd.data.model_inputs import ModelInput
from tfkd.errors import InputError, ModelError, TfkdError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def load(model: keras.Model | str | os.PathLike[str]) -> keras.Model | Path:
    """Returns a Keras model, or the folder of a SavedModel as a `Path`.

    Args:
        model: A Keras model, the path of a `.keras` or `.h5` file, or the folder of a SavedModel.

    Raises:
        InputError: The argument is no model.
        ModelError: The file or folder holds no model.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.is_dir():
            _check_saved_model(path)
            return path
        from tfkd import models

        return models.read(path)
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(
            f"convert: model must be a Keras model or a path. Received: {type(model).__name__}. "
            f"{_other_keras(model) or 'Give a keras.Model, a .keras file or the folder of a SavedModel.'}"
        )
    matrix_products.correct()
    return model


def export(model: keras.Model, folder: Path, *, integers: bool, lstm_op: bool, halves: bool = False) -> Source:
    """Writes a SavedModel. It runs in the user's process, which alone knows the user's custom layers.

    Args:
        model: A Keras model, or the folder of a SavedModel, which is kept as it is.
        folder: Folder to write.
        integers: Whether the model is to be quantized to integers.
        lstm_op: Whether an LSTM may become the op UNIDIRECTIONAL_SEQUENCE_LSTM.
        halves: Whether constants are to be float16.

    Raises:
        ModelError: The model holds what no .tflite can hold, or does not run at batch size 1.
    """
    if isinstance(model, Path):
        return Source(model)
    import keras

    _check_layers(model)
    specs = input_specs(model)
    flat = keras.tree.flatten(specs)
    exportable = rnn.exportable(model, integers=integers, lstm_op=lstm_op)
    with (
        rnn.initial_states(model),
        exportable,
        layer_forms.exportable(model),
        keras_compat.scopes_by_path(),
        keras_compat.sums_by_broadcasting(),
        keras_compat.finite_normalization(halves=halves),
    ):
        outputs = _save(model, folder, specs)
    return Source(
        folder,
        inputs=tuple(spec.name for spec in flat),
        outputs=tuple(outputs),
        forms=tuple(_forms(model, flat)),
    )


def _forms(model: keras.Model, flat: list[keras.InputSpec]) -> Iterator[ModelInput]:
    """The inputs of a model, with the names that Keras takes for them."""
    from tfkd.models import inputs

    names = inputs.names(keras_compat.input_structure(model)) if keras_compat.shows_layers(model) else []
    for index, spec in enumerate(flat):
        yield ModelInput(spec.name, (*names[index : index + 1], spec.name), spec.shape[1:], spec.dtype)


def _check_saved_model(folder: Path) -> None:
    if not (folder / "saved_model.pb").exists():
        raise ModelError(
            f"{folder}: must be a SavedModel. Received: a folder without saved_model.pb. "
            "Give the folder that model.export() wrote, or a .keras file."
        )


def _other_keras(model: keras.Model) -> str:
    """What to do with a model of Keras 2, the package tf_keras; empty for any other object."""
    if not any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(model).__mro__):
        return ""
    return (
        "It is a model of Keras 2 (the package tf_keras). Save it with model.save('model.h5') and load that file with "
        "tfkd.models.load, or write a SavedModel with model.export('folder') and convert the folder."
    )


def _check_layers(model: keras.Model) -> None:
    """Refuses layers that no .tflite can hold, by their name."""
    import keras

    tables = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)
    for layer in (*keras_compat.inner_layers(model), model):
        what = f"convert: {type(layer).__name__} {layer.name!r}"
        if isinstance(layer, (*tables, keras.layers.Hashing, keras.layers.HashedCrossing)):
            raise ModelError(
                f"{what} looks up or hashes values, for which TensorFlow Lite Micro and the builtin ops of LiteRT have "
                "no op. Apply the layer to the data, and convert the rest of the model, which takes its integers: "
                "keras.Model(layer.output, model.output)."
            )
        if getattr(layer, "quantization_mode", None) is not None:
            raise ModelError(
                f"{what} was quantized by model.quantize({layer.quantization_mode!r}), whose ops have no form in a "
                ".tflite. Convert the model as it was before: mode='full_int8' quantizes it."
            )
        if layer.compute_dtype in ("float16", "bfloat16", "float64"):
            raise ModelError(
                f"{what} must have weights in float32. Received: {layer.variable_dtype}. Build the model again with "
                "dtype float32 and copy the weights: new.set_weights(model.get_weights())."
            )


def input_specs(model: keras.Model) -> Nest:
    """The specs of the model's inputs at batch size 1, in the structure in which the model takes them."""
    import keras

    from tfkd.models.inputs import names

    if getattr(model, "inputs", None):
        inputs: Nest = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
            raise ModelError(
                f"convert: model {model.name!r} must have known input shapes. Received: a subclassed model that has "
                "not been called on a single input yet. Call it on a batch, or wrap it: inputs = keras.Input(shape); "
                "keras.Model(inputs, model(inputs))."
            )
        inputs = keras.KerasTensor(tuple(shape), dtype=model.input_dtype, name="input")
    tensors = keras.tree.flatten(inputs)
    for tensor in tensors:
        if None in tensor.shape[1:]:
            raise ModelError(
                f"convert: model {model.name!r} must have a fixed sample shape. Received: {tensor.shape[1:]} for input "
                f"{tensor.name!r}. Pass tfkd.models.with_input_shape(model, shape) with the size used on the device; "
                "on the command line --input-shape, such as 96,96,3."
            )
        if tensor.dtype in ("string", "float64"):
            raise ModelError(
                f"convert: input {tensor.name!r} must hold float32 values or integers. Received: {tensor.dtype}. "
                "Rebuild the model with keras.Input(..., dtype='float32')."
            )
    specs = [
        keras.InputSpec(shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=name)
        for tensor, name in zip(tensors, signatures.input_names(names(inputs)), strict=True)
    ]
    return keras.tree.pack_sequence_as(inputs, specs)


def _save(model: keras.Model, folder: Path, specs: Nest) -> list[str]:
    """Writes a SavedModel with the weights as constants, since saving and loading variables is slower than converting.

    A model that assigns to its variables, such as a recurrent layer with `stateful=True`, keeps them as variables.

    Returns:
        The names of the outputs in the order of the Keras model.
    """
    import keras
    import tensorflow as tf

    values = [(variable, keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    assigns = False
    names: list[str] = []
    layers = _output_layers(model)

    def named(outputs: Nest) -> dict[str, Tensor]:
        names[:] = signatures.output_names(outputs, layers)
        return dict(zip(names, keras.tree.flatten(outputs), strict=True))

    def serve(inputs: Nest) -> dict[str, Tensor]:
        nonlocal assigns
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in values]) as scope:
            before = dict(scope.state_mapping)
            outputs = model(inputs, training=False)
        assigns = any(value is not before.get(key) for key, value in scope.state_mapping.items())
        return named(outputs)

    tensors = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), specs)
    function = _trace(model, tf.function(serve, autograph=False), tensors)
    if assigns:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", lambda inputs: named(model(inputs, training=False)), input_signature=[specs])
        archive.write_out(str(folder), verbose=False)
        return names
    module = tf.Module()
    module.variables_outside_keras = list(function.graph.variables)  # a layer may create tf.Variable objects itself
    tf.saved_model.save(module, str(folder), signatures=function)
    return names


def _output_layers(model: keras.Model) -> list[str | None]:
    """The name of the layer that computes each output; None for one that nobody named."""
    from tfkd.models.outputs import is_unnamed

    if not keras_compat.shows_layers(model):
        return []
    producers = [keras_compat.producer(tensor) for tensor in model.outputs]
    return [None if is_unnamed(layer) else layer.name for layer in producers]


def _trace(
    model: keras.Model, function: tf.types.experimental.PolymorphicFunction, specs: Nest
) -> tf.types.experimental.ConcreteFunction:
    """The graph of a model at batch size 1.

    Raises:
        ModelError: A layer raised an error; the message names it.
    """
    import keras

    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()  # it would remove the frames of the layers
    try:
        return function.get_concrete_function(specs)
    except Exception as error:  # a layer may raise anything
        if isinstance(error, TfkdError):
            raise
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        owners = [frame.f_locals.get("self") for frame in frames]
        if refusals.is_ours(error):
            raise
        layers = [owner for owner in owners if isinstance(owner, keras.Operation) and owner is not model]
        where = f"{type(layers[-1]).__name__} {layers[-1].name!r}" if layers else f"model {model.name!r}"
        raise ModelError(
            f"convert: {where} does not run on one sample, a batch of size 1. {type(error).__name__} in its call. "
            "Leave the batch size open: keras.Input without batch size, -1 as first size of a reshape."
        ) from error
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()
