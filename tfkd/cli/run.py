"""`tfkd run`."""

from __future__ import annotations

import typer

from tfkd.cli.application import CONTRACT_BROKEN, Json, RecipeFile, command, command_line, print_result, progress_of


@command(tensorflow=True, resumes=True)
def run(recipe: RecipeFile, as_json: Json = False) -> None:
    """Run a recipe from data to report.

    The same command resumes an interrupted run and keeps finished steps.

    Example: tfkd run recipe.toml
    """
    from tfkd.recipes import pipeline
    from tfkd.recipes import recipe as recipes
    from tfkd.report import console

    with progress_of(as_json) as progress:
        result = pipeline.run(recipes.load(recipe), command=command_line(), progress=progress)
        text = f"{console.summary(result.record)}\nReport: {result.page}"
        print_result(progress, result.to_json(), as_json, text)
    raise typer.Exit(0 if result.ok else CONTRACT_BROKEN)
