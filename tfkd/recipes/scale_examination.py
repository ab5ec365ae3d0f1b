"""Whether a model scales samples that are scaled already, and whether the columns of a table have one scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfkd.conversion import input_scale, keras_runs
from tfkd.data.model_inputs import arrays_of
from tfkd.data.named_arrays import NamedArrays
from tfkd.recipes.findings import Finding

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

# Samples that show the range of the data.
_SAMPLES = 64
# Rows of a table that show the ranges of its columns.
_ROWS = 2000


def examine(model: keras.Model, split: Split) -> Iterator[Finding]:
    """Finds a first layer, such as `Rescaling(1 / 255)`, that leaves almost nothing of the differences of samples.

    And columns of a table that vary by less than a step of an int8 input.

    Args:
        model: An untrained student; one that does not take the samples, or does not tell its input, is not examined.
        split: Training samples; those that are all one value tell nothing.
    """
    from tfkd.models import inputs

    if not inputs.fit(model, split.x):  # subclassed models have no shapes
        return
    some = split.sample(min(_ROWS, len(split))).x
    if isinstance(some, NamedArrays):
        for one, array in zip(inputs.of(model), arrays_of(inputs.of(model), some, model.name), strict=True):
            if one.is_float and array.ndim == 2:
                yield from _examine_columns(array, f"input {one.name}: ")
        return
    if len(split.input_shape) == 1 and model.inputs[0].dtype.startswith("float"):
        yield from _examine_columns(some.astype("float32"))
    x = split.sample(min(_SAMPLES, len(split))).x.astype("float32")
    _, layers = keras_runs.run(model, x[:1])
    for scale in input_scale.own_scales(layers, x) if x.std() > 0 else ():
        if scale.fault is not None:
            yield Finding(
                "warning",
                "The first layer of the student expects samples of another scale.",
                f"samples {scale.fault}",
                "Give samples in the range of that layer, such as images as 0..255 for the builders of tfkd; adapt a "
                "Normalization to them; or take a student without that layer.",
            )


def _examine_columns(x: np.ndarray, where: str = "") -> Iterator[Finding]:
    """A finding on columns of a table [N, columns] that vary by less than a step of an int8 input."""
    step, deviations = float(np.ptp(x)) / 255, x.std(axis=0)
    lost = np.flatnonzero((deviations > 0) & (deviations < step))
    if len(lost):
        few, most = int(lost[0]), int(deviations.argmax())
        yield Finding(
            "warning",
            "Columns of the table have very different scales.",
            f"{where}{len(lost)} of {x.shape[1]} columns vary by less than {step:.3g}, a step of an int8 input. "
            f"Standard deviations are {deviations[few]:.3g} in column {few + 1} and {deviations[most]:.3g} in column "
            f"{most + 1}",
            "Bring the columns to similar ranges in the data: one step size quantizes all of them, and the largest "
            "hide the others from the training.",
        )
