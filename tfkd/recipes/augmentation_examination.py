"""Whether labels stay right under the augmentations of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfkd.data import Split, label_augmentation
from tfkd.distillation.training import augmentation
from tfkd.errors import InputError
from tfkd.recipes.findings import Finding

if TYPE_CHECKING:
    from tfkd.recipes.recipe import Recipe


def examine(recipe: Recipe, train: Split, teacher_train: Split) -> Iterator[Finding]:
    """Finds augmentations after which labels are wrong, and those after which some may be.

    Args:
        recipe: The recipe.
        train: Training samples of the student.
        teacher_train: Training samples of the teacher.
    """
    sections = [
        ("[teacher]", recipe.teacher, teacher_train),
        ("[distillation]", recipe.distillation, train),
        *(("[[optimization]]", one, train) for one in recipe.optimization),
    ]
    for name, config, samples in sections:
        try:
            lone = label_augmentation.check(augmentation(config)[0], samples)
        except InputError as error:
            yield Finding(
                "error", "The labels do not follow the augmentation.", str(error), f"Correct augment in {name}."
            )
            continue
        if lone:
            yield Finding("warning", label_augmentation.LONE, ", ".join(lone), label_augmentation.LONE_REMEDY)
