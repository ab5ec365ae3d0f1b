"""Distil a Keras model, turn it into a .tflite and prove on the target device that it can ship."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfkd import data, errors, losses, micro, models, optimization, targets
    from tfkd.conversion.converter import convert
    from tfkd.conversion.quantizer import QuantizerSettings
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.distillation import features, teachers
    from tfkd.distillation.distiller import Distiller
    from tfkd.distillation.labels.store import SoftLabels
    from tfkd.report import write_report
    from tfkd.targets.measurement import Measurement
    from tfkd.validation.contract import Contract
    from tfkd.validation.explanation import explain
    from tfkd.validation.validator import Validation, validate

__all__ = [
    "Contract",
    "Distiller",
    "Measurement",
    "QuantizerSettings",
    "SoftLabels",
    "TFLiteModel",
    "Validation",
    "convert",
    "data",
    "errors",
    "explain",
    "features",
    "losses",
    "micro",
    "models",
    "optimization",
    "targets",
    "teachers",
    "validate",
    "write_report",
]

__version__ = "0.1.0"

# The module of each public name that is not a room. All are imported on first use, so that `import tfkd` and
# `tfkd --help` load no TensorFlow.
_MODULES = {
    "Contract": "validation.contract",
    "Distiller": "distillation.distiller",
    "Measurement": "targets.measurement",
    "QuantizerSettings": "conversion.quantizer",
    "SoftLabels": "distillation.labels.store",
    "TFLiteModel": "conversion.tflite",
    "Validation": "validation.validator",
    "convert": "conversion.converter",
    "explain": "validation.explanation",
    "validate": "validation.validator",
    "write_report": "report",
}


# Modules that can also be imported from the top of the package: `from tfkd.features import Feature`.
_SHORT_NAMES = {
    "tfkd.augmentation": "tfkd.data.augmentation",
    "tfkd.features": "tfkd.distillation.features",
    "tfkd.teachers": "tfkd.distillation.teachers",
}


class _ShortName(types.ModuleType):
    """Stands for a module in another place, which is loaded when an attribute is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by tools that look at every module
            raise AttributeError(name)
        return getattr(importlib.import_module(_SHORT_NAMES[self.__name__]), name)


sys.modules.update({name: _ShortName(name) for name in _SHORT_NAMES})


def __getattr__(name: str) -> Any:
    if f"tfkd.{name}" in _SHORT_NAMES:
        return importlib.import_module(_SHORT_NAMES[f"tfkd.{name}"])
    if name in _MODULES:
        return getattr(importlib.import_module(f"tfkd.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"tfkd.{name}")
    raise AttributeError(f"module 'tfkd' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
