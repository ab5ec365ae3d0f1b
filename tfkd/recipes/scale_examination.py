"""Whether a model scales samples that are scaled already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfkd.conversion import input_scale, keras_runs
from tfkd.recipes.findings import Finding

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split

# Samples that show the range of the data.
_SAMPLES = 64


def examine(model: keras.Model, split: Split) -> Iterator[Finding]:
    """Finds a first layer, such as `Rescaling(1 / 255)`, that leaves almost nothing of the differences of samples.

    Args:
        model: An untrained student; one that does not take the samples, or does not tell its input, is not examined.
        split: Training samples; those that are all one value tell nothing.
    """
    if getattr(model, "input_shape", None) != (None, *split.input_shape):  # subclassed models have none
        return
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
