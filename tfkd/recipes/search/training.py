"""The training of one candidate, which ends early where Optuna's pruner says so, and resumes after a kill."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal.progress import Progress
from tfkd.recipes.trainer import Teaching, Trainer
from tfkd.tasks import ScoredTask

if TYPE_CHECKING:
    import optuna


class Stopped(Exception):
    """The candidate is not among the best at this epoch."""


class OutOfTime(Exception):
    """The time of the search is over; the candidate continues in the next call."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished training.

    Args:
        quality: How good the student is on the validation split; more is better.
        value: Accuracy on the validation split, 0..1, or the first metric of another task.
    """

    quality: float
    value: float


def train(
    trainer: Trainer,
    teaching: Teaching,
    trial: optuna.trial.Trial,
    folder: Path,
    *,
    epochs: int,
    progress: Progress,
    is_late: Callable[[], bool],
) -> Result:
    """Trains a student with its teacher; the validation split is the only one that is looked at.

    Args:
        trainer: Data and recipe of the candidate.
        teaching: The teacher and the store of its logits.
        trial: Trial to which each epoch is reported.
        folder: Folder of the candidate, with the checkpoint of an earlier call.
        epochs: Passes over the training split.
        progress: Progress display.
        is_late: Says after each epoch whether the time is over.

    Raises:
        Stopped: The pruner ends the training.
        OutOfTime: The time is over.
    """
    from tfkd.distillation import training_defaults
    from tfkd.distillation.checkpoints import history_of
    from tfkd.distillation.training import accuracy, evaluate, fit

    recipe, task = trainer.recipe, trainer.task
    student = trainer.build_student(recipe.seed)
    config = training_defaults.complete(recipe.distillation, student, task)
    distiller, store = trainer.distiller(teaching, student)
    checkpoint = folder / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    reporter = _Reporter(trial, f"val_{task.monitor}", 1 if task.monitor_rises else -1, progress, is_late)
    try:
        reporter.repeat(history_of(checkpoint), epochs)
        fit(
            distiller,
            trainer.splits,
            config.model_copy(update={"epochs": epochs}),
            seed=recipe.seed,
            checkpoint=checkpoint,
            on_epoch=reporter,
            soft_labels=store,
            partner=trainer.partner,
            task=task,
        )
    except Stopped:
        shutil.rmtree(checkpoint)
        raise
    val = trainer.splits.val
    value = evaluate(student, val, task)[task.primary.name] if isinstance(task, ScoredTask) else accuracy(student, val)
    shutil.rmtree(checkpoint)
    return Result(task.primary.sign * value, value)


@dataclasses.dataclass
class _Reporter:
    """Reports epochs to Optuna and ends the training where it or the clock says so."""

    trial: optuna.trial.Trial
    monitor: str
    sign: int
    progress: Progress
    is_late: Callable[[], bool]

    def repeat(self, history: Mapping[str, Sequence[float]], total: int) -> None:
        """Reports the epochs of an earlier call."""
        for epoch, value in enumerate(history.get(self.monitor, ()), 1):
            self.trial.report(self.sign * value, epoch)
            if epoch < total and self.trial.should_prune():
                raise Stopped

    def __call__(self, done: int, total: int, logs: Mapping[str, float]) -> None:
        self.progress.epoch(done, total, logs)
        self.trial.report(self.sign * logs[self.monitor], done)
        if done < total and self.trial.should_prune():
            raise Stopped
        if done < total and self.is_late():
            raise OutOfTime
