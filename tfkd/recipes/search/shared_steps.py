"""What candidates have in common: data, the trained teacher, and a store of its logits for each augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from tfkd._internal.progress import Progress
from tfkd.recipes import examination
from tfkd.recipes.search.candidate import Candidate
from tfkd.recipes.step_cache import Steps, hash_of
from tfkd.recipes.trainer import Saved, Teaching, Trainer

if TYPE_CHECKING:
    from tfkd.recipes.recipe import Recipe


class SharedSteps:
    """Loads data, trains teachers and stores their logits, each once for all candidates that agree in them.

    Machines that share the folder wait for each other. What the recipe itself needs lies in the folder of the run,
    where the final training finds it; other data and augmentations have folders of their own.

    Args:
        recipe: The recipe of the search.
        folder: Folder of the search.
        progress: Progress display.

    Attributes:
        base: The trainer of the recipe itself.
    """

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self._teachers: dict[str, tuple[Trainer, Saved]] = {}
        self._teachings: dict[str, tuple[Trainer, Teaching]] = {}
        with self._lock():
            self.base = Trainer(recipe, Steps(recipe.folder, progress), progress)

    def trainer(self, candidate: Candidate) -> Trainer:
        """The data of a candidate, and the builder of its student."""
        return self._teacher(candidate.recipe)[0].of(candidate.recipe)

    def teaching(self, candidate: Candidate, own: Candidate) -> tuple[Trainer, Teaching]:
        """What a candidate is trained with.

        Args:
            candidate: The candidate.
            own: The recipe itself as a candidate, whose store lies in the folder of the run.
        """
        key = _labels_key(candidate.recipe)
        if key not in self._teachings:
            known, teacher = self._teacher(candidate.recipe)
            folder = self.recipe.folder if key == _labels_key(own.recipe) else self.folder / f"labels-{key}"
            with self._lock():
                trainer = known.of(candidate.recipe, self._steps(folder))
                self._teachings[key] = trainer, trainer.teaching(teacher)
        trainer, teaching = self._teachings[key]
        return trainer.of(candidate.recipe), teaching

    def teacher_bytes(self, candidate: Candidate) -> int:
        """Size of the weights of the teacher of a candidate in memory."""
        return sum(weight.numpy().nbytes for weight in self._teacher(candidate.recipe)[1].load().weights)

    def _teacher(self, recipe: Recipe) -> tuple[Trainer, Saved]:
        key = _data_key(recipe)
        if key not in self._teachers:
            with self._lock():
                if key == _data_key(self.recipe):
                    trainer = self.base.of(self.recipe, self._steps(self.recipe.folder))
                else:
                    trainer = Trainer(recipe, self._steps(self.folder / f"data-{key}"), self.progress)
                examination.examine_student(trainer)
                teacher = trainer.train_teacher()
                examination.examine_teacher(trainer, teacher)
                self._teachers[key] = trainer, teacher
        return self._teachers[key]

    def _steps(self, folder: Path) -> Steps:
        """The cached steps of a folder as they are now; to be used while the lock is held."""
        folder.mkdir(parents=True, exist_ok=True)
        return Steps(folder, self.progress)

    def _lock(self) -> filelock.BaseFileLock:
        """The lock of the run, which another machine may hold while it trains the teacher or labels: this one waits."""
        self.recipe.folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self.recipe.folder / ".lock")


def _data_key(recipe: Recipe) -> str:
    """A hash of what data and teacher depend on."""
    return hash_of(recipe.model_dump(mode="json", include={"data", "teacher", "seed", "task"}))[:16]


def _labels_key(recipe: Recipe) -> str:
    """A hash of what the store of logits depends on."""
    settings = recipe.distillation
    views = [settings.views, settings.augment, settings.padding, settings.flip, settings.augment_options]
    return hash_of([_data_key(recipe), views])[:16]
