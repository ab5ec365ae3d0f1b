"""What a model file expects for the pixels of images, as the command line or a recipe declares it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Discriminator, Field, Tag

from tfkd.errors import InputError

if TYPE_CHECKING:
    import keras

# Tags of the two forms of a key: a value, or a table with the value of each of several inputs.
VALUE, TABLE = "(value)", "(table)"
_FORM = Discriminator(lambda given: TABLE if isinstance(given, dict) else VALUE)
# The keys of a recipe.
_Limits = Annotated[list[float], Field(min_length=2, max_length=2)]
Range = Annotated[Annotated[_Limits, Tag(VALUE)] | Annotated[dict[str, _Limits], Tag(TABLE)], _FORM]
Preprocess = Annotated[Annotated[str, Tag(VALUE)] | Annotated[dict[str, str], Tag(TABLE)], _FORM]
INPUT_RANGE = Field(
    default=None,
    examples=[[0, 1]],
    description="What a model from a file expects for the pixels 0 and 255, where they were scaled outside of it. The "
    "scaling becomes its first layer. Of several inputs a table: { image = [0, 1] }.",
)
PREPROCESS = Field(
    default=None,
    examples=["resnet50"],
    description="The preprocess_input of keras.applications that a model from a file expects instead: tf, torch, "
    "caffe, or a module such as resnet50. Of several inputs a table: { image = 'resnet50' }.",
)


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """The scaling of pixels that a model file leaves to the code around it; see `tfkd.models.load`.

    Args:
        input_range: The values (low, high) that the model expects for the pixels 0 and 255; of one of several inputs a
            dictionary with its name.
        preprocess: The `preprocess_input` of `keras.applications` that it expects, in the same form.
    """

    input_range: tuple[float, float] | dict[str, tuple[float, float]] | None = None
    preprocess: str | dict[str, str] | None = None

    def load(self, path: str | os.PathLike[str] | keras.Model, *, logits: bool = True) -> keras.Model:
        """The model of a file, which takes pixel values 0..255 and returns logits, or, of a regression, its values."""
        from tfkd import models  # here, since recipes are read without Keras

        return models.load(path, input_range=self.input_range, preprocess=self.preprocess, logits=logits)


def parse(role: str, input_range: str | None, preprocess: str | None) -> ModelInput:
    """The declaration of a command line.

    Args:
        role: `teacher` or `student`, the beginning of the names of the options.
        input_range: Value of the option `--ROLE-range`, LOW,HIGH, of one of several inputs NAME=LOW,HIGH; None without
            it.
        preprocess: Value of the option `--ROLE-preprocess`, in the same form.

    Raises:
        InputError: The range is not two different numbers, or both options are given.
    """
    if input_range is None:
        of_input, _, value = (preprocess or "").rpartition("=")
        return ModelInput(None, {of_input: value} if of_input else preprocess)
    if preprocess is not None:
        raise InputError(
            f"--{role}-range and --{role}-preprocess exclude each other. Received: {input_range} and {preprocess}. "
            "Leave one out."
        )
    of_input, _, limits = input_range.rpartition("=")
    low, comma, high = limits.partition(",")
    try:
        values = (float(low), float(high))
    except ValueError:
        values = (0.0, 0.0)
    if not comma or values[0] == values[1]:
        raise InputError(
            f"--{role}-range must be LOW,HIGH, two different numbers. Received: {input_range!r}. Use 0,1 for a model "
            "trained on pixels divided by 255."
        )
    return ModelInput({of_input: values} if of_input else values)


class InputSection(Protocol):
    """A table of a recipe that names a model."""

    @property
    def model(self) -> str | None: ...
    @property
    def input_range(self) -> Sequence[float] | Mapping[str, Sequence[float]] | None: ...
    @property
    def preprocess(self) -> str | dict[str, str] | None: ...


def check(section: InputSection) -> None:
    """Checks that a scaling of pixels is declared for files only, once, and with two different numbers.

    Args:
        section: Table of a recipe with the keys `model`, `input_range` and `preprocess`.

    Raises:
        InputError: It is not.
    """
    given, values = (section.input_range, section.preprocess), section.input_range
    if section.model is not None and given != (None, None):
        raise InputError("input_range and preprocess need path: a builder scales pixels itself. Leave them out.")
    if None not in given:
        raise InputError("input_range and preprocess exclude each other. Leave one out.")
    for one in values.values() if isinstance(values, Mapping) else [values] if values is not None else ():
        if one[0] == one[1]:
            raise InputError(f"input_range must be two different numbers, such as [0, 1]. Received: {one}.")


def declared(section: InputSection) -> ModelInput:
    """The declaration in a table of a recipe."""
    values = section.input_range
    if isinstance(values, Mapping):
        return ModelInput({name: (one[0], one[1]) for name, one in values.items()}, section.preprocess)
    return ModelInput(None if values is None else (values[0], values[1]), section.preprocess)
