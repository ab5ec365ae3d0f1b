"""`tfkd doctor`."""

from __future__ import annotations

import dataclasses

import typer

from tfkd.cli.application import CONTRACT_BROKEN, Json, RecipeFile, command, print_result, progress_of


@command(tensorflow=True)
def doctor(recipe: RecipeFile, as_json: Json = False) -> None:
    """Check a recipe before hours of training.

    Examines teacher, data, student, conversion and targets in about a minute. Exit status 1 if an error is found.

    Example: tfkd doctor recipe.toml
    """
    from tfkd.recipes import doctor as examination
    from tfkd.recipes.recipe import load

    with progress_of(as_json) as progress:
        findings = examination.examine(load(recipe), progress=progress.start)
        print_result(progress, [*map(dataclasses.asdict, findings)], as_json, examination.text(findings))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(CONTRACT_BROKEN)
