"""`tfkd train`."""

from __future__ import annotations

from typing import Annotated

import typer

from tfkd.cli.application import Json, Overwrite, Seed, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.training_options import DEFAULTS, ModelOut, logging_options, training_options
from tfkd.distillation.loggers import Loggers
from tfkd.distillation.training_config import TrainingConfig


@command(tensorflow=True, resumes=True)
@code_options
@training_options
@logging_options
@data_options
def train(
    model: Annotated[str, typer.Argument(help="Builder of tfkd.models, or module:function of your own.")],
    out: ModelOut,
    data: DataOption = DIGITS,
    config: TrainingConfig = DEFAULTS,
    seed: Seed = 0,
    loggers: Loggers | None = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a model on labels.

    Example: tfkd train digits_teacher --data digits --out teacher.keras --epochs 20
    """
    from tfkd.recipes import training
    from tfkd.report import console

    job = training.Job(model, out, data, config, seed=seed, overwrite=overwrite, loggers=loggers)
    with progress_of(as_json) as progress:
        record = training.train(job, on_epoch=progress.epoch, on_note=progress.line)
        print_result(progress, record, as_json, console.trained(record))
