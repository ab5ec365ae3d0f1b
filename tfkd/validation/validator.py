"""Accuracy, agreement, output divergence, size and latency of .tflite models on targets, and the contract verdict."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd.errors import InputError
from tfkd.targets.measurement import Measurement
from tfkd.validation.contract import Contract, Verdict, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import measure_divergence, score

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.targets import Target

SCHEMA = "tfkd.validation/1"

_NOT_FINITE = "Its outputs hold NaN or infinity."
_PACKAGES = ("tfkd", "tensorflow", "keras", "numpy", "ai-edge-litert", "tflite-micro")


@dataclasses.dataclass(frozen=True)
class Validation:
    """What `validate` found.

    Args:
        rows: Keras models first, then each .tflite on each target.
        verdict: over the contract.
        contract: the limits, or None.
        ship: name of the model that is to ship.
        reference: name of the row that agreement, flips and drop refer to, or None.
        models: the .tflite models by name.
        test: name, number of samples, classes and hash of the test split.
        versions: of Python, of the platform and of the packages.
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
        """The validation as plain JSON values, as tfkd/report/schema.json describes them."""
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
    model: TFLiteModel | str | os.PathLike[str] | Mapping[str, TFLiteModel | str | os.PathLike[str]],
    test: Split,
    *,
    reference: keras.Model | None = None,
    baselines: Mapping[str, keras.Model | tuple[keras.Model, Split]] | None = None,
    targets: Sequence[str | Target] = ("host", "tflm"),
    contract: Contract | None = None,
    ship: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Validation:
    """Runs each .tflite on each target over the whole test split and holds one of them against the contract.

    A target that refuses a model, crashes on it or is missing gives a row that says so; the other rows stay.

    Args:
        model: a .tflite, or several by name.
        test: the test split; another role is refused.
        reference: the Keras model that the .tflite came from; agreement, flips and accuracy drop refer to it.
        baselines: Keras models for comparison by name, such as teacher and student alone; one that sees other data
            than the models, such as a teacher of another modality, with its own test split.
        targets: specifications such as `host:reference`, or targets. Output divergence refers to the first that ran.
        contract: the limits of the model that is to ship.
        ship: its name; needed where there are a contract and several models.
        progress: called with (steps done, steps in all, what comes next).

    Raises:
        ValueError: the split is not the test split, or a model does not fit to it, or `ship` names none.
        RuntimeError: the tool that a target needs for its set-up is missing.
    """
    test.require("test", purpose="validation")
    models = _load(model, test)
    shipped = _ship(ship, models, contract)
    engines = _engines(targets)
    baselines = baselines or {}
    seen = {name: one[1] for name, one in baselines.items() if isinstance(one, tuple)}
    for split in seen.values():
        split.require("test", purpose="validation")
    plain = {name: one[0] if isinstance(one, tuple) else one for name, one in baselines.items()}
    graphs, reference_name = _graphs(reference, plain, test, seen)
    step = _counter(progress, len(graphs) + len(models) * len(engines))
    keras_rows, labels = _keras_rows(graphs, reference_name, test, seen, step)
    target_rows = list(_target_rows(models, engines, test, labels, step))
    step("done")
    accuracy = next((row.accuracy for row in keras_rows if row.name == reference_name), None)
    return Validation(
        rows=(*keras_rows, *target_rows),
        verdict=judge(contract, [row for row in target_rows if row.name == shipped], accuracy),
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


def _load(model: Any, test: Split) -> dict[str, TFLiteModel]:
    from tfkd.conversion.tflite import TFLiteModel

    if isinstance(model, Mapping):
        models = {name: TFLiteModel.load(one) for name, one in model.items()}
    else:
        loaded = TFLiteModel.load(model)
        models = {loaded.path.stem if loaded.path else "model": loaded}
    if not models:
        raise InputError("validate: model must hold at least one .tflite. Received: an empty mapping. Add one.")
    for name, one in models.items():
        sides = [[tensor.shape for tensor in side] for side in (one.inputs, one.outputs)]
        _check_shapes(name, [side[0] if len(side) == 1 else side for side in sides], test)
    return models


def _ship(ship: str | None, models: Mapping[str, TFLiteModel], contract: Contract | None) -> str | None:
    if ship is not None and ship not in models:
        raise InputError(f"validate: ship must name a model. Received: {ship!r}. Models: {', '.join(models)}.")
    if ship is None and len(models) == 1:
        return next(iter(models))
    if ship is None and contract is not None:
        raise InputError(
            f"validate: a contract over several models needs the name of the one that is to ship. Received: ship=None. "
            f"Choose one of: {', '.join(models)}."
        )
    return ship


def _engines(specs: Sequence[str | Target]) -> list[Target]:
    from tfkd import targets

    specs = [specs] if isinstance(specs, str) else specs
    engines = [targets.get(spec) if isinstance(spec, str) else spec for spec in specs]
    names = [engine.spec for engine in engines]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"validate: targets must be at least one, each once. Received: {names}. "
            f"Choose from: {', '.join(targets.names())}."
        )
    return engines


def _graphs(
    reference: keras.Model | None, baselines: Mapping[str, keras.Model], test: Split, seen: Mapping[str, Split]
) -> tuple[dict[str, keras.Model], str | None]:
    """The Keras models by name, the reference among them, and its name."""
    graphs = dict(baselines)
    name = next((name for name, graph in graphs.items() if graph is reference), None)
    if reference is not None and name is None:
        name = "reference"
        if name in graphs:
            raise InputError(
                "validate: the name 'reference' in baselines belongs to the reference. Received: another model under "
                "it. Rename that baseline, or pass the same model as reference."
            )
        graphs[name] = reference
    for one, graph in graphs.items():
        # A model that was never built has no shapes.
        _check_shapes(
            one, [getattr(graph, side, None) for side in ("input_shape", "output_shape")], seen.get(one, test)
        )
    return graphs, name


def _check_shapes(name: str, shapes: Sequence[Any], test: Split) -> None:
    """Refuses a model that takes other samples than the split's or gives another number of logits."""
    for side, shape in zip(("input", "output"), shapes, strict=True):
        if not isinstance(shape, tuple) or not all(size is None or isinstance(size, int) for size in shape):
            raise InputError(
                f"validate: model {name!r} must have one input and one output. Received: {side} shape {shape}. "
                f"Give a model with one {side}."
            )
    inputs, outputs = (shape[1:] for shape in shapes)
    fits = len(inputs) == len(test.input_shape)
    if not fits or any(a not in (None, -1, b) for a, b in zip(inputs, test.input_shape, strict=True)):
        raise InputError(
            f"validate: model {name!r} must take samples of shape {test.input_shape}, those of {test.name}. "
            f"Received: a model for {inputs}. Give the data set that the model was made for."
        )
    classes = int(np.prod([size or 1 for size in outputs]))
    if classes != test.num_classes:
        hint = "Give the data set that the model was made for."
        if classes == 1:
            hint = "One logit for two classes is not supported: end the model in two."
        raise InputError(
            f"validate: model {name!r} must give one output per class, {test.num_classes} for {test.name}. "
            f"Received: {classes} per sample. {hint}"
        )


def _counter(progress: Callable[[int, int, str], None] | None, total: int) -> Callable[[str], None]:
    done = itertools.count()
    return lambda what: progress(next(done), total, what) if progress else None


def _keras_rows(
    graphs: Mapping[str, keras.Model],
    reference: str | None,
    test: Split,
    seen: Mapping[str, Split],
    step: Callable[[str], None],
) -> tuple[list[Row], np.ndarray | None]:
    """One row for each Keras model, and the labels that the reference gives."""
    outputs = {}
    for name, graph in graphs.items():
        step(f"{name} in Keras")
        own = seen.get(name, test)
        outputs[name] = np.asarray(graph.predict(own.batches(256), verbose=0)).reshape(len(own), -1)
    sound = reference is not None and np.isfinite(outputs[reference]).all()
    labels = outputs[reference].argmax(axis=1) if reference and sound else None
    rows = []
    for name, graph in graphs.items():
        weights = [weight.value for weight in graph.weights]
        row = Row(
            name=name,
            target=None,
            bytes=sum(weight.dtype.size * int(np.prod(weight.shape)) for weight in weights),
            parameters=graph.count_params(),
            samples=len(seen.get(name, test)),
        )
        if np.isfinite(outputs[name]).all():
            own = seen.get(name, test)
            comparable = name != reference and np.array_equal(own.ids, test.ids) and np.array_equal(own.y, test.y)
            found = score(outputs[name], own, labels if comparable else None)
            rows.append(dataclasses.replace(row, **found))
        else:
            rows.append(dataclasses.replace(row, invalid_reason=_NOT_FINITE, broken=True))
    return rows, labels


def _target_rows(
    models: Mapping[str, TFLiteModel],
    engines: Sequence[Target],
    test: Split,
    labels: np.ndarray | None,
    step: Callable[[str], None],
) -> Iterator[Row]:
    from tfkd._internal.isolation import ChildCrashed

    for name, model in models.items():
        inputs, first = model.quantize_input(test.x), None
        for engine in engines:
            step(f"{name} on {engine.spec}")
            row = Row(name=name, target=engine.spec, bytes=model.size_bytes, parameters=None, samples=len(test))
            try:
                measured = engine.run(model, inputs)
            except (ValueError, RuntimeError) as error:
                # One engine that refuses a model must not cost the numbers of the others. A refusal and a crash are
                # the model's; a time limit or a missing tool leaves the question open.
                broken = isinstance(error, ValueError | ChildCrashed)
                yield dataclasses.replace(row, invalid_reason=str(error), broken=broken)
                continue
            row = _measured_row(row, measured, first, test, labels)
            first = first or (measured if row.valid and measured.outputs else None)
            yield row


def _measured_row(
    row: Row, measured: Measurement, first: Measurement | None, test: Split, labels: np.ndarray | None
) -> Row:
    row = dataclasses.replace(row, measurement=measured)
    if not measured.valid:
        return dataclasses.replace(row, invalid_reason=measured.invalid_reason or "The target says so.")
    if not measured.outputs:  # a tool that gives times alone
        return row
    outputs = measured.outputs[0]
    if len(outputs) != len(test):
        reason = f"{len(outputs)} outputs came back for {len(test)} samples."
        return dataclasses.replace(row, invalid_reason=reason)
    if not np.isfinite(outputs).all():
        return dataclasses.replace(row, invalid_reason=_NOT_FINITE, broken=True)
    return dataclasses.replace(
        row, output_divergence=measure_divergence(measured, first), **score(outputs, test, labels)
    )


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "platform", platform.platform()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # tflite-micro has no wheel for every system; a package that is absent has no version
