"""`tfkd init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Overwrite, command
from tfkd.cli.data_options import data_options
from tfkd.data.reading import Request


@command()
@data_options
def init(
    data: Annotated[Request | None, typer.Option(help="Data set, as --data of the other commands.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Trained teacher, a .keras or .h5 file.")] = None,
    student: Annotated[
        str | None,
        typer.Option(help="Student: a builder of tfkd.models such as resnet8, or a .keras or .h5 file to start from."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Recipe file to write.")] = Path("recipe.toml"),
    overwrite: Overwrite = False,
) -> None:
    """Write a recipe to start from.

    Each key has a comment. Without --data and --teacher it is the digits demonstration.

    Example: tfkd init --data images/ --teacher teacher.keras --out recipe.toml
    """
    from tfkd.recipes import template

    template.write(out, data=data, teacher=teacher, student=student, overwrite=overwrite)
    if teacher is not None and not teacher.exists():
        typer.echo(
            f"tfkd: warning: the teacher {teacher} does not exist. Put it there, or correct path in [teacher], before "
            "tfkd doctor.",
            err=True,
        )
    typer.echo(f"{out}: written. Next: tfkd doctor {out}, then tfkd run {out}")
