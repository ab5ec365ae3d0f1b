"""The protocol of a target, and what the targets share: checked inputs, samples divided among cores, specifications."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.targets.measurement import Measurement


class Target(Protocol):
    """A place where a .tflite runs."""

    @property
    def spec(self) -> str:
        """What `get` takes for it."""

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: Any, *, latency: bool = True
    ) -> Measurement:
        """Runs a model over inputs.

        Args:
            model: a .tflite.
            inputs: [N, ...] raw, of the model's dtype; a sequence of such arrays for a model of several inputs.
            latency: whether to time single inferences first.

        Raises:
            ValueError: the inputs do not fit, or the target refuses the model.
            RuntimeError: the model's process crashed or hung, or a tool is missing.
        """


def described(place: str, target: Any, *settings: str) -> str:
    """What `get` takes for a target: its place, and those of its settings that are not the usual ones."""
    usual = {field.name: field.default for field in dataclasses.fields(target)}
    found = {name: getattr(target, name) for name in settings if getattr(target, name) != usual[name]}
    said = (f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in found.items())
    return ",".join([place, *said])


def check_timeout(where: str, timeout_s: float) -> None:
    """Refuses a time limit that nothing can keep."""
    if not timeout_s > 0:
        raise InputError(f"{where}: timeout_s must be > 0. Received: timeout_s={timeout_s}. Use 600.")


def check_inputs(model: TFLiteModel, inputs: Any, where: str) -> list[np.ndarray]:
    """The inputs as one contiguous array for each input of the model, after checking that they fit.

    Raises:
        ValueError: another number, dtype or shape than the model takes.
    """
    arrays = list(inputs) if isinstance(inputs, Sequence) else [inputs]
    arrays = [np.ascontiguousarray(array) for array in arrays]
    if len(arrays) != len(model.inputs):
        raise InputError(
            f"{where}: the model takes {len(model.inputs)} inputs. Received: {len(arrays)}. "
            "Pass one array [N, ...], or a list with one array for each input."
        )
    for array, tensor in zip(arrays, model.inputs, strict=True):
        if tensor.shape[:1] not in ((1,), (-1,)):
            raise InputError(
                f"{where}: input {tensor.name!r} of the model must have batch size 1. Received: shape {tensor.shape}. "
                "Convert the model with `tfkd convert`, which fixes it to 1."
            )
        if str(array.dtype) != tensor.dtype:
            raise InputError(
                f"{where}: input {tensor.name!r} must be {tensor.dtype}. Received: {array.dtype}. "
                "Use model.quantize_input(x)."
            )
        if array.shape[1:] != tensor.shape[1:] or len(array) < 1 or len(array) != len(arrays[0]):
            raise InputError(
                f"{where}: input {tensor.name!r} must be [N, {', '.join(map(str, tensor.shape[1:]))}] with N >= 1, "
                f"equal for all inputs. Received: shape {array.shape}. Give the samples in the model's own shape."
            )
    return arrays


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shards(arrays: list[np.ndarray], *, least: int) -> list[list[np.ndarray]]:
    """Cuts the samples into as many parts as there are cores, none smaller than `least` unless all are in one."""
    parts = max(1, min(cores(), len(arrays[0]) // least))
    return [list(part) for part in zip(*(np.array_split(array, parts) for array in arrays), strict=True)]


def joined(parts: list[dict[str, Any]]) -> tuple[np.ndarray, ...]:
    """The outputs of all parts, one array for each output of the model."""
    return tuple(np.concatenate(output) for output in zip(*(part["outputs"] for part in parts), strict=True))
