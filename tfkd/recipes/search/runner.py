"""The work of `tfkd search`: proposes candidates, refuses those outside of the contract, trains the rest."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal.progress import Progress
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError, ModelError
from tfkd.recipes import pipeline, target_choice
from tfkd.recipes import recipe as recipes
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.search import cost as costs
from tfkd.recipes.search import results, training
from tfkd.recipes.search.candidate import Candidate, candidate, label, suggest
from tfkd.recipes.search.cost import Cost
from tfkd.recipes.search.section import Search
from tfkd.recipes.search.shared_steps import SharedSteps
from tfkd.recipes.search.study import Found, Study, check_packages
from tfkd.recipes.step_cache import hash_of, input_hash
from tfkd.report import words
from tfkd.targets import Target

if TYPE_CHECKING:
    import optuna

# So many candidates in a row that are known or outside of the contract end the search: the ranges hold few others.
_MOST_IDLE = 60


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a search.

    Args:
        folder: Folder of the search.
        record: The search as JSON, as in `search.json`.
        final: The final training; None if there was none.
        others_train: Whether other machines train candidates still, of which the last judges the contract.
    """

    folder: Path
    record: JsonRecord
    final: pipeline.Result | None
    others_train: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is a best candidate, and the contract, if there is one, holds after its final training.

        Where other machines train still, what this one was asked for is done.
        """
        if self.others_train:
            return True
        if self.final is None:
            return self.record["best"] is not None and not self.record["contract"]
        return self.final.ok

    @property
    def page(self) -> Path:
        """The page with the candidates."""
        return self.folder / results.PAGE


def run(
    recipe: Recipe,
    *,
    trials: int | None = None,
    hours: float | None = None,
    seeds: int | None = None,
    final: bool = True,
    command: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Searches for the best student of a recipe within its contract, and runs the recipe of the best.

    The same call resumes after an interruption, and several machines may run it at once in a shared folder. The
    validation split decides; the test split is used in the final training only.

    Args:
        recipe: Recipe with a table `[search]`.
        trials: Candidates to train; None for those of the recipe.
        hours: Time for candidates, in hours; None for that of the recipe.
        seeds: Number of final trainings of each student; None for that of the recipe.
        final: Whether the best recipe is run. Without it a contract is not known to hold.
        command: Command line, for the pages.
        progress: Progress display.

    Raises:
        InputError: The recipe has no table `[search]`, or does not fit the data or the teacher.
        ToolMissingError: Optuna, or a tool of a target, is not installed.
    """
    settings = recipe.search
    if settings is None:
        raise InputError(
            "search: the recipe has no table [search]. Add one, such as [search.distillation] with alpha = [0.5, 0.9]."
        )
    recipe.allow_own_code()
    given = {"trials": trials, "hours": hours}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    search = _Search(recipe, settings, progress or Progress(), command)
    search.run()
    return search.finish(seeds=seeds, final=final)


class _Search:
    def __init__(self, recipe: Recipe, settings: Search, progress: Progress, command: str | None) -> None:
        self.recipe, self.settings, self.progress, self.command = recipe, settings, progress, command
        self.epochs = settings.epochs or recipe.distillation.epochs
        self.deadline = time.monotonic() + 3600 * settings.hours if settings.hours else None
        chosen = target_choice.choose(recipe.targets.names, optional=recipe.targets.optional)
        self.targets: Sequence[Target] = [one for one in chosen if not isinstance(one, str)]
        self.folder = recipe.folder / "search"
        self.folder.mkdir(parents=True, exist_ok=True)
        check_packages()
        self._check_options()
        self.shared = SharedSteps(recipe, self.folder, progress)
        self.task = self.shared.base.task
        self.name = self._name()
        self.study = Study(self.folder, self.name, seed=recipe.seed, epochs=self.epochs, reduction=settings.reduction)
        self.own = self._candidate({})
        self._is_warned = False

    def _check_options(self) -> None:
        """Refuses a range over an option that the builder lacks, before the teacher is trained."""
        from tfkd.models.loading import check_options

        name, space = self.recipe.student.model, self.settings.space
        if name and ":" not in name and ("student", "model") not in space:
            check_options(name, [path[2] for path in space if path[:2] == ("student", "options")])

    def _name(self) -> str:
        """A hash of all that candidates depend on: a changed recipe, data set or teacher begins another study."""
        from tfkd.models import own_code

        recipe = self.recipe
        space = {".".join(path): repr(values) for path, values in self.settings.space.items()}
        fixed = recipe.model_dump(mode="json", exclude={"output", "search"})
        models = [name for name in (recipe.student.model, recipe.teacher.model) if name and ":" in name]
        names = [*recipe.imports, *models, *recipe.distillation.own_code]
        files = [*recipe.teacher.files, *recipe.student.files, *own_code.source_files(names)]
        hashes = [self.shared.base.data_hash, *map(input_hash, files)]
        return hash_of([fixed, space, self.epochs, self.settings.reduction, hashes])[:16]

    def _candidate(self, values: JsonObject) -> Candidate:
        return candidate(self.recipe, values, stored=self.task.is_classification)

    def run(self) -> None:
        """Tries candidates until enough are trained, the time is over, or the ranges hold no other."""
        self.study.release()
        idle, found = 0, self.study.found()
        try:
            while (trained := self._trained(found)) < self.settings.trials:
                if self._is_late(found):
                    self.progress.line(
                        f"The time is over after {trained} of {self.settings.trials} candidates. The same command "
                        "trains more."
                    )
                    break
                idle = 0 if self._try_one() else idle + 1
                found = self.study.found()
                if idle >= _MOST_IDLE:
                    self.progress.line(
                        f"The last {idle} candidates were known or outside of the contract. Widen the ranges."
                    )
                    break
        except training.OutOfTime:
            self.progress.line("The time is over. The same command continues with the candidate that trains.")
        finally:
            self._write(None)

    def _trained(self, found: Sequence[Found]) -> int:
        return sum(one.outcome in ("stopped", "finished") for one in found)

    def _is_late(self, found: Sequence[Found]) -> bool:
        """Whether the time is over and there is a result."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        return any(one.outcome == "finished" for one in found)

    def _try_one(self) -> bool:
        """Draws a candidate, and trains it if it is new and within the contract.

        Returns:
            Whether it was trained.
        """
        trial = self.study.ask()
        values = suggest(trial, self.settings.space)
        try:
            drawn = self._candidate(values)
        except InputError as error:
            key = hash_of(values)[:16]
            if self.study.is_known(key, trial):
                self.study.drop(trial)
            else:
                self.study.begin(trial, key, values)
                self._refuse(trial, values, str(error), 1.0)
            return False
        with self.study.lock(drawn.key) as is_free:
            if not is_free or self.study.is_known(drawn.key, trial):
                self.study.drop(trial)
                return False
            self.study.begin(trial, drawn.key, values)
            cost = self.study.cost_of(drawn.cost_key) or self._measure(drawn)
            self.study.note(trial, drawn.cost_key, cost)
            if cost.refusal is not None:
                self._refuse(trial, values, cost.refusal, cost.excess)
                return False
            self._train(trial, drawn, cost)
        self._write(None)
        return True

    def _refuse(self, trial: optuna.trial.Trial, values: JsonObject, reason: str, excess: float) -> None:
        self.progress.line(f"candidate {trial.number}: {label(values)}\n  not trained: {reason}")
        self.study.refuse(trial, reason, excess)

    def _train(self, trial: optuna.trial.Trial, drawn: Candidate, cost: Cost) -> None:
        count = f"{self._trained(self.study.found()) + 1} of {self.settings.trials}"
        self.progress.line(f"candidate {trial.number} ({count}): {drawn.label}\n  {cost}")
        trainer, teaching = self.shared.teaching(drawn, self.own)
        self.progress.start(f"candidate {trial.number}")
        try:
            result = training.train(
                trainer,
                teaching,
                trial,
                self.folder / "candidates" / f"{drawn.key}-{self.name}",
                epochs=self.epochs,
                progress=self.progress,
                is_late=lambda: self._is_late(self.study.found()),
            )
        except training.Stopped:
            self.study.stop(trial)
            self.progress.finish("stopped: others were better at this epoch")
        else:
            self.study.finish(trial, result.quality, result.value)
            self.progress.finish(f"{self._shown(result.value)} on validation")

    def _measure(self, drawn: Candidate) -> Cost:
        """The cost of a candidate; one that cannot be built is refused."""
        trainer = self.shared.trainer(drawn)
        needed = self.recipe.limits.max_bytes_ratio_to_teacher is not None
        teacher_bytes = self.shared.teacher_bytes(drawn) if needed else None
        try:
            student = trainer.build_student(drawn.recipe.seed)
        except (InputError, ModelError) as error:
            return Cost(refusal=str(error).splitlines()[0], excess=1.0)
        cost = costs.measure(student, drawn.recipe, trainer.splits.train, self.targets, teacher_bytes)
        missing = costs.unchecked(cost, self.recipe.limits.limits)
        if missing and cost.refusal is None and not self._is_warned:
            self._is_warned = True
            names = ", ".join(missing)
            self.progress.line(f"No target gives a value for these limits, so no candidate is refused: {names}.")
        return cost

    def _shown(self, value: float) -> str:
        metric = self.task.primary
        return words.percent(value) if self.task.is_classification else f"{metric.label} {value:.4g}"

    def _write(self, final: JsonObject | None) -> JsonObject:
        content = results.record(
            self.recipe, self.study.found(), self.task, epochs=self.epochs, command=self.command, final=final
        )
        results.write(self.folder, content)
        return content

    def finish(self, *, seeds: int | None, final: bool) -> Result:
        """Writes the best recipe and runs it."""
        best = results.best_of(self.study.found())
        if self.study.others_train():
            self.progress.line(
                "This machine is done, and others train candidates still: the last of them runs the final training and "
                "judges the contract. If they are stopped, the same command does so."
            )
            return Result(self.folder, self._write(None), None, others_train=True)
        if best is None:
            self.progress.line(self._nearest())
            return Result(self.folder, self._write(None), None)
        chosen = self._candidate(dict(best.values))
        value = "" if best.value is None else f"{self._shown(best.value)} on validation after {best.epochs} epochs"
        note = f"The best of {self._trained(self.study.found())} candidates: {value}."
        path = results.write_best(self.folder, chosen, seeds=seeds, note=note)
        self.progress.line(f"{path}: {chosen.label}, {value}")
        if not final:
            if self.recipe.limits.limits:
                self.progress.line(f"UNKNOWN: the contract was not judged. Run `tfkd run {path}`.")
            return Result(self.folder, self._write(None), None)
        result = pipeline.run(recipes.load(path), command=f"tfkd run {path}", progress=self.progress)
        summary = {"ok": result.ok, "status": result.record["verdict"]["status"], "report": "../report.html"}
        summary |= {"headline": words.headline(result.record)}
        return Result(self.folder, self._write(summary), result)

    def _nearest(self) -> str:
        """Why no candidate was trained, with the refused one that exceeds the contract least."""
        refused = [one for one in self.study.found() if one.outcome == "refused"]
        if not refused:
            return "No candidate was finished. The same command continues."
        if not any(one.cost and one.cost.bytes for one in refused):
            return f"No candidate can be built. The first of {len(refused)}: {refused[0].reason}"
        least = min(refused, key=lambda one: one.cost.excess if one.cost else 1.0)
        return (
            f"No candidate is within the contract. The nearest of {len(refused)}: {json.dumps(dict(least.values))}. "
            f"{(least.reason or '').rstrip('.')}. Lower the ranges, or raise the limit."
        )
