"""Op-by-op execution of a .tflite: all intermediate tensors stay readable after a sample has run.

It runs native code on the model, which may crash: call it in a child process only (`tfkd._internal.isolation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema


class TensorRecorder:
    """A LiteRT interpreter that keeps all intermediate tensors of the last sample.

    Delegates are off, since a delegate such as XNNPACK replaces ops by its own and does not write their tensors. State
    variables, such as those of an LSTM, are reset before each sample.

    Args:
        content: The .tflite file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        model = schema.Model.GetRootAs(content, 0)
        codes = {model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())}
        # LiteRT's reset clears variable tensors, but not the resource variables of layers with `stateful=True`.
        self._has_resources = schema.BuiltinOperator.VAR_HANDLE in codes
        self._interpreter = self._start()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]

    def run(self, inputs: Sequence[np.ndarray]) -> Callable[[int], np.ndarray]:
        """Runs one sample.

        Args:
            inputs: One array per input of the model, of its shape and type.

        Returns:
            A function from a tensor index to a copy of the tensor's raw values. It is valid until the next run.
        """
        if self._has_resources:
            self._interpreter = self._start()
        self._interpreter.reset_all_variables()
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        read: Callable[[int], np.ndarray] = self._interpreter.get_tensor
        return read

    def _start(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=self._content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        return interpreter
