"""Latency of models on random input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkd import targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.targets import serving
from tfkd.targets.random_inputs import random_input

if TYPE_CHECKING:
    from tfkd.targets.measurement import Measurement


def benchmark(
    paths: Sequence[Path], specs: Sequence[str], *, threads: int | None = None, batches: Sequence[int] = (1,)
) -> list[tuple[Path, Measurement]]:
    """Measures the latency of models on random input, with each batch size.

    A .tflite runs on each target; a .keras file or a SavedModel runs in TensorFlow on this machine.

    Args:
        paths: .tflite files, .keras files and folders of SavedModels.
        specs: Specifications of targets, see `tfkd.targets.get`.
        threads: Threads per inference; None for the default of each target.
        batches: Samples per inference.

    Returns:
        A measurement for each model, target and batch size, with the path of its model.

    Raises:
        InputError: A model, a target or a setting of a target is wrong.
        ModelError: An input of a model is not of a type of NumPy, such as strings.
        ToolMissingError: A tool that a target needs is not installed.
        DeviceError: A model's process or device crashed or timed out.
    """
    runs: list[tuple[Path, Measurement]] = []
    for path in paths:
        if path.suffix == ".keras" or path.is_dir():
            runs += [(path, serving.time_model(path, threads=threads or 1, batch=batch)) for batch in batches]
            continue
        model = TFLiteModel.load(path)
        inputs = _random_inputs(model)
        options = {} if threads is None else {"threads": threads}
        for spec, batch in itertools.product(specs, batches):
            target = targets.get(spec, **options, **({"batch": batch} if batch != 1 else {}))
            runs.append((path, target.run(model, inputs)))
    return runs


def _random_inputs(model: TFLiteModel) -> list[np.ndarray]:
    for tensor in model.inputs:
        tensor.check_numbers("benchmark")
    return [
        random_input((1, *tensor.sample_shape), tensor.dtype, quantized=bool(tensor.scales), seed=i)
        for i, tensor in enumerate(model.inputs)
    ]
