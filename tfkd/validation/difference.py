"""The difference between two .tflite files: changed predictions, classes, ops and size; for regression checks in CI."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd import tasks
from tfkd._internal.types import JsonObject, SampleData
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.validation import class_scores, op_changes, task_results
from tfkd.validation.contract import Contract, Verdict, judge
from tfkd.validation.judged_split import as_test_split
from tfkd.validation.op_changes import OpChange
from tfkd.validation.results import Row
from tfkd.validation.scores import OutputDivergence, measure_difference, measure_divergence, score
from tfkd.validation.selected_output import of_file
from tfkd.validation.validator import validate

if TYPE_CHECKING:
    from tfkd.data import Split
    from tfkd.targets import Target

SCHEMA = "tfkd.difference/1"

# The text shows so many sample ids and so many characters of an op's name; the JSON has all.
_SHOWN_IDS = 10
_SHOWN_NAME = 60
# Samples of a regression whose errors grow most.
_MOST_WORSENED = 100

_judge = functools.partial(judge, trusted="reference")  # the first model is known to be good: it is in use
_Rows = tuple[Row, Row]  # of the first and the second model
_Models = tuple[TFLiteModel, TFLiteModel]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both models on one target. If one has no result there, the fields that need both are None or empty.

    Args:
        target: Specification of the target.
        a: Row of the first model.
        b: Row of the second model; its agreement and flips refer to the first.
        regressed: Ids, or files, of the samples that only the first model classifies correctly.
        fixed: Ids of the samples that only the second model classifies correctly.
        changed_errors: Ids of the samples that both models misclassify, with different labels.
        classes: (name, accuracy of the first, accuracy of the second) of each class with regressed or fixed samples,
            the largest drop first.
        p_value: Probability that chance alone splits regressed and fixed samples at least as unevenly (exact McNemar
            test, two-sided).
        worsened: Ids of the samples of a regression whose error grows, the largest growth first; at most 100.
        output_divergence: Difference of the raw outputs, if both have the same quantization.
        verdict: Verdict on the contract.
    """

    target: str
    a: Row
    b: Row
    regressed: tuple[int | str, ...] = ()
    fixed: tuple[int | str, ...] = ()
    changed_errors: tuple[int | str, ...] = ()
    classes: tuple[tuple[str, float, float], ...] = ()
    p_value: float | None = None
    worsened: tuple[int | str, ...] = ()
    output_divergence: OutputDivergence | None = None
    verdict: Verdict = Verdict(None)

    @property
    def ok(self) -> bool:
        """Whether the contract holds; without one, whether both models ran."""
        return self.a.valid and self.b.valid if self.verdict.status is None else self.verdict.status == "SHIP"

    def to_json(self) -> JsonObject:
        """The comparison as plain JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in record.items()},
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "classes": [*map(list, self.classes)],
            "output_divergence": dataclasses.asdict(self.output_divergence) if self.output_divergence else None,
            "verdict": self.verdict.to_json(),
        }

    def lines(self) -> Iterator[str]:
        """The comparison as text."""
        for name, row in (("a", self.a), ("b", self.b)):
            if row.invalid_reason:
                yield f"on {self.target}: {name} has no valid result: {row.invalid_reason}"
        if self.a.accuracy is not None and self.b.accuracy is not None and self.p_value is not None:
            yield (
                f"on {self.target}: accuracy {self.a.accuracy:.2%} -> {self.b.accuracy:.2%}, "
                f"{len(self.regressed)} regressed, {len(self.fixed)} fixed, {len(self.changed_errors)} misclassified "
                f"differently; McNemar p = {self.p_value:.2g}"
            )
        if self.a.result and self.b.result:
            yield from self._metric_lines(self.a.result, self.b.result)
        for name, before, after in self.classes:
            yield f"  class {name}: {before:.2%} -> {after:.2%}"
        for what, ids in (
            ("regressed", self.regressed),
            ("fixed", self.fixed),
            ("largest growth of the error", self.worsened),
        ):
            if ids:
                more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
                yield f"  {what}: samples {', '.join(map(str, ids[:_SHOWN_IDS]))}{more}"
        for check in self.verdict.checks:
            value, limit = (None if one is None else round(one, 4) for one in (check.value, check.limit))
            values = "" if limit is None else f": {value} {check.unit or ''}, limit {limit}"
            yield f"  {check.name} {check.status}{values}{f' ({check.detail})' if check.detail else ''}"
        if self.verdict.status:
            yield f"Verdict on {self.target}: {self.verdict.status} (decided by {self.verdict.binding})"

    def _metric_lines(self, a: task_results.TaskResult, b: task_results.TaskResult) -> Iterator[str]:
        changes = b.differences.get("reference", {})
        for name, before in a.metrics.items():
            change, line = (
                changes.get(name),
                f"on {self.target}: {name} {before.value:.4g} -> {b.metrics[name].value:.4g}",
            )
            if change is not None and change.interval is not None:
                line += f", {change.value:+.3g} (95% interval {change.interval[0]:+.3g} to {change.interval[1]:+.3g})"
            yield line
        if self.p_value is not None:
            yield (
                f"on {self.target}: {len(self.regressed)} regressed, {len(self.fixed)} fixed; McNemar p = "
                f"{self.p_value:.2g}"
            )


@dataclasses.dataclass(frozen=True)
class Difference:
    """The result of `compare`.

    Args:
        a: The first model.
        b: The second model.
        comparisons: One for each target.
        ops: Number of occurrences in the first and in the second model, for each op where they differ.
        changes: Ops that were added, removed or changed.
    """

    a: TFLiteModel
    b: TFLiteModel
    comparisons: tuple[Comparison, ...]
    ops: dict[str, tuple[int, int]]
    changes: tuple[OpChange, ...]

    @property
    def ok(self) -> bool:
        """Whether the contract holds on each target; without a contract, whether both models ran."""
        return all(comparison.ok for comparison in self.comparisons)

    def to_json(self) -> JsonObject:
        """The difference as plain JSON values."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "ops": {name: list(counts) for name, counts in self.ops.items()},
            "changes": [*map(list, self.changes)],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }

    def lines(self) -> Iterator[str]:
        """The difference as text."""
        before, after = self.a.size_bytes, self.b.size_bytes
        yield f"a: {self.a.path or 'model'}, {before:,} bytes"
        yield f"b: {self.b.path or 'model'}, {after:,} bytes ({after - before:+,}, {after / before - 1:+.1%})"
        for name, counts in self.ops.items():
            yield f"{name}: {counts[0]} -> {counts[1]}"
        for one in self.changes:
            yield f"{one.op} {_shortened(one.b or one.a or '')}: {one.change}"
        for comparison in self.comparisons:
            yield from comparison.lines()


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else f"{name[: _SHOWN_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def compare(
    a: TFLiteModel | str | os.PathLike[str],
    b: TFLiteModel | str | os.PathLike[str],
    test: SampleData,
    *,
    targets: Sequence[str | Target] = ("host",),
    contract: Contract | None = None,
    task: str | None = None,
    validation: Split | None = None,
    output: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Difference:
    """Runs two .tflite models over the test split and compares their predictions, ops and sizes.

    Args:
        a: The first model: the one in use.
        b: The second model: the one that may replace it.
        test: Test split; a split with another role is refused. Or another form of labelled test data, see
            `tfkd.data.as_split`; samples of several inputs are found by their names.
        targets: Targets on which both run.
        contract: Limits of the second model on each target; drops, agreement and divergence refer to the first model.
        task: One of `tfkd.tasks.NAMES`; by default the one that labels and models show.
        validation: Validation split on which a task with a threshold chooses that of each model.
        output: Name of the output that is compared, in the signature of models with several.
        progress: Called with (steps done, total steps, name of the next step).

    Raises:
        InputError: The split is not a test split, a target does not exist, or a limit refers to a Keras model.
        ModelError: A file is not a .tflite, or does not fit the split.
    """
    for name, value in (contract.limits if contract is not None else {}).items():
        if name.endswith("_from_teacher") or name == "min_gain_over_alone":
            raise InputError(
                f"compare: {name} refers to a Keras model. Received: {name}={value:g}. "
                "Use max_accuracy_drop or that of a metric, which refers to the first file here, or validate."
            )
    first, second = TFLiteModel.load(a), TFLiteModel.load(b)
    judged = (first, second) if output is None else (of_file(first, output, None), of_file(second, output, None))
    test = as_test_split(test, judged[0], task)
    validated = validate(
        {"a": first, "b": second},
        test,
        targets=targets,
        task=task,
        validation=validation,
        output=output,
        progress=progress,
    )
    rows, found = validated.rows, tasks.get(validated.task)
    if contract is not None:
        contract.check_task(found.name)
    pairs = zip((row for row in rows if row.name == "a"), (row for row in rows if row.name == "b"), strict=True)
    return Difference(
        first,
        second,
        tuple(_comparison(pair, judged, test, contract, found) for pair in pairs),
        {
            name: (first.ops.get(name, 0), second.ops.get(name, 0))
            for name in sorted({*first.ops, *second.ops})
            if first.ops.get(name) != second.ops.get(name)
        },
        tuple(op_changes.changes(first, second)),
    )


def _comparison(rows: _Rows, models: _Models, test: Split, contract: Contract | None, task: tasks.Task) -> Comparison:
    (a, b), (first, second) = rows, models
    target = a.target or ""
    if isinstance(task, tasks.ScoredTask) and a.result is not None and b.result is not None:
        return _comparison_of_metrics(rows, models, test, contract, task)
    if a.accuracy is None or b.accuracy is None:
        alone = dataclasses.replace(b, output_divergence=None)  # there are no outputs of both models to compare
        return Comparison(target, a, b, verdict=_judge(contract, [alone], task=task.name))
    from scipy.stats import binomtest

    outputs = [row.measurement.outputs[0].reshape(len(test), -1) for row in (a, b) if row.measurement]
    predicted_a, predicted_b = (one.argmax(axis=1) for one in outputs)
    right_a, right_b = predicted_a == test.y, predicted_b == test.y
    drop = measure_difference(right_b, right_a, paired=True, against="a")
    old, new = (
        class_scores.compute(task_results.real_outputs(model, one), test.y, model)
        for model, one in zip(models, outputs, strict=True)
    )
    b = dataclasses.replace(
        b.with_scores(score(outputs[1], test, predicted_a)),
        differences={"reference": drop},
        class_metrics=class_scores.metrics_of(new, {"reference": (old, True)}),
    )
    regressed, fixed = right_a & ~right_b, ~right_a & right_b
    flips = int((regressed | fixed).sum())
    classes = []
    for number in np.unique(test.y[regressed | fixed]):
        of_class = test.y == number
        classes.append((test.class_names[number], float(right_a[of_class].mean()), float(right_b[of_class].mean())))
    same = _quantization(first) == _quantization(second)
    divergence = measure_divergence(b.measurement, a.measurement) if same and b.measurement else None
    return Comparison(
        target,
        a,
        b,
        regressed=_ids(test, regressed),
        fixed=_ids(test, fixed),
        changed_errors=_ids(test, ~right_a & ~right_b & (predicted_a != predicted_b)),
        classes=tuple(sorted(classes, key=lambda one: one[2] - one[1])),
        p_value=float(binomtest(int(regressed.sum()), flips).pvalue) if flips else 1.0,
        output_divergence=divergence,
        # As with the accuracy drop, the limit applies to the divergence from the first model.
        verdict=_judge(contract, [dataclasses.replace(b, output_divergence=divergence)]),
    )


def _comparison_of_metrics(
    rows: _Rows, models: _Models, test: Split, contract: Contract | None, task: tasks.ScoredTask
) -> Comparison:
    """The comparison in a task other than classification: metrics, and samples that change."""
    (a, b), (first, second) = rows, models
    from scipy.stats import binomtest

    assert a.result
    assert b.result
    assert a.measurement
    assert b.measurement
    scores = []
    for row, result, model in ((a, a.result, first), (b, b.result, second)):
        values = task_results.real_outputs(model, row.measurement.outputs[0]) if row.measurement else np.zeros(0)
        scores.append(task.score(values, test, threshold=result.threshold))
    old, new = scores
    b = dataclasses.replace(b, result=task_results.result_of(new, {"reference": (old, True)}))
    same = _quantization(first) == _quantization(second)
    divergence = measure_divergence(b.measurement, a.measurement) if same and b.measurement else None
    b_judged = dataclasses.replace(b, output_divergence=divergence)
    found = Comparison(
        a.target or "", a, b, output_divergence=divergence, verdict=_judge(contract, [b_judged], task=task.name)
    )
    if old.right is not None and new.right is not None:
        regressed, fixed = old.right & ~new.right, ~old.right & new.right
        flips = int((regressed | fixed).sum())
        p_value = float(binomtest(int(regressed.sum()), flips).pvalue) if flips else 1.0
        return dataclasses.replace(found, regressed=_ids(test, regressed), fixed=_ids(test, fixed), p_value=p_value)
    assert old.errors is not None
    assert new.errors is not None
    growth = new.errors - old.errors
    order = np.argsort(-growth, kind="stable")[:_MOST_WORSENED]
    return dataclasses.replace(found, worsened=_ids(test, order[growth[order] > 0]))


def _quantization(model: TFLiteModel) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    output = model.outputs[0]
    return output.dtype, output.scales, output.zero_points


def _ids(test: Split, chosen: np.ndarray) -> tuple[int | str, ...]:
    return tuple((test.ids if test.paths is None else test.paths)[chosen].tolist())
