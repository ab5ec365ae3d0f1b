"""The versions that a validation names: Python, the platform and the packages."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

_PACKAGES = ("tfkd", "tensorflow", "keras", "numpy", "ai-edge-litert", "tflite-micro")


def versions() -> Iterator[tuple[str, str]]:
    """The versions of Python, of the platform and of the packages that are installed."""
    yield "python", platform.python_version()
    yield "platform", platform.platform()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # tflite-micro has no wheel for some platforms
