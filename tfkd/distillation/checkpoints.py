"""Checkpoints of the last finished epoch, so that an interrupted run resumes with equal results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from tfkd._internal import atomic

# Logs of all epochs by name.
History = dict[str, list[float]]
# (finished epochs, total epochs, logs of the last epoch) -> None
OnEpoch = Callable[[int, int, Mapping[str, float]], None]


def history_of(folder: Path) -> History:
    """The logs of the finished epochs of a checkpoint, by name; empty if there is none.

    Args:
        folder: Folder of the checkpoint.
    """
    saved = sorted(folder.glob("epoch-*.weights.h5"))
    if not saved:
        return {}
    return json.loads((folder / saved[-1].name.replace(".weights.h5", ".json")).read_text())


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves weights, optimizer state and history after each epoch, and deletes those of the epoch before.

    `keras.callbacks.BackupAndRestore` writes the weights and the epoch number one after the other: after a kill
    between the two, a run does not resume with equal results. Here the weights file is renamed atomically, and its name
    has the epoch number.

    Args:
        folder: Folder of the checkpoint; None to keep the history only.
        epochs: Total number of epochs, for `on_epoch`.
        on_epoch: Function that is called after each epoch.
    """

    def __init__(self, folder: Path | None, epochs: int, on_epoch: OnEpoch | None) -> None:
        super().__init__()
        self.folder, self.epochs, self.on_epoch = folder, epochs, on_epoch
        self.history: History = {}

    def restore(self, model: keras.Model) -> int:
        """Loads the last finished epoch, if there is one.

        Args:
            model: Compiled model of the same architecture.

        Returns:
            The number of finished epochs.
        """
        saved = sorted(self.folder.glob("epoch-*.weights.h5")) if self.folder else []
        if not saved:
            return 0
        # The file has the state of the optimizer, whose variables must exist before they are loaded.
        model.optimizer.build(model.trainable_variables)
        model.load_weights(saved[-1])
        done = int(saved[-1].name.split("-")[1].split(".")[0])
        self.history = history_of(saved[-1].parent)
        return done

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.folder is not None:
            name = f"epoch-{epoch + 1:06d}"
            atomic.write(self.folder / f"{name}.json", json.dumps(self.history))
            with atomic.replacing(self.folder / f"{name}.weights.h5") as part:
                self.model.save_weights(part, overwrite=True)
            for old in self.folder.glob("epoch-*"):
                if not old.name.startswith(name):
                    old.unlink()
        if self.on_epoch is not None:
            self.on_epoch(epoch + 1, self.epochs, {name: values[-1] for name, values in self.history.items()})
