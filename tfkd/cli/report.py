"""`tfkd report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Overwrite, command


@command()
def report(
    source: Annotated[Path, typer.Argument(help="The folder of a run, or a report in JSON.")],
    out: Annotated[Path, typer.Option("--out", help="Report to write: .html, .md, .json or .xml (JUnit).")],
    overwrite: Overwrite = False,
) -> None:
    """Write an existing report in another format.

    Example: tfkd report runs/digits --out report.xml
    """
    from tfkd import report as reports

    typer.echo(reports.rewrite(source, out, overwrite=overwrite))
