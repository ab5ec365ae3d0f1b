"""A candidate: the recipe with one value for each key that varies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pydantic

from tfkd._internal.types import JsonObject
from tfkd.data import augmentations
from tfkd.errors import InputError
from tfkd.recipes.recipe import Recipe
from tfkd.recipes.search.section import Choice, Range
from tfkd.recipes.step_cache import hash_of

if TYPE_CHECKING:
    import optuna

Path = tuple[str, ...]
# Stored views of each sample where the recipe names none: more need a longer labelling, fewer repeat earlier.
_VIEWS = 8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate of a search.

    Args:
        values: Value of each key that varies, by its path with dots, such as `student.options.width`.
        recipe: The recipe with these values, as `tfkd run` takes it.
    """

    values: Mapping[str, object]
    recipe: Recipe

    @property
    def key(self) -> str:
        """A hash of the student and its training, the name of the folder of the candidate."""
        recipe = self.recipe.model_dump(mode="json", exclude={"output", "contract", "search"})
        del recipe["distillation"]["seeds"]
        return hash_of(recipe)[:16]

    @property
    def cost_key(self) -> str:
        """A hash of what the cost depends on: candidates that differ in their training only cost the same."""
        return hash_of(
            self.recipe.model_dump(mode="json", include={"student", "data", "conversion", "targets", "seed"})
        )

    @property
    def label(self) -> str:
        """The values in a line."""
        return label(self.values)


def label(values: Mapping[str, object]) -> str:
    """Values by path in a line; the last part of a path is enough."""
    return ", ".join(f"{path.rpartition('.')[2]} {_short(value)}" for path, value in values.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def suggest(trial: optuna.trial.Trial, space: Mapping[Path, Choice | Range]) -> dict[str, object]:
    """Draws a value for each key.

    Args:
        trial: The trial of Optuna that the values belong to.
        space: See `Search.space`.

    Returns:
        The values by path with dots.
    """
    return {".".join(path): _draw(trial, ".".join(path), values) for path, values in space.items()}


def _draw(trial: optuna.trial.Trial, name: str, values: Choice | Range) -> object:
    if isinstance(values, Choice):
        # Optuna takes scalars only; a choice may be a list, such as an image size.
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in values.values]))
    if all(isinstance(one, int) for one in (values.low, values.high, values.step or 1)):
        return trial.suggest_int(name, int(values.low), int(values.high), step=int(values.step or 1), log=values.log)
    return trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)


def candidate(base: Recipe, values: Mapping[str, object], *, stored: bool) -> Candidate:
    """The recipe with the values of a candidate.

    Args:
        base: The recipe of the search.
        values: See `suggest`.
        stored: Whether the candidate learns from a store of the teacher's logits where it can, also if the recipe has
            no `views`.

    Raises:
        InputError: The values contradict each other or the rest of the recipe.
    """
    content: JsonObject = base.model_dump(exclude_unset=True, exclude={"search"})
    for path, value in values.items():
        *tables, key = path.split(".")
        table = content
        for name in tables:
            table[name] = dict(table.get(name) or {})
            table = table[name]
        table[key] = value
    if stored:
        _set_views(content)
    try:
        return Candidate(values, Recipe.model_validate(content))
    except pydantic.ValidationError as error:
        reasons = "; ".join(str(one.get("ctx", {}).get("error", one["msg"])) for one in error.errors())
        raise InputError(f"the values do not fit together: {reasons}") from None


def _set_views(content: JsonObject) -> None:
    """Sets the number of stored views: one without augmentation, none where the teacher must run in each step."""
    distillation = content["distillation"] = dict(content.get("distillation") or {})
    augment = distillation.get("augment", "none")
    names = [name for name in ([augment] if isinstance(augment, str) else augment) if name != "none"]
    views = distillation.pop("views", None)
    if "teacher" not in content["data"] and not distillation.get("features") and not augmentations.mixes(names):
        fits = views is not None and (views != "all" or names == ["crop_flip"])
        distillation["views"] = 1 if not names else views if fits else _VIEWS
    if distillation.get("views") != "all":
        distillation.pop("label_hours", None)
