"""What a search writes: its record as JSON, the page, and the best recipe as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal import atomic
from tfkd._internal.types import JsonObject
from tfkd.recipes.search.candidate import Candidate
from tfkd.recipes.search.study import Found
from tfkd.tasks import Task

if TYPE_CHECKING:
    from tfkd.recipes.recipe import Recipe

SCHEMA = "tfkd.search/1"
RECORD, PAGE, BEST = "search.json", "search.html", "best.toml"


def best_of(found: Sequence[Found]) -> Found | None:
    """The finished candidate that is best on the validation split; of equal ones the cheapest."""
    finished = [one for one in found if one.outcome == "finished" and one.quality is not None]
    return max(finished, key=_rank, default=None)


def _rank(one: Found) -> tuple[float, float, float]:
    cost = one.cost
    assert one.quality is not None
    if cost is None:
        return one.quality, -math.inf, -math.inf
    work = cost.p90_ms or math.inf if cost.instructions is None else cost.instructions
    return one.quality, -work, -float(cost.bytes or math.inf)


def record(
    recipe: Recipe, found: Sequence[Found], task: Task, *, epochs: int, command: str | None, final: JsonObject | None
) -> JsonObject:
    """The search as plain JSON values.

    Args:
        recipe: The recipe of the search.
        found: The candidates.
        task: The task.
        epochs: Passes over the training split for each candidate.
        command: Command line, for the page.
        final: Summary of the final training; None if there was none yet.
    """
    best = best_of(found)
    return {
        "schema": SCHEMA,
        "metric": {"name": task.primary.name, "label": task.primary.label, "unit": task.primary.unit},
        "larger_is_better": task.primary.larger_is_better,
        "epochs": epochs,
        "contract": recipe.limits.limits,
        "candidates": [one.to_json() for one in found],
        "best": best.number if best else None,
        "command": command,
        "final": final,
    }


def write(folder: Path, content: JsonObject) -> None:
    """Writes the record and the page."""
    from tfkd.report import search_page

    atomic.write(folder / RECORD, json.dumps(content, indent=1))
    atomic.write(folder / PAGE, search_page.html(content))


def write_best(folder: Path, best: Candidate, *, seeds: int | None, note: str) -> Path:
    """Writes the recipe of the best candidate.

    Args:
        folder: Folder of the search.
        best: The candidate.
        seeds: Number of trainings of each student; None for that of the recipe.
        note: Comment at the beginning.
    """
    import tomli_w

    content = best.recipe.model_dump(mode="json", exclude_unset=True, exclude={"search"}, exclude_none=True)
    if seeds is not None:
        content.setdefault("distillation", {})["seeds"] = seeds
    path = folder / BEST
    atomic.write(path, f"# {note}\n{tomli_w.dumps(content)}")
    return path
