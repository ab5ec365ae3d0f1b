"""`tfkd run`."""

from __future__ import annotations

from typing import Annotated

import typer

from tfkd.cli.application import CONTRACT_BROKEN, Json, RecipeFile, command, command_line, print_result, progress_of
from tfkd.cli.training_options import logging_options
from tfkd.distillation.loggers import Loggers


@command(tensorflow=True, resumes=True)
@logging_options
def run(
    recipe: RecipeFile,
    allow_bad_teacher: Annotated[
        bool,
        typer.Option(
            "--allow-bad-teacher",
            help="Train although the teacher is no better than a constant answer, expects other inputs or classes, or "
            "is less accurate than the student alone; distillation.allow_bad_teacher in the recipe.",
        ),
    ] = False,
    loggers: Loggers | None = None,
    as_json: Json = False,
) -> None:
    """Run a recipe from data to report.

    The same command resumes an interrupted run and keeps finished steps. Data, student and teacher are examined first,
    as doctor does, without the conversion.

    Example: tfkd run recipe.toml
    """
    from tfkd.recipes import pipeline
    from tfkd.recipes import recipe as recipes
    from tfkd.report import console

    with progress_of(as_json) as progress:
        settings = recipes.load(recipe)
        if allow_bad_teacher:
            distillation = settings.distillation.model_copy(update={"allow_bad_teacher": True})
            settings = settings.model_copy(update={"distillation": distillation})
        result = pipeline.run(settings, command=command_line(), progress=progress, loggers=loggers)
        text = f"{console.summary(result.record)}\nReport: {result.page}"
        print_result(progress, result.to_json(), as_json, text)
    raise typer.Exit(0 if result.ok else CONTRACT_BROKEN)
