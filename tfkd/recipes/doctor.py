"""Examines a recipe in a minute: finds what would make hours of training fail, or their result meaningless."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkd import data
from tfkd.errors import DeviceError, InputError, TfkdError
from tfkd.recipes import (
    augmentation_examination,
    data_examination,
    scale_examination,
    target_choice,
    teacher_examination,
)
from tfkd.recipes.findings import Finding
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.task_choice import examine_task, find_task
from tfkd.tasks import Task

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.targets import Target


def examine(recipe: Recipe, *, progress: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Examines what a run of a recipe starts from.

    Args:
        recipe: The recipe.
        progress: Called with the name of each examination.

    Returns:
        The findings, errors first. A teacher that the run trains itself is not examined. Where the data cannot be
        read, the models are only loaded.

    Raises:
        InputError: A module of the user cannot be imported.
    """
    recipe.allow_own_code()
    progress("data")
    findings = [*_examine_settings_of(recipe)]
    try:
        splits, teacher_splits = _load_data(recipe)
    except InputError as error:
        unread = Finding("error", "The data cannot be read.", str(error), "Correct [data].")
        found = [unread, *findings, *_load_models(recipe), *_choose_targets(recipe)[1]]
        return sorted(found, key=lambda finding: finding.severity)
    findings += [*examine_task(recipe, splits.train), *data_examination.examine(splits)]
    findings += data_examination.examine_resemblance(splits)
    findings += augmentation_examination.examine(recipe, splits.train, teacher_splits.train)
    for file in recipe.teacher.files:
        progress(f"teacher {file.name}")
        findings += _examine_teacher(recipe, file, teacher_splits)
    progress("student")
    findings += _examine_student(recipe, splits)
    return sorted(findings, key=lambda finding: finding.severity)


def _load_data(recipe: Recipe) -> tuple[data.Splits, data.Splits]:
    """The data of student and teacher."""
    splits = data.load(recipe.request(), validation=recipe.data.validation, seed=recipe.seed)
    other = recipe.data.teacher
    if not other:
        return splits, splits
    teacher_splits = data.load(recipe.request(other), validation=recipe.data.validation, seed=recipe.seed)
    data.Partner(teacher_splits.train, other.pair).lookup(splits.train, recipe.seed)
    return splits, teacher_splits


def _load_models(recipe: Recipe) -> Iterator[Finding]:
    """Loads the models from files, without samples for them."""
    student = [recipe.student.file] if recipe.student.file else []
    for role, files, given in (
        ("teacher", recipe.teacher.files, recipe.teacher.input),
        ("student", student, recipe.student.input),
    ):
        for file in files:
            try:
                given.load(file, logits=False)
            except InputError as error:
                yield Finding("error", f"The {role} cannot be loaded.", str(error), f"Correct the path in [{role}].")


def examine_quickly(recipe: Recipe, splits: data.Splits) -> tuple[list[Finding], list[Finding], list[Finding]]:
    """The examinations that take seconds and need no teacher.

    Args:
        recipe: The recipe.
        splits: The student's data.

    Returns:
        The findings on settings, those on data, and those on the untrained student.
    """
    student, findings = _build_student(recipe, splits)
    outputs = _examine_outputs(student, splits, find_task(recipe, splits.train)) if student else ()
    return [*_examine_settings_of(recipe)], [*data_examination.examine(splits)], [*findings, *outputs]


def _examine_settings_of(recipe: Recipe) -> Iterator[Finding]:
    yield from examine_settings(recipe.distillation.alpha, recipe.distillation.soft.get("temperature"))
    for file in recipe.teacher.weights_files:
        if not file.is_file():
            yield Finding("error", "The weights file of the teacher does not exist.", str(file), "Correct its path.")


def text(findings: Sequence[Finding]) -> str:
    """The findings as lines for a terminal."""
    return "\n".join(map(str, findings)) or "No problem was found."


def examine_settings(alpha: float, temperature: float | None) -> Iterator[Finding]:
    """Findings on settings of a distillation that are valid and unusual.

    Args:
        alpha: Weight of the distillation loss, 0..1.
        temperature: Temperature of the loss; None for its default.
    """
    if alpha == 0:
        yield Finding("warning", "The teacher is not used.", "alpha = 0", "Set alpha = 0.9.")
    if alpha == 1:
        yield Finding(
            "warning",
            "The labels are not used.",
            "alpha = 1",
            "Keep it to imitate the teacher alone, or set alpha = 0.9.",
        )
    if temperature is not None and not 1 <= temperature <= 20:
        yield Finding(
            "warning",
            "The temperature is unusual.",
            f"temperature = {temperature:g}",
            "Use 2 to 8. Below 1 the probabilities become hard labels; far above all classes become equally likely.",
        )


def _examine_teacher(recipe: Recipe, file: Path, splits: data.Splits) -> Iterator[Finding]:
    try:
        task = find_task(recipe, splits.train)
        teacher = recipe.teacher.input.load(file, logits=task.gives_logits)
    except InputError as error:
        yield Finding("error", "The teacher cannot be loaded.", str(error), "Correct the path in [teacher].")
        return
    examination = teacher_examination.examine(teacher, splits, task)
    yield from examination.findings
    yield from teacher_examination.examine_earlier_run(recipe, examination)
    if len(recipe.teacher.files) == 1:  # a store of several teachers is keyed by all of them
        yield from teacher_examination.examine_stores(recipe, teacher, splits)


def _examine_student(recipe: Recipe, splits: data.Splits) -> Iterator[Finding]:
    """Examines the student with untrained weights: size and memory do not depend on the training."""
    student, findings = _build_student(recipe, splits)
    yield from findings
    if student is not None:
        yield from _examine_outputs(student, splits, find_task(recipe, splits.train))
        yield from _examine_optimization(recipe, student)
    targets, missing = _choose_targets(recipe)
    yield from missing
    if student is not None:
        yield from _examine_conversion(recipe, student, splits, targets)


def _build_student(recipe: Recipe, splits: data.Splits) -> tuple[keras.Model | None, list[Finding]]:
    """The student, and findings on its first layer; None and the reason if it cannot be built."""
    from tfkd.recipes import student as students

    try:
        student = students.build(recipe.student, splits.train, find_task(recipe, splits.train))
        return student, [*scale_examination.examine(student, splits.train)]
    except InputError as error:
        advice = (
            "Correct [student] in the recipe: the builder's name, its options, the file, or the layers that inherit."
        )
        return None, [Finding("error", "The student cannot be built.", str(error), advice)]


def _examine_outputs(student: keras.Model, splits: data.Splits, task: Task) -> Iterator[Finding]:
    from tfkd.models import inputs, logits

    try:
        if not task.gives_logits:
            logits.check_gives_logits("student", student, activation=False)
            return
        logits.check_gives_logits("student", student)
        if inputs.fit(student, splits.train.x):
            logits.check_are_logits("student", student, inputs.taken(student, splits.train.x[:8], "The student"))
    except InputError as error:
        yield Finding(
            "error",
            "The student's outputs cannot be used.",
            str(error),
            "Save the student with one output of logits [batch, classes]: without a softmax at its end.",
        )


def _examine_optimization(recipe: Recipe, student: keras.Model) -> Iterator[Finding]:
    from tfkd.optimization import rehearse

    try:
        rehearse(student, [(one.method, one.options) for one in recipe.optimization])
    except InputError as error:
        yield Finding(
            "error",
            "An optimization does not support the student.",
            str(error),
            "Correct method or options in [[optimization]], or take a student without the layers that it names.",
        )


def _choose_targets(recipe: Recipe) -> tuple[list[Target | str], list[Finding]]:
    """The targets of a recipe that this machine has, or may lack, and a finding on each named one that it lacks."""
    usable, findings = list(recipe.targets.names or ()), []
    for spec in recipe.targets.names or ():
        try:
            target_choice.choose([spec], connect=False)
        except TfkdError as error:
            usable.remove(spec)
            advice = "Install what it needs, or remove it from [targets]."
            findings.append(Finding("error", f"The target {spec} is unavailable.", str(error), advice))
    if findings and not usable:
        return [], findings
    return target_choice.choose(usable, optional=recipe.targets.optional, connect=False), findings


def _examine_conversion(
    recipe: Recipe, student: keras.Model, splits: data.Splits, targets: Sequence[Target | str]
) -> Iterator[Finding]:
    """Converts the student and runs it on each target."""
    from tfkd.conversion import converter

    shipped = recipe.conversion.ship
    mode = shipped if shipped in converter.MODES else "full_int8"  # an optimized student becomes that
    with tempfile.TemporaryDirectory() as folder:
        try:
            leaked = np.isin(splits.train.ids, splits.train.overlap(splits.test))  # a finding of their own
            calibration = (
                splits.train.take(np.flatnonzero(~leaked)) if leaked.any() and not leaked.all() else splits.train
            )
            model = converter.convert(student, Path(folder) / "student.tflite", mode=mode, calibration=calibration)
        except TfkdError as error:
            yield Finding(
                "error",
                f"The student cannot be converted to {mode}.",
                str(error),
                "Replace the layers that it names, or change modes and ship in [conversion], such as "
                'ship = "dynamic_range".',
            )
            return
        if recipe.student.model is None and model.audit is not None:  # a built student is untrained here
            for sentence in model.audit.findings:
                yield Finding(
                    "warning",
                    "The calibration samples may not fit the student.",
                    sentence,
                    "Prepare the data as for the training of the student's file, or start from another file.",
                )
        yield from _examine_size(recipe, model, mode)
        yield from _examine_accelerators(recipe, model)
        for target in targets:
            yield from _examine_target(recipe, target, model, splits)


def _examine_size(recipe: Recipe, model: TFLiteModel, mode: str) -> Iterator[Finding]:
    limit = recipe.limits.max_bytes
    if limit is not None and model.size_bytes > limit:
        yield Finding(
            "error",
            "The student is larger than the contract allows.",
            f"{model.size_bytes:,} bytes as {mode}, the limit is {limit:,}",
            "Choose a smaller student, or raise max_bytes.",
        )


def _examine_accelerators(recipe: Recipe, model: TFLiteModel) -> Iterator[Finding]:
    """Estimates how much of the student the accelerators of a recipe take, Ethos-U among the targets included."""
    from tfkd.targets import npu, vela

    named = [spec.partition(",")[0] for spec in (*(recipe.targets.names or ()), *recipe.targets.optional)]
    wanted = dict.fromkeys([*recipe.targets.accelerators, *(name for name in named if name in vela.ACCELERATORS)])
    for estimate in npu.estimate(model, list(wanted)):
        broken = estimate.first_break
        if estimate.unknown:
            yield Finding(
                "warning",
                f"What {estimate.label} takes of the student is unknown.",
                estimate.unknown,
                "Do what the reason says, or leave the accelerator out.",
            )
        elif broken is not None:
            share = "an unknown share" if estimate.mac_share is None else f"{100 * estimate.mac_share:.0f} %"
            yield Finding(
                "warning",
                f"{estimate.label} does not take all of the student, by an estimate.",
                f"{share} of the multiply-accumulates there; {broken.op} ({broken.tensor}) stays on the CPU: "
                f"{broken.reason}",
                npu.remedy(broken),
            )


def _examine_target(recipe: Recipe, target: Target | str, model: TFLiteModel, splits: data.Splits) -> Iterator[Finding]:
    if isinstance(target, str):
        reason = target_choice.unavailable([target])[target]
        yield Finding(
            "warning",
            f"The target {target} is unavailable.",
            reason,
            "Install what it needs, or expect no numbers of it: a limit that only it measures stays unknown.",
        )
        return
    from tfkd.conversion import file_inputs

    try:
        x = file_inputs.quantized(model, splits.train.x[:1], "The student")
        measured = target.run(model, x, latency=False)
    except DeviceError as error:  # untrained weights may have scales that a kernel cannot represent
        yield Finding(
            "warning",
            f"The untrained student fails on {target.spec}.",
            str(error),
            "Validate a trained student on this target before long trainings: tfkd validate --target.",
        )
        return
    except InputError as error:
        yield Finding(
            "error",
            f"The student does not run on {target.spec}.",
            str(error),
            f"Replace the ops or layers that it names, ship another mode, or remove {target.spec} from [targets].",
        )
        return
    arena, limit = measured.memory.arena_bytes, recipe.limits.max_arena_bytes
    if limit is not None and arena is not None and arena > limit:
        yield Finding(
            "error",
            "The student needs more memory than the contract allows.",
            f"an arena of {arena:,} bytes on {target.spec}, the limit is {limit:,}",
            "Choose a student with smaller feature maps, or raise max_arena_bytes.",
        )
