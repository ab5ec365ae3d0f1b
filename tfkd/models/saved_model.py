"""SavedModels as Keras models, which can teach and be compared with, but show no layers to train."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from tfkd._internal import keras_compat
from tfkd._internal.types import JsonObject
from tfkd.errors import ModelError

_FILE = "saved_model.pb"
_SIGNATURE = "serving_default"


class _SavedModelLayer(keras.layers.TFSMLayer):
    """The signature of a SavedModel as a layer whose configuration has a hash of its files instead of their path."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), call_endpoint=_SIGNATURE, trainable=False)
        self.digest = folder_hash(folder)

    def get_config(self) -> JsonObject:
        return {"name": self.name, "digest": self.digest}


def is_saved_model(folder: Path) -> bool:
    """Whether a path is the folder of a SavedModel."""
    return (folder / _FILE).is_file()


def folder_hash(folder: Path) -> str:
    """SHA-256 (hex) of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        with file.open("rb") as content:
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def load(folder: Path) -> keras.Model:
    """The model of a SavedModel: its signature `serving_default`. Its graph may read and write files.

    Args:
        folder: Folder that `model.export`, or `model.save` of Keras 2, wrote.

    Raises:
        ModelError: TensorFlow cannot load it, or its signature does not have one input and one output.
    """
    try:
        layer = _SavedModelLayer(folder)
    except Exception as error:  # TensorFlow raises any exception, according to what is wrong with the files
        raise ModelError(
            f"models.load: TensorFlow could not load the SavedModel {folder}: {str(error).splitlines()[0]} Export the "
            "model again."
        ) from error
    signature = layer.call_endpoint_fn
    specs = [*signature.structured_input_signature[1].values()]
    outputs = [*signature.structured_outputs]
    if len(specs) != 1 or len(outputs) != 1 or specs[0].shape.rank is None:
        raise ModelError(
            f"models.load: the SavedModel {folder} must have one input of known rank and one output. Received: "
            f"{len(specs)} inputs and {len(outputs)} outputs. Give the .keras file of the model."
        )
    inputs = keras.Input(batch_shape=tuple(specs[0].shape), dtype=specs[0].dtype.name)
    return keras.Model(inputs, layer(inputs)[outputs[0]])


def is_wrapped(model: keras.Model) -> bool:
    """Whether a model was loaded from a SavedModel."""
    return any(isinstance(layer, _SavedModelLayer) for layer in keras_compat.inner_layers(model))
