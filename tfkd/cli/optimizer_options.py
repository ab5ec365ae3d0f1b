"""Command-line options for the optimizer of a training."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from tfkd.distillation.training_config import TrainingConfig

# Keys of a training configuration, and the type of their options.
_OPTIONS: dict[str, Any] = {
    "optimizer": str,
    "momentum": float,
    "weight_decay": float | None,
    "schedule": str,
    "warmup": float,
    "clip_norm": float | None,
}
DEFAULTS: Mapping[str, Any] = {name: TrainingConfig.model_fields[name].default for name in _OPTIONS}


def optimizer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `optimization_settings` of a command by one option per key, such as `--weight-decay`.

    Args:
        command: Function with a parameter `optimization_settings`, which receives the keys with their values.
    """
    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=DEFAULTS[name],
            annotation=Annotated[kind, typer.Option(help=TrainingConfig.model_fields[name].description)],
        )
        for name, kind in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def with_settings(**arguments: Any) -> None:
        settings = {name: arguments.pop(name, default) for name, default in DEFAULTS.items()}
        command(optimization_settings=settings, **arguments)

    parameters = []
    for name, parameter in signature.parameters.items():
        parameters += options if name == "optimization_settings" else [parameter]
    with_settings.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_settings
