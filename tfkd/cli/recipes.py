"""Verbs of a whole recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.verb import BROKEN, Json, command_line, say, show, verb


@verb
def doctor(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; its paths are relative to the working directory.")],
    as_json: Json = False,
) -> None:
    """Look for what would spoil hours of training: a broken teacher, leaking data, a student that does not fit.

    Exit status 1 where an error is found.
    Example: tfkd doctor recipes/digits.toml
    """
    import dataclasses

    from tfkd.recipes import doctor as examination
    from tfkd.recipes.recipe import load

    with show(as_json) as progress:
        findings = examination.examine(load(recipe), progress=progress.start)
        lines = [f"{one.severity}: {one.what}\n  seen: {one.evidence}\n  do: {one.remedy}" for one in findings]
        say(progress, [*map(dataclasses.asdict, findings)], as_json, "\n".join(lines) or "Nothing was found.")
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(BROKEN)


@verb
def run(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; its paths are relative to the working directory.")],
    as_json: Json = False,
) -> None:
    """Run a recipe from data to report; the same command again resumes and keeps what is finished.

    Example: tfkd run recipes/digits.toml
    """
    from tfkd.recipes import pipeline, trial
    from tfkd.recipes import recipe as recipes

    with show(as_json) as progress:
        result = pipeline.run(recipes.load(recipe), command=command_line(), progress=progress)
        page = result.folder / "report.html"
        value = {"ok": result.ok, "report": str(page), "steps": result.steps, "validation": result.record}
        say(progress, value, as_json, f"{trial.summary(result.record)}\nReport: {page}")
    raise typer.Exit(0 if result.ok else BROKEN)
