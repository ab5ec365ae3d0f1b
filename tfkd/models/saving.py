"""Saving of trained models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def save(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Saves a model without losses, metrics and optimizer, which Keras could not load without tfkd.

    Args:
        model: The model; it stays compiled.
        path: `.keras` file.
    """
    if not model.compiled:  # such a student of a `Distiller` has no optimizer either
        model.save(path)
        return
    optimizer, model.optimizer, model.compiled = model.optimizer, None, False
    try:
        model.save(path)
    finally:
        model.optimizer, model.compiled = optimizer, True
