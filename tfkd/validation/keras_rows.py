"""The Keras models beside a .tflite: teacher, student trained alone and reference, and their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tfkd._internal.types import Nest
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError, ModelError
from tfkd.targets import chunks
from tfkd.tasks import Scored, ScoredTask, Task
from tfkd.validation import class_scores, keras_outputs, selected_output, task_results
from tfkd.validation.class_scores import ClassScores
from tfkd.validation.results import Row
from tfkd.validation.scores import score

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split

    # A Keras model, or one with a test split of its own.
    KerasModel: TypeAlias = keras.Model | tuple[keras.Model, Split]

# The roles, and the names of their rows.
ROLES = {"teacher": "teacher", "alone": "student alone", "reference": "reference"}
_ONE_OUTPUT = (
    "Name the output that the labels belong to: output='NAME' in Python, --output-name NAME on the command line."
)
_ONE_INPUT = (
    "Pass a built model; the samples of several inputs are a dict of arrays by their names, in a .npz file x_test/NAME."
)
NOT_FINITE = "The outputs contain NaN or infinity."


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """A Keras model and the test split with its inputs.

    Args:
        model: The model, or that of the judged output.
        test: The split.
        whole: The model with all its outputs.
    """

    model: keras.Model
    test: Split
    whole: keras.Model


def choose(
    given: Mapping[str, KerasModel | None],
    baselines: Mapping[str, KerasModel],
    test: Split,
    task: Task,
    output: str | None,
) -> tuple[dict[str, _Chosen], dict[str, str]]:
    """The Keras models by name, the teacher first, and the name of the model in each role.

    Args:
        given: The model in each role, or None.
        baselines: More models, by name; a model in a role may be one of them.
        test: The test split.
        task: The task.
        output: Name of the output that is judged, of models with several.
    """
    in_roles = {role: _chosen(one, test, output) for role, one in given.items() if one is not None}
    others = {name: _chosen(one, test, output) for name, one in baselines.items()}
    named = {name: one.whole for name, one in others.items()}
    roles: dict[str, str] = {}
    for role, one in in_roles.items():
        name = next((name for name, model in named.items() if model is one.whole), None)
        roles[role] = name or ROLES[role]
        if name is None and ROLES[role] in named:
            raise InputError(
                f"validate: the baseline {ROLES[role]!r} is another model than {role}. Rename that baseline, or pass "
                f"the same model as {role}."
            )
        named[roles[role]] = one.whole
    leading = {roles[role]: one for role, one in in_roles.items() if role != "reference"}
    models = {**{name: one for name, one in leading.items() if name not in others}, **others}
    if "reference" in in_roles:
        models.setdefault(roles["reference"], in_roles["reference"])
    for name, one in models.items():
        one.test.require("test", purpose="validation")
        # A model that was never built has no shapes.
        check_shapes(name, [getattr(one.model, side, None) for side in ("input_shape", "output_shape")], one.test, task)
        if isinstance(one.test.x, NamedArrays):
            _check_arrays(name, one.model, one.test.x)
    return models, roles


def _chosen(one: KerasModel, test: Split, output: str | None) -> _Chosen:
    model, test = one if isinstance(one, tuple) else (one, test)
    return _Chosen(model if output is None else selected_output.of_keras(model, output), test, model)


def shapes_of_file(model: TFLiteModel, sequence: tuple[int, ...] | None = None) -> list[Nest]:
    """The shapes of input and output of a .tflite with the batch axis; a list of shapes if there are several.

    Args:
        model: The .tflite.
        sequence: Shape of a whole sequence, where the model is fed in chunks: the shapes returned are then those of
            whole sequences. None where each sample is fed at once.

    Raises:
        ModelError: It cannot take sequences in chunks.
        InputError: Sequences of this shape do not fit it.
    """
    sides = [[(1, *tensor.sample_shape) for tensor in side] for side in (model.inputs, model.outputs)]
    if sequence is not None:
        chunks.count(model, sequence, "validate")
        sides[0] = [(1, *sequence)]
        sides[1] = [
            (1, sequence[0], *shape[2:]) if chunks.is_of_steps(model, index) else shape
            for index, shape in enumerate(sides[1])
        ]
    return [side[0] if len(side) == 1 else side for side in sides]


def check_side(name: str, side: str, shape: Nest) -> None:
    """Refuses a model with several inputs or outputs, or of unknown shape.

    Args:
        name: Name of the model.
        side: `input` or `output`.
        shape: The shape of that side with the batch axis; a list of shapes if there are several, None if unknown.
    """
    if not isinstance(shape, tuple) or not all(size is None or isinstance(size, int) for size in shape):
        raise ModelError(
            f"validate: model {name!r} must have one input and one output. Received: {side} shape {shape}. "
            + (_ONE_INPUT if side == "input" else _ONE_OUTPUT)
        )


def check_shapes(name: str, shapes: Sequence[Nest], test: Split, task: Task) -> None:
    """Refuses a model whose input shape or number of outputs does not fit the split; several inputs are not looked at.

    Args:
        name: Name of the model.
        shapes: Shapes of input and output, see `check_side`.
        test: The test split.
        task: The task.
    """
    if not isinstance(test.x, NamedArrays):
        _check_input(name, shapes[0], test)
    check_side(name, "output", shapes[1])
    outputs = shapes[1][1:]
    expected = task.check_outputs(outputs, test)
    if expected is not None:
        count, hint = int(np.prod([size or 1 for size in outputs])), "Use the data set that the model was trained on."
        if count == 1 and test.label_kind == "classes" and test.num_classes == 2:
            hint = "A single logit for two classes is the task binary, and all models must have it."
        received = f"{count} per sample" if len(outputs) == 1 else f"outputs of shape {outputs}"
        raise ModelError(f"validate: model {name!r} must have {expected}. Received: {received}. {hint}")


def _check_arrays(name: str, model: keras.Model, x: NamedArrays) -> None:
    """Refuses a model without an array for each of its inputs."""
    from tfkd.models import inputs  # here, since a .tflite alone is validated without Keras

    inputs.arranged(model, x, f"validate: model {name!r}")


def _check_input(name: str, shape: Nest, test: Split) -> None:
    check_side(name, "input", shape)
    inputs = shape[1:]
    fits = len(inputs) == len(test.input_shape)
    if not fits or any(a not in (None, b) for a, b in zip(inputs, test.input_shape, strict=True)):
        hint = "Use the data set that the model was trained on."
        if fits and inputs[1:] == test.input_shape[1:] and inputs[0] and test.input_shape[0] % inputs[0] == 0:
            hint = "Pass --stream (in Python stream=True) if it takes sequences in chunks of this length."
        if (*inputs, 1) == tuple(test.input_shape):
            hint = "Integers [N, H, W] in 0..255 are read as gray images: save x as float32 for sequences [N, T, F]."
        raise ModelError(
            f"validate: the input shape of model {name!r} must be {test.input_shape}, that of {test.name}. "
            f"Received: {inputs}. {hint}"
        )


@dataclasses.dataclass(frozen=True)
class Other:
    """What a Keras model that others are compared with predicts.

    Args:
        name: Name of its row.
        labels: Predicted labels, int [N].
        right: Whether they are right, bool [N].
        paired: Whether its samples are those of the test split.
        scored: Its scores in a task other than classification.
        by_class: Its macro F1 and calibration error in a classification.
    """

    name: str
    labels: np.ndarray
    right: np.ndarray
    paired: bool
    scored: Scored | None = None
    by_class: ClassScores | None = None


def compute(
    models: Mapping[str, _Chosen],
    roles: Mapping[str, str],
    test: Split,
    step: Callable[[str], None],
    task: Task,
    validation: Split | None,
) -> tuple[list[Row], dict[str, Other]]:
    """One row for each Keras model, and what the model in each role predicts, if its outputs are finite.

    Args:
        models: The models by name.
        roles: Name of the model in each role.
        test: The test split.
        step: Called with the name of each step.
        task: The task.
        validation: Validation samples for thresholds, of models that see the samples of the test split; or None.
    """
    logits, others = {}, {}
    for name, one in models.items():
        step(f"{name} in Keras")
        values = keras_outputs.compute(one.model, one.test)
        if np.isfinite(values).all():
            flat = values.reshape(len(values), -1)
            logits[name], labels = flat, flat.argmax(axis=1)
            paired = np.array_equal(one.test.ids, test.ids) and np.array_equal(one.test.y, test.y)
            if isinstance(task, ScoredTask):
                threshold = _threshold(task, one, test, validation)
                scored = task.score(values, one.test, threshold=threshold)
                others[name] = Other(name, labels, np.zeros(0, bool), paired, scored)
                continue
            by_class = class_scores.compute(flat, one.test.y, one.model)
            others[name] = Other(name, labels, labels == one.test.y, paired, by_class=by_class)
    reference = others.get(roles.get("reference", ""))
    rows = []
    for name, one in models.items():
        weights = [weight.value for weight in one.whole.weights]
        row = Row(
            name=name,
            target=None,
            bytes=sum(weight.dtype.size * int(np.prod(weight.shape)) for weight in weights),
            parameters=one.whole.count_params(),
            samples=len(one.test),
        )
        result = others[name].scored if name in logits else None
        if result is not None:
            known = others[roles["reference"]] if reference else None
            versus = {"reference": known} if known and known.name != name and others[name].paired else {}
            rows.append(dataclasses.replace(row, result=_result(result, versus)))
        elif name in logits:
            comparable = reference and reference.name != name and others[name].paired
            labels = reference.labels if reference and comparable else None
            versus = {"reference": reference} if reference and comparable else {}
            row = row.with_scores(score(logits[name], one.test, labels))
            rows.append(with_class_metrics(row, others[name].by_class, versus))
        else:
            rows.append(dataclasses.replace(row, invalid_reason=NOT_FINITE, broken=True))
    return rows, {role: others[name] for role, name in roles.items() if name in others}


def _threshold(task: Task, one: _Chosen, test: Split, validation: Split | None) -> float | None:
    """The threshold of a Keras model: chosen on the validation samples where they are those that it sees."""
    samples = validation if one.test is test else None
    outputs = keras_outputs.compute(one.model, samples) if samples is not None and task.has_threshold else None
    return task_results.threshold_of(task, outputs, samples, task_results.default_threshold(task, one.model))


def _result(scored: Scored, others: Mapping[str, Other]) -> task_results.TaskResult:
    """The result of a model, compared with others."""
    return task_results.result_of(
        scored, {role: (one.scored, one.paired) for role, one in others.items() if one.scored is not None}
    )


def with_class_metrics(row: Row, by_class: ClassScores | None, others: Mapping[str, Other]) -> Row:
    """A row with the macro F1 and the calibration error of a classification."""
    if by_class is None:
        return row
    versus = {role: (one.by_class, one.paired) for role, one in others.items() if one.by_class is not None}
    return dataclasses.replace(row, class_metrics=class_scores.metrics_of(by_class, versus))


def with_result(row: Row, scored: Scored, others: Mapping[str, Other]) -> Row:
    """A row with the result of a task other than classification."""
    return dataclasses.replace(row, result=_result(scored, others))
