"""The tables of a recipe file."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from tfkd._internal.types import JsonObject
from tfkd.conversion.quantizer import QuantizerSettings, select
from tfkd.data.reading import HELP, ReadingOptions, Request
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError
from tfkd.optimization import METHODS, check_training
from tfkd.recipes.model_input import INPUT_RANGE, PREPROCESS, ModelInput, Preprocess, Range, check, declared
from tfkd.recipes.paths import BuilderOptions, RecipePath, expand, weights_files
from tfkd.recipes.section import Section

Mode = Literal["float32", "float16", "dynamic_range", "full_int8", "int16x8"]


class Source(Section):
    """A data set: a name or a path."""

    name: str | None = Field(
        default=None,
        examples=["digits"],
        description="Name of a data set: digits, the generated shapes, vibration, "
        "gestures, gaits and commands, mnist, fashion_mnist, cifar10, cifar100, or tfds:NAME of "
        "TensorFlow Datasets.",
    )
    path: RecipePath | None = Field(
        default=None,
        examples=["data.npz"],
        description="Path of a data set instead of a name: a .npz file with x_train, y_train, x_test and y_test, a "
        "manifest (.csv, .jsonl), a .tfrecord file or folder of them, or a folder with one folder of images or sounds "
        "per class.",
    )
    image_size: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, examples=[[96, 96]], min_length=2, max_length=2, description=HELP["image_size"]
    )
    color: str | None = Field(default=None, examples=["rgb"], description=HELP["color"])
    resize: str = Field(default="bilinear", description=HELP["resize"])
    crop: str = Field(default="none", description=HELP["crop"])
    skip_broken: bool = Field(default=False, description=HELP["skip_broken"])
    sample_rate: int | None = Field(default=None, examples=[16000], description=HELP["sample_rate"])
    seconds: float | None = Field(default=None, examples=[1.0], description=HELP["seconds"])
    features: str = Field(default="none", description=HELP["features"])
    mel_bands: int = Field(default=40, description=HELP["mel_bands"])
    coefficients: int = Field(default=13, description=HELP["coefficients"])
    frame_ms: float = Field(default=30.0, description=HELP["frame_ms"])
    hop_ms: float = Field(default=20.0, description=HELP["hop_ms"])
    x_feature: str = Field(default="x", description=HELP["x_feature"])
    y_feature: str = Field(default="y", description=HELP["y_feature"])
    x_shape: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, examples=[[28, 28, 1]], min_length=1, description=HELP["x_shape"]
    )
    sample_count: int | None = Field(default=None, examples=[500], description=HELP["sample_count"])
    content: str = Field(default="image", description=HELP["content"])

    @pydantic.model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise InputError("give either name (such as 'digits') or path (a .npz file or a folder).")
        self.request()
        return self

    def request(self) -> Request:
        """The data set in the form that `tfkd.data.load` takes.

        Raises:
            InputError: An option is out of range.
        """
        given = self.model_dump(include=set(HELP))
        given |= {name: tuple(given[name]) for name in ("image_size", "x_shape") if given[name] is not None}
        options = ReadingOptions(**given)
        return Request(self.name if self.name is not None else expand(self.path or ""), options)


class TeacherData(Source):
    """The teacher's data, if it differs from the student's: another resolution, or another modality."""

    pair: Literal["row", "label"] = Field(
        default="row",
        description="How teacher samples belong to student samples. row: sample i of both; label: a random sample of "
        "the same class, another one in each epoch.",
    )


class Data(Source):
    """The data set that the student is trained and validated on."""

    validation: float = Field(default=0.1, gt=0, lt=1, description="Share of the training split used for validation.")
    teacher: TeacherData | None = Field(default=None, description=(TeacherData.__doc__ or "").strip())


class Teacher(TrainingConfig):
    """The teacher: a builder that is trained on labels, or trained .keras files."""

    model: str | None = Field(
        default=None,
        examples=["digits_teacher"],
        description="Builder of tfkd.models, or module:function of your own; it is trained on labels first.",
    )
    epochs: int = Field(
        default=20,
        ge=0,
        description="Passes over the training split. 0: the weights that the builder loads by its option weights stay "
        "as they are.",
    )
    options: BuilderOptions = Field(default={}, description="Arguments of the builder.")
    path: RecipePath | None = Field(
        default=None,
        examples=["teacher.keras"],
        description="A trained teacher instead: a .keras or .h5 file or a SavedModel, with logits or probabilities.",
    )
    paths: list[RecipePath] | None = Field(
        default=None,
        examples=[["first.keras", "second.keras"]],
        min_length=2,
        description="Several trained teachers instead: .keras or .h5 files. Their mean probabilities teach.",
    )

    input_range: Range | None = INPUT_RANGE
    preprocess: Preprocess | None = PREPROCESS

    @pydantic.model_validator(mode="after")
    def _check_built_or_loaded(self) -> Self:
        check(self)
        given = [name for name in ("model", "path", "paths") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("give either model (a builder that is trained) or path or paths (trained .keras files).")
        if given != ["model"] and (others := self.model_fields_set - {*given, "input_range", "preprocess"}):
            rest = ", ".join(sorted(others))
            raise InputError(f"a teacher with {given[0]} is not trained. Leave out {rest}.")
        if self.epochs == 0 and ":" not in (self.model or "") and not self.options.get("weights"):
            raise InputError(
                f"epochs = 0 would leave the random weights of {self.model} as they are. Add options = "
                '{ weights = "imagenet" }, or train it.'
            )
        return self

    @property
    def input(self) -> ModelInput:
        """What the trained teachers expect for the pixels of images."""
        return declared(self)

    @property
    def files(self) -> list[Path]:
        """The trained teachers; empty if the teacher is trained by the run."""
        return [Path(expand(path)) for path in self.paths or ([self.path] if self.path is not None else [])]

    @property
    def weights_files(self) -> list[Path]:
        """The file from which the builder loads its weights; empty if there is none."""
        return weights_files(self.model, self.options)


class Student(Section):
    """The student: a builder, or a .keras file that is trained further."""

    model: str | None = Field(
        default=None,
        examples=["resnet8"],
        description="Builder of tfkd.models, such as resnet8 or mobilenet_v2, or module:function of your own.",
    )
    options: BuilderOptions = Field(default={}, description="Arguments of the builder.")
    path: RecipePath | None = Field(
        default=None,
        examples=["student.keras"],
        description="A .keras or .h5 file to start from instead of a builder, with its weights.",
    )
    input_range: Range | None = INPUT_RANGE
    preprocess: Preprocess | None = PREPROCESS
    inherit: RecipePath | None = Field(
        default=None,
        examples=["teacher.keras"],
        description="A .keras file, such as the teacher, whose weights some layers of a built student start from.",
    )
    layers: dict[str, str] = Field(
        default={},
        description="Which layers inherit: regular expression of the student's layer name = name in the other model.",
    )

    @pydantic.model_validator(mode="after")
    def _check_built_or_loaded(self) -> Self:
        check(self)
        if (self.model is None) == (self.path is None) or (self.path is not None and self.options):
            raise InputError("give either model (a builder, with its options) or path (a .keras file to start from).")
        if (self.inherit is None) != (not self.layers) or (self.inherit and self.path):
            raise InputError("inherit and layers need each other and a student with model. Give all three or neither.")
        return self

    @property
    def input(self) -> ModelInput:
        """What the file that the student starts from expects for the pixels of images."""
        return declared(self)

    @property
    def file(self) -> Path | None:
        """The model that the student starts or inherits from; None if it does not."""
        source = self.path or self.inherit
        return None if source is None else Path(expand(source))

    @property
    def files(self) -> list[Path]:
        """All files that the initial weights depend on."""
        return [*([self.file] if self.file else []), *weights_files(self.model, self.options)]


class Conversion(Section):
    """The conversion of the distilled student to .tflite."""

    modes: list[Mode] = Field(
        default=["full_int8"],
        min_length=1,
        description="Precisions to convert to: float32, float16, dynamic_range, full_int8, int16x8.",
    )
    ship: str = Field(
        default="full_int8",
        description="The model that the contract applies to: one of modes, or the method of an optimization.",
    )
    output: Literal["logits", "softmax"] = Field(
        default="logits", description="What the .tflite models return: logits or softmax."
    )
    calibration_samples: int = Field(
        default=256, ge=1, description="Training samples from which the ranges of activations are measured."
    )
    quantizer: Literal["tensorflow", "litert"] | None = Field(
        default=None,
        examples=["litert"],
        description="Quantizer of dynamic_range, full_int8 and int16x8: tensorflow or litert. Left out: litert if a "
        "key below needs it.",
    )
    range: Literal["min_max", "percentile", "mse"] = Field(
        default="min_max",
        description="How ranges of activations are chosen: min_max, percentile (clips outliers) or mse (least squared "
        "error).",
    )
    refine: bool = Field(
        default=False,
        description="Whether full_int8 changes activation ranges, channel scales, weight rounding and biases where "
        "that makes the outputs on the calibration samples more exact; the conversion takes longer. Needs full_int8 "
        "among modes.",
    )
    keep_float: list[str] = Field(default=[], description="Regular expressions of layer names that stay in float.")
    int16: list[str] = Field(default=[], description="Regular expressions of layer names with int16 activations.")
    int4: list[str] = Field(default=[], description="Regular expressions of layer names with int4 weights.")
    allow_mismatch: bool = Field(
        default=False,
        description="Whether a .tflite that does not compute what the Keras model computes is accepted, with a finding "
        "in the report.",
    )

    @pydantic.model_validator(mode="after")
    def _check_quantizer(self) -> Self:
        self.quantizer_settings()
        return self

    @pydantic.model_validator(mode="after")
    def _check_modes(self) -> Self:
        missing = self.ship in typing.get_args(Mode) and self.ship not in self.modes
        if len(set(self.modes)) < len(self.modes) or missing:
            raise InputError(f"modes must be unique and contain ship ({self.ship!r}). Received: {self.modes}.")
        if self.refine and "full_int8" not in self.modes:
            raise InputError(
                f"refine changes full_int8, which modes lacks. Received: {self.modes}. Add full_int8, or leave refine "
                "out."
            )
        return self

    def quantizer_settings(self) -> QuantizerSettings | None:
        """Settings of the LiteRT quantizer; None for TensorFlow's converter.

        Raises:
            InputError: The options exclude each other.
        """
        return select(self.quantizer, ranges=self.range, keep_float=self.keep_float, int16=self.int16, int4=self.int4)


class Optimization(TrainingConfig):
    """Further training of the distilled student for its target: quantization-aware training, pruning, clustering.

    Several, as `[[optimization]]`, follow one another: prune, then cluster, then train for int8.
    """

    method: str = Field(
        examples=["qat"],
        description=f"One of {', '.join(METHODS)}; also the name of the model in the report and for conversion.ship.",
    )
    options: JsonObject = Field(default={}, description="Arguments of the method, such as { sparsity = 0.5 }.")
    epochs: int = Field(default=3, ge=1, description="Passes over the training split.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Highest learning rate; see schedule.")

    @pydantic.field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in METHODS:
            raise InputError(f"must be one of {', '.join(METHODS)}. Received: {method!r}.")
        return method

    @pydantic.model_validator(mode="after")
    def _check_training(self) -> Self:
        check_training(self.method, self)
        return self


class Targets(Section):
    """Where the .tflite models run."""

    names: list[str] | None = Field(
        default=None,
        examples=[["host", "tflm"]],
        min_length=1,
        description="Targets, such as host, tflm, arm64, cortex-m4:nrf52840 or android. A missing tool is an error. "
        "Left out: host and tflm, as far as this platform has them.",
    )
    optional: list[str] = Field(
        default=[], description="More targets. One whose tools are not installed is reported as unavailable."
    )
    accelerators: list[str] = Field(
        default=[],
        description="Accelerators on which the product will run, such as edgetpu, gpu or ethos-u55-128; see `tfkd npu "
        "--help`. `tfkd doctor` estimates how much of the student they take.",
    )

    @pydantic.field_validator("accelerators")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        from tfkd.targets import npu

        if unknown := [name for name in names if name not in npu.names()]:
            raise InputError(f"must be of {', '.join(npu.names())}. Received: {unknown[0]!r}.")
        return names
