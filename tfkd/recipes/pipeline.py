"""The straight line of a recipe, from data to report, in steps that are kept when they are finished."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkd import data, report
from tfkd._internal.progress import Progress
from tfkd.distillation.training_config import TrainingConfig
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.step_cache import Steps, file_hash, hash_of, locked

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.distillation.labels.store import SoftLabels
    from tfkd.optimization import Optimized
    from tfkd.recipes.recipe import Optimization

REPORTS = ("report.html", "report.md", "report.json")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run left behind.

    Args:
        folder: with the models and the reports.
        record: the content of report.json.
        ok: whether the contract holds.
        steps: `done` or `kept` for each step.
    """

    folder: Path
    record: Mapping[str, Any]
    ok: bool
    steps: Mapping[str, str]


def run(recipe: Recipe, *, command: str | None = None, progress: Progress | None = None) -> Result:
    """Runs a recipe: data, teacher, students alone and distilled, conversion, validation, report.

    The same call again goes on where an earlier one stopped. A step is kept when its settings, and the files of the
    steps before it, are what they were; a training that was cut off goes on after its last finished epoch. The
    student that ships is the distilled one with the best validation accuracy; the test split only judges.

    Args:
        recipe: see `tfkd.recipe.load`.
        command: what the user typed, for the report.
        progress: where to say how far it is.

    Raises:
        ValueError: the recipe does not fit the data or a model, or another run works in the output folder.
        RuntimeError: a tool that a target needs is missing.
    """
    from tfkd import targets

    for spec in recipe.targets.names:
        targets.get(spec)  # a missing tool must show before the training, not after it
    if recipe.distillation.soft != {"name": "soft_target"}:  # the default needs no look, which loads Keras
        from tfkd import losses

        losses.build(**recipe.distillation.soft)
    folder = Path(recipe.output)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        return _Line(recipe, folder, progress or Progress()).run(command)


class _Line:
    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.steps = Steps(folder, progress)
        self.splits = data.load(recipe.data.source, validation=recipe.data.validation, seed=recipe.seed)
        self.data_hash = hash_of([split.content_hash for split in self.splits])
        other = recipe.data.teacher
        self.seen = self.splits  # by the teacher
        if other:
            self.seen = data.load(other.source, validation=recipe.data.validation, seed=recipe.seed)
            self.data_hash = hash_of([self.data_hash, other.pair, [split.content_hash for split in self.seen]])
        self.partner = data.Partner(self.seen.train, other.pair) if other else None

    def run(self, command: str | None) -> Result:
        if self.recipe.student.layers or self.recipe.optimization:
            from tfkd.optimization import rehearse

            # What is refused must show before the training, not after it.
            rehearse(self._start(self.recipe.seed), [(one.method, one.options) for one in self.recipe.optimization])
        teacher = self._teacher()
        labels = self._labels(teacher) if self.recipe.distillation.views else None
        seeds = range(self.recipe.seed, self.recipe.seed + self.recipe.distillation.seeds)
        students = {
            way: {seed: self._student(way, seed, teacher, labels) for seed in seeds} for way in ("alone", "distilled")
        }
        # By validation accuracy; of equal ones the first seed.
        best = {way: max(runs.values(), key=lambda one: one["val_accuracy"]) for way, runs in students.items()}
        converted: dict[str, Any] = {
            mode: self._convert(mode, best["distilled"]) for mode in self.recipe.conversion.modes
        }
        student = best["distilled"]
        for settings in self.recipe.optimization:
            optimized = self._optimize(settings, student, teacher, labels)
            converted[settings.method] = student = self._export(settings, student, optimized)
        record = self._validate(teacher, students, best, converted, command)
        verdict = record["verdict"]["status"]
        ok = verdict == "SHIP" if verdict else all(row["valid"] for row in record["rows"])
        return Result(self.folder, record, ok, self.steps.said)

    def _teacher(self) -> dict[str, Any]:
        settings = self.recipe.teacher
        if settings.files:
            files = {str(file): file_hash(file, missing_ok=False) for file in settings.files}
            return {"paths": list(files), "files": files}

        def work(key: str) -> dict[str, Any]:
            from tfkd import models

            _begin(self.recipe.seed)
            train = self.seen.train
            model = models.build(settings.model or "", train.input_shape, train.num_classes, **settings.options)
            return self._train("teacher", key, model, model, settings, self.recipe.seed, self.seen)

        return self.steps.do("teacher", [settings.model_dump(), self.recipe.seed, self.data_hash], work)

    def _labels(self, teacher: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.recipe.distillation

        def work(key: str) -> dict[str, Any]:
            from tfkd.distillation import training
            from tfkd.distillation.labels.store import SoftLabels

            folder = f"labels-{key[:16]}"
            for stale in self.folder.glob("labels-*"):
                if stale.name != folder:
                    shutil.rmtree(stale)
            SoftLabels.build(
                self.folder / folder,
                self._load(teacher),
                self.splits.train,
                views=settings.views or 1,
                augment=training.augmentation(settings),
                seed=self.recipe.seed,
                progress=self.progress.advance,
            )
            return {"path": str(self.folder / folder), "files": [f"{folder}/zarr.json"]}

        shown = [settings.views, settings.augment, settings.padding, settings.flip]
        return self.steps.do("labels", [shown, self.recipe.seed, self.data_hash, teacher["files"]], work)

    def _student(
        self, way: str, seed: int, teacher: Mapping[str, Any], labels: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        name, settings = f"student-{way}-{seed}", self.recipe.distillation

        def work(key: str) -> dict[str, Any]:
            student = self._start(seed)
            if way == "alone":
                return self._train(name, key, student, student, settings, seed, self.splits)
            trained, store = self._under(teacher, labels, student)
            return self._train(name, key, trained, student, settings, seed, self.splits, store)

        shared = TrainingConfig.model_validate(settings.model_dump(include=set(TrainingConfig.model_fields)))
        start = self.recipe.student.file
        inputs = [self.recipe.student.model_dump(), shared.model_dump(), seed, self.data_hash]
        inputs += [file_hash(start, missing_ok=False)] if start else []
        if way == "distilled":
            inputs += [settings.alpha, settings.soft, (labels or teacher)["files"]]
        return self.steps.do(name, inputs, work)

    def _under(
        self, teacher: Mapping[str, Any], labels: Mapping[str, Any] | None, student: keras.Model
    ) -> tuple[keras.Model, SoftLabels | None]:
        """The student under its teacher, and the store of what that says, if there is one."""
        from tfkd import losses
        from tfkd.distillation.distiller import Distiller
        from tfkd.distillation.labels.store import SoftLabels

        settings = self.recipe.distillation
        store = SoftLabels.open(labels["path"]) if labels else None
        taught_by, soft_loss = store or self._load(teacher), losses.build(**settings.soft)
        return Distiller(student, taught_by, alpha=settings.alpha, soft_loss=soft_loss), store

    def _prepare(self, settings: Optimization, student: keras.Model) -> Optimized:
        from tfkd.optimization import optimize

        return optimize(student, settings.method, **settings.options)

    def _optimize(
        self,
        settings: Optimization,
        student: Mapping[str, Any],
        teacher: Mapping[str, Any],
        labels: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Trains the distilled student, or what an optimization made of it, on under the same teacher."""
        name, seed = f"optimize-{settings.method}", self.recipe.seed

        def work(key: str) -> dict[str, Any]:
            import keras

            keras.utils.set_random_seed(seed)
            optimized = self._prepare(settings, self._load(student))
            for note in optimized.notes:
                self.progress.line(note)
            trained, store = self._under(teacher, labels, optimized.model)
            return self._train(
                name, key, trained, optimized.model, settings, seed, self.splits, store, optimized.callbacks
            )

        inputs = [settings.model_dump(), seed, self.data_hash, student["files"]]
        inputs += [self.recipe.distillation.alpha, self.recipe.distillation.soft, (labels or teacher)["files"]]
        return self.steps.do(name, inputs, work)

    def _export(self, settings: Optimization, student: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
        conversion = self.recipe.conversion

        def work(_: str) -> dict[str, Any]:
            optimized = self._prepare(settings, self._load(student))
            optimized.model.load_weights(trained["path"])
            file = f"{settings.method}.tflite"
            model = optimized.export(
                self.folder / file,
                calibration=self.splits.train,
                overwrite=True,
                seed=self.recipe.seed,
                calibration_samples=conversion.calibration_samples,
            )
            record = _converted(model, file)
            if optimized.student is not None:  # for the next optimization
                kept = f"{settings.method}.keras"
                optimized.student().save(self.folder / kept)
                record |= {"paths": [str(self.folder / kept)], "files": [file, kept]}
            return record

        inputs = [conversion.calibration_samples, self.recipe.seed, self.data_hash, student["files"], trained["files"]]
        return self.steps.do(f"export-{settings.method}", inputs, work)

    def _start(self, seed: int) -> keras.Model:
        """The student before its training."""
        from tfkd.recipes.student import start

        _begin(seed)
        return start(self.recipe.student, self.splits.train)

    def _load(self, record: Mapping[str, Any]) -> keras.Model:
        from tfkd import models
        from tfkd.distillation import teachers

        loaded = [models.load(path) for path in record.get("paths") or [record["path"]]]
        return teachers.ensemble(loaded) if len(loaded) > 1 else loaded[0]

    def _train(
        self,
        name: str,
        key: str,
        trained: keras.Model,
        saved: keras.Model,
        config: TrainingConfig,
        seed: int,
        splits: data.Splits,
        store: SoftLabels | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> dict[str, Any]:
        from tfkd.distillation import training

        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        checkpoint = folder / f"checkpoint-{key[:16]}"
        for stale in folder.glob("checkpoint-*"):
            if stale != checkpoint:
                shutil.rmtree(stale)
        history = training.fit(
            trained,
            splits,
            config,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=self.progress.epoch,
            soft_labels=store,
            partner=None if trained is saved else self.partner,
            callbacks=callbacks,
        )
        path = folder / "model.keras"
        saved.save(path)
        shutil.rmtree(checkpoint)
        return {
            "path": str(path),
            "files": [f"{name}/model.keras"],
            "history": history,
            "val_accuracy": training.accuracy(saved, splits.val),
            "test_accuracy": training.accuracy(saved, splits.test),
        }

    def _convert(self, mode: str, student: Mapping[str, Any]) -> dict[str, Any]:
        from tfkd.conversion import quantizer

        conversion = self.recipe.conversion
        chosen = conversion.settings if mode in quantizer.MODES else None

        def work(_: str) -> dict[str, Any]:
            from tfkd.conversion.converter import convert

            model = convert(
                student["path"],
                self.folder / f"{mode}.tflite",
                mode=mode,
                quantizer=chosen or "tensorflow",
                calibration=self.splits.train,
                calibration_samples=conversion.calibration_samples,
                overwrite=True,
                seed=self.recipe.seed,
            )
            return _converted(model, f"{mode}.tflite")

        settings = [conversion.calibration_samples, self.recipe.seed, self.data_hash]
        settings += [dataclasses.asdict(chosen)] if chosen else []
        return self.steps.do(f"convert-{mode}", [mode, settings, student["files"]], work)

    def _validate(
        self,
        teacher: Mapping[str, Any],
        students: Mapping[str, Mapping[int, Mapping[str, Any]]],
        best: Mapping[str, Mapping[str, Any]],
        converted: Mapping[str, Mapping[str, Any]],
        command: str | None,
    ) -> dict[str, Any]:
        def work(_: str) -> dict[str, Any]:
            from tfkd.validation.validator import validate

            distilled = self._load(best["distilled"])
            validation = validate(
                {mode: _model(record) for mode, record in converted.items()},
                self.splits.test,
                reference=distilled,
                baselines={
                    "teacher": (self._load(teacher), self.seen.test),
                    "student alone": self._load(best["alone"]),
                    "student distilled": distilled,
                },
                targets=self.recipe.targets.names,
                contract=self.recipe.limits,
                ship=self.recipe.conversion.ship,
                progress=self.progress.advance,
            )
            for file in REPORTS:
                report.write_report(
                    validation,
                    self.folder / file,
                    training=_histories(teacher, best),
                    seeds=_seeds(students),
                    command=command,
                    overwrite=True,
                )
            return {"files": list(REPORTS)}

        settings = [self.recipe.targets.model_dump(), self.recipe.limits.limits, self.recipe.conversion.ship]
        trained = [record["files"] for runs in students.values() for record in runs.values()]
        inputs = [settings, self.data_hash, teacher["files"], trained, [one["files"] for one in converted.values()]]
        self.steps.do("validate", inputs, work)
        return json.loads((self.folder / "report.json").read_text())


def _begin(seed: int) -> None:
    """Makes what is built next the same in every run."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)


def _converted(model: TFLiteModel, file: str) -> dict[str, Any]:
    audit = dataclasses.asdict(model.audit) if model.audit else None
    return {"path": str(model.path), "files": [file], "audit": audit}


def _model(record: Mapping[str, Any]) -> TFLiteModel:
    from tfkd.conversion.tflite import CalibrationAudit, TFLiteModel

    audit = record["audit"] and {**record["audit"], "findings": tuple(record["audit"]["findings"])}
    return dataclasses.replace(TFLiteModel.load(record["path"]), audit=CalibrationAudit(**audit) if audit else None)


def _histories(teacher: Mapping[str, Any], best: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = {"teacher": teacher.get("history")}
    found |= {f"student {way}": record["history"] for way, record in best.items()}
    return {label: history for label, history in found.items() if history}


def _seeds(students: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Sequence[dict[str, float]]]:
    return {
        f"student {way}": [{"seed": seed, "accuracy": one["test_accuracy"]} for seed, one in runs.items()]
        for way, runs in students.items()
    }
