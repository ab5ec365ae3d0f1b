"""The request of a data set: its name or path, and the options with which its files are read."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tfkd.errors import InputError

COLORS = ("rgb", "gray")
# Filters of Pillow. All but nearest average over the pixels that a smaller image leaves out (antialiasing).
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
# The filter of TensorFlow and Keras, see `tfkd.data.interpolation`.
ALIASED = "bilinear_aliased"
RESIZES = (*FILTERS, ALIASED)
CROPS = ("none", "center", "pad")
FEATURES = ("none", "log_mel", "mfcc")
CONTENTS = ("image", "caption")


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How the files of a data set are read.

    Args:
        image_size: (height, width) in pixels of all images; None if all files have one size.
        color: `rgb` or `gray`; None for gray if all files are, else rgb.
        resize: One of `RESIZES`: a filter of Pillow, all but `nearest` antialiased; or `bilinear_aliased`, which
            interpolates between four pixels, as `keras.utils.image_dataset_from_directory` does.
        crop: How an image of another shape than `image_size` fits: `none` stretches it, `center` cuts its longer side
            off equally at both ends, `pad` adds black borders.
        skip_broken: Whether a file that cannot be read is left out and counted, instead of being an error.
        sample_rate: Sample rate in Hz to which sounds are resampled; None if all files have one rate.
        seconds: Length to which sounds are cut, or padded with zeros, at the end; None if all files have one length.
        features: `none` for the samples of a sound, -1..1, or `log_mel` or `mfcc`, see
            `tfkd.data.sound_features.definition`.
        mel_bands: Number of bands of `log_mel`, which `mfcc` is computed from.
        coefficients: Number of coefficients of `mfcc`, at most mel_bands.
        frame_ms: Length of a frame of the features, in milliseconds.
        hop_ms: Time from one frame to the next, in milliseconds.
        x_feature: Feature of a TFRecord that holds the sample, or several with commas between their names.
        y_feature: Feature of a TFRecord that holds the class, an int64 or a text, or the label of another task.
        x_shape: Shape of one sample of a TFRecord of numbers, or of the raw bytes of a uint8 array; None for flat
            numbers and encoded images.
        sample_count: Number of samples of a generated data set; None for its default.
        content: What x of a generated data set is: `image`, or `caption` for the token ids of its caption.

    Raises:
        InputError: An option is out of range, resize or crop have no `image_size`, or an option of features is given
            without them.
    """

    image_size: tuple[int, int] | None = _option(
        None, "Height and width in pixels to which images are resized. By default all files must have one size."
    )
    color: str | None = _option(
        None, "Color of images: rgb or gray. By default gray if all files are gray, otherwise rgb."
    )
    resize: str = _option("bilinear", f"Filter that resizes images: {', '.join(RESIZES)}.")
    crop: str = _option(
        "none",
        "How an image of another aspect ratio fits: none stretches it, center cuts off its longer side, pad adds black "
        "borders.",
    )
    skip_broken: bool = _option(False, "Leave out files that cannot be read, and count them.")
    sample_rate: int | None = _option(
        None, "Sample rate in Hz to which sounds are resampled. By default all files must have one rate."
    )
    seconds: float | None = _option(
        None, "Length to which sounds are cut or padded at their end. By default all files must have one length."
    )
    features: str = _option("none", "Features of sounds: none for the samples themselves, log_mel, or mfcc.")
    mel_bands: int = _option(40, "Number of bands of log_mel, which mfcc is computed from.")
    coefficients: int = _option(13, "Number of coefficients of mfcc, at most the number of bands.")
    frame_ms: float = _option(30.0, "Length of a frame of log_mel or mfcc, in milliseconds.")
    hop_ms: float = _option(20.0, "Time from one frame of log_mel or mfcc to the next, in milliseconds.")
    x_feature: str = _option(
        "x", "Feature of a TFRecord that holds the sample: an encoded image, or numbers; a,b,c: several."
    )
    y_feature: str = _option("y", "Feature of a TFRecord that holds the class, a whole number or text, or value.")
    x_shape: tuple[int, ...] | None = _option(
        None, "Shape of one sample of a TFRecord of numbers. By default the numbers are a vector."
    )
    sample_count: int | None = _option(None, "Number of samples of the generated data set shapes. By default 2000.")
    content: str = _option("image", "What the samples of shapes are: image, or caption for token ids of its caption.")

    def __post_init__(self) -> None:
        size = self.image_size
        if size is not None:
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                raise InputError(
                    f"load: image_size must be two numbers > 0, height and width. Received: {size}. "
                    "Use image_size=(96, 96)."
                )
            object.__setattr__(self, "image_size", tuple(size))
        for name in ("sample_rate", "seconds", "mel_bands", "coefficients", "frame_ms", "hop_ms", "sample_count"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"load: {name} must be > 0. Received: {value}. Correct it.")
        choices = (
            *(("color", (*COLORS, None)), ("resize", RESIZES), ("crop", CROPS)),
            *(("features", FEATURES), ("content", CONTENTS)),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                names = ", ".join(one for one in known if one)
                raise InputError(f"load: {name} must be one of {names}. Received: {getattr(self, name)!r}. Choose one.")
        unused = [name for name in ("resize", "crop") if getattr(self, name) != _DEFAULTS[name]]
        if size is None and unused:
            raise InputError(
                f"load: {unused[0]} needs the size to which images are resized. Received: no image_size. "
                "Add image_size=(96, 96)."
            )
        self._check_features()

    def _check_features(self) -> None:
        used = {"none": (), "log_mel": _LOG_MEL, "mfcc": (*_LOG_MEL, "coefficients")}[self.features]
        unused = [name for name in (*_LOG_MEL, "coefficients") if name in self.given and name not in used]
        if unused:
            needed = "mfcc" if unused[0] == "coefficients" else "mfcc and log_mel"
            raise InputError(
                f"load: {unused[0]} is an option of {needed}. Received: features={self.features!r}. Pass "
                f"features={needed.split()[-1]!r}."
            )
        if self.features == "mfcc" and self.coefficients > self.mel_bands:
            raise InputError(
                f"load: coefficients must be at most mel_bands, {self.mel_bands}. Received: {self.coefficients}. Use "
                "13."
            )

    @classmethod
    def of(cls, **options: Any) -> Self:
        """The options with some values.

        Raises:
            InputError: There is no such option, or a value is wrong.
        """
        for name in options:
            if name not in _DEFAULTS:
                near = difflib.get_close_matches(name, _DEFAULTS, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"Options: {', '.join(_DEFAULTS)}."
                raise InputError(f"load: {name} is no option. {hint}")
        return cls(**options)

    def check(self, known: Sequence[str], location: str) -> None:
        """Raises for an option without a meaning.

        Args:
            known: Names of the options that have a meaning.
            location: The data set, for the message.

        Raises:
            InputError: Another option does not have its default.
        """
        unused = [name for name in self.given if name not in known]
        if unused:
            raise InputError(
                f"load: {unused[0]} has no meaning for {location}. Received: {unused[0]}={getattr(self, unused[0])}. "
                "Leave it out."
            )

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that do not have their default."""
        return tuple(name for name, default in _DEFAULTS.items() if getattr(self, name) != default)


# Options of log_mel.
_LOG_MEL = ("mel_bands", "frame_ms", "hop_ms")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ReadingOptions)}
# Description of each option, for the command line and recipes.
HELP = {field.name: str(field.metadata["help"]) for field in dataclasses.fields(ReadingOptions)}


@dataclasses.dataclass(frozen=True)
class Request:
    """A data set and how it is read; `tfkd.data.load` takes it in place of a name or path.

    Args:
        reference: Name or path of the data set.
        options: How its files are read.
        labels: Kind of the labels, see `tfkd.data.label_kinds`; None to find it.
        task: Name of the task that the user declared, for the rooms after this one; None to find it.
    """

    reference: str
    options: ReadingOptions = ReadingOptions()
    labels: str | None = None
    task: str | None = None

    @classmethod
    def of(cls, data: str | os.PathLike[str] | Request, **options: Any) -> Request:
        """A request from a name or path with options, or a request itself.

        Raises:
            InputError: There is no such option, or a value is wrong.
        """
        if isinstance(data, Request):
            return dataclasses.replace(data, options=dataclasses.replace(data.options, **options))
        return cls(str(data), ReadingOptions.of(**options))

    @property
    def path(self) -> Path:
        """The reference as a path."""
        return Path(self.reference)

    @property
    def folder(self) -> Path:
        """The folder that the paths of the files are relative to."""
        return self.path if self.path.is_dir() else self.path.parent
