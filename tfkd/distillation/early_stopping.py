"""Early stopping that resumes after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from tfkd._internal import atomic
from tfkd.distillation.checkpoints import History

MONITOR = "accuracy"  # of a classification


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights with the highest validation accuracy, and stops where it no longer rises.

    For tasks other than classification, the log `monitor` takes the place of the accuracy; where lower values are
    better (`rises=False`), the lowest one counts.

    `keras.callbacks.EarlyStopping` forgets the best weights when the process ends. Here they are files beside the
    checkpoint, named by their epoch; which of them is the best follows from the history of the checkpoint. So a file of
    an epoch that was interrupted before its checkpoint was written has no effect.

    The callback must come before `keras.callbacks.SwapEMAWeights`, so that it sees the averaged weights, which are in
    the model during the validation.

    Args:
        patience: Number of epochs without a higher validation accuracy after which the training stops, >= 1.
        history: Logs of the epochs so far; shared with the checkpoint.
        folder: Folder of the checkpoint; None to keep the weights in memory.
        monitor: Name of the log, without `val_`.
        rises: Whether a higher value is better.

    Reference:
        Prechelt: Early Stopping - But When?, in Neural Networks: Tricks of the Trade, 1998.
    """

    def __init__(
        self, patience: int, history: History, folder: Path | None, monitor: str = MONITOR, *, rises: bool = True
    ) -> None:
        super().__init__()
        self._monitor, self._sign = monitor, 1 if rises else -1
        self._patience, self._history, self._folder = patience, history, folder
        self._kept: dict[int, list[np.ndarray]] = {}
        self._epoch = 0

    @property
    def _accuracies(self) -> list[float]:
        return [self._sign * value for value in self._history.get(f"val_{self._monitor}", [])]

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the highest validation accuracy, from 0; None before the first."""
        return int(np.argmax(self._accuracies)) if self._accuracies else None

    @property
    def exhausted(self) -> bool:
        """Whether the validation accuracy has not risen for `patience` epochs."""
        best = self.best_epoch
        return best is not None and len(self._accuracies) - 1 - best >= self._patience

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch
        for old in self._epochs() - {self.best_epoch}:  # the checkpoint of the epoch before is written now
            self._kept.pop(old, None)
            if self._folder is not None:
                self._file(self._folder, old).unlink()

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        best = max(self._accuracies[: self._epoch], default=-np.inf)
        if self._sign * float((logs or {})[self._monitor]) <= best:
            return
        weights = self.model.get_weights()
        if self._folder is None:
            self._kept[self._epoch] = weights
            return
        with atomic.replacing(self._file(self._folder, self._epoch)) as part, part.open("wb") as file:
            np.savez(file, *weights)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self.exhausted:  # the history has this epoch already: the checkpoint comes before
            self.model.stop_training = True

    def restore(self, model: keras.Model) -> None:
        """Sets the weights of the best epoch."""
        best = self.best_epoch
        if best is None:
            return
        if self._folder is None:
            model.set_weights(self._kept[best])
            return
        with np.load(self._file(self._folder, best)) as archive:
            model.set_weights([archive[name] for name in archive.files])

    def _epochs(self) -> set[int]:
        if self._folder is None:
            return set(self._kept)
        return {int(file.stem.split("-")[1]) for file in self._folder.glob("best-*.npz")}

    @staticmethod
    def _file(folder: Path, epoch: int) -> Path:
        return folder / f"best-{epoch:06d}.npz"
