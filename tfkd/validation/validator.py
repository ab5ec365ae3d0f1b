"""Accuracy, agreement, output divergence, size and latency of .tflite models on targets, and the contract verdict."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd import tasks
from tfkd._internal.isolation import ChildCrashed
from tfkd._internal.types import InputArrays, JsonObject, JsonRecord, SampleData
from tfkd.conversion import file_inputs
from tfkd.data.lazy import LazySamples
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets.measurement import Measurement
from tfkd.validation import class_scores, keras_rows, task_results, versions
from tfkd.validation.contract import Contract, Verdict, judge
from tfkd.validation.judged_split import as_test_split, outputs_of
from tfkd.validation.keras_rows import NOT_FINITE, ROLES, Other
from tfkd.validation.partial_runs import run_in_parts
from tfkd.validation.results import Row
from tfkd.validation.scores import measure_difference, measure_divergence, score
from tfkd.validation.selected_output import OneOutputTarget, of_file

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

    Model = TFLiteModel | str | os.PathLike[str]
    from tfkd.validation.keras_rows import KerasModel

SCHEMA = "tfkd.validation/1"


@dataclasses.dataclass(frozen=True)
class Validation:
    """The result of `validate`.

    Args:
        rows: Keras models first, then each .tflite on each target.
        verdict: Verdict on the contract.
        contract: The limits, or None.
        ship: Name of the model that is to ship, or None.
        roles: Names of the rows of the `teacher`, of the student trained `alone` and of the `reference`, as far as they
            were given. Agreement, flips and accuracy drop refer to the reference.
        models: The .tflite models by name.
        test: Name, number of samples, class names, input shape and hash of the test split.
        versions: Versions of Python, of the platform and of the packages.
        task: Name of the task.
        output: Name of the output that was judged, of models with several; None of models with one.
        outputs: Names of all outputs of the model that is to ship, where one was judged.
    """

    rows: tuple[Row, ...]
    verdict: Verdict
    contract: Contract | None
    ship: str | None
    roles: Mapping[str, str]
    models: Mapping[str, TFLiteModel]
    test: JsonRecord
    versions: Mapping[str, str]
    task: str = tasks.CLASSIFICATION.name
    output: str | None = None
    outputs: tuple[str, ...] = ()

    @property
    def reference(self) -> str | None:
        """Name of the row that agreement, flips and accuracy drop refer to, or None."""
        return self.roles.get("reference")

    @property
    def ok(self) -> bool:
        """Whether the contract holds; without a contract, whether each model ran on each target."""
        if self.verdict.status is None:
            return all(row.valid for row in self.rows)
        return self.verdict.status == "SHIP"

    def to_json(self) -> JsonObject:
        """The validation as plain JSON values, as described in `tfkd/report/schema.json`."""
        models = {}
        for name, model in self.models.items():
            audit = dataclasses.asdict(model.audit) if model.audit else None
            models[name] = {**model.to_json(), "audit": audit}
        return {
            "schema": SCHEMA,
            "task": self.task,
            **({} if self.output is None else {"output": self.output, "outputs": list(self.outputs)}),
            "verdict": self.verdict.to_json(),
            "contract": self.contract.to_json() if self.contract else None,
            "ship": self.ship,
            **{role: self.roles.get(role) for role in ROLES},
            "test": dict(self.test),
            "models": models,
            "rows": [row.to_json() for row in self.rows],
            "versions": dict(self.versions),
        }


def validate(
    model: Model | Mapping[str, Model],
    test: SampleData,
    *,
    reference: keras.Model | None = None,
    teacher: KerasModel | None = None,
    alone: KerasModel | None = None,
    baselines: Mapping[str, KerasModel] | None = None,
    targets: Sequence[str | Target] | None = None,
    optional: Collection[str] = (),
    contract: Contract | None = None,
    ship: str | None = None,
    task: str | None = None,
    stream: bool = False,
    validation: Split | None = None,
    output: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Validation:
    """Runs each .tflite on each target over the whole test split and checks one of them against a contract.

    If a target refuses a model, crashes, times out or is unavailable, its row says why; the other rows are unaffected.

    Args:
        model: A .tflite, or several by name.
        test: Test split; a split with another role is refused. Or another form of labelled test data, such as a
            `tf.data.Dataset`, see `tfkd.data.as_split`. Each model takes the arrays of its inputs by their names from
            samples of several inputs.
        reference: Keras model that the .tflite was converted from. Agreement, flips and accuracy drop refer to it.
        teacher: Keras model of the teacher, for `Contract.max_drop_from_teacher`. A model with other inputs than the
            .tflite, such as a teacher of another modality, comes with its own test split, as a tuple.
        alone: Keras model of the same student, trained without a teacher, for `Contract.min_gain_over_alone`.
        baselines: More Keras models for comparison, by name.
        targets: Specifications such as `host:reference`, or targets. Output divergence refers to the first that ran.
            Default: `tfkd.targets.defaults()`, which are all optional.
        optional: Specifications of targets that this platform may lack. A missing one has a row "unavailable" and does
            not affect the verdict, except that a limit which only it could check stays unknown. Any other missing
            target leaves the verdict unknown.
        contract: Limits of the model that is to ship.
        ship: Name of that model; required for a contract over several models.
        task: One of `tfkd.tasks.NAMES`; by default the one that labels and model show, see `tfkd.tasks.find`.
        stream: Whether the targets feed each sample, a sequence, in chunks of the length of the .tflite's input and
            keep its state between them, see `tfkd.targets.chunks`. Keras models take the whole sequence.
        validation: Validation split on which a task with a threshold chooses that of each model; without, the
            probability 0.5 is the threshold.
        output: Name of the output that is judged, of models with several, in the reference or in the signature of the
            .tflite. Labels are those of this output, size and latency those of the whole model.
        progress: Called with (steps done, total steps, name of the next step).

    Returns:
        A row for each Keras model, and for each .tflite on each target; and the verdict.

    Raises:
        InputError: The split is not a test split, a target or output does not exist, `ship` is not the name of a model,
            or the labels or the contract are not those of the task.
        ModelError: A file is not a .tflite, or a model does not fit the split.
    """
    files = _load(model)
    models = files if output is None else {name: of_file(one, output, reference) for name, one in files.items()}
    for name, one in models.items():
        keras_rows.check_side(name, "output", keras_rows.shapes_of_file(one)[1])
    test = as_test_split(test, next(iter(models.values())), task)
    test.require("test", purpose="validation")
    found = tasks.find(test, min(outputs_of(one) for one in models.values()), task)
    if contract is not None:
        contract.check_task(found.name)
    for name, one in models.items():
        keras_rows.check_shapes(name, keras_rows.shapes_of_file(one, test.input_shape if stream else None), test, found)
        if isinstance(test.x, NamedArrays):
            file_inputs.real(one, test.x, f"validate: model {name!r}")
    shipped = _shipped(ship, models, contract)
    places = _places(targets, stream=stream, one_output=output is not None)
    keras_models, roles = keras_rows.choose(
        {"teacher": teacher, "alone": alone, "reference": reference}, baselines or {}, test, found, output
    )
    step = _counter(progress, len(keras_models) + len(models) * len(places))
    judged = _Test(test, found, task_results.validation_samples(found, validation))
    rows, others = keras_rows.compute(keras_models, roles, test, step, found, judged.validation)
    teacher_bytes = next((row.bytes for row in rows if row.name == roles.get("teacher")), None)
    target_rows = [
        dataclasses.replace(row, teacher_bytes=teacher_bytes)
        for row in _target_rows(models, places, judged, others, step)
    ]
    step("done")
    candidates = [row for row in target_rows if row.name == shipped]
    skipped = [row for row in candidates if row.unavailable and (targets is None or row.target in optional)]
    missing = {row.target for row in skipped}
    return Validation(
        rows=(*rows, *target_rows),
        verdict=judge(
            contract,
            [row for row in candidates if row.target not in missing],
            skipped,
            {role: row for role, name in roles.items() for row in rows if row.name == name},
            task=found.name,
        ),
        contract=contract,
        ship=shipped,
        roles=roles,
        models=files,
        test=judged.to_json(),
        versions=dict(versions.versions()),
        task=found.name,
        output=output,
        outputs=getattr(models.get(shipped or ""), "names", ()),
    )


@dataclasses.dataclass(frozen=True)
class _Test:
    """What models are judged on.

    Args:
        split: The test split.
        task: The task.
        validation: Validation samples for thresholds, or None.
    """

    split: Split
    task: tasks.Task
    validation: Split | None

    def to_json(self) -> JsonObject:
        """What the test split is, as plain JSON values."""
        return {
            "name": self.split.name,
            "samples": len(self.split),
            "class_names": list(self.split.class_names),
            "input_shape": shape if isinstance(shape := self.split.sample_shape, dict) else list(shape),
            "content_hash": self.split.content_hash,
        }


def _load(model: Model | Mapping[str, Model]) -> dict[str, TFLiteModel]:
    from tfkd.conversion.tflite import TFLiteModel

    if isinstance(model, Mapping):
        models = {name: TFLiteModel.load(one) for name, one in model.items()}
    else:
        loaded = TFLiteModel.load(model)
        models = {loaded.path.stem if loaded.path else "model": loaded}
    if not models:
        raise InputError("validate: model must contain at least one .tflite. Received: an empty mapping. Add one.")
    return models


def _shipped(ship: str | None, models: Mapping[str, TFLiteModel], contract: Contract | None) -> str | None:
    if ship is not None and ship not in models:
        raise InputError(
            f"validate: ship must be the name of a model. Received: {ship!r}. Models: {', '.join(models)}."
        )
    if ship is None and len(models) == 1:
        return next(iter(models))
    if ship is None and contract is not None:
        raise InputError(
            f"validate: a contract over several models needs the name of the model that is to ship. "
            f"Received: ship=None. Choose one of: {', '.join(models)}."
        )
    return ship


@dataclasses.dataclass(frozen=True)
class _Place:
    """A target, or the reason why it is unavailable."""

    spec: str
    target: Target | None
    reason: str | None = None


def _places(chosen: Sequence[str | Target] | None, *, stream: bool, one_output: bool) -> list[_Place]:
    from tfkd import targets

    specs = targets.defaults() if chosen is None else [chosen] if isinstance(chosen, str) else chosen
    places = []
    for spec in specs:
        try:
            target = targets.get(spec) if isinstance(spec, str) else spec
        except ToolMissingError as error:
            places.append(_Place(str(spec), None, str(error)))
            continue
        target = target.in_chunks() if stream else target
        places.append(_Place(target.spec, OneOutputTarget(target) if one_output else target))
    names = [place.spec for place in places]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"validate: targets must contain at least one target, and none twice. Received: {names}. "
            f"Choose from: {', '.join(targets.names())}."
        )
    return places


def _counter(progress: Callable[[int, int, str], None] | None, total: int) -> Callable[[str], None]:
    done = itertools.count()
    return lambda step: progress(next(done), total, step) if progress else None


def _target_rows(
    models: Mapping[str, TFLiteModel],
    places: Sequence[_Place],
    judged: _Test,
    others: Mapping[str, Other],
    step: Callable[[str], None],
) -> Iterator[Row]:
    test = judged.split
    for name, model in models.items():
        threshold: float | None = None
        inputs = None if isinstance(test.x, LazySamples) else _inputs(model, name, test)
        first = None
        for place in places:
            step(f"{name} on {place.spec}")
            row = Row(name=name, target=place.spec, bytes=model.size_bytes, parameters=None, samples=len(test))
            row = _run(row, place, model, judged, inputs)
            if row.valid and row.measurement is not None:
                if first is None and judged.task.has_threshold and row.measurement.outputs:
                    threshold = _threshold(judged, model, place)
                row = _scored(row, row.measurement, first, judged, others, model, threshold)
                if row.valid and row.measurement and row.measurement.outputs:
                    first = first or row.measurement
            yield row


def _inputs(model: TFLiteModel, name: str, test: Split) -> InputArrays:
    return file_inputs.quantized(model, test.x, f"validate: model {name!r}")


def _run(row: Row, place: _Place, model: TFLiteModel, judged: _Test, inputs: InputArrays | None) -> Row:
    """The row with the measurement, or with the reason why there is none. Errors of tfkd itself are not caught."""
    if place.target is None:
        return dataclasses.replace(row, invalid_reason=place.reason, unavailable=True)
    try:
        target, test, task = place.target, judged.split, judged.task
        if inputs is None and not getattr(target, "runs_in_parts", True):
            inputs = _inputs(model, row.name, test)
        if inputs is None:
            measurement = run_in_parts(target, model, test)
        else:
            shows_accuracy = task.is_classification and hasattr(target, "with_labels")
            labelled = target.with_labels(test.y) if shows_accuracy else target
            measurement = labelled.run(model, inputs)
    except (ModelError, ChildCrashed) as error:
        return dataclasses.replace(row, invalid_reason=str(error), broken=True)
    except ToolMissingError as error:
        return dataclasses.replace(row, invalid_reason=str(error), unavailable=True)
    except DeviceError as error:  # a timeout or a disconnected device does not tell whether the model is correct
        return dataclasses.replace(row, invalid_reason=str(error))
    reason = None if measurement.valid else measurement.invalid_reason or "The target reported an invalid run."
    return dataclasses.replace(row, measurement=measurement, invalid_reason=reason)


def _threshold(judged: _Test, model: TFLiteModel, place: _Place) -> float | None:
    """The threshold of a model, chosen on the first target that runs it and used on all."""
    outputs = task_results.outputs_on(place.target, model, judged.validation)
    default = task_results.default_threshold(judged.task, model)
    return task_results.threshold_of(judged.task, outputs, judged.validation, default)


def _scored(
    row: Row,
    measurement: Measurement,
    first: Measurement | None,
    judged: _Test,
    others: Mapping[str, Other],
    model: TFLiteModel,
    threshold: float | None,
) -> Row:
    """The row with the scores of the outputs, or with the reason why they cannot be scored."""
    test = judged.split
    if not measurement.outputs:  # a target that only measures latency
        return row
    outputs = measurement.outputs[0]
    if len(outputs) != len(test):
        return dataclasses.replace(
            row, invalid_reason=f"The target returned {len(outputs)} outputs for {len(test)} samples."
        )
    if not np.isfinite(outputs).all():
        return dataclasses.replace(row, invalid_reason=NOT_FINITE, broken=True)
    if isinstance(judged.task, tasks.ScoredTask):
        row = dataclasses.replace(row, output_divergence=measure_divergence(measurement, first))
        values = task_results.real_outputs(model, outputs)
        return keras_rows.with_result(row, judged.task.score(values, test, threshold=threshold), others)
    right = outputs.reshape(len(test), -1).argmax(axis=1) == test.y
    row = dataclasses.replace(
        row,
        output_divergence=measure_divergence(measurement, first),
        differences={
            role: measure_difference(right, other.right, paired=other.paired, against=other.name)
            for role, other in others.items()
        },
    )
    reference = others.get("reference")
    row = row.with_scores(score(outputs, test, reference.labels if reference else None))
    by_class = class_scores.compute(task_results.real_outputs(model, outputs), test.y, model)
    return keras_rows.with_class_metrics(row, by_class, others)
