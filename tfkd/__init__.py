"""Distil a Keras model, turn it into a .tflite and prove on the target device that it can ship."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfkd import data, features, losses, models, targets, teachers
    from tfkd.contract import Contract
    from tfkd.conversion import convert
    from tfkd.distiller import Distiller
    from tfkd.measurement import Measurement
    from tfkd.quantization import LiteRT
    from tfkd.report import write_report
    from tfkd.soft_labels import SoftLabels
    from tfkd.tflite import TFLiteModel
    from tfkd.validation import Validation, validate

__all__ = [
    "Contract",
    "Distiller",
    "LiteRT",
    "Measurement",
    "SoftLabels",
    "TFLiteModel",
    "Validation",
    "convert",
    "data",
    "features",
    "losses",
    "models",
    "targets",
    "teachers",
    "validate",
    "write_report",
]

__version__ = "0.1.0"

# Where the public names live that are no modules. All are imported on first use, so that `import tfkd` and
# `tfkd --help` load no TensorFlow.
_HOMES = {
    "Contract": "contract",
    "Distiller": "distiller",
    "LiteRT": "quantization",
    "Measurement": "measurement",
    "SoftLabels": "soft_labels",
    "TFLiteModel": "tflite",
    "Validation": "validation",
    "convert": "conversion",
    "validate": "validation",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfkd.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"tfkd.{name}")
    raise AttributeError(f"module 'tfkd' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
