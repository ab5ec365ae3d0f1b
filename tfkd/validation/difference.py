"""What changed from one .tflite to the next: answers that flip, classes, ops, size; for regressions in CI."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfkd.conversion.tflite import TensorInfo, TFLiteModel
from tfkd.validation.contract import Contract, Verdict, judge
from tfkd.validation.results import Row
from tfkd.validation.scores import OutputDivergence, measure_divergence, score
from tfkd.validation.validator import validate

if TYPE_CHECKING:
    from tfkd.data import Split
    from tfkd.targets import Target

SCHEMA = "tfkd.difference/1"

_SHOWN = 10  # ids in the text; all are in the JSON


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both models on one target. What is unknown because one does not run there is None or empty.

    Args:
        target: its specification.
        a: the first model's row.
        b: the second's; its agreement and flips refer to the first.
        lost: ids of the samples that the first has right and the second wrong.
        mended: ids of the samples that the first has wrong and the second right.
        reworded: ids of the samples that both have wrong, with another label.
        classes: (name, accuracy of the first, of the second) of each class whose answers flip, the most lost first.
        p_value: of as uneven a split of lost and mended by chance (exact McNemar test, two-sided).
        output_divergence: between raw outputs, where both have the same quantization.
        verdict: over the contract.
    """

    target: str
    a: Row
    b: Row
    lost: tuple[int, ...] = ()
    mended: tuple[int, ...] = ()
    reworded: tuple[int, ...] = ()
    classes: tuple[tuple[str, float, float], ...] = ()
    p_value: float | None = None
    output_divergence: OutputDivergence | None = None
    verdict: Verdict = Verdict(None)

    @property
    def ok(self) -> bool:
        """Whether the contract holds; without one, whether both models ran."""
        return self.a.valid and self.b.valid if self.verdict.status is None else self.verdict.status == "SHIP"

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        verdict = dataclasses.asdict(self.verdict) | {"checks": [*map(dataclasses.asdict, self.verdict.checks)]}
        return {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in record.items()},
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "classes": [*map(list, self.classes)],
            "output_divergence": dataclasses.asdict(self.output_divergence) if self.output_divergence else None,
            "verdict": verdict,
        }


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `compare` found.

    Args:
        a: the first model.
        b: the second.
        comparisons: one for each target.
        ops: for each op whose number differs: how often it occurs in the first and in the second.
        changes: op by op, as `(op, tensor in the first, in the second, what changed)`; a tensor is None where the op is
            in one model only.
    """

    a: TFLiteModel
    b: TFLiteModel
    comparisons: tuple[Comparison, ...]
    ops: dict[str, tuple[int, int]]
    changes: tuple[tuple[str, str | None, str | None, str], ...]

    @property
    def ok(self) -> bool:
        """Whether the contract holds on each target; without a contract, whether both models ran."""
        return all(comparison.ok for comparison in self.comparisons)

    def to_json(self) -> dict[str, Any]:
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
        for op, first, second, what in self.changes:
            yield f"{op} {second or first}: {what}"
        for comparison in self.comparisons:
            yield from _words(comparison)


def compare(
    a: TFLiteModel | str | os.PathLike[str],
    b: TFLiteModel | str | os.PathLike[str],
    test: Split,
    *,
    targets: Sequence[str | Target] = ("host",),
    contract: Contract | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Difference:
    """Runs two .tflite models over the test split and says what changed from the first to the second.

    Args:
        a: the model that is in use.
        b: the model that is to take its place.
        test: the test split; another role is refused.
        targets: where both run.
        contract: the limits of the second model on each target; its drop and agreement refer to the first.
        progress: called with (steps done, steps in all, what comes next).

    Raises:
        ValueError: a file is no .tflite, or does not fit the split.
        RuntimeError: the tool that a target needs is missing.
    """
    first, second = TFLiteModel.load(a), TFLiteModel.load(b)
    rows = validate({"a": first, "b": second}, test, targets=targets, progress=progress).rows
    pairs = zip((row for row in rows if row.name == "a"), (row for row in rows if row.name == "b"), strict=True)
    return Difference(
        first,
        second,
        tuple(_comparison(old, new, first, second, test, contract) for old, new in pairs),
        {
            name: (first.ops.get(name, 0), second.ops.get(name, 0))
            for name in sorted({*first.ops, *second.ops})
            if first.ops.get(name) != second.ops.get(name)
        },
        tuple(_changes(_operators(first), _operators(second))),
    )


def _comparison(
    a: Row, b: Row, first: TFLiteModel, second: TFLiteModel, test: Split, contract: Contract | None
) -> Comparison:
    target = a.target or ""
    if a.accuracy is None or b.accuracy is None:
        return Comparison(target, a, b, verdict=judge(contract, [b], a.accuracy))
    from scipy.stats import binomtest

    outputs = [row.measurement.outputs[0].reshape(len(test), -1) for row in (a, b) if row.measurement]
    before, after = (one.argmax(axis=1) for one in outputs)
    was, now = before == test.y, after == test.y
    b = dataclasses.replace(b, **score(outputs[1], test, before))
    kinds = [
        (model.outputs[0].dtype, model.outputs[0].scales, model.outputs[0].zero_points) for model in (first, second)
    ]
    lost, mended = was & ~now, ~was & now
    flips = int((lost | mended).sum())
    classes = []
    for number in np.unique(test.y[lost | mended]):
        mine = test.y == number
        classes.append((test.class_names[number], float(was[mine].mean()), float(now[mine].mean())))
    divergence = measure_divergence(b.measurement, a.measurement) if kinds[0] == kinds[1] and b.measurement else None
    return Comparison(
        target,
        a,
        b,
        lost=_ids(test, lost),
        mended=_ids(test, mended),
        reworded=_ids(test, ~was & ~now & (before != after)),
        classes=tuple(sorted(classes, key=lambda one: one[2] - one[1])),
        p_value=float(binomtest(int(lost.sum()), flips).pvalue) if flips else 1.0,
        output_divergence=divergence,
        # Like the accuracy drop, the divergence that a contract limits is that from the first model.
        verdict=judge(contract, [dataclasses.replace(b, output_divergence=divergence)], a.accuracy),
    )


def _ids(test: Split, chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(test.ids[chosen].tolist())


class _Operator(NamedTuple):
    name: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    @property
    def label(self) -> str | None:
        return next((tensor.name for tensor in [*self.outputs, *self.inputs]), None)

    @property
    def signature(self) -> tuple[str, tuple[int, ...] | None]:
        return self.name, self.outputs[0].shape if self.outputs else None


def _operators(model: TFLiteModel) -> list[_Operator]:
    tensors = model.graph.tensors
    return [
        _Operator(op.name, [tensors[i] for i in op.inputs if i >= 0], [tensors[i] for i in op.outputs])
        for op in model.graph.ops
    ]


def _changes(a: Sequence[_Operator], b: Sequence[_Operator]) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Ops that came, went, or compute with other types, shapes or steps."""
    matcher = difflib.SequenceMatcher(None, [op.signature for op in a], [op.signature for op in b], autojunk=False)
    for kind, start, stop, other, end in matcher.get_opcodes():
        if kind == "equal":
            for old, new in zip(a[start:stop], b[other:end], strict=True):
                if what := _tensor_changes(old, new):
                    yield old.name, old.label, new.label, what
            continue
        for op in a[start:stop]:
            yield op.name, op.label, None, "gone"
        for op in b[other:end]:
            yield op.name, None, op.label, "new"


def _tensor_changes(old: _Operator, new: _Operator) -> str:
    found = []
    sides = [(before, after, "output") for before, after in zip(old.outputs[:1], new.outputs[:1], strict=True)]
    # The second input holds the weights, where there are any.
    sides += [(before, after, "second input") for before, after in zip(old.inputs[1:2], new.inputs[1:2], strict=False)]
    for before, after, what in sides:
        if before.dtype != after.dtype:
            found.append(f"{what} {before.dtype} -> {after.dtype}")
        elif before.shape != after.shape:
            found.append(f"{what} {before.shape} -> {after.shape}")
        elif len(before.scales) != len(after.scales):
            found.append(f"{what} has {len(after.scales)} scales instead of {len(before.scales)}")
        elif before.scales and not np.allclose(before.scales, after.scales, rtol=0.01):
            ratio = np.divide(after.scales, before.scales)
            found.append(f"{what} steps x {ratio.min():.3g}" + (f"..{ratio.max():.3g}" if len(ratio) > 1 else ""))
    return ", ".join(found)


def _words(found: Comparison) -> Iterator[str]:
    for name, row in (("a", found.a), ("b", found.b)):
        if row.invalid_reason:
            yield f"on {found.target}: {name} does not run: {row.invalid_reason}"
    if found.a.accuracy is not None and found.b.accuracy is not None and found.p_value is not None:
        yield (
            f"on {found.target}: accuracy {found.a.accuracy:.2%} -> {found.b.accuracy:.2%}, {len(found.lost)} lost, "
            f"{len(found.mended)} mended, {len(found.reworded)} wrong in another way; by chance p = {found.p_value:.2g}"
        )
    for name, before, after in found.classes:
        yield f"  class {name}: {before:.2%} -> {after:.2%}"
    for what, ids in (("lost", found.lost), ("mended", found.mended)):
        if ids:
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            yield f"  {what}: samples {', '.join(map(str, ids[:_SHOWN]))}{more}"
    for check in found.verdict.checks:
        limit = "" if check.limit is None else f" {check.value} of {check.limit} {check.unit or ''}"
        yield f"  {check.name}: {check.status}{limit}{f' ({check.detail})' if check.detail else ''}"
    if found.verdict.status:
        yield f"Verdict on {found.target}: {found.verdict.status} (decided by {found.verdict.binding})"
