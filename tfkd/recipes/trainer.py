"""The steps of a run that train Keras models: teacher, soft labels, students, optimizations."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tfkd import data, tasks
from tfkd._internal import atomic
from tfkd._internal.progress import Progress
from tfkd._internal.types import JsonObject
from tfkd.data import manifest
from tfkd.distillation.training_config import TrainingConfig
from tfkd.recipes.model_input import ModelInput
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.records import History, Labels, Trained
from tfkd.recipes.step_cache import Finished, Steps, hash_of, input_hash
from tfkd.recipes.task_choice import find_task

if TYPE_CHECKING:
    import keras

    from tfkd.distillation.labels.store import SoftLabels
    from tfkd.distillation.loggers import Loggers
    from tfkd.optimization import Optimized
    from tfkd.recipes.recipe import Optimization

# A student that is trained on labels alone, for comparison, or with the teacher.
Kind = Literal["alone", "distilled"]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved Keras model, or several that teach together.

    Args:
        paths: .keras files.
        hashes: SHA-256 of each file, by name.
        history: Logs of its training, if this run trained it.
        input: What it expects for the pixels of images.
        logits: Whether a softmax or sigmoid at its end is removed.
    """

    paths: tuple[Path, ...]
    hashes: Mapping[str, str | None]
    history: History | None = None
    input: ModelInput = ModelInput()
    logits: bool = True

    def load(self) -> keras.Model:
        """The model, or the ensemble of several."""
        from tfkd.distillation import teachers

        loaded = [self.input.load(path, logits=self.logits) for path in self.paths]
        return teachers.ensemble(loaded) if len(loaded) > 1 else loaded[0]


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The teacher of a student.

    Args:
        teacher: The teacher.
        labels: Store of its logits; None if it runs in each training step.
    """

    teacher: Saved
    labels: Finished[Labels] | None

    @property
    def hashes(self) -> Mapping[str, str | None]:
        """The hashes of the files that a training with this teacher depends on."""
        if self.labels is None:
            return self.teacher.hashes
        views = self.labels.record.views
        return self.labels.hashes if views is None else {**self.labels.hashes, "views": str(views)}


@dataclasses.dataclass(frozen=True)
class _Training:
    """One training.

    Args:
        name: Name of the step and of its folder.
        key: Key of the step; a checkpoint of another key is deleted.
        fitted: Model that is fitted: a `Distiller`, or the model itself.
        saved: Model that is saved.
        config: Settings of the training.
        seed: Seed of order and augmentation.
        store: Store of the teacher's logits.
        callbacks: More callbacks.
    """

    name: str
    key: str
    fitted: keras.Model
    saved: keras.Model
    config: TrainingConfig
    seed: int
    store: SoftLabels | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()


class Trainer:
    """Trains the Keras models of a recipe, or keeps them where nothing changed.

    Args:
        recipe: The recipe.
        steps: The steps of the run.
        progress: Progress display.
        loggers: Where the logs of the trainings go; None for nowhere.

    Attributes:
        splits: The student's data.
        task: The task: the declared one, or the one that labels and models show.
        teacher_splits: The teacher's data.
        data_hash: Hash of both.
    """

    def __init__(self, recipe: Recipe, steps: Steps, progress: Progress, loggers: Loggers | None = None) -> None:
        self.recipe, self.steps, self.progress, self.loggers = recipe, steps, progress, loggers
        self.folder = steps.folder
        self.splits = self._load_data(recipe.request())
        self.features: JsonObject | None = None
        if self.splits.train.paths is not None:
            from tfkd.data import sounds

            manifest.write(self.folder / "data.csv", self.splits, recipe.data.request().folder)
            self.features = sounds.features_of(recipe.data.request(), self.splits.train)
            if self.features:  # the device must compute the same
                atomic.write(self.folder / "features.json", json.dumps(self.features, indent=1))
        self.data_hash = hash_of([split.content_hash for split in self.splits])
        other = recipe.data.teacher
        self.teacher_splits = self.splits
        if other:
            self.teacher_splits = self._load_data(recipe.request(other))
            self.data_hash = hash_of(
                [self.data_hash, other.pair, [split.content_hash for split in self.teacher_splits]]
            )
        self.task = find_task(recipe, self.splits.train)
        recipe.check_for(self.task)
        if not self.task.is_classification:
            progress.line(f"Task: {self.task.name} (labels: {self.splits.train.label_kind}).")
            self.data_hash = hash_of([self.data_hash, self.task.name])
        self.partner = data.Partner(self.teacher_splits.train, other.pair) if other else None

    def _load_data(self, source: data.Request) -> data.Splits:
        return data.load(source, validation=self.recipe.data.validation, seed=self.recipe.seed)

    def of(self, recipe: Recipe, steps: Steps | None = None) -> Trainer:
        """The trainer of another recipe with the same data.

        Args:
            recipe: The recipe.
            steps: Its steps; None for those of this trainer.
        """
        other = copy.copy(self)
        other.recipe, other.steps = recipe, steps or self.steps
        other.folder = other.steps.folder
        return other

    def check_student(self) -> None:
        """Checks before the training that layers can be inherited and that the optimizations support the student.

        Raises:
            InputError: They do not.
        """
        settings = self.recipe.student
        stages = [(one.method, one.options) for one in self.recipe.optimization]
        if not settings.layers and not stages:
            return
        student = self.build_student(self.recipe.seed)  # refuses layers that do not fit
        if stages:
            from tfkd.optimization import rehearse

            rehearse(student, stages)

    def train_teacher(self) -> Saved:
        """Trains the teacher on labels, builds it with its weights, or finds the trained ones that the recipe names.

        Raises:
            InputError: A file of the recipe does not exist.
        """
        settings = self.recipe.teacher
        if settings.files:
            hashes: dict[str, str | None] = {str(file): input_hash(file) for file in settings.files}
            if settings.input != ModelInput():
                hashes["input"] = hash_of(dataclasses.asdict(settings.input))
            return Saved(tuple(settings.files), hashes, input=settings.input, logits=self.task.gives_logits)

        def work(key: str) -> Trained:
            from tfkd.recipes.student import build_for

            _reset_keras(self.recipe.seed)
            model = build_for(settings.model or "", self.teacher_splits.train, self.task, settings.options)
            training = _Training("teacher", key, model, model, settings, self.recipe.seed)
            return self._train(training, splits=self.teacher_splits)

        inputs = [settings.model_dump(), self.recipe.seed, self.data_hash, *self._code_hashes(settings, settings.model)]
        inputs += map(input_hash, settings.weights_files)
        return self.saved(self.steps.do("teacher", inputs, Trained, work))

    def _code_hashes(self, settings: TrainingConfig, model: str | None = None) -> list[str]:
        """The hashes of the user's code that a training depends on: imported modules, and functions."""
        names = [*self.recipe.imports, *settings.own_code, *([model] if model and ":" in model else [])]
        if not names:
            return []
        from tfkd.models import own_code

        return [input_hash(file) for file in own_code.source_files(names)]

    def teaching(self, teacher: Saved) -> Teaching:
        """The teacher with a store of its logits, if the recipe wants one and no training mixes samples."""
        mixed = [name for one in (self.recipe.distillation, *self.recipe.optimization) for name in one.mixes]
        views = self.recipe.distillation.views
        if views and mixed:
            self.progress.line(
                f"{mixed[0]} mixes the samples of a batch, of which stored labels have no logits: views = {views} is "
                "ignored, and the teacher runs in each step."
            )
        return Teaching(teacher, self.label(teacher) if views and not mixed else None)

    def label(self, teacher: Saved) -> Finished[Labels]:
        """Stores the teacher's logits of all views; stores of other settings are deleted."""
        settings = self.recipe.distillation
        most = max(one.epochs for one in (settings, *self.recipe.optimization))  # an epoch uses one view
        views = [settings.views, settings.augment, settings.padding, settings.flip, settings.augment_options]
        views += [most] if settings.views == "all" else []
        inputs = [views, self.recipe.seed, self.data_hash, teacher.hashes, *self._code_hashes(settings)]
        store = f"labels-{hash_of(inputs)[:16]}"  # more hours fill the same store

        def work(_: str) -> Labels:
            from tfkd.recipes import labels

            for stale in self.folder.glob("labels-*"):
                if stale.name != store:
                    shutil.rmtree(stale)
            found = labels.store(
                self.folder / store,
                teacher.load(),
                self.splits.train,
                settings,
                most=most,
                seed=self.recipe.seed,
                progress=self.progress,
                task=self.task.name,
            )
            return Labels(store, found.labelled if settings.views == "all" else None)

        hours = [] if settings.label_hours is None else [settings.label_hours]
        return self.steps.do("labels", [*inputs, *hours], Labels, work)

    def train_student(self, kind: Kind, seed: int, teaching: Teaching | None = None) -> Finished[Trained]:
        """Trains one student.

        Args:
            kind: Whether on labels alone or with the teacher.
            seed: Seed of weights, order and augmentation.
            teaching: The teacher; not used for a student on labels alone.
        """
        name, settings = f"student-{kind}-{seed}", self.recipe.distillation

        def work(key: str) -> Trained:
            student = self.build_student(seed)
            if teaching is None:
                return self._train(_Training(name, key, student, student, settings, seed))
            distiller, store = self.distiller(teaching, student)
            return self._train(_Training(name, key, distiller, student, settings, seed, store))

        inputs = [self.recipe.student.model_dump(), settings.training.model_dump(), seed, self.data_hash]
        inputs += map(input_hash, self.recipe.student.files)
        inputs += self._code_hashes(settings, self.recipe.student.model)
        if teaching is not None:
            inputs += [settings.alpha, settings.soft_of(self.task), teaching.hashes]
            inputs += [pair.model_dump() for pair in settings.features]
        return self.steps.do(name, inputs, Trained, work)

    def build_student(self, seed: int) -> keras.Model:
        """The student before its training."""
        from tfkd.recipes.student import build

        _reset_keras(seed)
        return build(self.recipe.student, self.splits.train, self.task)

    def distiller(
        self, teaching: Teaching, student: keras.Model, *, features: bool = True
    ) -> tuple[keras.Model, SoftLabels | None]:
        """The student with its teacher, and the store of the teacher's logits, if there is one.

        Args:
            teaching: The teacher.
            student: The student.
            features: Whether losses on inner layers are used; a model prepared for an optimization has other layers.
        """
        from tfkd import losses
        from tfkd.distillation.distiller import Distiller
        from tfkd.distillation.labels.store import SoftLabels

        settings = self.recipe.distillation
        store = SoftLabels.open(self.folder / teaching.labels.record.store) if teaching.labels else None
        teacher = store or teaching.teacher.load()
        soft_loss = losses.build(**settings.soft_of(self.task))
        pairs = [pair.build() for pair in settings.features] if features else []
        distiller = Distiller(
            student, teacher, alpha=settings.alpha, soft_loss=soft_loss, features=pairs, task=self.task.name
        )
        return distiller, store

    def _train(self, training: _Training, splits: data.Splits | None = None) -> Trained:
        from tfkd.distillation import training_defaults
        from tfkd.distillation.training import accuracy, evaluate, fit
        from tfkd.models import saving

        splits = splits or self.splits
        config = training_defaults.complete(training.config, training.saved, self.task)
        if config != training.config:
            self.progress.line(training_defaults.sentence(config))
        folder = self.folder / training.name
        folder.mkdir(exist_ok=True)
        checkpoint = folder / f"checkpoint-{training.key[:16]}"
        for stale in folder.glob("checkpoint-*"):
            if stale != checkpoint:
                shutil.rmtree(stale)
        history: History = {}
        if config.epochs:
            history = fit(
                training.fitted,
                splits,
                config,
                seed=training.seed,
                checkpoint=checkpoint,
                on_epoch=self.progress.epoch,
                soft_labels=training.store,
                partner=None if training.fitted is training.saved else self.partner,
                callbacks=training.callbacks,
                loggers=self.loggers.callbacks(training.name, config, checkpoint) if self.loggers else (),
                task=self.task,
            )
        file = f"{training.name}/model.keras"
        with atomic.replacing(self.folder / file) as part:
            saving.save(training.saved, part)
        if checkpoint.exists():
            shutil.rmtree(checkpoint)
        if isinstance(task := self.task, tasks.ScoredTask):
            val = evaluate(training.saved, splits.val, task)[task.selection.name]
            test = evaluate(training.saved, splits.test, task)[task.primary.name]
            return Trained(file, history, None, None, task.selection.name, val, test)
        return Trained(file, history, accuracy(training.saved, splits.val), accuracy(training.saved, splits.test))

    def optimize(self, settings: Optimization, student: Saved, teaching: Teaching) -> Finished[Trained]:
        """Trains the distilled student further with the same teacher, prepared for an optimization."""
        name, seed, distillation = f"optimize-{settings.method}", self.recipe.seed, self.recipe.distillation

        def work(key: str) -> Trained:
            import keras

            keras.utils.set_random_seed(seed)
            optimized = prepare(settings, student)
            for note in optimized.notes:
                self.progress.line(note)
            distiller, store = self.distiller(teaching, optimized.model, features=False)
            return self._train(
                _Training(name, key, distiller, optimized.model, settings, seed, store, optimized.callbacks)
            )

        inputs = [settings.model_dump(), seed, self.data_hash, student.hashes, *self._code_hashes(settings)]
        inputs += [distillation.alpha, distillation.soft_of(self.task), teaching.hashes]
        return self.steps.do(name, inputs, Trained, work)

    def saved(self, trained: Finished[Trained]) -> Saved:
        """The model that a step trained."""
        paths = (self.folder / trained.record.file,)
        return Saved(paths, trained.hashes, trained.record.history, logits=self.task.gives_logits)


def _reset_keras(seed: int) -> None:
    """Makes names and initial weights of the next model the same in every run."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)


def prepare(settings: Optimization, student: Saved) -> Optimized:
    """Prepares a student for an optimization, see `tfkd.optimization.optimize`."""
    from tfkd.optimization import optimize

    return optimize(student.load(), settings.method, **settings.options)
