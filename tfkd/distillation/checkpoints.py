"""The last finished epoch of a training, kept in a folder so that an interrupted run resumes with equal results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tfkd._internal import atomic

History = dict[str, list[float]]
OnEpoch = Callable[[int, int, Mapping[str, float]], None]


class EpochCheckpoint(keras.callbacks.Callback):
    """Keeps weights, optimizer and history of the last finished epoch.

    `keras.callbacks.BackupAndRestore` writes weights and epoch number one after the other: a kill between the two, or
    inside the first, leaves a backup that does not resume equally. Here one rename makes an epoch count.
    """

    def __init__(self, folder: Path | None, epochs: int, on_epoch: OnEpoch | None) -> None:
        super().__init__()
        self.folder, self.epochs, self.on_epoch = folder, epochs, on_epoch
        self.history: History = {}

    def restore(self, model: keras.Model) -> int:
        """Takes up the last kept epoch and returns how many are done."""
        kept = sorted(self.folder.glob("epoch-*.weights.h5")) if self.folder else []
        if not kept:
            return 0
        # The file holds the optimizer's state, which must exist before it can be filled.
        model.optimizer.build(model.trainable_variables)
        model.load_weights(kept[-1])
        done = int(kept[-1].name.split("-")[1].split(".")[0])
        self.history = json.loads((kept[-1].parent / f"epoch-{done:06d}.json").read_text())
        return done

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"epoch-{epoch + 1:06d}"
            atomic.write(self.folder / f"{name}.json", json.dumps(self.history))
            self.model.save_weights(self.folder / "part.weights.h5", overwrite=True)
            (self.folder / "part.weights.h5").replace(self.folder / f"{name}.weights.h5")
            for old in self.folder.glob("epoch-*"):
                if not old.name.startswith(name):
                    old.unlink()
        if self.on_epoch is not None:
            self.on_epoch(epoch + 1, self.epochs, {name: values[-1] for name, values in self.history.items()})
