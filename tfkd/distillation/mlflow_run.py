"""The callback that logs a training to MLflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras

from tfkd._internal import atomic
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError

# File with the id of the run, in the folder of the checkpoint: an interrupted training continues its run.
_RUN = "mlflow.json"


class MLflowRun(keras.callbacks.Callback):
    """Logs settings and the logs of each epoch as one run of MLflow.

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment, which is created where it does not exist.
        name: Name of the run.
        config: Settings of the training.
        checkpoint: Folder of its checkpoint; None if it does not resume.
    """

    def __init__(self, uri: str, experiment: str, name: str, config: TrainingConfig, checkpoint: Path | None) -> None:
        import mlflow  # an extra

        super().__init__()
        self._client = mlflow.MlflowClient(uri)
        self._uri, self._experiment, self._name, self._config = uri, experiment, name, config
        self._file = None if checkpoint is None else checkpoint / _RUN
        self._run = ""

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        resumed = self._resumed()
        with self._reached():
            self._run = resumed or self._created()
            self._client.update_run(self._run, "RUNNING")

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Turns errors of the server, the network or the database into one that says what to do."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"mlflow: {self._uri} must be a tracking server or store that can be reached. Received: {error}. Start "
                "it, or correct the address."
            ) from error

    def _resumed(self) -> str | None:
        """The run of a training that was interrupted, if this server has it."""
        if self._file is None or not self._file.is_file():
            return None
        found = json.loads(self._file.read_text())
        return str(found["run"]) if found["uri"] == self._uri else None

    def _created(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        run = str(self._client.create_run(number, run_name=self._name).info.run_id)
        for key, value in self._config.model_dump().items():
            self._client.log_param(run, key, value)
        if self._file is not None:
            atomic.write(self._file, json.dumps({"uri": self._uri, "run": run}))
        return run

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        with self._reached():
            for key, value in (logs or {}).items():
                self._client.log_metric(self._run, key, float(value), step=epoch)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        with self._reached():
            self._client.set_terminated(self._run)
