"""Accuracy, agreement, output divergence, size and latency of .tflite models on targets, and the contract verdict."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal.isolation import ChildCrashed
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.targets.measurement import Measurement
from tfkd.validation import keras_outputs
from tfkd.validation.contract import Contract, Verdict, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import measure_divergence, score

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

    Model = TFLiteModel | str | os.PathLike[str]

SCHEMA = "tfkd.validation/1"

_NOT_FINITE = "The outputs contain NaN or infinity."
_PACKAGES = ("tfkd", "tensorflow", "keras", "numpy", "ai-edge-litert", "tflite-micro")


@dataclasses.dataclass(frozen=True)
class Validation:
    """The result of `validate`.

    Args:
        rows: Keras models first, then each .tflite on each target.
        verdict: Verdict on the contract.
        contract: The limits, or None.
        ship: Name of the model that is to ship, or None.
        reference: Name of the row that agreement, flips and accuracy drop refer to, or None.
        models: The .tflite models by name.
        test: Name, number of samples, class names, input shape and hash of the test split.
        versions: Versions of Python, of the platform and of the packages.
    """

    rows: tuple[Row, ...]
    verdict: Verdict
    contract: Contract | None
    ship: str | None
    reference: str | None
    models: Mapping[str, TFLiteModel]
    test: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether the contract holds; without a contract, whether each model ran on each target."""
        if self.verdict.status is None:
            return all(row.valid for row in self.rows)
        return self.verdict.status == "SHIP"

    def to_json(self) -> dict[str, Any]:
        """The validation as plain JSON values, as described in `tfkd/report/schema.json`."""
        models = {}
        for name, model in self.models.items():
            audit = dataclasses.asdict(model.audit) if model.audit else None
            models[name] = {**model.to_json(), "audit": audit}
        return {
            "schema": SCHEMA,
            "verdict": dataclasses.asdict(self.verdict) | {"checks": [*map(dataclasses.asdict, self.verdict.checks)]},
            "contract": dataclasses.asdict(self.contract) if self.contract else None,
            "ship": self.ship,
            "reference": self.reference,
            "test": dict(self.test),
            "models": models,
            "rows": [row.to_json() for row in self.rows],
            "versions": dict(self.versions),
        }


def validate(
    model: Model | Mapping[str, Model],
    test: Split,
    *,
    reference: keras.Model | None = None,
    baselines: Mapping[str, keras.Model | tuple[keras.Model, Split]] | None = None,
    targets: Sequence[str | Target] | None = None,
    optional: Collection[str] = (),
    contract: Contract | None = None,
    ship: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Validation:
    """Runs each .tflite on each target over the whole test split and checks one of them against a contract.

    If a target refuses a model, crashes, times out or is unavailable, its row says why; the other rows are unaffected.

    Args:
        model: A .tflite, or several by name.
        test: Test split; a split with another role is refused.
        reference: Keras model that the .tflite was converted from. Agreement, flips and accuracy drop refer to it.
        baselines: Keras models for comparison by name, such as the teacher. A model with other inputs than the .tflite,
            such as a teacher of another modality, comes with its own test split.
        targets: Specifications such as `host:reference`, or targets. Output divergence refers to the first that ran.
            Default: `tfkd.targets.defaults()`, which are all optional.
        optional: Specifications of targets that this platform may lack. A missing one has a row "unavailable" and does
            not affect the verdict, except that a limit which only it could check stays unknown. Any other missing
            target leaves the verdict unknown.
        contract: Limits of the model that is to ship.
        ship: Name of that model; required for a contract over several models.
        progress: Called with (steps done, total steps, name of the next step).

    Raises:
        InputError: The split is not a test split, a target does not exist, or `ship` is not the name of a model.
        ModelError: A file is not a .tflite, or a model does not fit the split.
    """
    test.require("test", purpose="validation")
    models = _load(model, test)
    shipped = _shipped(ship, models, contract)
    places = _places(targets)
    keras_models, reference_name = _keras_models(reference, baselines or {}, test)
    step = _counter(progress, len(keras_models) + len(models) * len(places))
    keras_rows, labels = _keras_rows(keras_models, reference_name, test, step)
    target_rows = list(_target_rows(models, places, test, labels, step))
    step("done")
    candidates = [row for row in target_rows if row.name == shipped]
    skipped = [row for row in candidates if row.unavailable and (targets is None or row.target in optional)]
    missing = {row.target for row in skipped}
    accuracy = next((row.accuracy for row in keras_rows if row.name == reference_name), None)
    return Validation(
        rows=(*keras_rows, *target_rows),
        verdict=judge(contract, [row for row in candidates if row.target not in missing], accuracy, skipped),
        contract=contract,
        ship=shipped,
        reference=reference_name,
        models=models,
        test={
            "name": test.name,
            "samples": len(test),
            "class_names": list(test.class_names),
            "input_shape": list(test.input_shape),
            "content_hash": test.content_hash,
        },
        versions=dict(_versions()),
    )


def _load(model: Model | Mapping[str, Model], test: Split) -> dict[str, TFLiteModel]:
    from tfkd.conversion.tflite import TFLiteModel

    if isinstance(model, Mapping):
        models = {name: TFLiteModel.load(one) for name, one in model.items()}
    else:
        loaded = TFLiteModel.load(model)
        models = {loaded.path.stem if loaded.path else "model": loaded}
    if not models:
        raise InputError("validate: model must contain at least one .tflite. Received: an empty mapping. Add one.")
    for name, one in models.items():
        sides = [[tensor.shape for tensor in side] for side in (one.inputs, one.outputs)]
        _check_shapes(name, [side[0] if len(side) == 1 else side for side in sides], test)
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


def _places(chosen: Sequence[str | Target] | None) -> list[_Place]:
    from tfkd import targets

    specs = targets.defaults() if chosen is None else [chosen] if isinstance(chosen, str) else chosen
    places = []
    for spec in specs:
        if not isinstance(spec, str):
            places.append(_Place(spec.spec, spec))
            continue
        try:
            target = targets.get(spec)
        except ToolMissingError as error:
            places.append(_Place(spec, None, str(error)))
        else:
            places.append(_Place(target.spec, target))
    names = [place.spec for place in places]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"validate: targets must contain at least one target, and none twice. Received: {names}. "
            f"Choose from: {', '.join(targets.names())}."
        )
    return places


@dataclasses.dataclass(frozen=True)
class _KerasModel:
    """A Keras model and the test split with its inputs."""

    model: keras.Model
    test: Split


def _keras_models(
    reference: keras.Model | None, baselines: Mapping[str, keras.Model | tuple[keras.Model, Split]], test: Split
) -> tuple[dict[str, _KerasModel], str | None]:
    """The Keras models by name, including the reference, and the name of the reference."""
    models = {
        name: _KerasModel(*one) if isinstance(one, tuple) else _KerasModel(one, test) for name, one in baselines.items()
    }
    name = next((name for name, one in models.items() if one.model is reference), None)
    if reference is not None and name is None:
        name = "reference"
        if name in models:
            raise InputError(
                "validate: the baseline 'reference' is another model than the reference. Rename that baseline, or pass "
                "the same model as reference."
            )
        models[name] = _KerasModel(reference, test)
    for key, one in models.items():
        one.test.require("test", purpose="validation")
        # A model that was never built has no shapes.
        _check_shapes(key, [getattr(one.model, side, None) for side in ("input_shape", "output_shape")], one.test)
    return models, name


def _check_shapes(name: str, shapes: Sequence[Any], test: Split) -> None:
    """Refuses a model whose input shape or number of outputs does not fit the split.

    Args:
        name: Name of the model.
        shapes: Shapes of input and output with the batch axis; a list of shapes if there are several, None if unknown.
        test: The test split.
    """
    for side, shape in zip(("input", "output"), shapes, strict=True):
        if not isinstance(shape, tuple) or not all(size is None or isinstance(size, int) for size in shape):
            raise ModelError(
                f"validate: model {name!r} must have one input and one output. Received: {side} shape {shape}. "
                f"Pass a built model with one {side}."
            )
    inputs, outputs = (shape[1:] for shape in shapes)
    fits = len(inputs) == len(test.input_shape)
    if not fits or any(a not in (None, -1, b) for a, b in zip(inputs, test.input_shape, strict=True)):
        raise ModelError(
            f"validate: the input shape of model {name!r} must be {test.input_shape}, that of {test.name}. "
            f"Received: {inputs}. Use the data set that the model was trained on."
        )
    classes = int(np.prod([size or 1 for size in outputs]))
    if classes != test.num_classes:
        hint = "Use the data set that the model was trained on."
        if classes == 1:
            hint = "A single logit for two classes is not supported: end the model with two logits."
        raise ModelError(
            f"validate: model {name!r} must have one output per class, {test.num_classes} for {test.name}. "
            f"Received: {classes} per sample. {hint}"
        )


def _counter(progress: Callable[[int, int, str], None] | None, total: int) -> Callable[[str], None]:
    done = itertools.count()
    return lambda step: progress(next(done), total, step) if progress else None


def _keras_rows(
    models: Mapping[str, _KerasModel], reference: str | None, test: Split, step: Callable[[str], None]
) -> tuple[list[Row], np.ndarray | None]:
    """One row for each Keras model, and the labels int [N] that the reference predicts."""
    logits = {}
    for name, one in models.items():
        step(f"{name} in Keras")
        logits[name] = keras_outputs.compute(one.model, one.test).reshape(len(one.test), -1)
    finite = {name: bool(np.isfinite(values).all()) for name, values in logits.items()}
    labels = logits[reference].argmax(axis=1) if reference and finite[reference] else None
    rows = []
    for name, one in models.items():
        weights = [weight.value for weight in one.model.weights]
        row = Row(
            name=name,
            target=None,
            bytes=sum(weight.dtype.size * int(np.prod(weight.shape)) for weight in weights),
            parameters=one.model.count_params(),
            samples=len(one.test),
        )
        if finite[name]:
            same_samples = np.array_equal(one.test.ids, test.ids) and np.array_equal(one.test.y, test.y)
            comparable = name != reference and same_samples
            rows.append(row.with_scores(score(logits[name], one.test, labels if comparable else None)))
        else:
            rows.append(dataclasses.replace(row, invalid_reason=_NOT_FINITE, broken=True))
    return rows, labels


def _target_rows(
    models: Mapping[str, TFLiteModel],
    places: Sequence[_Place],
    test: Split,
    labels: np.ndarray | None,
    step: Callable[[str], None],
) -> Iterator[Row]:
    for name, model in models.items():
        inputs, first = model.quantize_input(test.x), None
        for place in places:
            step(f"{name} on {place.spec}")
            row = Row(name=name, target=place.spec, bytes=model.size_bytes, parameters=None, samples=len(test))
            row = _run(row, place, model, inputs)
            if row.valid and row.measurement is not None:
                row = _scored(row, row.measurement, first, test, labels)
                if row.valid and row.measurement and row.measurement.outputs:
                    first = first or row.measurement
            yield row


def _run(row: Row, place: _Place, model: TFLiteModel, inputs: np.ndarray) -> Row:
    """The row with the measurement, or with the reason why there is none. Errors of tfkd itself are not caught."""
    if place.target is None:
        return dataclasses.replace(row, invalid_reason=place.reason, unavailable=True)
    try:
        measurement = place.target.run(model, inputs)
    except (ModelError, ChildCrashed) as error:
        return dataclasses.replace(row, invalid_reason=str(error), broken=True)
    except ToolMissingError as error:
        return dataclasses.replace(row, invalid_reason=str(error), unavailable=True)
    except DeviceError as error:  # a timeout or a disconnected device does not tell whether the model is correct
        return dataclasses.replace(row, invalid_reason=str(error))
    reason = None if measurement.valid else measurement.invalid_reason or "The target reported an invalid run."
    return dataclasses.replace(row, measurement=measurement, invalid_reason=reason)


def _scored(
    row: Row, measurement: Measurement, first: Measurement | None, test: Split, labels: np.ndarray | None
) -> Row:
    """The row with the scores of the outputs, or with the reason why they cannot be scored."""
    if not measurement.outputs:  # a target that only measures latency
        return row
    outputs = measurement.outputs[0]
    if len(outputs) != len(test):
        return dataclasses.replace(
            row, invalid_reason=f"The target returned {len(outputs)} outputs for {len(test)} samples."
        )
    if not np.isfinite(outputs).all():
        return dataclasses.replace(row, invalid_reason=_NOT_FINITE, broken=True)
    row = dataclasses.replace(row, output_divergence=measure_divergence(measurement, first))
    return row.with_scores(score(outputs, test, labels))


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "platform", platform.platform()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # tflite-micro has no wheel for some platforms
