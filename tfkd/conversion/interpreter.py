"""Op-by-op execution of a .tflite: all intermediate tensors stay readable after a sample has run.

It runs native code on the model, which may crash: call it in a child process only (`tfkd._internal.isolation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfkd.conversion.litert import SampleInterpreter, needs_restart
from tfkd.conversion.tflite import TFLiteModel

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


class TensorRecorder:
    """A LiteRT interpreter that keeps all intermediate tensors of the last sample.

    Delegates are off, since a delegate such as XNNPACK replaces ops by its own and does not write their tensors. Each
    sample is computed from the initial state of the model.

    Args:
        content: The .tflite file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._runner = SampleInterpreter(self._start, restart=needs_restart(TFLiteModel(content).ops))

    def run(self, inputs: Sequence[np.ndarray]) -> Callable[[int], np.ndarray]:
        """Runs one sample.

        Args:
            inputs: One array per input of the model, of its shape and type.

        Returns:
            A function from a tensor index to a copy of the tensor's raw values. It is valid until the next run.
        """
        self._runner.invoke(inputs)
        read: Callable[[int], np.ndarray] = self._runner.interpreter.get_tensor
        return read

    def _start(self) -> Interpreter:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=self._content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        return interpreter
