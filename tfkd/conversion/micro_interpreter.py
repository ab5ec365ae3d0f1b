"""TensorFlow Lite Micro: outputs of a .tflite, each from the initial state of the model.

It runs native code on the model, which may crash: call it in a child process only (`tfkd._internal.isolation`).
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

if TYPE_CHECKING:
    from tflite_micro import runtime

# Far more than any microcontroller has; untouched pages of it take no memory.
_ARENA_BYTES = 256 << 20


def load() -> None:
    """Imports TensorFlow Lite Micro."""
    importlib.import_module("tflite_micro")


class MicroInterpreter:
    """An interpreter that computes each sample from the initial state of the model.

    Args:
        model: The .tflite.
        copy: A .tflite that differs from it in the values of its constants only; it runs instead.
    """

    def __init__(self, model: TFLiteModel, copy: bytes | None = None) -> None:
        self._content, self._outputs = copy or model.content, len(model.outputs)
        self._shapes = [tensor.shape for tensor in model.inputs]
        self._restart = not _reset_restores_variables(model)
        self.interpreter = self._start()

    def invoke(self, inputs: Sequence[np.ndarray], *, continued: bool = False) -> list[np.ndarray]:
        """Computes one sample.

        Args:
            inputs: One array for each input of the model, of its type and number of values.
            continued: Whether it starts from the state that the call before left, instead of the initial one.

        Returns:
            One array for each output of the model, of shape [1] for a scalar.
        """
        if self._restart and not continued:
            self.interpreter = self._start()
        if not continued:
            self.interpreter.reset()
        for index, (array, shape) in enumerate(zip(inputs, self._shapes, strict=True)):
            self.interpreter.set_input(np.reshape(array, shape), index)
        self.interpreter.invoke()
        return [np.atleast_1d(self.interpreter.get_output(index)) for index in range(self._outputs)]

    def _start(self) -> runtime.Interpreter:
        from tflite_micro import runtime

        try:
            return runtime.Interpreter.from_bytes(self._content, arena_size=_ARENA_BYTES)
        except (IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
            # It reads the tables of a damaged file in Python.
            raise ModelError(f"TensorFlow Lite Micro cannot read the file: {error}. Make the file again.") from None


def _reset_restores_variables(model: TFLiteModel) -> bool:
    """Whether resource variables have their initial values after a reset, which sets them to 0 or their zero point.

    The values that CALL_ONCE assigns to them are constants of another subgraph. They are not assigned a second time.
    """
    root = schema.Model.GetRootAs(model.content, 0)
    for index, graph in enumerate(model.subgraphs):
        for op in graph.ops if index else ():
            if op.name == "ASSIGN_VARIABLE":
                value = op.inputs[1]
                buffer = root.Buffers(root.Subgraphs(index).Tensors(value).Buffer())
                default = np.array((graph.tensors[value].zero_points or (0,))[0]).astype("int8")
                if not buffer.DataLength() or (buffer.DataAsNumpy().view("int8") != default).any():
                    return False
    return True
