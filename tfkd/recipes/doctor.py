"""What would go wrong with a recipe, found in a minute instead of after hours of training."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tfkd import data, models
from tfkd._internal import isolation
from tfkd.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

# Enough samples to tell a broken teacher from a sound one.
_SAMPLES = 1000
_FEW_PER_CLASS = 20


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Args:
        severity: `error`: the run would fail or mean nothing; `warning`: look at it first.
        what: the finding, in a sentence.
        evidence: what was seen.
        remedy: what to do.
    """

    severity: Literal["error", "warning"]
    what: str
    evidence: str
    remedy: str


def examine(recipe: Recipe, *, progress: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Looks for what makes a run of the recipe fail, or its result worthless.

    Args:
        recipe: the recipe.
        progress: called with the name of each examination.

    Returns:
        The findings, errors first; none is good news. A teacher that is yet to be trained is not examined.

    Raises:
        ValueError: the data cannot be read, or the student cannot be built.
        RuntimeError: a tool that a target needs is missing.
    """
    progress("data")
    splits = data.load(recipe.data.source, validation=recipe.data.validation, seed=recipe.seed)
    findings = [*_settings(recipe), *_data(splits)]
    other = recipe.data.teacher
    seen = data.load(other.source, validation=recipe.data.validation, seed=recipe.seed) if other else splits
    if other:
        data.Partner(seen.train, other.pair).lookup(splits.train, recipe.seed)
    for file in recipe.teacher.files:
        progress(f"teacher {file.name}")
        findings += _teacher(models.load(file), seen, recipe)
    progress("student")
    findings += _student(recipe, splits)
    return sorted(findings, key=lambda finding: finding.severity)


def _settings(recipe: Recipe) -> Iterator[Finding]:
    settings = recipe.distillation
    if settings.alpha == 0:
        yield Finding("warning", "The teacher is not used.", "alpha = 0", "Set alpha = 0.9.")
    if settings.alpha == 1:
        yield Finding(
            "warning",
            "The labels are not used.",
            "alpha = 1",
            "Keep it to imitate the teacher alone, or set alpha = 0.9.",
        )
    temperature = settings.soft.get("temperature")
    if temperature is not None and not 1 <= temperature <= 20:
        yield Finding(
            "warning",
            "The temperature is out of use.",
            f"temperature = {temperature:g}",
            "Use 2 to 8: below 1 the labels harden, far above all classes look alike.",
        )


def _data(splits: data.Splits) -> Iterator[Finding]:
    for name, other in (("train", "test"), ("val", "test"), ("train", "val")):
        shared = len(getattr(splits, name).overlap(getattr(splits, other)))
        if shared:
            yield Finding(
                "error" if other == "test" else "warning",
                f"Samples of {name} are in {other} too.",
                f"{shared} equal samples",
                f"Remove them from {name}: the accuracy on {other} would not be honest.",
            )
    counts = np.bincount(splits.train.y, minlength=splits.train.num_classes)
    few = np.flatnonzero(counts < _FEW_PER_CLASS)
    if len(few):
        names = ", ".join(f"{splits.train.class_names[c]} ({counts[c]})" for c in few[:5])
        yield Finding(
            "warning",
            "Some classes have few samples.",
            f"{len(few)} below {_FEW_PER_CLASS}: {names}",
            "Collect more, augment, or merge classes.",
        )


def _teacher(teacher: keras.Model, splits: data.Splits, recipe: Recipe) -> Iterator[Finding]:
    from tfkd.models import logits

    try:
        logits.check_gives_logits("teacher", teacher)
    except ValueError as error:
        yield Finding("error", "The teacher's outputs cannot be used.", str(error), "As the evidence says.")
        return
    sample = splits.val.sample(min(_SAMPLES, len(splits.val))) if len(splits.val) else splits.train.sample(_SAMPLES)
    x, y, classes = sample.x.astype("float32"), sample.y, sample.num_classes
    if tuple(teacher.input_shape[1:]) != sample.input_shape or teacher.output_shape[-1] != classes:
        yield Finding(
            "error",
            "The teacher does not fit the data.",
            f"it takes {teacher.input_shape[1:]} and gives {teacher.output_shape[-1]} logits; the data are "
            f"{sample.input_shape} with {classes} classes",
            "Give the teacher that was trained on these data.",
        )
        return
    said = _run(teacher, x)
    if (said >= 0).all() and np.allclose(said.sum(-1), 1, atol=1e-3):
        yield Finding(
            "error", "The teacher gives probabilities.", "its outputs are >= 0 and sum to 1", "Remove its softmax."
        )
        return
    yield from _mode(teacher, x, said)
    yield from _skill(teacher, x, y, said, classes)
    yield from _history(recipe, float(np.mean(said.argmax(-1) == y)))
    if len(recipe.teacher.files) == 1:  # a store of several is keyed by all of them
        yield from _store(recipe, teacher, splits)


def _run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    batches = [np.asarray(model(x[i : i + 128], training=False), "float32") for i in range(0, len(x), 128)]
    return np.concatenate(batches)


def _mode(teacher: keras.Model, x: np.ndarray, said: np.ndarray) -> Iterator[Finding]:
    """A teacher whose answer depends on chance or on the rest of the batch runs in training mode."""
    again, alone = _run(teacher, x[:16]), np.concatenate([_run(teacher, x[i : i + 1]) for i in range(16)])
    scale = max(float(np.abs(said[:16]).max()), 1e-6)
    for what, other in (("from call to call", _run(teacher, x[:16])), ("with the rest of the batch", alone)):
        change = float(np.abs(other - again).max()) / scale
        if change > 1e-2:
            yield Finding(
                "error",
                "The teacher runs in training mode.",
                f"its outputs change by {change:.0%} {what}",
                "Rebuild it without training=True on its dropout or normalization layers.",
            )


def _skill(teacher: keras.Model, x: np.ndarray, y: np.ndarray, said: np.ndarray, classes: int) -> Iterator[Finding]:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    accuracy = float(np.mean(said.argmax(-1) == y))
    confusion = confusion_matrix(y, said.argmax(-1), labels=range(classes))
    rows, columns = linear_sum_assignment(-confusion)
    permuted = confusion[rows, columns].sum() / len(y)
    if permuted > max(accuracy + 0.2, 2 * accuracy):
        moved = ", ".join(f"{a} is said as {b}" for a, b in zip(rows, columns, strict=True) if a != b)
        yield Finding(
            "error",
            "The teacher's classes are in another order than the labels.",
            f"{accuracy:.1%} right as they are, {permuted:.1%} if {moved}",
            "Reorder the labels or the teacher's outputs.",
        )
        return
    changes = {"divided by 255": x / 255, "as -1..1": x / 127.5 - 1, "multiplied by 255": x * 255}
    found = {how: float(np.mean(_run(teacher, other).argmax(-1) == y)) for how, other in changes.items()}
    how = max(found, key=lambda name: found[name])
    if found[how] > max(accuracy + 0.1, 1.5 * accuracy):
        yield Finding(
            "error",
            "The teacher expects inputs of another range.",
            f"{accuracy:.1%} right on {x.min():g}..{x.max():g}, {found[how]:.1%} on inputs {how}",
            "Put a Rescaling layer in front of the teacher, or give the data in its range.",
        )
    elif accuracy < 1.5 / classes:
        yield Finding(
            "error",
            "The teacher is no better than chance.",
            f"{accuracy:.1%} right of {len(y)}, chance is {1 / classes:.1%}",
            "Train it, or give the file that was trained on these data.",
        )


def _history(recipe: Recipe, accuracy: float) -> Iterator[Finding]:
    """Whether an earlier run in the output folder trained a student that beats the teacher."""
    state = Path(recipe.output) / "state.json"
    if not state.is_file():
        return
    steps = json.loads(state.read_text())
    best = max((step["val_accuracy"] for name, step in steps.items() if name.startswith("student-alone")), default=0.0)
    if best > accuracy:
        yield Finding(
            "warning",
            "The teacher is worse than the student alone.",
            f"{accuracy:.1%} on validation against {best:.1%} of an earlier run",
            "Train a better teacher.",
        )


def _store(recipe: Recipe, teacher: keras.Model, splits: data.Splits) -> Iterator[Finding]:
    from tfkd.distillation.labels.store import SoftLabels

    for folder in sorted(Path(recipe.output).glob("labels-*")):
        try:
            SoftLabels.open(folder).check(teacher, splits.train)
        except ValueError as error:
            yield Finding("warning", "Stored soft labels are stale.", str(error), "Nothing: the next run labels again.")


def _student(recipe: Recipe, splits: data.Splits) -> Iterator[Finding]:
    """Converts and runs the student with untrained weights: size and memory do not depend on training."""
    from tfkd import targets
    from tfkd.conversion import converter
    from tfkd.optimization import rehearse
    from tfkd.recipes.student import start

    try:
        student = start(recipe.student, splits.train)
    except ValueError as error:
        yield Finding("error", "The student cannot be made.", str(error), "As the evidence says.")
        return
    limits = recipe.limits
    try:
        rehearse(student, [(one.method, one.options) for one in recipe.optimization])
    except ValueError as error:
        yield Finding("error", "The optimization does not take the student.", str(error), "As the evidence says.")
    shipped = recipe.conversion.ship
    mode = shipped if shipped in converter.MODES else "full_int8"  # what is optimized becomes that
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = converter.convert(student, Path(folder) / "student.tflite", mode=mode, calibration=splits.train)
        except (ValueError, RuntimeError) as error:
            yield Finding("error", f"The student does not convert to {mode}.", str(error), "As the evidence says.")
            return
        if limits.max_bytes is not None and model.size_bytes > limits.max_bytes:
            yield Finding(
                "error",
                "The student is larger than the contract allows.",
                f"{model.size_bytes:,} bytes as {mode}, the limit is {limits.max_bytes:,}",
                "Take a smaller student.",
            )
        for spec in recipe.targets.names:
            target = targets.get(spec)
            try:
                measured = target.run(model, model.quantize_input(splits.train.x[:1]), latency=False)
            except (
                isolation.ChildCrashed,
                isolation.ChildTimedOut,
            ) as error:  # untrained weights may have absurd scales
                yield Finding(
                    "warning", f"The untrained student crashes on {spec}.", str(error), "Look again once trained."
                )
                continue
            except ValueError as error:
                yield Finding("error", f"The student does not run on {spec}.", str(error), "As the evidence says.")
                continue
            arena = measured.memory.arena_bytes
            if limits.max_arena_bytes is not None and arena is not None and arena > limits.max_arena_bytes:
                yield Finding(
                    "error",
                    "The student needs more memory than the contract allows.",
                    f"an arena of {arena:,} bytes on {spec}, the limit is {limits.max_arena_bytes:,}",
                    "Take a student with smaller feature maps.",
                )
