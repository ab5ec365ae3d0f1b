"""Distil a Keras model, turn it into a .tflite and prove on the target device that it can ship."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that `import tfkd` and `tfkd --help` load no
# TensorFlow.
_HOMES = {
    "Contract": "validation",
    "Distiller": "distiller",
    "Measurement": "measurement",
    "TFLiteModel": "tflite",
    "Validation": "validation",
    "convert": "conversion",
    "validate": "validation",
    "write_report": "report",
}
_MODULES = {
    "conversion", "data", "distiller", "losses", "measurement", "models", "recipe", "report", "targets", "tflite",
    "validation",
}  # fmt: skip

__all__ = sorted([*_HOMES, *(_MODULES - {"conversion", "recipe", "report", "validation"})])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfkd.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"tfkd.{name}")
    raise AttributeError(f"module 'tfkd' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
