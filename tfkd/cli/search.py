"""`tfkd search`."""

from __future__ import annotations

from typing import Annotated

import typer

from tfkd.cli.application import CONTRACT_BROKEN, Json, RecipeFile, command, command_line, print_result, progress_of


@command(tensorflow=True, resumes=True)
def search(
    recipe: RecipeFile,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates to train, those of earlier calls included; search.trials in the recipe."),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Time of this call for candidates, in hours; search.hours in the recipe."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Final trainings of each student; distillation.seeds in the recipe."),
    ] = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final/--no-final",
            help="Run the recipe of the best candidate at the end, and test it. Without it no contract is judged, and "
            "the exit status is 1 if there is one.",
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Search for the best student within the contract of a recipe.

    The table [search] of the recipe says what varies. Each candidate is converted untrained and measured on the
    targets; those outside of the contract are not trained. The others are trained with successive halving and compared
    on the validation split. The recipe of the best is written, run and tested once. Needs the extra tfkd[search].

    The same command resumes after an interruption. Several machines may run it at once in a shared folder.

    Example: tfkd search recipe.toml --trials 30 --hours 2
    """
    from tfkd.recipes import recipe as recipes
    from tfkd.recipes.search import runner
    from tfkd.report import console

    with progress_of(as_json) as progress:
        result = runner.run(
            recipes.load(recipe),
            trials=trials,
            hours=hours,
            seeds=seeds,
            final=final,
            command=command_line(),
            progress=progress,
        )
        lines = [console.summary(result.final.record), f"Report: {result.final.page}"] if result.final else []
        record = {"ok": result.ok, "page": str(result.page), **result.record}
        print_result(progress, record, as_json, "\n".join([*lines, f"Candidates: {result.page}"]))
    raise typer.Exit(0 if result.ok else CONTRACT_BROKEN)
