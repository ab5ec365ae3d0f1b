"""Runs of a model over a split whose samples are not in memory."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from tfkd.conversion import file_inputs
from tfkd.targets.measurement import Measurement

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

# Samples that a target is given at a time where they are not in memory; of large samples so many values.
_PART = 1024
_PART_VALUES = 20_000_000


def run_in_parts(target: Target, model: TFLiteModel, test: Split, *, latency: bool = True) -> Measurement:
    """Runs a model over a split whose samples are not in memory; latency is measured on the first part.

    Args:
        target: Target to run on.
        model: The model.
        test: The split.
        latency: Whether latency is measured.
    """
    first: Measurement | None = None
    outputs: list[tuple[np.ndarray, ...]] = []
    size = max(1, min(_PART, _PART_VALUES // math.prod(test.input_shape)))
    for start in range(0, len(test), size):
        part = file_inputs.quantized(model, test.x[start : start + size], "validate: the model")
        measured = target.run(model, part, latency=latency and first is None)
        first = first or measured
        if not measured.valid or not measured.outputs:
            return measured
        outputs.append(measured.outputs)
    assert first is not None
    joined = tuple(np.concatenate(one) for one in zip(*outputs, strict=True))
    return dataclasses.replace(first, outputs=joined)
