"""The work of `tfkd train` and `tfkd distill`: trains one model and saves it, and resumes after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras

from tfkd import data, losses, models, optimization, tasks
from tfkd._internal import atomic
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data import Splits
from tfkd.data.lazy import LazySamples
from tfkd.distillation import training_defaults
from tfkd.distillation.checkpoints import OnEpoch
from tfkd.distillation.distiller import Distiller
from tfkd.distillation.loggers import Loggers
from tfkd.distillation.training import accuracy, evaluate, fit
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.models import inputs, logits, own_code, saving
from tfkd.optimization import Optimized
from tfkd.recipes import data_examination, doctor, scale_examination, teacher_examination
from tfkd.recipes import student as students
from tfkd.recipes.findings import Finding, refuse, refuse_teacher
from tfkd.recipes.model_input import ModelInput
from tfkd.recipes.step_cache import input_hash, locked
from tfkd.recipes.teacher_examination import Examination
from tfkd.tasks import Task

# A working folder has this file: no other folder is deleted.
_MARKER = "tfkd-checkpoint"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The teacher and the distillation loss.

    Args:
        teacher: .keras file that returns logits.
        alpha: Weight of the distillation loss, 0..1.
        loss: One of `tfkd.losses.NAMES`, or `module:function` of the user; None for that of the task.
        temperature: Temperature of the loss, > 0; None for its default.
        allow_bad_teacher: Whether the student is trained although the examination of the teacher finds an error.
        teacher_input: What the teacher expects for the pixels of images.
    """

    teacher: Path
    alpha: float = 0.9
    loss: str | None = None
    temperature: float | None = None
    allow_bad_teacher: bool = False
    teacher_input: ModelInput = ModelInput()

    @property
    def own_code(self) -> list[str]:
        """Names `module:function` of the user's code that the distillation executes."""
        return [self.loss] if self.loss is not None and ":" in self.loss else []

    def load(self, task: Task) -> keras.Model:
        """The teacher."""
        return self.teacher_input.load(self.teacher, logits=task.gives_logits)

    def distiller(self, student: keras.Model, task: Task) -> Distiller:
        """The student with its teacher."""
        options = {} if self.temperature is None else {"temperature": self.temperature}
        soft_loss = losses.build(self.loss or task.soft_loss, **options)
        return Distiller(student, self.load(task), alpha=self.alpha, soft_loss=soft_loss, task=task.name)


@dataclasses.dataclass(frozen=True)
class Optimization:
    """A method that prepares a trained student for its target.

    Args:
        method: One of `tfkd.optimization.METHODS`.
        options: Arguments of the method.
    """

    method: str
    options: JsonRecord = dataclasses.field(default_factory=dict)


def parse_optimization(method: str | None, settings: Sequence[str]) -> Optimization | None:
    """The optimization of a command line.

    Args:
        method: Value of `--optimize`.
        settings: Values of `--set`, NAME=VALUE; a value is JSON, otherwise text.

    Raises:
        InputError: A setting is not NAME=VALUE, or there are settings without a method.
    """
    if method is None:
        if settings:
            raise InputError(f"distill: --set needs --optimize. Received: --set {settings[0]}. Add --optimize qat.")
        return None
    options: JsonObject = {}
    for pair in settings:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InputError(f"distill: --set must be NAME=VALUE. Received: {pair!r}. Use --set weight_bits=4.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return Optimization(method, options)


@dataclasses.dataclass(frozen=True)
class Job:
    """One training.

    Args:
        model: One of `tfkd.models.NAMES`, `module:function` of the user, or a .keras or .h5 file to train further.
        out: .keras file to write. With an optimization: a .tflite, or, of a method that only changes weights, a .keras
            file to optimize further.
        output: `logits` or `softmax`: what a .keras file that is written returns.
        model_input: What the model of a file expects for the pixels of images.
        data: Data set, see `tfkd.data.load`.
        config: Epochs, optimizer, losses, augmentation and the other settings.
        seed: Seed of initial weights, order and augmentation, >= 0.
        overwrite: Whether an existing file is replaced.
        distillation: The teacher; None to train on labels alone.
        optimization: The optimization of a model from a file; None for none.
        loggers: Where the logs go; None for nowhere.
    """

    model: str
    out: Path
    data: str | data.Request
    config: TrainingConfig
    output: str = "logits"
    model_input: ModelInput = ModelInput()
    seed: int = 0
    overwrite: bool = False
    distillation: Distillation | None = None
    optimization: Optimization | None = None
    loggers: Loggers | None = None

    @property
    def from_file(self) -> bool:
        """Whether the model is a .keras or .h5 file."""
        return self.model.endswith((".keras", ".h5", ".hdf5"))

    def task(self, splits: Splits) -> Task:
        """The task: the declared one, or the one that the labels and the outputs of the teacher or student show."""
        declared = self.data.task if isinstance(self.data, data.Request) else None
        found = tasks.find(splits.train, name=declared)
        if declared is not None or splits.train.num_classes != 2 or not found.is_classification:
            return found
        if self.distillation is not None:
            return tasks.find(splits.train, logits.known_classes(self.distillation.load(found)))
        if self.from_file:
            return tasks.find(splits.train, logits.known_classes(self.model_input.load(self.model)))
        return found

    def key(self, splits: Splits, task: Task) -> str:
        """A hash of all that the result depends on: settings, data and model files."""
        files = [Path(self.model)] if self.from_file else []
        files += [self.distillation.teacher] if self.distillation else []
        names = [*self.config.own_code, *(self.distillation.own_code if self.distillation else ())]
        names += [*([self.model] if ":" in self.model and not self.from_file else [])]
        files += own_code.source_files(names)
        settings = [
            self.model,
            splits.train.content_hash,
            self.config.model_dump(),
            self.seed,
            dataclasses.asdict(self.model_input),
            dataclasses.asdict(self.distillation) if self.distillation else None,
            dataclasses.asdict(self.optimization) if self.optimization else None,
            [input_hash(file) for file in files],
            *([] if task.is_classification else [task.name]),
        ]
        return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:16]


def train(
    job: Job, *, on_epoch: OnEpoch | None = None, on_note: Callable[[str], None] = lambda note: None
) -> JsonObject:
    """Builds or loads a model, trains it and saves it, or exports it if it is optimized.

    Each finished epoch is kept beside the output until that is written: the same call resumes after the last.

    Args:
        job: The training.
        on_epoch: See `tfkd.distillation.training.fit`.
        on_note: Called before the training with each finding that does not stop it, and each note of the optimization.

    Returns:
        path, task, history, and val_accuracy or, of another task than classification, val_metrics; for a .tflite also
        `tfkd.TFLiteModel.to_json`.

    Raises:
        InputError: The output exists or has a wrong suffix, a model does not fit the data or the optimization, the
            teacher is bad, or another process writes the same output.
    """
    _check(job)
    splits = data.load(job.data)
    task = job.task(splits)
    if not task.is_classification:
        on_note(f"Task: {task.name} (labels: {splits.train.label_kind}).")
        _check_task(job, task)
    if job.distillation:
        _examine_data(job.distillation, splits, on_note)
        _examine_teacher(job, job.distillation, splits, task, on_note)
    keras.utils.set_random_seed(job.seed)
    model, optimized = _student(job, splits, task)  # before the folder: a refused option leaves no files
    for note in optimized.notes if optimized else map(str, scale_examination.examine(model, splits.train)):
        on_note(note)
    config = training_defaults.complete(job.config, model, task)
    if config != job.config:
        on_note(training_defaults.sentence(config))
    fitted = job.distillation.distiller(model, task) if job.distillation else model
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with _working_folder(job.out, job.key(splits, task)) as folder:
        history = fit(
            fitted,
            splits,
            config,
            seed=job.seed,
            checkpoint=folder,
            on_epoch=on_epoch,
            callbacks=optimized.callbacks if optimized else (),
            loggers=job.loggers.callbacks(job.out.stem, config, folder) if job.loggers else (),
            task=task,
        )
        record: JsonObject = {"task": task.name, "history": history}
        if isinstance(task, tasks.ScoredTask):
            found = evaluate(model, splits.val, task)
            record["val_metrics"] = {name: None if math.isnan(value) else value for name, value in found.items()}
        else:
            record["val_accuracy"] = accuracy(model, splits.val)
        return {**record, **_write(job, model, optimized, splits), "path": str(job.out)}


def _check_task(job: Job, task: Task) -> None:
    """Checks options that are for classifications."""
    if job.output == "softmax":
        raise InputError(f"distill: --output softmax is for classes. Received: the task {task.name}. Leave it out.")


def _check(job: Job) -> None:
    """Checks what needs neither data nor models."""
    suffixes = (".tflite", ".keras") if job.optimization else (".keras",)
    if job.out.suffix not in suffixes:
        raise InputError(f"{job.out}: must be a {' or '.join(suffixes)} file. Choose another name.")
    if job.out.exists() and not job.overwrite:
        raise InputError(f"{job.out} already exists. Pass overwrite=True or choose another name.")
    if job.model_input != ModelInput() and not job.from_file:
        raise InputError(
            f"distill: --student-range and --student-preprocess need a .keras or .h5 file. Received: {job.model!r}, "
            "whose builder scales pixels itself. Leave them out."
        )
    if job.output not in ("logits", "softmax"):
        raise InputError(f"distill: --output must be logits or softmax. Received: {job.output!r}. Leave it out.")
    if job.output == "softmax" and job.out.suffix == ".tflite":
        raise InputError(
            "distill: --output softmax needs a .keras file to write. Received: an optimization, which writes a .tflite "
            "of logits. Leave it out."
        )
    if job.optimization and not job.from_file:
        raise InputError(
            f"distill: --optimize needs a trained student, a .keras file. Received: {job.model!r}. Train it first: "
            f"tfkd distill --student {job.model} --out student.keras."
        )
    if job.optimization:
        optimization.check_training(job.optimization.method, job.config)


def _examine_data(settings: Distillation, splits: Splits, on_note: Callable[[str], None]) -> None:
    """Examines settings, and data in memory; data that are decoded when they are used are left to the doctor.

    Raises:
        InputError: A training or validation sample is in the test split too.
    """
    found = [*doctor.examine_settings(settings.alpha, settings.temperature)]
    if not isinstance(splits.train.x, LazySamples):
        found += data_examination.examine(splits)
    for finding in found:
        if finding.severity == "warning":
            on_note(str(finding))
    refuse(found, "The data are refused before the training.", "Correct the data.")


def _examine_teacher(
    job: Job, settings: Distillation, splits: Splits, task: Task, on_note: Callable[[str], None]
) -> None:
    """Examines the teacher, and compares it with a student that is trained already.

    Raises:
        InputError: The teacher is bad, and that is not allowed.
    """
    examination = teacher_examination.examine(settings.load(task), splits, task)
    findings = [*examination.findings]
    if job.from_file and not any(finding.severity == "error" for finding in findings):
        finding = _compare_teacher(examination, job.model_input.load(job.model, logits=task.gives_logits), splits, task)
        findings += [finding] if finding else []
    refuse_teacher(findings, allowed=settings.allow_bad_teacher, on_note=on_note, remedy="pass allow_bad_teacher=True")


def _compare_teacher(teacher: Examination, student: keras.Model, splits: Splits, task: Task) -> Finding | None:
    if not inputs.fit(student, splits.val.x):
        return None  # refused later, with the reason; or subclassed, which has no such shape
    if isinstance(task, tasks.ScoredTask):
        if task.check_outputs(tuple(student.output_shape[1:]), splits.val) is not None:
            return None
        score = evaluate(student, splits.val, task)[task.selection.name]
        return teacher_examination.compare_scores(teacher, score, task.selection)
    return teacher_examination.compare_with_student(teacher, accuracy(student, splits.val), len(splits.val))


def _student(job: Job, splits: Splits, task: Task) -> tuple[keras.Model, Optimized | None]:
    """The model to train, and the optimization that it is prepared for."""
    model = (
        students.load(job.model_input, job.model, splits.train, task)
        if job.from_file
        else students.build_for(job.model, splits.train, task)
    )
    if job.optimization is None:
        return model, None
    optimized = optimization.optimize(model, job.optimization.method, **job.optimization.options)
    if job.out.suffix == ".keras" and optimized.student is None:
        raise InputError(f"{job.out}: {job.optimization.method} writes a .tflite. Choose a name that ends in .tflite.")
    return optimized.model, optimized


def _write(job: Job, model: keras.Model, optimized: Optimized | None, splits: Splits) -> JsonObject:
    """Writes the output and returns what a .tflite says of itself."""
    if optimized and job.out.suffix == ".tflite":
        written = optimized.export(job.out, calibration=splits.train, overwrite=job.overwrite, seed=job.seed)
        return written.to_json()
    student = optimized.student() if optimized and optimized.student else model
    with atomic.replacing(job.out) as part:
        saving.save(models.with_softmax(student) if job.output == "softmax" else student, part)
    return {}


@contextlib.contextmanager
def _working_folder(out: Path, key: str) -> Iterator[Path]:
    """The folder beside an output that keeps the epochs of its training; deleted when the block ends without an error.

    Folders of interrupted trainings of the same output with other settings are deleted first: those that have the name
    and the marker file of a working folder, and nothing else.

    Args:
        out: The output.
        key: Hash of the settings.

    Raises:
        InputError: Another process writes the same output.
    """
    lock = out.with_name(f".{out.name}.tfkd.lock")
    with locked(lock, str(out)):
        folder = out.with_name(f".{out.name}.tfkd-{key}")
        for stale in out.parent.glob(f".{out.name}.tfkd-{'[0-9a-f]' * 16}"):
            if stale != folder and (stale / _MARKER).is_file():
                shutil.rmtree(stale)
        folder.mkdir(exist_ok=True)
        (folder / _MARKER).touch()
        yield folder
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # Windows deletes no open file
            lock.unlink()
