"""The examinations before a training, as steps of a run."""

from __future__ import annotations

import math

from tfkd.recipes import augmentation_examination, doctor, teacher_examination
from tfkd.recipes.findings import refuse, refuse_teacher
from tfkd.recipes.records import Examined
from tfkd.recipes.step_cache import input_hash
from tfkd.recipes.teacher_examination import Examination
from tfkd.recipes.trainer import Saved, Trainer
from tfkd.tasks import Value


def examine_student(trainer: Trainer) -> None:
    """Examines settings, data, augmentations and the untrained student, in seconds.

    Args:
        trainer: Recipe and data.

    Raises:
        InputError: One of them makes the training pointless.
    """
    recipe = trainer.recipe

    def work(_: str) -> Examined:
        settings, samples, student = doctor.examine_quickly(recipe, trainer.splits)
        student += augmentation_examination.examine(recipe, trainer.splits.train, trainer.teacher_splits.train)
        for finding in (*settings, *samples, *student):
            if finding.severity == "warning":
                trainer.progress.line(str(finding))
        refuse(samples, "The data are refused before the training.", "Correct the data.")
        refuse(student, "The student is refused before its training.", "Correct the recipe.")
        return Examined()

    sections = (recipe.teacher, recipe.student, recipe.distillation, *recipe.optimization)
    inputs = [*(section.model_dump() for section in sections), trainer.data_hash]
    trainer.steps.do("examine-student", [*inputs, *map(input_hash, recipe.student.files)], Examined, work)


def examine_teacher(trainer: Trainer, teacher: Saved) -> Examination:
    """Examines each teacher before any student is trained; the accuracy is that of the best.

    Args:
        trainer: Recipe and data.
        teacher: The teacher, or several.

    Raises:
        InputError: A teacher is bad, and the recipe does not allow that.
    """
    allowed = trainer.recipe.distillation.allow_bad_teacher

    def work(_: str) -> Examined:
        found = [
            teacher_examination.examine(
                teacher.input.load(path, logits=teacher.logits), trainer.teacher_splits, trainer.task
            )
            for path in teacher.paths
        ]
        findings = [finding for one in found for finding in one.findings]
        refuse_teacher(findings, allowed=allowed, on_note=trainer.progress.line)
        best = max(found, key=lambda one: one.accuracy or 0.0)
        score = best.score or Value(math.nan)
        return Examined(best.accuracy, best.samples, score.value if best.score else None, score.interval)

    inputs = [trainer.data_hash, teacher.hashes, allowed]
    record = trainer.steps.do("examine-teacher", inputs, Examined, work).record
    interval = record.score_interval and (record.score_interval[0], record.score_interval[1])
    score = None if record.score is None else Value(record.score, interval)
    return Examination((), record.accuracy, record.samples, score)
