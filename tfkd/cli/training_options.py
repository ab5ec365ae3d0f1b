"""Options of the commands that train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tfkd._internal.types import JsonObject
from tfkd.cli.option_groups import Option, described, with_options
from tfkd.data import augmentations, mixing
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError

_AUGMENT_OPTION = "Argument of an augmentation, NAME.OPTION=VALUE, such as rotation.degrees=10; may be repeated."
_STORED = [name for name in augmentations.NAMES if name not in mixing.NAMES]

ModelOut = Annotated[Path, typer.Option("--out", help=".keras file to write.")]
TeacherFile = Annotated[
    Path,
    typer.Option(
        "--teacher", help="Trained teacher: a .keras or .h5 file or a SavedModel that returns logits or probabilities."
    ),
]
TeacherRange = Annotated[
    str | None,
    typer.Option(
        help="LOW,HIGH that the teacher expects for the pixels 0 and 255, such as 0,1; of one of several inputs "
        "NAME=LOW,HIGH. Default: 0,255."
    ),
]
TeacherPreprocess = Annotated[
    str | None,
    typer.Option(
        help="preprocess_input of keras.applications that the teacher expects, such as tf, caffe or resnet50."
    ),
]
StudentRange = Annotated[
    str | None,
    typer.Option(
        help="LOW,HIGH that the student's file expects for the pixels 0 and 255; of one of several inputs "
        "NAME=LOW,HIGH. Default: 0,255."
    ),
]
StudentPreprocess = Annotated[
    str | None, typer.Option(help="preprocess_input of keras.applications that the student's file expects.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per training step.")]
Augment = Annotated[
    list[str] | None,
    typer.Option(help=f"Augmentation of the views after the first: {', '.join(_STORED)}, or none; may be repeated."),
]
AugmentOption = Annotated[list[str] | None, typer.Option("--augment-option", help=_AUGMENT_OPTION)]


def augment_options(settings: Sequence[str] | None) -> dict[str, JsonObject]:
    """The arguments of augmentations by name, from `rotation.degrees=10`.

    Raises:
        InputError: A setting has another form.
    """
    found: dict[str, JsonObject] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        name, dot, option = name.rpartition(".")
        try:
            value = json.loads(text)
        except ValueError:
            equals = ""
        if not (dot and equals):
            raise InputError(
                f"--augment-option must be NAME.OPTION=VALUE. Received: {setting!r}. Use rotation.degrees=10."
            )
        found.setdefault(name, {})[option] = value
    return found


# Keys of a training configuration that have options, and the type of their values.
_KINDS: dict[str, Any] = {
    "epochs": int,
    "batch_size": int,
    "learning_rate": float | None,
    "optimizer": str | None,
    "momentum": float,
    "weight_decay": float | None,
    "schedule": str,
    "warmup": float | None,
    "clip_norm": float | None,
    "ema": float | None,
    "early_stopping": int | None,
    "label_smoothing": float,
    "class_weights": str | None,
    "precision": str,
    "label_loss": str | None,
    "metrics": list[str] | None,
    "callbacks": list[str] | None,
    "augment": list[str] | None,
    "augment_options": list[str] | None,
}
_REPEATED = {
    "metrics": "--metric", "callbacks": "--callback", "augment": "--augment", "augment_options": "--augment-option"
}  # fmt: skip
DEFAULTS = TrainingConfig()


def _option(name: str, kind: Any) -> Option:
    field = TrainingConfig.model_fields[name]
    text = (field.description or "").replace("Left out:", "Default:")
    if name == "class_weights":
        text = text.replace("a table such as { cat = 2.0 }", "NAME=WEIGHT with commas, such as cat=2,dog=0.5")
    if name == "augment_options":
        return described(kind, None, _AUGMENT_OPTION, _REPEATED[name])
    if name in _REPEATED:
        return described(kind, None, f"{text} May be repeated.", _REPEATED[name])
    return described(kind, field.default, text)


_OPTIONS = {name: _option(name, kind) for name, kind in _KINDS.items()}


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `config` of a command by one option per key of a training, such as `--weight-decay`.

    Args:
        command: Function with a parameter `config`, which receives the `TrainingConfig`.
    """
    return with_options(command, _OPTIONS, _receive, at="config")


def _receive(values: dict[str, Any]) -> Mapping[str, object]:
    from tfkd.recipes.recipe import training_config

    values |= {name: values[name] or [] for name in _REPEATED}
    values["augment"] = [name for name in values["augment"] if name != "none"] or "none"
    values["augment_options"] = augment_options(values["augment_options"])
    if values["class_weights"] not in (None, "balanced"):
        values["class_weights"] = _weights(values["class_weights"])
    return {"config": training_config(**values)}


def _weights(text: str) -> dict[str, float]:
    """The weights of `cat=2,dog=0.5`."""
    found = {}
    for pair in text.split(","):
        name, _, number = pair.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(
                f"--class-weights must be balanced, or NAME=WEIGHT with commas. Received: {text!r}. Use cat=2,dog=0.5."
            )
    return found


def logging_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `loggers` of a command by `--tensorboard` and `--mlflow`.

    Args:
        command: Function with a parameter `loggers`, which receives the `Loggers`.
    """
    return with_options(command, _LOGGING, _loggers, at="loggers")


_LOGGING = {
    "tensorboard": described(
        Path | None, None, "Folder for the logs of TensorBoard: the losses and metrics of each epoch."
    ),
    "mlflow": described(
        str | None,
        None,
        "Tracking URI of MLflow for settings and logs: a server such as http://localhost:5000, or a database such as "
        "sqlite:///mlflow.db. Needs the extra mlflow.",
    ),
}


def _loggers(values: dict[str, Any]) -> Mapping[str, object]:
    if not any(values.values()):
        return {"loggers": None}
    from tfkd.distillation.loggers import Loggers

    return {"loggers": Loggers(**values)}
