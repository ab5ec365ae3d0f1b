"""Models in HDF5 files, and in `.keras` files that Keras 2 wrote."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

import keras

from tfkd._internal import keras_compat
from tfkd._internal.types import JsonObject
from tfkd.errors import InputError, ModelError
from tfkd.models import legacy_operations

CUSTOM_CLASSES = (
    "Register custom classes (keras.saving.register_keras_serializable) and import their module first, with "
    "--import on the command line; replace Lambda layers by built-in layers, or pass --allow-lambda "
    "(keras.config.enable_unsafe_deserialization() in Python)."
)
_LONGEST_REASON = 500  # characters
# Functions of TensorFlow that serve as activations, by the name that is in the files. Keras finds others, such as
# `relu`, by itself.
TENSORFLOW_ACTIVATIONS = {"softmax_v2": keras.activations.softmax, "log_softmax_v2": keras.activations.log_softmax}
# Arguments of Keras 2 that layers of Keras 3 do not have. With these values, they change nothing.
_REMOVED = {"groups": 1, "rng_type": "stateful", "softmax_robust_masking": False, "time_major": False}


def reason(error: Exception) -> str:
    """An error of Keras on one line, without the configuration of each layer."""
    text = str(error).rpartition("Exception encountered: ")[2].partition("Full object config")[0]
    return f"{type(error).__name__}: {shorten(text, _LONGEST_REASON, placeholder=' ...')}".rstrip(". ")


def load(path: Path) -> keras.Model:
    """Loads a model from an HDF5 file. Files with Python code (Lambda layers) are refused.

    Args:
        path: Path of a `.h5` or `.hdf5` file.

    Returns:
        The model, not compiled.

    Raises:
        InputError: The file is no HDF5 file.
        ModelError: The file holds weights only, or Keras 3 has no layer or function for one of Keras 2.
    """
    import h5py

    if not h5py.is_hdf5(path):
        raise InputError(f"models.load: {path} must be an HDF5 file. Received: another format. Save the model again.")
    try:
        with h5py.File(path) as file:
            config, version = file.attrs.get("model_config"), str(file.attrs.get("keras_version", "unknown"))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"models.load: {path} must be a whole HDF5 file. Received: {error}. Copy it again, or save the model again."
        ) from error
    if config is None:
        raise ModelError(
            f"models.load: {path} must hold a whole model. Received: weights only. Build the model, load the file with "
            "model.load_weights, and save it with model.save('model.keras')."
        )
    try:
        if version.startswith("3."):
            return read(path)
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            copy = shutil.copy(path, Path(folder) / "model.h5")
            with h5py.File(copy, "r+") as file:
                layers = json.loads(config, object_hook=_for_keras_3)
                file.attrs["model_config"] = json.dumps(_without_slashes(layers))
            return _unwrapped(read(copy))
    except Exception as error:  # Keras raises any exception, according to what is wrong with the file
        raise _refusal(path, version, error) from error


def read(path: str | Path) -> keras.Model:
    """Loads a model of Keras 3 by Keras, without its advice on how to write the code of a model.

    Args:
        path: Path of the file.

    Raises:
        Exception: Any, according to what is wrong with the file.
    """
    with warnings.catch_warnings():
        # Keras 2 wrote the shape of a Sequential model's input as an argument of its first layer.
        warnings.filterwarnings("ignore", "Do not pass an `input_shape`", UserWarning)
        return keras.saving.load_model(path, custom_objects=TENSORFLOW_ACTIVATIONS, compile=False)


def load_archive(path: Path, version: str) -> keras.Model:
    """Loads a model from a `.keras` file of Keras 2. Files with Python code (Lambda layers) are refused.

    Args:
        path: Path of the file.
        version: Version of Keras that wrote it.

    Returns:
        The model, not compiled.

    Raises:
        ModelError: The file is incomplete, or Keras 3 has no layer or function for one of Keras 2.
    """
    with zipfile.ZipFile(path) as archive:
        missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
    if missing:
        raise ModelError(
            f"models.load: {path} must hold the config and the weights of a model. Received: a file of Keras {version} "
            f"without {' and '.join(sorted(missing))}. Save the model again, whole, with model.save('model.keras')."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            copy = Path(folder) / "model.keras"
            with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as rewritten:
                config = json.loads(archive.read("config.json"), object_hook=_of_archive)
                rewritten.writestr("config.json", json.dumps(_without_slashes(config)))
                rewritten.writestr("metadata.json", archive.read("metadata.json"))
                rewritten.write(_weights(archive, Path(folder)), "model.weights.h5")
            return _unwrapped(read(copy))
    except Exception as error:  # Keras raises any exception, according to what is wrong with the file
        raise _refusal(path, version, error) from error


def _refusal(path: Path, version: str, error: Exception) -> ModelError:
    return ModelError(
        f"models.load: Keras {keras.__version__} could not load {path}, which Keras {version} wrote: "
        f"{reason(error)}. {CUSTOM_CLASSES} To convert the model without training it, write a SavedModel with "
        f"{_call_for_saved_model(version)} of Keras {version} and convert the folder."
    )


def _call_for_saved_model(version: str) -> str:
    """The call that writes a SavedModel; versions before 2.13 have no `export`."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return "model.save('folder', save_format='tf')" if numbers < (2, 13) else "model.export('folder')"


def _weights(archive: zipfile.ZipFile, folder: Path) -> Path:
    """A copy of the weights of the layers. Keras 2 on Windows separated names by backslashes."""
    import h5py

    copy = folder / "layers.h5"
    with archive.open("model.weights.h5") as raw, h5py.File(raw) as source, h5py.File(copy, "w") as target:

        def take(name: str, item: h5py.HLObject) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith(("metrics", "optimizer")):
                target[name.replace("\\", "/")] = item[()]

        source.visititems(take)
    return copy


def _of_archive(entry: JsonObject) -> JsonObject:
    """A dictionary of the configuration in a `.keras` file of Keras 2 in the form of Keras 3."""
    entry = _for_keras_3(entry)
    if str(entry.get("module", "")).endswith("engine.functional"):
        entry["module"] = "keras.src.models.functional"
    if "momentum" in entry and isinstance(entry.get("axis"), list):  # BatchNormalization
        (entry["axis"],) = entry["axis"]
    # Layers are built by the calls; losses and optimizers are not loaded.
    return {key: value for key, value in entry.items() if key not in ("build_config", "compile_config")}


def _for_keras_3(entry: JsonObject) -> JsonObject:
    """A dictionary of a model's configuration in the form of Keras 3."""
    if entry.get("class_name") in legacy_operations.CLASSES:
        return legacy_operations.for_keras_3(entry)
    if "output_layers" in entry and "layers" in entry:
        return legacy_operations.count_from_zero(entry)
    if "inbound_nodes" in entry:
        nodes = [legacy_operations.call(entry["class_name"], node) for node in entry["inbound_nodes"]]
        return {**entry, "inbound_nodes": nodes}
    if entry.get("class_name") == "Sequential":
        _forget_input_shapes(entry["config"])
    for key in ("activation", "recurrent_activation"):
        if entry.get(key) == "hard_sigmoid":
            raise ModelError(
                f"layer {entry.get('name')!r} has the activation hard_sigmoid, which is clip(0.2 x + 0.5, 0, 1) in "
                "Keras 2 and clip(x / 6 + 0.5, 0, 1) in Keras 3"
            )
    if "query_shape" in entry:  # MultiHeadAttention; Keras 3 finds the shapes when it builds the layer
        entry = {key: value for key, value in entry.items() if key not in ("query_shape", "key_shape", "value_shape")}
    return {key: value for key, value in entry.items() if key not in _REMOVED or value != _REMOVED[key]}


def _forget_input_shapes(config: JsonObject | list[JsonObject]) -> None:
    """Removes shapes of inputs from the layers of a Sequential model whose InputLayer has them too, in place.

    Not all layers of Keras 3 take them.
    """
    layers = config["layers"] if isinstance(config, dict) else config
    for layer in layers[1:] if layers and layers[0].get("class_name") == "InputLayer" else ():
        layer["config"].pop("batch_input_shape", None)


def _without_slashes(config: Any, names: Collection[str] | None = None) -> Any:
    """A configuration in which the names of layers have no '/', which Keras 3 does not accept.

    Weights are assigned in the order of the layers, not by their names.
    """
    if names is None:
        names = {name for name in _names(config) if "/" in name}
    if isinstance(config, dict):
        return {key: _without_slashes(value, names) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_slashes(value, names) for value in config]
    return config.replace("/", "_") if isinstance(config, str) and config in names else config


def _names(config: Any) -> Iterator[str]:
    """All values of the key `name`."""
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _names(value)
    if isinstance(config, dict) and isinstance(config.get("name"), str):
        yield config["name"]


def _unwrapped(model: keras.Model) -> keras.Model:
    """A model that takes its only input, and returns its only output, without a list around it."""
    if not keras_compat.shows_layers(model) or not isinstance(keras_compat.input_structure(model), list):
        return model
    inputs, outputs = ([*tensors] if len(tensors) > 1 else tensors[0] for tensors in (model.inputs, model.outputs))
    return keras.Model(inputs, outputs, name=model.name)
