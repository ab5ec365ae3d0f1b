"""The task of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from tfkd import data, tasks
from tfkd.errors import InputError
from tfkd.recipes.findings import Finding
from tfkd.recipes.recipe import Recipe


def find_task(recipe: Recipe, train: data.Split) -> tasks.Task:
    """The task: the declared one, or the one that labels and models show.

    Args:
        recipe: The recipe.
        train: Training split.

    Raises:
        InputError: The labels are not those of the declared task.
    """
    found = tasks.find(train, name=recipe.task)
    if recipe.task is not None or train.label_kind != "classes" or train.num_classes != 2:
        return found
    # Two classes have one output or two: that of a file decides.
    files = [(file, recipe.teacher.input) for file in recipe.teacher.files]
    files += [(recipe.student.file, recipe.student.input)] if recipe.student.path and recipe.student.file else []
    if not files or not files[0][0].is_file():
        return found
    from tfkd.models import logits

    return tasks.find(train, logits.known_classes(files[0][1].load(files[0][0])))


def examine_task(recipe: Recipe, train: data.Split) -> Iterator[Finding]:
    """Finds labels that are not those of the task, and settings and limits of another one.

    Args:
        recipe: The recipe.
        train: Training split.
    """
    try:
        recipe.check_for(find_task(recipe, train))
    except InputError as error:
        yield Finding("error", "The recipe does not fit its task.", str(error), "Correct task or the settings.")
