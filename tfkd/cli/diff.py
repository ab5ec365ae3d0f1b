"""`tfkd diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import (
    CONTRACT_BROKEN,
    Json,
    TargetsOption,
    command,
    print_result,
    progress_of,
)
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.limit_options import NO_LIMITS, limit_options
from tfkd.validation.contract import Contract


@command()
@data_options
@limit_options
def diff(
    a: Annotated[Path, typer.Argument(help="The .tflite in use.")],
    b: Annotated[Path, typer.Argument(help="The .tflite that may replace it; the limits apply to it.")],
    data: DataOption = DIGITS,
    target: TargetsOption = None,
    output_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the output that the labels belong to, of models with several; the others are not compared."
        ),
    ] = None,
    contract: Contract = NO_LIMITS,
    as_json: Json = False,
) -> None:
    """Compare two .tflite files.

    Shows changed predictions, accuracy per class, ops and size.
    Limits apply to B, and its reference is A.
    Exit status 1 if a limit does not hold for B or a model does not run. Without --target both run on host.

    Example: tfkd diff old.tflite new.tflite --data digits --max-accuracy-drop 0.5
    """
    from tfkd import data as datasets
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.validation import difference

    with progress_of(as_json) as progress:
        progress.start("diff")
        for model in (a, b):
            TFLiteModel.load(model)  # before the data: a wrong path shows at once
        splits = datasets.load(data)
        found = difference.compare(
            a,
            b,
            splits.test,
            targets=target or ["host"],
            contract=contract,
            task=data.task,
            validation=splits.val,
            output=output_name,
            progress=progress.advance,
        )
        print_result(progress, found.to_json(), as_json, "\n".join(found.lines()))
    raise typer.Exit(0 if found.ok else CONTRACT_BROKEN)
