"""Why a quantized model is less accurate: its layers by quantization noise, and the accuracy from teacher to device."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd import tasks
from tfkd._internal.types import JsonObject, SampleData
from tfkd.conversion import converter, file_inputs, layer_errors, layer_names, refinement, signatures
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.validation import diagnosis, diagnosis_texts, keras_outputs, origin, selected_output, task_results
from tfkd.validation.diagnosis import Finding
from tfkd.validation.partial_runs import run_in_parts
from tfkd.validation.scores import count_flips
from tfkd.validation.selected_output import OneOutputTarget, SelectedOutput

if TYPE_CHECKING:
    import keras

    from tfkd.data import Split, Splits
    from tfkd.targets import Target

SCHEMA = "tfkd.explanation/1"


@dataclasses.dataclass(frozen=True)
class Stage:
    """The accuracy of one stage between the teacher and the device.

    Args:
        name: `teacher`, `student`, or the specification of a target.
        accuracy: Accuracy on the test split, 0..1; None if there is no result.
        regressed: Number of samples that the previous stage classifies correctly and this one does not; None for the
            first stage.
        fixed: Number of samples that this stage classifies correctly and the previous one does not.
        note: Why there is no result.
        metrics: Value of each metric of a task other than classification, by name; None for a classification. Samples
            that a regression has are neither right nor wrong: regressed and fixed are then None.
    """

    name: str
    accuracy: float | None = None
    regressed: int | None = None
    fixed: int | None = None
    note: str | None = None
    metrics: Mapping[str, float] | None = None

    def __str__(self) -> str:
        if self.accuracy is None and self.metrics is None:
            return f"{self.name:<16} no result: {self.note}"
        flips = "" if self.regressed is None else f"  {self.regressed} regressed, {self.fixed} fixed"
        if self.metrics is None:
            return f"{self.name:<16} {self.accuracy:8.2%}{flips}"
        return f"{self.name:<16} {', '.join(f'{name} {value:.4g}' for name, value in self.metrics.items())}{flips}"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of `explain`.

    Args:
        model: The quantized model.
        layers: One finding for the input and for each op, in the order of execution.
        worst: The most important findings, causes before the layers that they affect.
        stages: Accuracy of each stage. A Keras model is compared with the stage before it, the first target with the
            student, and the other targets with the first.
        unmatched: Names of ops that the float model does not have.
    """

    model: TFLiteModel
    layers: tuple[Finding, ...]
    worst: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    unmatched: tuple[str, ...] = ()

    def to_json(self, *, command_line: bool = False) -> JsonObject:
        """The explanation as plain JSON values.

        Args:
            command_line: Whether remedies name command-line options instead of Python arguments.
        """
        wording = _wording(command_line)
        return {
            "schema": SCHEMA,
            "model": self.model.to_json(),
            "layers": [
                {
                    **dataclasses.asdict(finding),
                    "sentence": diagnosis_texts.sentence(finding),
                    "remedy": diagnosis_texts.remedy(finding, wording),
                }
                for finding in self.layers
            ],
            "worst": [finding.layer for finding in self.worst],
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "unmatched": list(self.unmatched),
        }

    def lines(self, *, command_line: bool = False) -> Iterator[str]:
        """The explanation as text.

        Args:
            command_line: Whether remedies name command-line options instead of Python arguments.
        """
        yield from self._layer_lines()
        yield ""
        for place, finding in enumerate(self.worst, 1):
            yield f"{place}. {finding.layer}: {diagnosis_texts.sentence(finding)}"
            if finding.affected:
                yield f"   Affected layers: {', '.join(finding.affected)}."
            yield f"   {diagnosis_texts.remedy(finding, _wording(command_line))}"
        yield ""
        for stage in self.stages:
            yield str(stage)

    def _layer_lines(self) -> Iterator[str]:
        yield "Signal-to-noise ratio in dB: of the layer alone, of its median channel, and with the noise before it."
        yield (
            f"{'layer':<28} {'op':<18} {'layer':>7} {'channel':>7} {'total':>7} {'cosine':>7} {'clipped':>7}  "
            "steps used"
        )
        for finding in self.layers:
            noise = finding.noise
            clipped = "-" if noise.saturated is None else f"{noise.saturated:.2%}"
            steps = "float" if noise.steps is None else f"{noise.steps_used} of {noise.steps}"
            yield (
                f"{finding.layer[:28]:<28} {noise.op[:18]:<18} {noise.sqnr_db:7.1f} {noise.channel_sqnr_db:7.1f} "
                f"{noise.total_sqnr_db:7.1f} {noise.cosine:7.4f} {clipped:>7}  {steps}"
            )
        if self.unmatched:
            yield f"Unmatched ops, which the float model does not have: {', '.join(self.unmatched)}"


def _wording(command_line: bool) -> diagnosis_texts.Wording:
    return diagnosis_texts.COMMAND_LINE if command_line else diagnosis_texts.PYTHON


def explain(
    student: keras.Model | str | os.PathLike[str],
    model: TFLiteModel | str | os.PathLike[str],
    splits: Splits | SampleData,
    *,
    teacher: keras.Model | str | os.PathLike[str] | None = None,
    targets: Sequence[str | Target] = ("host:plain", "host", "tflm"),
    samples: int = 64,
    worst: int = 5,
    timeout_s: float = 600.0,
    task: str | None = None,
    output: str | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Compares a quantized .tflite with its Keras model, layer by layer and target by target.

    Args:
        student: The Keras model, or its file.
        model: The .tflite that it was converted to.
        splits: Data. Layers are compared on the validation split (without one, on the train split), so that a remedy
            is not chosen on the test split; accuracy is measured on the test split. Other forms of labelled data, see
            `tfkd.data.as_split`, as a pair (validation, test), or one for both. Samples of several inputs are found by
            their names.
        teacher: Keras model of the first stage, or its file.
        targets: Targets of the last stages. The first is the reference of the others.
        samples: Number of samples on which layers are compared, > 0.
        worst: Number of findings in `worst`, > 0.
        timeout_s: Time limit of each child process in seconds.
        task: One of `tfkd.tasks.NAMES`; by default the one that labels and model show. The threshold of a task with one
            is that of the student, chosen on the validation split.
        output: Name of the output that the labels belong to, of models with several; layers are compared up to all of
            them.
        progress: Called with the name of the next step.

    Returns:
        A finding for each layer, the most important first in `worst`, and the accuracy of each stage.

    Raises:
        InputError: An argument is out of range.
        ModelError: A file is not a model, or the .tflite was not converted from the Keras model.
        DeviceError: The process that runs the model crashed or timed out.
    """
    if samples < 1 or worst < 1:
        raise InputError(f"explain: samples and worst must be > 0. Received: {samples} and {worst}. Use 64 and 5.")
    quantized, student_model = TFLiteModel.load(model), _load(student)
    if output is None and len(quantized.outputs) > 1:
        known = signatures.outputs_in_order(quantized.content)
        raise ModelError(
            f"explain: labels belong to one output. Received: a model with the {len(quantized.outputs)} outputs "
            f"{', '.join(known)}. Name one: output='NAME' in Python, --output-name NAME on the command line."
        )
    judged_file = quantized if output is None else selected_output.of_file(quantized, output, student_model)
    splits = _as_splits(splits, judged_file, task)
    found = tasks.find(splits.test, int(np.prod(judged_file.outputs[0].sample_shape)), task)
    pool = splits.val if len(splits.val) else splits.train
    progress("layers")
    reference = converter.float_counterpart(student_model, quantized, timeout_s=timeout_s)
    names = layer_names.by_tensor(reference, student_model)
    origin.check(quantized, reference, names, student_model.name)
    compared = _samples(pool.sample(min(samples, len(pool))).x, quantized, reference)
    measured, unmatched = layer_errors.measure(quantized, reference, compared, timeout_s=timeout_s)
    refinable = refinement.candidates(reference.content, compared, timeout_s=timeout_s)
    layers = diagnosis.diagnose(measured, names, refinable, compared.names)
    stages_of = {**({} if teacher is None else {"teacher": _load(teacher)}), "student": student_model}
    if output is not None:
        stages_of = {name: selected_output.of_keras(one, output) for name, one in stages_of.items()}
    judged = _Judged(splits.test, found, _threshold(found, stages_of["student"], splits.val))
    stages = tuple(_stages(stages_of, judged_file, judged, targets, progress))
    return Explanation(quantized, layers, tuple(diagnosis.rank(layers)[:worst]), stages, tuple(unmatched))


def _samples(x: np.ndarray | LazySamples | NamedArrays, quantized: TFLiteModel, reference: TFLiteModel) -> Samples:
    """Samples on which layers are compared, of several inputs by the names of the signature."""
    if not isinstance(x, NamedArrays):
        file_inputs.check_one(quantized, "explain: the model")
        return Samples((np.asarray(x),))
    names = [[one.name for one in file_inputs.of(model)] for model in (quantized, reference)]
    if names[0] != names[1]:
        raise ModelError(
            f"explain: the .tflite must have the inputs of the Keras model, {', '.join(names[1])}, in this order. "
            f"Received: {', '.join(names[0])}. Pass a file that tfkd converted from it."
        )
    return Samples(tuple(file_inputs.real(quantized, x, "explain: the model")), tuple(names[0]))


@dataclasses.dataclass(frozen=True)
class _Judged:
    """What each stage is judged on: the test split, the task, and the threshold of a task with one."""

    test: Split
    task: tasks.Task
    threshold: float | None


def _threshold(task: tasks.Task, student: keras.Model, val: Split) -> float | None:
    samples = task_results.validation_samples(task, val)
    outputs = None if samples is None else keras_outputs.compute(student, samples)
    return task_results.threshold_of(task, outputs, samples, task_results.default_threshold(task, student))


def _as_splits(splits: Splits | SampleData, model: TFLiteModel, task: str | None) -> Splits:
    """Data as splits; of other forms than splits the validation data serve as training data too."""
    from tfkd.data import Splits, as_split
    from tfkd.data.streams import are_arrays

    if isinstance(splits, Splits):
        return splits
    is_pair = isinstance(splits, tuple) and len(splits) == 2 and not are_arrays(splits)
    outputs = int(np.prod(model.outputs[0].sample_shape))
    classes, labels = 2 if outputs == 1 else outputs, None if task is None else tasks.get(task).labels
    val, test = splits if is_pair else (splits, splits)
    val = as_split(val, "val", num_classes=classes, labels=labels)
    return Splits(val, val, as_split(test, "test", num_classes=classes, labels=labels))


def _load(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    from tfkd import models

    return models.read(model) if isinstance(model, (str, os.PathLike)) else model


def _stages(
    keras_models: Mapping[str, keras.Model],
    model: TFLiteModel,
    judged: _Judged,
    targets: Sequence[str | Target],
    progress: Callable[[str], None],
) -> Iterator[Stage]:
    from tfkd.targets import get

    test = judged.test
    test.require("test", purpose="the accuracy of each stage")
    previous: np.ndarray | None = None
    for name, keras_model in keras_models.items():
        progress(name)
        outputs = keras_outputs.compute(keras_model, test)
        stage, previous = _stage(name, outputs, judged, previous)
        yield stage
    first: np.ndarray | None = None
    inputs = None if isinstance(test.x, LazySamples) else file_inputs.quantized(model, test.x, "explain: the model")
    for spec in targets:
        try:
            target = get(spec) if isinstance(spec, str) else spec
            progress(target.spec)
            target = OneOutputTarget(target) if isinstance(model, SelectedOutput) else target
            outputs = (
                run_in_parts(target, model, test, latency=False)
                if inputs is None
                else target.run(model, inputs, latency=False)
            ).outputs[0]
        except (ModelError, DeviceError, ToolMissingError) as error:  # the other targets still have a result
            yield Stage(spec if isinstance(spec, str) else spec.spec, note=str(error))
            continue
        values = task_results.real_outputs(model, outputs) if isinstance(judged.task, tasks.ScoredTask) else outputs
        stage, right = _stage(target.spec, values, judged, previous if first is None else first)
        first = right if first is None else first
        yield stage


def _stage(
    name: str, outputs: np.ndarray, judged: _Judged, previous: np.ndarray | None
) -> tuple[Stage, np.ndarray | None]:
    """A stage, and whether it answers each sample correctly, bool [N]; None where a task has no right and wrong."""
    test = judged.test
    if isinstance(judged.task, tasks.ScoredTask):
        scored = judged.task.score(outputs, test, threshold=judged.threshold)
        flips: tuple[int | None, int | None] = (None, None)
        if previous is not None and scored.right is not None:
            flips = count_flips(previous, scored.right)
        return Stage(name, None, *flips, metrics=scored.values), scored.right
    right = outputs.reshape(len(test), -1).argmax(axis=1) == test.y
    if previous is None:
        return Stage(name, float(right.mean())), right
    return Stage(name, float(right.mean()), *count_flips(previous, right)), right
