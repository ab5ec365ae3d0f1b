"""The result of preparing a student for an optimization method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel


@dataclasses.dataclass(frozen=True)
class Optimized:
    """A student that is ready to be trained with an optimization method.

    Args:
        model: Keras model with the student's inputs, logits and layer names. Train it as the `student` of a
            `tfkd.Distiller`, or alone.
        callbacks: Callbacks that `fit` needs.
        export: Called after training as `export(path, mode="full_int8", calibration=train)`, with further options of
            `tfkd.convert`. Writes the .tflite atomically and returns it. Raises ModelError when the file and the
            trained model do not predict the same labels.
        student: Returns the trained student as a Keras model, for methods that change weights only; None for others.
        outline: Returns the student with zeros or clusters as if it were trained, to try the next method; None where
            `student` is None.
        notes: Which layers the method changes and which it leaves, as sentences.
    """

    model: keras.Model
    callbacks: Sequence[keras.callbacks.Callback]
    export: Callable[..., TFLiteModel]
    student: Callable[[], keras.Model] | None = None
    outline: Callable[[], keras.Model] | None = None
    notes: tuple[str, ...] = ()
