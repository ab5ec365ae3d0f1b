"""A recipe file (TOML): what the line from data to report is made of."""

from __future__ import annotations

import difflib
import os
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from tfkd.conversion.quantizer import QuantizerSettings, select
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.optimization import CHAINED, METHODS
from tfkd.validation.contract import Contract

__all__ = [
    "Conversion",
    "Data",
    "Distillation",
    "Optimization",
    "Recipe",
    "TrainingConfig",
    "Student",
    "Targets",
    "Teacher",
    "load",
]

Mode = Literal["float32", "float16", "dynamic_range", "full_int8", "int16x8"]


class _Section(pydantic.BaseModel):
    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def _expand(path: str) -> str:
    """Replaces `$NAME` by the environment's value; a name that is not set is an error."""
    expanded = os.path.expanduser(os.path.expandvars(path))
    if "$" in expanded:
        raise InputError(f"a variable in it is not set; set it or write the path out (received {path!r})")
    return expanded


class Source(_Section):
    """A data set: a name or a path, see `tfkd.data.load`."""

    name: str | None = None
    path: str | None = None

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise InputError("give either name (such as 'digits') or path (a .npz or a folder)")
        return self

    @property
    def source(self) -> str:
        """What `tfkd.data.load` takes."""
        return self.name if self.name is not None else _expand(self.path or "")


class TeacherData(Source):
    """`[data.teacher]`: what the teacher sees, where that is something else than the student sees.

    Args:
        pair: `row`: the same rows; `label`: for each sample another one of its class. See `tfkd.data.Partner`.
    """

    pair: Literal["row", "label"] = "row"


class Data(Source):
    """`[data]`: the student's data."""

    validation: float = pydantic.Field(default=0.1, gt=0, lt=1)
    teacher: TeacherData | None = None


class Teacher(TrainingConfig):
    """`[teacher]`: a builder of `tfkd.models` and its training, or the path of a `.keras` file, or several.

    Several teach as one, by the mean of their probabilities (`tfkd.teachers.ensemble`).
    """

    model: str | None = None
    options: dict[str, Any] = {}
    path: str | None = None
    paths: list[str] | None = pydantic.Field(default=None, min_length=2)

    @pydantic.model_validator(mode="after")
    def _built_or_loaded(self) -> Teacher:
        given = [name for name in ("model", "path", "paths") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("give either model (a builder, with its training) or path or paths (trained .keras files)")
        if given != ["model"] and self.model_fields_set != set(given):
            rest = ", ".join(sorted(self.model_fields_set - set(given)))
            raise InputError(f"a teacher with {given[0]} is not trained; leave out {rest}")
        return self

    @property
    def files(self) -> list[Path]:
        """The trained teachers; none where one is to be trained."""
        return [Path(_expand(path)) for path in self.paths or ([self.path] if self.path is not None else [])]


class Student(_Section):
    """`[student]`: a builder of `tfkd.models` with its options, or the path of a `.keras` file to start from.

    Args:
        inherit: the path of a `.keras` file, such as a teacher, whose layers a built student's start from.
        layers: which of them, see `tfkd.models.inherit`.
    """

    model: str | None = None
    options: dict[str, Any] = {}
    path: str | None = None
    inherit: str | None = None
    layers: dict[str, str] = {}

    @pydantic.model_validator(mode="after")
    def _built_or_loaded(self) -> Student:
        if (self.model is None) == (self.path is None) or (self.path is not None and self.options):
            raise InputError("give either model (a builder, with its options) or path (a .keras file to start from)")
        if (self.inherit is None) != (not self.layers) or (self.inherit and self.path):
            raise InputError("inherit (a .keras file) and layers belong together, and to a student with model")
        return self

    @property
    def file(self) -> Path | None:
        """The model that the student starts or inherits from, or None where it is built anew."""
        source = self.path or self.inherit
        return None if source is None else Path(_expand(source))


class Distillation(TrainingConfig):
    """`[distillation]`: the losses, and the schedule that the student alone and the distilled student share.

    Args:
        alpha: weight of the soft loss.
        temperature: of the soft loss; its own default where left out.
        loss: the soft loss, a name of `tfkd.losses.NAMES`.
        loss_options: its other options.
        views: label so many views of each sample once and train from that store; left out, the teacher runs online.
        seeds: how many times both students are trained.
    """

    alpha: float = pydantic.Field(default=0.9, ge=0, le=1)
    temperature: float | None = pydantic.Field(default=None, gt=0)
    loss: str = "soft_target"
    loss_options: dict[str, Any] = {}
    views: int | None = pydantic.Field(default=None, ge=1)
    seeds: int = pydantic.Field(default=3, ge=1)

    @pydantic.model_validator(mode="after")
    def _views_need_an_augmentation(self) -> Distillation:
        if (self.views or 1) > 1 and self.augment == "none":
            raise InputError(f'{self.views} views need an augmentation: set augment = "crop_flip", or views = 1')
        return self

    @property
    def soft(self) -> dict[str, Any]:
        """The name and the options of the soft loss, for `tfkd.losses.build`."""
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        return {"name": self.loss, **temperature, **self.loss_options}


class Conversion(_Section):
    """`[conversion]`: the modes to convert to, and what is to ship: one of them, or the method of `[optimization]`.

    Args:
        modes: see `tfkd.convert`.
        ship: what is judged.
        calibration_samples: of the train split.
        quantizer: `tensorflow` or `litert`; left out, litert where one of the following needs it. It makes the modes
            `dynamic_range`, `full_int8` and `int16x8`.
        range: of activations, see `tfkd.QuantizerSettings`.
        keep_float: regular expressions; layers that they fit stay in float.
        int16: the same, for activations of 16 bits.
        int4: the same, for weights of 4 bits.
    """

    modes: list[Mode] = pydantic.Field(default=["full_int8"], min_length=1)
    ship: str = "full_int8"
    calibration_samples: int = pydantic.Field(default=256, ge=1)
    quantizer: Literal["tensorflow", "litert"] | None = None
    range: Literal["min_max", "percentile", "mse"] = "min_max"
    keep_float: list[str] = []
    int16: list[str] = []
    int4: list[str] = []

    @property
    def settings(self) -> QuantizerSettings | None:
        """Of the second quantizer, or None for the converter's own."""
        return select(self.quantizer, ranges=self.range, keep_float=self.keep_float, int16=self.int16, int4=self.int4)

    @pydantic.model_validator(mode="after")
    def _options_fit_together(self) -> Conversion:
        _ = self.settings
        return self

    @pydantic.model_validator(mode="after")
    def _ships_one_of_them(self) -> Conversion:
        missing = self.ship in typing.get_args(Mode) and self.ship not in self.modes
        if len(set(self.modes)) < len(self.modes) or missing:
            raise InputError(f"modes must be unique and hold ship ({self.ship!r}), received {self.modes}")
        return self


class Optimization(TrainingConfig):
    """`[optimization]`: the distilled student is trained on under the same teacher while it is made fit for its target.

    Several, as `[[optimization]]`, follow one another: prune, then cluster, then train for int8.

    Args:
        method: one of `tfkd.optimization.METHODS`; also the name of the model in the report, and for `ship`.
        options: of the method, see `tfkd.optimization.optimize`.
    """

    method: str
    options: dict[str, Any] = {}
    epochs: int = pydantic.Field(default=3, ge=1)
    learning_rate: float = pydantic.Field(default=1e-4, gt=0)

    @pydantic.field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        if method not in METHODS:
            raise InputError(f"must be one of {', '.join(METHODS)}")
        return method


class Targets(_Section):
    """`[targets]`: specifications that `tfkd.targets.get` takes."""

    names: list[str] = pydantic.Field(default=["host", "tflm"], min_length=1)


_ContractSection = pydantic.create_model(
    "_ContractSection",
    __base__=_Section,
    **{name: (kind, None) for name, kind in typing.get_type_hints(Contract).items()},  # type: ignore[call-overload]
)


class Recipe(_Section):
    """A whole recipe; its paths are relative to the working directory and may hold `$NAME` of the environment."""

    data: Data
    teacher: Teacher
    student: Student
    distillation: Distillation = Distillation()
    optimization: list[Optimization] = []
    conversion: Conversion = Conversion()
    targets: Targets = Targets()
    contract: _ContractSection = _ContractSection()  # type: ignore[valid-type]
    output: str = pydantic.Field(min_length=1)
    seed: int = pydantic.Field(default=0, ge=0)

    @pydantic.model_validator(mode="after")
    def _views_are_of_what_the_student_sees(self) -> Recipe:
        if self.data.teacher is not None and self.distillation.views:
            raise InputError("[data.teacher] and distillation.views exclude each other: leave views out")
        return self

    @pydantic.field_validator("optimization", mode="before")
    @classmethod
    def _one_or_several(cls, found: Any) -> Any:
        return [found] if isinstance(found, dict) else found

    @pydantic.model_validator(mode="after")
    def _ships_what_there_is(self) -> Recipe:
        methods = [one.method for one in self.optimization]
        if len(set(methods)) < len(methods) or any(method not in CHAINED for method in methods[:-1]):
            raise InputError(
                f"[[optimization]] may have each method once, and before the last only {' and '.join(CHAINED)}, "
                f"received {', '.join(methods)}"
            )
        models = [*self.conversion.modes, *methods]
        if self.conversion.ship not in models:
            raise InputError(f"conversion.ship must be one of {', '.join(models)}, received {self.conversion.ship!r}")
        return self

    @property
    def limits(self) -> Contract:
        """The contract of the model that is to ship."""
        return Contract(**self.contract.model_dump())  # type: ignore[attr-defined]


def load(path: str | os.PathLike[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: a TOML file with the tables data, teacher, student, distillation, optimization, conversion, targets and
            contract, and the keys output (a folder) and seed.

    Raises:
        ValueError: there is no such file, it is no TOML, or a key or value is wrong; the message names each.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: must be a recipe file. Received: {error.strerror}. Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be TOML. Received: {error}. Correct that line.") from None
    try:
        recipe = Recipe.model_validate(content)
        _ = recipe.limits, recipe.data.source, recipe.teacher.files, recipe.student.file  # their ranges and variables
        _ = recipe.data.teacher and recipe.data.teacher.source
    except pydantic.ValidationError as error:
        raise InputError("\n".join(f"{path}: {_sentence(one)}" for one in error.errors())) from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def training_config(**settings: Any) -> TrainingConfig:
    """A `TrainingConfig` whose errors are ValueErrors in words."""
    try:
        return TrainingConfig(**settings)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(_sentence(one) for one in error.errors())) from None


def _sentence(error: Any) -> str:
    """One error of pydantic in our words: where, what was expected, what was received, what to do."""
    *table, key = error["loc"] or ("recipe",)
    # The first of several tables may be the only one, which has no number.
    where = ".".join(map(str, error["loc"])).replace("optimization.0.", "optimization.") or "recipe"
    if error["type"] == "extra_forbidden":
        known = _keys(table)
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
        return f"unknown key {where!r}. {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing. Add it."
    message = error["msg"].removeprefix("Value error, ")
    received = "" if isinstance(error["input"], dict | pydantic.BaseModel) else f" Received: {error['input']!r}."
    return f"{where}: {message}.{received} Correct it."


def _keys(table: list[Any]) -> list[str]:
    section: Any = Recipe
    for name in table:
        if isinstance(name, int):  # in a list of tables
            continue
        section = section.model_fields[name].annotation
        # Optional tables stand as `Table | None` or `list[Table]`.
        section = next((one for one in typing.get_args(section) if one is not type(None)), section)
    return list(section.model_fields)
