"""The schema of a recipe file (TOML): data, teacher, student, distillation, conversion, targets and contract."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import typing
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import Field
from pydantic_core import ErrorDetails

from tfkd import tasks
from tfkd.data.reading import Request
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.optimization import CHAINED
from tfkd.recipes.contract_section import ContractSection
from tfkd.recipes.distillation_section import Distillation
from tfkd.recipes.model_input import TABLE, VALUE
from tfkd.recipes.paths import RecipePath, expand
from tfkd.recipes.search.section import Search
from tfkd.recipes.section import Section
from tfkd.recipes.sections import (
    Conversion,
    Data,
    Optimization,
    Source,
    Student,
    Targets,
    Teacher,
)
from tfkd.validation.contract import Contract

__all__ = ["Optimization", "Recipe", "Student", "TrainingConfig", "load", "parse", "training_config"]


class Recipe(Section):
    """A whole recipe. Paths are relative to the working directory and may contain `~` and `$NAME` variables."""

    output: RecipePath = Field(description="Folder of the run: models, reports and the state from which it resumes.")
    seed: int = Field(default=0, ge=0, description="Seed of the validation split, weights, order and augmentation.")
    imports: list[str] = Field(
        default=[],
        description="Python modules to import first, from the working directory or installed, such as one that "
        "registers custom layers. Their code runs with your rights.",
    )
    allow_lambda: bool = Field(
        default=False,
        description="Whether model files with Lambda layers, whose Python code is in the file, are loaded. It runs "
        "with your rights.",
    )
    task: str | None = Field(default=None, examples=["regression"], description=tasks.HELP)
    data: Data = Field(description=(Data.__doc__ or "").strip())
    teacher: Teacher = Field(description=(Teacher.__doc__ or "").strip())
    student: Student = Field(description=(Student.__doc__ or "").strip())
    distillation: Distillation = Field(default=Distillation(), description=(Distillation.__doc__ or "").strip())
    optimization: list[Optimization] = Field(default=[], description=(Optimization.__doc__ or "").split("\n")[0])
    conversion: Conversion = Field(default=Conversion(), description=(Conversion.__doc__ or "").strip())
    targets: Targets = Field(default=Targets(), description=(Targets.__doc__ or "").strip())
    search: Search | None = Field(default=None, description=(Search.__doc__ or "").split("\n")[0])
    contract: ContractSection = Field(default=ContractSection(), description=(ContractSection.__doc__ or "").strip())

    @pydantic.field_validator("optimization", mode="before")
    @classmethod
    def _accept_one_or_several(cls, found: object) -> object:
        return [found] if isinstance(found, dict) else found

    @pydantic.field_validator("task")
    @classmethod
    def _check_task(cls, task: str | None) -> str | None:
        return task if task is None else tasks.get(task).name

    @pydantic.model_validator(mode="after")
    def _check_views(self) -> Self:
        if self.data.teacher is not None and self.distillation.views:
            raise InputError("[data.teacher] and distillation.views exclude each other. Leave views out.")
        mixed = [name for one in (self.distillation, *self.optimization) for name in one.mixes]
        if self.data.teacher is not None and mixed:
            raise InputError(f"[data.teacher] and {mixed[0]} exclude each other. Leave {mixed[0]} out.")
        return self

    @pydantic.model_validator(mode="after")
    def _check_output(self) -> Self:
        if self.conversion.output == "softmax" and self.optimization:
            raise InputError(
                '[[optimization]] exports logits, and conversion.output is "softmax". Leave one of them out.'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_shipped_model(self) -> Self:
        methods = [one.method for one in self.optimization]
        if len(set(methods)) < len(methods) or any(method not in CHAINED for method in methods[:-1]):
            raise InputError(
                f"[[optimization]] may have each method once, and before the last only {' and '.join(CHAINED)}. "
                f"Received: {', '.join(methods)}."
            )
        models = [*self.conversion.modes, *methods]
        if self.conversion.ship not in models:
            raise InputError(f"conversion.ship must be one of {', '.join(models)}. Received: {self.conversion.ship!r}.")
        return self

    def allow_own_code(self) -> None:
        """Imports the modules of the user, and lets Keras load Lambda layers, where the recipe says so.

        Raises:
            InputError: A module does not exist, or its code raises an error.
        """
        if self.imports or self.allow_lambda:
            from tfkd.models import own_code  # here, since recipes are read without Keras

            own_code.allow(self.imports, lambdas=self.allow_lambda)

    def request(self, source: Source | None = None) -> Request:
        """A data set with the kind of labels of the task, in the form that `tfkd.data.load` takes.

        Args:
            source: The data set; None for that of the student.
        """
        request = (source or self.data).request()
        labels = None if self.task is None else tasks.get(self.task).labels
        return dataclasses.replace(request, labels=labels, task=self.task)

    def check_for(self, task: tasks.Task) -> None:
        """Refuses settings that are for classifications, and limits that another task has.

        Args:
            task: The task.

        Raises:
            InputError: There is such a setting.
        """
        self.limits.check_task(task.name)
        if task.is_classification:
            return
        given = {
            "distillation.views": self.distillation.views if task.stored is None else None,
            'conversion.output = "softmax"': self.conversion.output == "softmax",
            "teacher.paths": self.teacher.paths,
        }
        for name, value in given.items():
            if value:
                raise InputError(f"{name} is not for the task {task.name}. Received: {value!r}. Leave it out.")

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(expand(self.output))

    @property
    def limits(self) -> Contract:
        """The contract of the shipped model."""
        return Contract(**self.contract.model_dump())


def load(path: str | os.PathLike[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: TOML file with the tables of `Recipe`.

    Returns:
        The checked recipe.

    Raises:
        InputError: The file cannot be read, is not TOML, or a key or value is wrong; the message names each.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: must be a recipe file. Received: {error.strerror}. Check the path.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be TOML in UTF-8. Received: {error}. Correct the file.") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Recipe:
    """Checks the text of a recipe.

    Args:
        text: TOML.
        name: Name of the recipe in messages, such as its path.

    Raises:
        InputError: See `load`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: must be TOML. Received: {error}. Correct that line.") from None
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(f"{name}: {_sentence(one)}" for one in error.errors())) from None


def training_config(**settings: Any) -> TrainingConfig:
    """A `TrainingConfig`, checked.

    Raises:
        InputError: A setting is wrong; the message names each.
    """
    try:
        return TrainingConfig(**settings)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(_sentence(one).removeprefix("recipe: ") for one in error.errors())) from None


def _sentence(error: ErrorDetails) -> str:
    """One validation error of pydantic as a sentence: key, what is wrong, value received, what to do."""
    *table, key = loc = [part for part in error["loc"] if part not in (VALUE, TABLE)] or ["recipe"]
    # A single table [optimization] is the first of a list, which has no number in the file.
    where = ".".join(map(str, loc)).replace("optimization.0.", "optimization.") or "recipe"
    if error["type"] == "extra_forbidden":
        known = _keys(table)
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key {where!r}. {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing. Add it."
    if error["type"] == "value_error":  # one of ours, with its own advice
        return f"{where}: {str(error['ctx']['error']).removeprefix('Contract: ')}"
    return f"{where}: {error['msg']}. Received: {error['input']!r}. Correct it."


def _keys(table: list[int | str]) -> list[str]:
    """The keys of a table, by the path to it."""
    section: Any = Recipe
    for name in table:
        if isinstance(name, int):  # in a list of tables
            continue
        section = section.model_fields[name].annotation
        # The annotation of an optional table is `Table | None`, that of a list of tables `list[Table]`.
        section = next((one for one in typing.get_args(section) if one is not type(None)), section)
    return list(section.model_fields)
