"""`tfkd verdict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import CONTRACT_BROKEN, Json, command, print_result, progress_of


@command()
def verdict(
    reports: Annotated[list[Path], typer.Argument(help="Reports in JSON, one for each output of the model.")],
    as_json: Json = False,
) -> None:
    """Give one verdict on a model of several outputs.

    Each output was validated by tfkd validate with --output-name, --report NAME.json and limits of its own.
    Exit status 1 if the limits of an output do not hold, or if an output was not judged.

    Example: tfkd verdict digit.json ink.json
    """
    from tfkd import report
    from tfkd.report import console
    from tfkd.validation import several_outputs

    found = several_outputs.judge([report.read(path) for path in reports])
    with progress_of(as_json) as progress:
        record = found.to_json()
        print_result(progress, record, as_json, console.outputs(record))
    raise typer.Exit(0 if found.ok else CONTRACT_BROKEN)
