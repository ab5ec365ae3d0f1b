"""What an optimization method makes of a student."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from tfkd.conversion.tflite import TFLiteModel


@dataclasses.dataclass(frozen=True)
class Optimized:
    """A student on its way to its target.

    Args:
        model: a Keras model with the student's inputs, logits and layer names, to train as the student itself: as the
            `student` of a `tfkd.Distiller`, or alone.
        callbacks: to give to `fit`.
        export: called as `export(path, mode="full_int8", calibration=train)` after the training, with the options of
            `tfkd.convert` besides; writes the .tflite, whole or not at all, and returns it. It raises ValueError where
            the file does not answer as the trained model does.
        student: for methods that change weights alone: gives the trained student as a Keras model, to convert
            otherwise or to optimize further.
        outline: likewise: gives the student with its zeros or clusters, as if it were trained, to try what comes next.
        notes: what the method takes and what it leaves as it is, in sentences.
    """

    model: keras.Model
    callbacks: Sequence[keras.callbacks.Callback]
    export: Callable[..., TFLiteModel]
    student: Callable[[], keras.Model] | None = None
    outline: Callable[[], keras.Model] | None = None
    notes: tuple[str, ...] = ()
