"""What a candidate costs on its targets, measured on the converted untrained model before any training."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.conversion import file_inputs
from tfkd.errors import InputError, ModelError
from tfkd.report import words
from tfkd.validation.contract import LABELS, RUNS, Check, Contract, judge
from tfkd.validation.limits import LIMITS
from tfkd.validation.results import Row

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.data import Split
    from tfkd.recipes.recipe import Recipe
    from tfkd.targets import Target

# The limits that do not depend on the weights: the candidate is judged by them before its training.
COSTS = (
    "max_bytes",
    "max_bytes_ratio_to_teacher",
    "max_arena_bytes",
    "max_ram_bytes",
    "max_flash_bytes",
    "max_instructions",
    "max_p90_ms",
)
# The size of an arena depends on shapes only; ranges of activations need no more than some samples.
_CALIBRATION_SAMPLES = 16
# Share that is added to instructions and flash: branches and constants that depend on values, and shifts that differ
# too much for the flag ONE_SHIFT of the kernels, were below 0.7 % together.
_MARGIN = 0.01
# How far values that a builder sets to a constant are spread around it.
_SPREAD = 0.1


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a candidate: the largest over all targets. Unknown values are None.

    Args:
        bytes: Size of the .tflite.
        parameters: Number of weights.
        arena_bytes: Tensor arena.
        ram_bytes: RAM on a microcontroller.
        flash_bytes: Flash on a microcontroller.
        instructions: Executed instructions of one inference on an emulated microcontroller.
        p90_ms: 90th percentile of the latency, in milliseconds, on a target that measures it.
        refusal: Why the candidate is outside of the contract; None if it is not.
        excess: By which part of the limit it is outside, 0 or more; 0 if it is not.
    """

    bytes: int | None = None
    parameters: int | None = None
    arena_bytes: int | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    instructions: int | None = None
    p90_ms: float | None = None
    refusal: str | None = None
    excess: float = 0.0

    def to_json(self) -> JsonObject:
        """The cost as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: JsonRecord) -> Self:
        """The cost of which `to_json` made JSON values."""
        return cls(**content)

    def __str__(self) -> str:
        named = {"arena": self.arena_bytes, "RAM": self.ram_bytes, "flash": self.flash_bytes}
        parts = [words.size(self.bytes), *(f"{name} {words.size(one)}" for name, one in named.items() if one)]
        parts += [f"{self.instructions:,} instructions"] if self.instructions else []
        parts += [words.ms(self.p90_ms)] if self.p90_ms else []
        return ", ".join(parts)


def measure(
    student: keras.Model,
    recipe: Recipe,
    train: Split,
    targets: Sequence[Target],
    teacher_bytes: int | None = None,
) -> Cost:
    """Converts an untrained student, runs it once on each target and compares its cost with the contract.

    A trained student costs no more: channels that random weights make useless are counted, although the generated C
    leaves them out, and `_MARGIN` is added for what depends on values. The exception are weights for which the kernels
    have no fast form: sums beyond 2^23, or a factor of 1 or more between sums and outputs.

    Args:
        student: The student with random weights; its biases and its normalization are changed.
        recipe: Its recipe, with the conversion and the contract.
        train: Training split, for ranges of activations and one sample to run.
        targets: Where the .tflite will run.
        teacher_bytes: Size of the weights of the teacher in memory; None if no limit needs it.

    Raises:
        DeviceError: A device failed, which is not the fault of the candidate.
    """
    _fill(student, recipe.seed)
    limits = {name: value for name, value in recipe.limits.limits.items() if name in COSTS}
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        try:
            model = _convert(student, recipe, train, Path(folder) / "untrained.tflite")
        except ModelError as error:
            return Cost(parameters=student.count_params(), refusal=_first_sentence(error), excess=1.0)
        rows = [_run(model, target, train, teacher_bytes) for target in targets]
    # Without any limit there is no verdict, and so no check that the model runs.
    judged: JsonObject = dict(limits) or {"max_bytes": model.size_bytes}
    checks = judge(Contract(**judged), rows).checks
    broken = [check for check in checks if check.status == "broken" and check.name in (RUNS, *limits)]
    return Cost(
        bytes=model.size_bytes,
        parameters=student.count_params(),
        arena_bytes=_largest(rows, "max_arena_bytes"),
        ram_bytes=_largest(rows, "max_ram_bytes"),
        flash_bytes=_largest(rows, "max_flash_bytes"),
        instructions=_largest(rows, "max_instructions"),
        p90_ms=max(_values(rows, "max_p90_ms"), default=None),
        refusal="; ".join(map(_sentence, broken)) or None,
        excess=max((-(check.headroom if check.headroom is not None else -1.0) for check in broken), default=0.0),
    )


def _fill(student: keras.Model, seed: int) -> None:
    """Replaces biases of 0 and statistics of normalization by values as a training leaves them.

    The converter drops a bias that is 0 everywhere and stores equal constants once: the file of a model that was just
    built is up to a third smaller than that of the trained one.
    """
    rng = np.random.default_rng(seed)
    for weight in student.weights:
        value = np.asarray(weight)
        if value.dtype.kind == "f" and np.all(value == value.flat[0]):
            noise = rng.uniform(-_SPREAD, _SPREAD, value.shape)
            weight.assign(value * (1 + noise) if value.flat[0] else noise)


def unchecked(cost: Cost, limits: Mapping[str, float]) -> list[str]:
    """The limits of a contract whose value no target gave, so that no candidate is refused for them."""
    values = {**cost.to_json(), "bytes_ratio_to_teacher": cost.bytes}
    return [LABELS[name] for name in limits if name in COSTS and values[name.removeprefix("max_")] is None]


def _convert(student: keras.Model, recipe: Recipe, train: Split, path: Path) -> TFLiteModel:
    from tfkd import models
    from tfkd.conversion import quantizer
    from tfkd.conversion.converter import convert

    settings = recipe.conversion
    mode = settings.ship if settings.ship in settings.modes else "full_int8"
    return convert(
        models.with_softmax(student) if settings.output == "softmax" else student,
        path,
        mode=mode,
        quantizer=(settings.quantizer_settings() if mode in quantizer.MODES else None) or "tensorflow",
        calibration=train,
        calibration_samples=min(_CALIBRATION_SAMPLES, settings.calibration_samples),
        refine=settings.refine and mode == "full_int8",
        rounding="nearest",
        check=False,  # outputs of random weights say nothing
        seed=recipe.seed,
    )


def _run(model: TFLiteModel, target: Target, train: Split, teacher_bytes: int | None) -> Row:
    """One inference of an untrained model on a target, with its latency."""
    row = Row("candidate", target.spec, model.size_bytes, None, 1, teacher_bytes=teacher_bytes)
    inputs = file_inputs.quantized(model, train.x[:1], "search: the student")
    try:
        measured = target.for_any_weights().run(model, inputs, latency=True)
    except (ModelError, InputError) as error:
        return dataclasses.replace(row, invalid_reason=_first_sentence(error), broken=True)
    memory = measured.memory
    if memory is not None and memory.flash_bytes is not None:
        memory = dataclasses.replace(memory, flash_bytes=_with_margin(memory.flash_bytes))
    instructions = None if measured.instructions is None else _with_margin(measured.instructions)
    # A disturbed latency is no reason to refuse a candidate; the final validation measures again.
    return dataclasses.replace(row, measurement=dataclasses.replace(measured, instructions=instructions, memory=memory))


def _with_margin(value: int) -> int:
    return math.ceil(value * (1 + _MARGIN))


def _largest(rows: Sequence[Row], name: str) -> int | None:
    return max(map(round, _values(rows, name)), default=None)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    """The values that a limit applies to, of the rows that have one."""
    return [value for row in rows if (value := LIMITS[name].read(row)) is not None]


def _sentence(check: Check) -> str:
    if check.value is None:
        return check.detail or LABELS[check.name]
    found = check.to_json()
    number = words.quantity(check.value, check.unit)
    return f"{LABELS[check.name]} {number} on {check.target}, {words.bound(found)} allowed"


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0]
