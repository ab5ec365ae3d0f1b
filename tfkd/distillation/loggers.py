"""Logs of a training for TensorBoard and MLflow."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import ToolMissingError

if TYPE_CHECKING:  # the command line has this class in its signatures, and loads no Keras for its help
    import keras


@dataclasses.dataclass(frozen=True)
class Loggers:
    """Where the logs of trainings go.

    Args:
        tensorboard: Folder for the event files of TensorBoard, with a folder for each training; None for none.
        mlflow: Tracking URI of MLflow: a server such as `http://localhost:5000`, a database such as
            `sqlite:///mlflow.db`, or a folder; None for none.
        experiment: Name of the experiment of MLflow.

    Raises:
        ToolMissingError: MLflow is not installed.
    """

    tensorboard: Path | None = None
    mlflow: str | None = None
    experiment: str = "tfkd"

    def __post_init__(self) -> None:
        if self.mlflow is not None:
            try:
                importlib.import_module("mlflow")
            except ImportError as error:
                raise ToolMissingError(
                    f"mlflow: MLflow is not installed: {error}. Install it with pip install 'tfkd[mlflow]'."
                ) from None

    def callbacks(
        self, name: str, config: TrainingConfig, checkpoint: Path | None
    ) -> Sequence[keras.callbacks.Callback]:
        """The callbacks of one training.

        Args:
            name: Name of the training.
            config: Its settings, which MLflow shows.
            checkpoint: Folder of its checkpoint.
        """
        import keras

        from tfkd.distillation.mlflow_run import MLflowRun

        found: list[keras.callbacks.Callback] = []
        if self.tensorboard is not None:
            found.append(keras.callbacks.TensorBoard(str(self.tensorboard / name), write_graph=False))
        if self.mlflow is not None:
            found.append(MLflowRun(self.mlflow, self.experiment, name, config, checkpoint))
        return found
