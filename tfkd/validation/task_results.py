"""Results of tasks other than classification: metrics with intervals, differences from other models, thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.conversion import file_inputs
from tfkd.errors import DeviceError, InputError, ModelError
from tfkd.tasks import ConstantAnswer, Scored, Task, Value, bootstrap

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

# Validation samples on which a threshold is chosen: enough for that, and emulated targets are slow.
_MOST_SAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """How good the outputs of one model are, in the metrics of a task.

    Args:
        metrics: Value of each metric with its 95 % bootstrap interval.
        differences: Metrics of the model minus those of the `reference`, of the `teacher` and of the student trained
            `alone`, by these names and by metric, as far as they are known.
        constant: Comparison with a constant answer.
        threshold: Threshold of the outputs above which an answer is positive; None for a task without one.
        details: What the report plots, as plain JSON values.
    """

    metrics: Mapping[str, Value]
    differences: Mapping[str, Mapping[str, Value]]
    constant: ConstantAnswer
    threshold: float | None = None
    details: JsonRecord = dataclasses.field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """The result as plain JSON values."""
        value = self.constant.value if np.isfinite(self.constant.value) else None
        return {
            "metrics": {name: one.to_json() for name, one in self.metrics.items()},
            "differences": {
                role: {name: one.to_json() for name, one in found.items()} for role, found in self.differences.items()
            },
            "constant": {**dataclasses.asdict(self.constant), "value": value},
            "threshold": self.threshold,
            "details": dict(self.details),
        }


def result_of(scored: Scored, others: Mapping[str, tuple[Scored, bool]]) -> TaskResult:
    """The result of a model.

    Args:
        scored: Its scores.
        others: Scores of the model in each role, and whether its samples are the same.
    """
    return TaskResult(
        metrics=values_of(scored),
        differences={role: differences(scored, other, paired=paired) for role, (other, paired) in others.items()},
        constant=scored.constant,
        threshold=scored.threshold,
        details=scored.details,
    )


class Replicated(Protocol):
    """Values of metrics and their bootstrap replicates, by metric."""

    @property
    def values(self) -> Mapping[str, float]: ...
    @property
    def replicates(self) -> Mapping[str, np.ndarray]: ...


def values_of(scored: Replicated) -> dict[str, Value]:
    """Each value with its 95 % interval."""
    return {name: Value(value, bootstrap.interval(scored.replicates[name])) for name, value in scored.values.items()}


def differences(scored: Replicated, other: Replicated, *, paired: bool) -> dict[str, Value]:
    """The metrics of a model minus those of another.

    Args:
        scored: Scores of the model.
        other: Scores of the other model.
        paired: Whether both saw the same samples, so that the replicates are of the same resamples.
    """
    found = {}
    for name, value in scored.values.items():
        replicates = other.replicates[name]
        # Shifted by one, the replicates of the same seed are independent of each other.
        others = replicates if paired else np.roll(replicates, 1)
        found[name] = bootstrap.difference(value, other.values[name], scored.replicates[name], others)
    return found


def default_threshold(task: Task, model: keras.Model | TFLiteModel) -> float | None:
    """The threshold of the task, or of the probability 0.5: 0 for logits, 0.5 for a sigmoid; None for other outputs."""
    if not task.has_threshold or task.default_threshold is not None or not task.gives_logits:
        return task.default_threshold
    return 0.5 if ends_in(model, "sigmoid") else 0.0


# The op of TensorFlow Lite that computes an activation of Keras.
_OPS = {"sigmoid": "LOGISTIC", "softmax": "SOFTMAX"}


def ends_in(model: keras.Model | TFLiteModel, activation: str) -> bool:
    """Whether the outputs of a model are those of an activation, `sigmoid` or `softmax`."""
    if hasattr(model, "graph"):
        return _final_op(model) == _OPS[activation]
    from tfkd.models.final_activation import final_activation

    source = final_activation(model)
    return source is not None and source.activation == activation and not source.combined


def _final_op(model: TFLiteModel) -> str | None:
    """The op that computes the values of the first output, before changes of type and shape."""
    producers = {index: op for op in model.graph.ops for index in op.outputs}
    op = producers.get(model.graph.outputs[0])
    while op is not None and op.name in ("DEQUANTIZE", "QUANTIZE", "RESHAPE"):
        op = producers.get(op.inputs[0])
    return None if op is None else op.name


def threshold_of(task: Task, outputs: np.ndarray | None, samples: Split | None, default: float | None) -> float | None:
    """The threshold that is best on validation samples, or the default where they are missing or too few.

    Args:
        task: The task.
        outputs: Real outputs on the samples, [N, ...]; None where there are none.
        samples: The validation samples.
        default: See `default_threshold`.
    """
    if not task.has_threshold or outputs is None or samples is None or not np.isfinite(outputs).all():
        return default
    chosen = task.choose_threshold(outputs, samples)
    return default if chosen is None else chosen


def validation_samples(task: Task, validation: Split | None) -> Split | None:
    """The validation samples on which thresholds are chosen; None where the task has none, or there are no samples.

    Raises:
        InputError: The split is not a validation split, or has other labels than the task.
    """
    if validation is None or not task.has_threshold or not len(validation):
        return None
    validation.require("val", "train", purpose="the choice of a threshold")
    task.check_labels(validation)
    return validation if len(validation) <= _MOST_SAMPLES else validation.sample(_MOST_SAMPLES)


def outputs_on(target: Target | None, model: TFLiteModel, samples: Split | None) -> np.ndarray | None:
    """The real outputs of a model on validation samples; None where the target cannot run it."""
    if target is None or samples is None:
        return None
    try:
        measured = target.run(model, file_inputs.quantized(model, samples.x, "validate: the model"), latency=False)
    except (ModelError, DeviceError, InputError):  # its row on the test split says why
        return None
    return real_outputs(model, measured.outputs[0]) if measured.valid and measured.outputs else None


def real_outputs(model: TFLiteModel, outputs: np.ndarray) -> np.ndarray:
    """The real values of a target's outputs [N, ...], of the model's shape but for the length of a stream."""
    shape = model.outputs[0].sample_shape
    return model.dequantize_output(outputs).reshape(len(outputs), *((-1, *shape[1:]) if shape else ()))
