"""`tfkd train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tfkd.cli.application import Json, Overwrite, Seed, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.optimizer_options import DEFAULTS, optimizer_options
from tfkd.cli.training_options import Augment, BatchSize, Epochs, LearningRate, ModelOut


@command(tensorflow=True, resumes=True)
@code_options
@optimizer_options
@data_options
def train(
    model: Annotated[str, typer.Argument(help="Builder of tfkd.models, or module:function of your own.")],
    out: ModelOut,
    data: DataOption = DIGITS,
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 1e-3,
    optimization_settings: Mapping[str, Any] = DEFAULTS,
    augment: Augment = "none",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model on labels.

    Example: tfkd train digits_teacher --data digits --out teacher.keras --epochs 20
    """
    from tfkd.recipes import training
    from tfkd.recipes.recipe import training_config

    config = training_config(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment, **optimization_settings
    )
    job = training.Job(model, out, data, config, seed=seed, overwrite=overwrite)
    with progress_of(as_json) as progress:
        record = training.train(job, on_epoch=progress.epoch)
        print_result(progress, record, as_json, f"{out}: validation accuracy {record['val_accuracy']:.4f}")
