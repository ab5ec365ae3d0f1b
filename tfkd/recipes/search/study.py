"""The trials of a search in Optuna's journal, which several machines may share and which survives a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import filelock

from tfkd._internal.types import JsonObject
from tfkd.errors import ToolMissingError
from tfkd.recipes.search.cost import Cost

if TYPE_CHECKING:
    import optuna

_CONTRACT = "contract"  # name of the constraint by which Optuna learns where candidates are outside
Outcome = Literal["refused", "stopped", "finished"]


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known of a candidate.

    Args:
        number: Number of its trial, from 0.
        key: See `Candidate.key`.
        values: Value of each key that varies, by its path with dots.
        outcome: `refused` before the training, `stopped` during it, `finished`; None while it trains or waits.
        cost: Its cost; None if it could not be built.
        reason: Why it was refused.
        epochs: Epochs that it was trained for.
        quality: How good a finished student is on the validation split; more is better.
        value: Its accuracy on the validation split, 0..1, or the first metric of another task.
    """

    number: int
    key: str
    values: Mapping[str, object]
    outcome: Outcome | None
    cost: Cost | None = None
    reason: str | None = None
    epochs: int = 0
    quality: float | None = None
    value: float | None = None

    def to_json(self) -> JsonObject:
        """What is known as plain JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record["values"] = dict(self.values)
        record["cost"] = self.cost.to_json() if self.cost else None
        del record["quality"]  # the value with the sign that Optuna needs
        return record


class Study:
    """The trials of one search.

    Args:
        folder: Folder of the search.
        name: Name of the study: a hash of what the search depends on. The journal may hold several.
        seed: Seed of the draws.
        epochs: Passes over the training split for each candidate.
        reduction: See `Search.reduction`.

    Raises:
        ToolMissingError: Optuna is not installed.
    """

    def __init__(self, folder: Path, name: str, *, seed: int, epochs: int, reduction: int) -> None:
        optuna = check_packages()
        journal = str((folder / "study.journal").resolve())  # its lock is found by an absolute path only
        lock = optuna.storages.journal.JournalFileOpenLock(journal)
        backend = optuna.storages.journal.JournalFileBackend(journal, lock_obj=lock)
        self.folder = folder
        self._failed, self._pruned = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED
        self._waiting, self._running = optuna.trial.TrialState.WAITING, optuna.trial.TrialState.RUNNING
        self._optuna = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=name,
            load_if_exists=True,
            direction="maximize",
            # Rounded up, so that the third comparison would come after the last epoch.
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=math.ceil(epochs / reduction**2), reduction_factor=reduction
            ),
        )
        # Another machine, and another call, draw other values.
        self._optuna.sampler = optuna.samplers.TPESampler(seed=seed + len(self._optuna.trials))

    def ask(self) -> optuna.trial.Trial:
        """A new trial, or one that an earlier call did not finish."""
        return self._optuna.ask()

    def release(self) -> None:
        """Gives the trials of processes that no longer run to the next calls of `ask`."""
        for trial in self._optuna.trials:
            # Another machine may have drawn one without a key a moment ago.
            if trial.state != self._running or "key" not in trial.user_attrs:
                continue
            with self.lock(trial.user_attrs["key"]) as is_free:
                if is_free:
                    self._optuna.tell(trial.number, state=self._failed)
                    self._optuna.enqueue_trial(trial.params)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Holds a candidate. Yields whether no other process does. The system releases it when the process dies."""
        folder = self.folder / "candidates"
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{key}.lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_known(self, key: str, trial: optuna.trial.Trial) -> bool:
        """Whether a candidate was drawn before, by another trial."""
        return any(one.key == key and one.number != trial.number for one in self.found())

    def begin(self, trial: optuna.trial.Trial, key: str, values: Mapping[str, object]) -> None:
        """Notes which candidate a trial is."""
        trial.set_user_attr("values", dict(values))
        trial.set_user_attr("key", key)

    def note(self, trial: optuna.trial.Trial, key: str, cost: Cost) -> None:
        """Notes the cost of a candidate, and the key of its cost."""
        trial.set_user_attr("cost", cost.to_json())
        trial.set_user_attr("cost_key", key)

    def cost_of(self, key: str) -> Cost | None:
        """The cost that was noted with a key; None if there is none."""
        noted = (trial.user_attrs for trial in self._optuna.trials if trial.user_attrs.get("cost_key") == key)
        return next((Cost.from_json(notes["cost"]) for notes in noted), None)

    def drop(self, trial: optuna.trial.Trial) -> None:
        """Ends a trial whose candidate another trial is."""
        self._optuna.tell(trial, state=self._failed)

    def refuse(self, trial: optuna.trial.Trial, reason: str, excess: float) -> None:
        """Ends a trial without a training."""
        trial.set_user_attr("outcome", "refused")
        trial.set_user_attr("reason", reason)
        trial.set_constraint(_CONTRACT, max(excess, 1e-6))  # > 0: outside
        self._optuna.tell(trial, state=self._pruned)

    def stop(self, trial: optuna.trial.Trial) -> None:
        """Ends a trial whose training was stopped."""
        trial.set_user_attr("outcome", "stopped")
        trial.set_constraint(_CONTRACT, 0.0)
        self._optuna.tell(trial, state=self._pruned)

    def finish(self, trial: optuna.trial.Trial, quality: float, value: float) -> None:
        """Ends a trial whose training is complete; one whose quality is no number counts as stopped."""
        if not math.isfinite(quality):
            self.stop(trial)
            return
        trial.set_user_attr("outcome", "finished")
        trial.set_constraint(_CONTRACT, 0.0)
        trial.set_user_attr("value", value)
        self._optuna.tell(trial, quality)

    def others_train(self) -> bool:
        """Whether another process trains a candidate."""
        for one in self.found():
            if one.outcome is None:
                with self.lock(one.key) as is_free:
                    if not is_free:
                        return True
        return False

    def found(self) -> list[Found]:
        """The candidates so far, in the order of their trials."""
        found = []
        for trial in self._optuna.trials:
            notes = trial.user_attrs
            if trial.state in (self._failed, self._waiting) or "key" not in notes:
                continue
            found.append(
                Found(
                    number=trial.number,
                    key=notes["key"],
                    values=notes["values"],
                    outcome=notes.get("outcome"),
                    cost=Cost.from_json(notes["cost"]) if "cost" in notes else None,
                    reason=notes.get("reason"),
                    epochs=trial.last_step or 0,
                    quality=trial.value,
                    value=notes.get("value"),
                )
            )
        return found


def check_packages() -> ModuleType:
    """The package optuna, which logs each trial itself unless told otherwise.

    Raises:
        ToolMissingError: It, or the package that writes the best recipe, is not installed.
    """
    try:
        import optuna
        import tomli_w  # noqa: F401  # `results` needs it, but only after the training
    except ImportError as error:
        raise ToolMissingError(
            f"search: the package {error.name} is not installed. Run `pip install 'tfkd[search]'`."
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
