"""Runs a recipe from data to report, in steps whose results are cached."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd import report
from tfkd._internal import atomic
from tfkd._internal.progress import Progress
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import DeviceError, ToolMissingError
from tfkd.recipes import examination, target_choice, teacher_examination
from tfkd.recipes.findings import refuse_teacher
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.records import Converted, Reported, Trained, Validated
from tfkd.recipes.step_cache import Finished, Steps, locked
from tfkd.recipes.teacher_examination import Examination
from tfkd.recipes.trainer import Kind, Saved, Teaching, Trainer, prepare

if TYPE_CHECKING:
    from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel
    from tfkd.distillation.loggers import Loggers
    from tfkd.recipes.recipe import Optimization
    from tfkd.report.seeds import SeedRun
    from tfkd.targets import Target

PAGES = {"html": "report.html", "markdown": "report.md", "json": "report.json"}


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run.

    Args:
        folder: Folder with the models and reports.
        record: The report as JSON.
        ok: Whether the contract holds; without a contract, whether each model ran on each target.
        steps: `done` or `kept` for each step.
    """

    folder: Path
    record: JsonRecord
    ok: bool
    steps: Mapping[str, str]

    @property
    def page(self) -> Path:
        """The report as HTML."""
        return self.folder / PAGES["html"]

    def to_json(self) -> JsonObject:
        """The result as plain JSON values."""
        return {"ok": self.ok, "report": str(self.page), "steps": dict(self.steps), "validation": dict(self.record)}


# The trainings of the students, by seed.
_Students = Mapping[Kind, Mapping[int, Finished[Trained]]]


def run(
    recipe: Recipe, *, command: str | None = None, progress: Progress | None = None, loggers: Loggers | None = None
) -> Result:
    """Runs a recipe: data, teacher, students with and without teacher, conversion, validation, report.

    The same call resumes an interrupted run. A step is kept if its settings, and the files of the steps before it, are
    unchanged; an interrupted training continues after its last finished epoch. The student that ships is the distilled
    one with the highest validation accuracy; the test split is used for validation only.

    Args:
        recipe: See `tfkd.recipes.recipe.load`.
        command: Command line, for the report.
        progress: Progress display.
        loggers: Where the logs of the trainings go; None for nowhere.

    Returns:
        The folder of the run, its report as JSON, and whether the contract holds.

    Raises:
        InputError: The recipe does not fit the data or a model, the teacher is bad (see `Distillation` of the recipe),
            or another run works in the output folder.
        ToolMissingError: A tool of a target that the recipe names is not installed.
    """
    recipe.allow_own_code()
    targets = target_choice.choose(recipe.targets.names, optional=recipe.targets.optional, connect=False)
    _check_loss(recipe)
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", str(folder)):
        return _Run(recipe, folder, progress or Progress(), loggers).run(targets, command)


def _check_loss(recipe: Recipe) -> None:
    """Checks the options of the distillation loss before the training."""
    settings = recipe.distillation
    options = {name: value for name, value in settings.soft.items() if name != "name"}
    for pair in settings.features:
        pair.build()
    if settings.loss is None and (recipe.task is not None or not options):
        return  # the default of a task needs no check, which loads Keras; its options are checked with the data
    from tfkd import losses

    losses.build(**settings.soft)


class _Run:
    def __init__(self, recipe: Recipe, folder: Path, progress: Progress, loggers: Loggers | None) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.steps = Steps(folder, progress)
        self.trainer = Trainer(recipe, self.steps, progress, loggers)

    def run(self, targets: Sequence[Target | str], command: str | None) -> Result:
        self.trainer.check_student()
        self._examine_devices(targets)
        examination.examine_student(self.trainer)
        teacher = self.trainer.train_teacher()
        examined = examination.examine_teacher(self.trainer, teacher)
        teaching = self.trainer.teaching(teacher)
        seeds = range(self.recipe.seed, self.recipe.seed + self.recipe.distillation.seeds)
        alone = {seed: self.trainer.train_student("alone", seed) for seed in seeds}
        self._compare_teacher(examined, self._best(alone).record)
        students: _Students = {
            "alone": alone,
            "distilled": {seed: self.trainer.train_student("distilled", seed, teaching) for seed in seeds},
        }
        best = {kind: self._best(runs) for kind, runs in students.items()}
        converted = self._convert_all(best["distilled"], teaching)
        validated = self._validate(teacher, students, converted, targets)
        self._report(validated, teacher, students, command)
        record = json.loads((self.folder / PAGES["json"]).read_text(encoding="utf-8"))
        return Result(self.folder, record, validated.record.ok, self.steps.outcomes)

    def _examine_devices(self, targets: Sequence[Target | str]) -> None:
        """Says which devices cannot be reached now: they are needed after the training."""
        for target in targets:
            try:
                if not isinstance(target, str):
                    target.check()
            except (DeviceError, ToolMissingError) as error:
                self.progress.line(f"{error} Do so before the validation, or run the same command again afterwards.")

    def _compare_teacher(self, teacher: Examination, alone: Trained) -> None:
        """Compares the teacher with the student alone before the distilled student is trained.

        Raises:
            InputError: The teacher is less accurate, and the recipe does not allow that.
        """
        samples = len(self.trainer.splits.val)
        if alone.val_accuracy is not None:
            finding = teacher_examination.compare_with_student(teacher, alone.val_accuracy, samples)
        else:
            score = math.nan if alone.val_score is None else alone.val_score
            finding = teacher_examination.compare_scores(teacher, score, self.trainer.task.selection)
        refuse_teacher(
            [finding] if finding else [],
            allowed=self.recipe.distillation.allow_bad_teacher,
            on_note=self.progress.line,
        )

    def _convert_all(self, trained: Finished[Trained], teaching: Teaching) -> dict[str, Finished[Converted]]:
        """The student as .tflite in each mode, then after each optimization."""
        student = self.trainer.saved(trained)
        converted: dict[str, Finished[Converted]] = {
            mode: self._convert(mode, student, trained.record.val_accuracy) for mode in self.recipe.conversion.modes
        }
        for settings in self.recipe.optimization:
            optimized = self.trainer.optimize(settings, student, teaching)
            exported = self._export(settings, student, optimized)
            converted[settings.method] = exported
            if exported.record.student is not None:
                student = Saved((self.folder / exported.record.student,), exported.hashes)
        return converted

    def _convert(self, mode: str, student: Saved, accuracy: float | None) -> Finished[Converted]:
        from tfkd.conversion import quantizer

        conversion = self.recipe.conversion
        settings = conversion.quantizer_settings() if mode in quantizer.MODES else None
        refines = conversion.refine and mode == "full_int8"

        def work(_: str) -> Converted:
            from tfkd import models
            from tfkd.conversion.converter import convert

            file = f"{mode}.tflite"
            model = convert(
                models.with_softmax(student.load()) if conversion.output == "softmax" else student.paths[0],
                self.folder / file,
                mode=mode,
                quantizer=settings or "tensorflow",
                calibration=self.trainer.splits.train,
                calibration_samples=conversion.calibration_samples,
                allow_mismatch=conversion.allow_mismatch,
                refine=refines,
                overwrite=True,
                seed=self.recipe.seed,
            )
            for change in model.changes:
                self.progress.line(f"{file}: {change}")
            return Converted(file, _compared(model.audit, accuracy), findings=model.findings)

        inputs = [mode, conversion.calibration_samples, self.recipe.seed, self.trainer.data_hash, student.hashes]
        inputs += [dataclasses.asdict(settings)] if settings else []
        inputs += ["allow_mismatch"] if conversion.allow_mismatch else []
        inputs += ["softmax"] if conversion.output == "softmax" else []
        inputs += ["refine"] if refines else []
        return self.steps.do(f"convert-{mode}", inputs, Converted, work)

    def _export(self, settings: Optimization, student: Saved, trained: Finished[Trained]) -> Finished[Converted]:
        conversion = self.recipe.conversion

        def work(_: str) -> Converted:
            optimized = prepare(settings, student)
            optimized.model.load_weights(self.folder / trained.record.file)
            file = f"{settings.method}.tflite"
            model = optimized.export(
                self.folder / file,
                calibration=self.trainer.splits.train,
                overwrite=True,
                seed=self.recipe.seed,
                calibration_samples=conversion.calibration_samples,
                allow_mismatch=conversion.allow_mismatch,
            )
            audit = _compared(model.audit, trained.record.val_accuracy)
            if optimized.student is None:
                return Converted(file, audit, findings=model.findings)
            changed = f"{settings.method}.keras"
            with atomic.replacing(self.folder / changed) as part:
                optimized.student().save(part)
            return Converted(file, audit, changed, model.findings)

        inputs = [
            conversion.calibration_samples,
            self.recipe.seed,
            self.trainer.data_hash,
            student.hashes,
            trained.hashes,
        ]
        return self.steps.do(f"export-{settings.method}", inputs, Converted, work)

    def _validate(
        self,
        teacher: Saved,
        students: _Students,
        converted: Mapping[str, Finished[Converted]],
        targets: Sequence[Target | str],
    ) -> Finished[Validated]:
        ship, limits = self.recipe.conversion.ship, self.recipe.limits

        def work(_: str) -> Validated:
            from tfkd.validation.validator import validate

            distilled = self.trainer.saved(self._best(students["distilled"])).load()
            validation = validate(
                {name: self._tflite(one.record) for name, one in converted.items()},
                self.trainer.splits.test,
                reference=distilled,
                teacher=(teacher.load(), self.trainer.teacher_splits.test),
                alone=self.trainer.saved(self._best(students["alone"])).load(),
                baselines={"student distilled": distilled},
                targets=target_choice.with_features(targets, self.trainer.features),
                optional=[one for one in targets if isinstance(one, str)],
                contract=limits,
                ship=ship,
                task=self.trainer.task.name,
                validation=self.trainer.splits.val,
                progress=self.progress.advance,
            )
            file = "validation.json"
            report.write_report(validation, self.folder / file, overwrite=True)
            # The tools of a target that is a specification here are part of the key of the step.
            absent = {one for one in targets if isinstance(one, str)}
            final = all(row.valid or row.broken or row.target in absent for row in validation.rows)
            return Validated(file, validation.ok, final)

        # A default target whose tool is installed later is validated then.
        places = [[one, "unavailable"] if isinstance(one, str) else [one.spec] for one in targets]
        trained = [one.hashes for runs in students.values() for one in runs.values()]
        inputs = [places, limits.to_json(), ship, self.trainer.data_hash, teacher.hashes, trained]
        inputs += [one.hashes for one in converted.values()]
        return self.steps.do("validate", inputs, Validated, work)

    def _report(
        self, validated: Finished[Validated], teacher: Saved, students: _Students, command: str | None
    ) -> Finished[Reported]:
        histories = {"teacher": teacher.history}
        histories |= {f"student {kind}": self._best(runs).record.history for kind, runs in students.items()}
        training = {label: history for label, history in histories.items() if history}
        seeds: dict[str, list[SeedRun]] = {
            f"student {kind}": [_seed_run(seed, one.record) for seed, one in runs.items()]
            for kind, runs in students.items()
        }

        def work(_: str) -> Reported:
            validation = json.loads((self.folder / validated.record.file).read_text(encoding="utf-8"))
            for file in PAGES.values():
                report.write_report(
                    validation, self.folder / file, training=training, seeds=seeds, command=command, overwrite=True
                )
            return Reported(PAGES)

        # Not the command: the report names the one that made it.
        return self.steps.do("report", [validated.hashes, training, seeds], Reported, work)

    def _best(self, runs: Mapping[int, Finished[Trained]]) -> Finished[Trained]:
        """The training that is best on the validation split."""
        return max(runs.values(), key=lambda one: one.record.quality(self.trainer.task))

    def _tflite(self, converted: Converted) -> TFLiteModel:
        from tfkd.conversion.tflite import TFLiteModel

        return dataclasses.replace(
            TFLiteModel.load(self.folder / converted.file), audit=converted.audit, findings=converted.findings
        )


def _compared(audit: CalibrationAudit | None, reported: float | None) -> CalibrationAudit | None:
    """The audit of calibration samples, with a finding where the accuracy on them is far below that of the training."""
    from tfkd.conversion import input_scale

    finding = input_scale.below_reported(audit.accuracy, reported, audit.accuracy_samples) if audit else None
    return dataclasses.replace(audit, findings=(*audit.findings, finding)) if audit and finding else audit


def _seed_run(seed: int, record: Trained) -> SeedRun:
    if record.test_accuracy is not None:
        return {"seed": seed, "accuracy": record.test_accuracy}
    return {"seed": seed, "value": math.nan if record.test_score is None else record.test_score}
