"""The protocol of a target, and what targets share: checks of inputs, samples divided among cores, specifications."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.types import InputArrays, JsonObject, JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.targets.measurement import Measurement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OnProgress = Callable[[str, int], None]


# Place of the bias among the inputs of an op, and its options.
_BIASES = {
    "CONV_2D": (2, schema.Conv2DOptions),
    "FULLY_CONNECTED": (2, schema.FullyConnectedOptions),
    "TRANSPOSE_CONV": (3, schema.TransposeConvOptions),
}


class Target(Protocol):
    """A place where a .tflite runs.

    A target is a frozen dataclass that inherits from this class; its fields are its settings. `spec` and `run` must be
    written, the rest has a default. A module with such a class becomes a target with one line in
    `tfkd/targets/__init__.py`.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every specification without settings, or () where the part after the colon is free, as in `ssh:HOST`."""
        return ()

    @classmethod
    def parse(cls, name: str, detail: str) -> dict[str, object]:
        """Constructor arguments that are written in a specification before its settings.

        Args:
            name: Part before the colon, as registered.
            detail: Part after the colon; empty where there is none.
        """
        return {}

    @property
    def spec(self) -> str:
        """The specification from which `tfkd.targets.get` makes an equal target."""

    def check(self) -> None:
        """Checks that the device can be reached; does nothing on targets that need none.

        Raises:
            DeviceError: No device, several devices, or one that does not respond.
        """
        return

    def with_progress(self, on_progress: OnProgress) -> Self:
        """A copy that reports the progress of a run, or the target itself where runs report none.

        Args:
            on_progress: Called with the name of a phase and its progress in percent.
        """
        return self

    def with_labels(self, labels: np.ndarray, output: int = 0) -> Self:
        """A copy that knows the class of each sample, or the target itself where runs show no accuracy.

        Args:
            labels: [N] class of each sample of the next run.
            output: Number of the output that has the scores of the classes.
        """
        return self

    def with_features(self, how: JsonRecord, sounds: np.ndarray | None = None) -> Self:
        """A copy that computes the features of sounds itself, or the target itself where it takes them as they are.

        Args:
            how: Definition of the features, see `tfkd.data.sound_features.definition`.
            sounds: Samples in -1..1, float32 [N, samples, 1], from which the next run of N samples starts; None for a
                run that starts from features, and counts beside the model what computing them costs.
        """
        return self

    def in_chunks(self) -> Self:
        """A copy that feeds sequences to a model in chunks of the length of its input, see `tfkd.targets.chunks`.

        Raises:
            InputError: The target starts each input from the initial state of the model.
        """
        raise InputError(
            f"{self.spec}: this target cannot keep the state of a model from one chunk of a sequence to the next. Use "
            "the targets host, host:plain, host:reference, tflm and emulated cores such as cortex-m4."
        )

    def for_any_weights(self) -> Self:
        """A copy that no weights of a model make smaller or faster, or the target itself where none can."""
        return self

    @property
    def runs_in_parts(self) -> bool:
        """Whether samples that are not in memory may be divided among several runs; False where each needs a person."""
        return True

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """Runs a model over samples.

        Args:
            model: A .tflite: its path, its bytes or the loaded model.
            inputs: [N, ...] raw samples in the model's dtype; a sequence of such arrays for a model of several inputs.
            latency: Whether to time single inferences before the outputs are computed; `host` measures its memory then.

        Returns:
            Outputs, and what else the target measures, each with its evidence.

        Raises:
            InputError: The inputs do not fit the model.
            ModelError: The target cannot run the model.
            DeviceError: The process or device that ran the model crashed, timed out or cannot be reached.
        """


def described(place: str, target: DataclassInstance, *settings: str) -> str:
    """The specification of a target: its place and the settings that differ from their defaults.

    Args:
        place: Specification without settings, such as `host:plain`.
        target: The target, a dataclass.
        *settings: Names of the fields to include.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(target)}
    changed = {name: getattr(target, name) for name in settings if getattr(target, name) != defaults[name]}
    parts = (f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in changed.items())
    return ",".join([place, *parts])


def check_timeout(where: str, timeout_s: float) -> None:
    """Checks that a time limit is positive.

    Args:
        where: Name of the target, for the error message.
        timeout_s: Time limit in seconds.

    Raises:
        InputError: It is not.
    """
    if not timeout_s > 0:
        raise InputError(f"{where}: timeout_s must be > 0. Received: timeout_s={timeout_s}. Use 600.")


def check_inputs(model: TFLiteModel, inputs: InputArrays, where: str) -> list[np.ndarray]:
    """Checks that samples fit a model.

    Args:
        model: The model.
        inputs: See `Target.run`.
        where: Name of the target, for the error message.

    Returns:
        One contiguous array [N, ...] for each input of the model.

    Raises:
        InputError: Another number of inputs, dtype or shape than the model has.
        ModelError: An input of the model has a dimension without a size.
    """
    arrays = list(inputs) if isinstance(inputs, Sequence) else [inputs]
    arrays = [np.ascontiguousarray(array) for array in arrays]
    if len(arrays) != len(model.inputs):
        raise InputError(
            f"{where}: the model has {len(model.inputs)} inputs. Received: {len(arrays)}. "
            "Pass one array [N, ...], or a list with one array for each input."
        )
    for array, tensor in zip(arrays, model.inputs, strict=True):
        if any(size < 1 for size in tensor.shape):
            raise ModelError(
                f"{where}: input {tensor.name!r} of the model must have dimensions >= 1. Received: shape "
                f"{tensor.shape}. Convert the model with `tfkd convert`, which sets the batch size to 1."
            )
        if str(array.dtype) != tensor.dtype:
            raise InputError(
                f"{where}: input {tensor.name!r} must be {tensor.dtype}. Received: {array.dtype}. "
                "Use model.quantize_input(x)."
            )
        # `array.ndim` first: a scalar has no length.
        if not array.ndim or array.shape[1:] != tensor.sample_shape or len(array) < 1 or len(array) != len(arrays[0]):
            raise InputError(
                f"{where}: input {tensor.name!r} must be [{', '.join(map(str, ('N', *tensor.sample_shape)))}] with "
                f"N >= 1, equal for all inputs. Received: shape {array.shape}. Reshape the samples to the model's "
                "input shape."
            )
    return arrays


def check_litert(model: TFLiteModel, where: str, *, kernels: str = "xnnpack") -> None:
    """Checks that the kernels of LiteRT compute a model right.

    Args:
        model: The model.
        where: Name of the target, for the error message.
        kernels: `xnnpack`, `plain` or `reference`, as of `tfkd.targets.host.Host`, or `wasm`, those of LiteRT.js.

    Raises:
        ModelError: An SVDF op has an int8 state, which LiteRT takes for int16 and reads beyond its end, or an op on
            int16 has an int32 bias that it takes for int64.
    """
    tensors = model.graph.tensors
    for index, op in enumerate(model.graph.ops):
        if op.name == "SVDF" and {tensors[i].dtype for i in (*op.inputs[:1], *op.inputs[4:])} == {"int8"}:
            raise ModelError(
                f"{where}: the state of SVDF ({tensors[op.outputs[0]].name}) must be int16. Received: int8, which "
                "only TensorFlow Lite Micro and the generated C compute. Use the target tflm or cortex-m4."
            )
        if _misreads_bias(model, index, kernels):
            raise ModelError(
                f"{where}: the bias of {op.name} ({tensors[op.outputs[0]].name}) must be int64 where activations are "
                "int16. Received: int32, which LiteRT misreads there. Use the target tflm, or `tfkd convert --mode "
                "int16x8`, whose biases are int64."
            )


def _misreads_bias(model: TFLiteModel, index: int, kernels: str) -> bool:
    """Whether LiteRT 2.3 takes the int32 bias of an op on int16 for int64: the op's options may say its type."""
    op, tensors = model.graph.ops[index], model.graph.tensors
    place, kind = _BIASES.get(op.name, (len(op.inputs), None))
    bias = op.inputs[place] if place < len(op.inputs) else -1
    if kind is None or bias < 0 or (tensors[bias].dtype, tensors[op.outputs[0]].dtype) != ("int32", "int16"):
        return False
    options, table = kind(), schema.Model.GetRootAs(model.content).Subgraphs(0).Operators(index).BuiltinOptions()
    says_int32 = False
    if table is not None:
        options.Init(table.Bytes, table.Pos)
        says_int32 = options.QuantizedBiasType() == schema.TensorType.INT32
    if op.name == "TRANSPOSE_CONV":
        return says_int32 or kernels == "wasm"
    return not says_int32 and (op.name == "CONV_2D" or kernels == "reference")


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shards(arrays: list[np.ndarray], *, least: int, together: int = 1) -> list[list[np.ndarray]]:
    """Divides the samples into one part per CPU core.

    Args:
        arrays: One array [N, ...] for each input.
        least: Smallest number of samples in a part, unless all samples are in one part.
        together: Number of samples, a divisor of N, that follow each other and stay in one part.
    """
    parts = max(1, min(cores(), len(arrays[0]) // least))
    groups = np.array_split(np.arange(len(arrays[0])).reshape(-1, together), parts)
    return [[array[group[0, 0] : group[-1, -1] + 1] for array in arrays] for group in groups if len(group)]


def joined(parts: list[JsonObject]) -> tuple[np.ndarray, ...]:
    """The outputs of all parts, one array [N, ...] for each output of the model."""
    return tuple(np.concatenate(output) for output in zip(*(part["outputs"] for part in parts), strict=True))


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # `sys.modules[module] = None` forbids the import
        return False
