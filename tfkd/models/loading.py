"""Models by name and from files."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras

from tfkd._internal import matrix_products
from tfkd._internal.suggestion import suggestion
from tfkd.errors import InputError, ModelError
from tfkd.models import legacy, saved_model
from tfkd.models.input_range import take_pixels
from tfkd.models.probabilities import to_logits
from tfkd.models.zoo import BUILDERS

NAMES = tuple(BUILDERS)
_HDF5 = (".h5", ".hdf5")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def build(name: str, input_shape: tuple[int, ...], num_classes: int, **options: object) -> keras.Model:
    """Builds a model by its name.

    Args:
        name: One of `NAMES`.
        input_shape: Shape of one sample, without the batch axis.
        num_classes: Number of classes or of other outputs, >= 1.
        **options: Further arguments of the builder, such as `depth` or `alpha`.

    Returns:
        A model with random weights, or those that the builder's option `weights` names.

    Raises:
        InputError: The name or an option is unknown, or the builder refuses a value.

    >>> build("resnet_cifar", (32, 32, 3), 10, depth=32).name
    'resnet32'
    """
    check_options(name, options)
    return BUILDERS[name](input_shape, num_classes, **options)


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuses a builder or options that do not exist.

    Args:
        name: Name of a builder.
        options: Names of further arguments of the builder.

    Raises:
        InputError: The name or an option is unknown.
    """
    if name not in BUILDERS:
        hint = suggestion(name, NAMES) or f" Models: {', '.join(NAMES)}."
        raise InputError(f"models.build: unknown model {name!r}.{hint}")
    known = list(inspect.signature(BUILDERS[name]).parameters)[2:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"models.build: {name} takes the options: {', '.join(known) or 'none'}. Received: {', '.join(unknown)}. "
            f"Remove or rename the unknown ones."
        )


def load(
    model: str | os.PathLike[str] | keras.Model,
    *,
    input_range: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    preprocess: str | Mapping[str, str] | None = None,
    custom: Sequence[str] = (),
    logits: bool | Sequence[str] = True,
) -> keras.Model:
    """A teacher or student as tfkd trains it: a model whose outputs are logits and that takes pixel values 0..255.

    Of a model that ends in a softmax or a sigmoid, the activation is removed where the layers show it. Where they do
    not, the logarithm of the probabilities is appended, with a warning; see `tfkd.models.probabilities.to_logits`.

    Args:
        model: Path of a `.keras` file, or of a `.h5` file that holds a whole model, of Keras 2 or 3, or of the
            folder of a SavedModel, which cannot be trained; or a model, with which the result shares layers. A file
            with Python code (Lambda layers) is refused.
        input_range: The values (low, high) that the model expects for the pixels 0 and 255, where they were scaled
            outside of it: (0, 1) after a division by 255. The scaling becomes its first layer. Of a model with several
            inputs a dictionary by the name of the input.
        preprocess: The `preprocess_input` of `keras.applications` that the model expects instead: `tf`, `torch`,
            `caffe`, or the name of a module such as `resnet50`; of several inputs a dictionary.
        custom: Modules to import first, which register custom layers (`keras.saving.register_keras_serializable`).
            Their code is executed.
        logits: Whether a softmax or sigmoid at the end is removed. Pass False for a regression, whose outputs are
            values; of a model with several outputs also the names of those that become logits.

    Returns:
        The model, not compiled; the given one where nothing changes.

    Raises:
        InputError: The file does not exist or has another format, the argument is no model, or the range is wrong.
        ModelError: Keras cannot load the file, or the scaling does not fit the input of the model.
    """
    for module in custom:
        importlib.import_module(module)
    if isinstance(model, (str, os.PathLike)):
        model = read(model)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"models.load: model must be a path or a keras.Model. Received: {type(model).__name__}. Pass the path of a "
            ".keras file."
        )
    if logits:
        model = to_logits(model, None if logits is True else logits)
    return take_pixels(model, input_range=input_range, preprocess=preprocess)


def read(path: str | os.PathLike[str]) -> keras.Model:
    """The model of a file as it is, with its softmax where it has one. Files with Python code are refused.

    Args:
        path: Path of a `.keras` or `.h5` file or of a SavedModel, see `load`.

    Returns:
        The model, not compiled.

    Raises:
        InputError: The file does not exist or has another format.
        ModelError: Keras cannot load the file.
    """
    path = Path(path)
    if saved_model.is_saved_model(path):
        return saved_model.load(path)
    if path.is_dir():
        raise InputError(
            f"models.load: {path} is a folder without saved_model.pb. Pass the .keras or .h5 file of a model, or the "
            "folder of a SavedModel."
        )
    if not path.is_file():
        raise InputError(f"models.load: {path} does not exist. Pass the path of a .keras file.")
    matrix_products.correct()  # building the model may compute some
    if path.suffix in _HDF5:
        model = legacy.load(path)
    elif path.suffix == ".keras" and zipfile.is_zipfile(path):
        model = _load_keras(path)
    else:
        raise InputError(f"models.load: {path} must be a .keras or .h5 file. {_received(path)}")
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"models.load: {path} must hold a model. Received: {type(model).__name__}. Save a keras.Model."
        )
    return model


def _received(path: Path) -> str:
    """What a file is that is no archive of a model."""
    with path.open("rb") as file:
        start = file.read(len(_HDF5_SIGNATURE))
    size = f"{path.stat().st_size:,} bytes"
    if path.suffix == ".keras" and (start.startswith(b"PK") or not start):
        return (
            f"Received: an incomplete file of {size}, as after an interrupted copy or on a full disk. Copy or save it "
            "again."
        )
    if start == _HDF5_SIGNATURE:
        return "Received: an HDF5 file with another suffix. Rename it to end in .h5."
    return "Received: another format. Save the model with model.save('model.keras')."


def _load_keras(path: Path) -> keras.Model:
    version = ""
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:  # a damaged file has no version
        version = str(json.loads(archive.read("metadata.json"))["keras_version"])
    if version.startswith("2."):
        return legacy.load_archive(path, version)
    try:
        return legacy.read(path)
    except Exception as error:  # Keras raises any exception, according to what is wrong with the file
        raise ModelError(
            f"models.load: Keras could not load {path}: {legacy.reason(error)}. {legacy.CUSTOM_CLASSES}"
        ) from error
