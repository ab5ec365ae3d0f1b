"""Paths in a recipe, which may contain `~` and `$NAME` variables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError


def expand(path: str) -> str:
    """Replaces `~` and each `$NAME` of a path.

    Args:
        path: Path as it is written in a recipe.

    Raises:
        InputError: An environment variable is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(path))
    if "$" in expanded:
        name = re.search(r"\$\{?\w*\}?", expanded)
        raise InputError(
            f"the environment variable {name[0] if name else '$'} is not set. Set it or write the path out."
        )
    return expanded


def _check_variables(path: str) -> str:
    """Checks that each environment variable in a path is set; the path stays as it is written."""
    expand(path)
    return path


def _expand_weights(options: JsonObject) -> JsonObject:
    """The arguments of a builder, without variables in the path of a weights file."""
    weights = options.get("weights")
    return {**options, "weights": expand(weights)} if isinstance(weights, str) else options


RecipePath = Annotated[str, Field(min_length=1), pydantic.AfterValidator(_check_variables)]
BuilderOptions = Annotated[JsonObject, pydantic.AfterValidator(_expand_weights)]


def weights_files(model: str | None, options: JsonRecord) -> list[Path]:
    """The weights file that a builder of tfkd.models loads; empty if there is none.

    Args:
        model: Name of the builder, or `module:function` of the user, whose options may mean something else.
        options: Its arguments.
    """
    weights = options.get("weights")
    if model is None or ":" in model or not isinstance(weights, str) or weights == "imagenet":
        return []
    return [Path(weights)]
