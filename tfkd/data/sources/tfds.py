"""Data sets of TensorFlow Datasets that lie on disk: `tfds:NAME`. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfkd.data import images
from tfkd.data.manifest import PARTS
from tfkd.data.reading import ReadingOptions, Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError, ToolMissingError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_PREFIX = "tfds:"
OPTIONS = ("image_size", "color", "resize", "crop")


def read(request: Request) -> Arrays:
    """Reads the parts train, validation and test of a data set with one input and one class, into memory.

    Raises:
        InputError: The data set is unknown, is not on this machine, or has another form.
        ToolMissingError: The package is not installed.
    """
    name = request.reference.removeprefix(_PREFIX)
    builder = _builder(name)
    label = _check_form(builder, name)
    x: list[np.ndarray] = []
    y, part = [], []
    for split in (split for split in builder.info.splits if split in PARTS):
        for number, (sample, number_of_class) in enumerate(_samples(builder, split)):
            where = f"{request.reference}, {split}, sample {number}"
            x.append(_sample(sample, where, x[0].shape if x else None, request.options))
            y.append(number_of_class)
            part.append(PARTS[split])
    if "train" not in part:
        raise InputError(
            f"load: {request.reference} must have a part train. Received: {', '.join(builder.info.splits)}. Use "
            "another."
        )
    return Arrays(
        np.stack(x),
        np.array(y, np.int64),
        class_names=tuple(label.names),
        name=name.partition("/")[0].partition(":")[0],
        location=request.reference,
        part=np.array(part) if len(set(part)) > 1 else None,
    )


def _builder(name: str) -> tfds.core.DatasetBuilder:
    """The reader of a data set that is on disk."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ToolMissingError(
            f"load: {_PREFIX}{name} needs the package tensorflow-datasets: {error}. Install it with pip install "
            "'tfkd[tfds]'."
        ) from None
    try:
        builder = tfds.builder(name, try_gcs=False)
    except Exception as error:  # of the name, the version or the configuration
        raise InputError(
            f"load: {_PREFIX}{name} must be a data set of TensorFlow Datasets. Received: {str(error).splitlines()[0]}"
        ) from error
    if not builder.data_path.exists():
        raise InputError(
            f"load: {_PREFIX}{name} must be on this machine. Received: nothing in {builder.data_path}. Download it: "
            f"python -c \"import tensorflow_datasets as tfds; tfds.load('{name}')\", or set TFDS_DATA_DIR."
        )
    return builder


def _check_form(builder: tfds.core.DatasetBuilder, name: str) -> tfds.features.ClassLabel:
    """The feature of the class.

    Raises:
        InputError: The data set does not have one input and one class.
    """
    keys = builder.info.supervised_keys
    label = builder.info.features[keys[1]] if keys and len(keys) == 2 and isinstance(keys[1], str) else None
    if not hasattr(label, "names"):
        raise InputError(
            f"load: {_PREFIX}{name} must have an input and a class (supervised keys). Received: {keys}. Write it as a "
            "folder, a manifest or a TFRecord."
        )
    return label


def _samples(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of a part with their classes, always in the same order."""
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(split=split, as_supervised=True, shuffle_files=False, read_config=config)
    for x, y in dataset.as_numpy_iterator():
        yield np.asarray(x), int(y)


def _sample(x: np.ndarray, where: str, shape: tuple[int, ...] | None, options: ReadingOptions) -> np.ndarray:
    """A sample with the options of images applied; of the shape of the others."""
    if x.dtype.kind not in "buif":
        raise InputError(f"load: {where}: a sample must be numbers. Received: {x.dtype}. Use another data set.")
    if options.given:
        if x.dtype != np.uint8 or x.ndim != 3:
            raise InputError(
                f"load: {where}: {options.given[0]} needs images. Received: {x.dtype} of shape {x.shape}. Leave it out."
            )
        x = images.fitted(x, options)
    if shape is not None and x.shape != shape:
        raise InputError(
            f"load: {where}: each sample must have the shape of the first, {shape}. Received: {x.shape}. Pass "
            "image_size=(96, 96) for images."
        )
    return x


SOURCE = Source(accepts=lambda request: request.reference.startswith(_PREFIX), read=read, options=OPTIONS)
