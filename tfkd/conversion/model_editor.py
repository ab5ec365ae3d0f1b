"""Changes of a .tflite that tfkd has written itself: ops, tensors and constants as objects of the flatbuffer schema."""

from __future__ import annotations

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal.types import Tensor
from tfkd.conversion import tflite_writer

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
# Largest value of the old 8-bit field for an op's number.
_MAX_OLD_CODE = 127


class ModelEditor:
    """The first subgraph of a .tflite as objects, and the file that is packed from them.

    Args:
        content: The .tflite file.
    """

    def __init__(self, content: bytes) -> None:
        self.model = tflite_writer.read(content)
        self.graph = self.model.subgraphs[0]
        self.tensors: list[schema.TensorT] = self.graph.tensors

    def pack(self) -> bytes:
        """Returns the changed file."""
        needed = {*self.readers(), *(int(i) for op in self.graph.operators for i in op.outputs)}
        for index, tensor in enumerate(self.tensors):
            if index not in needed:
                tensor.buffer = 0  # the empty one: litert-quantizer fails on a constant that no op reads
        used = {tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self.model.metadata or ()}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None
        self._remove_unused_codes()
        return tflite_writer.write(self.model)

    def name(self, op: schema.OperatorT) -> str:
        """The op's name in the schema, such as `CONV_2D`."""
        code = self.model.operatorCodes[op.opcodeIndex]
        return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def new_op(self, name: str, inputs: list[int], outputs: list[int], options: object = None) -> schema.OperatorT:
        """An op that is not yet part of the graph; the type of `options` has the name of the schema with a final T."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code(getattr(schema.BuiltinOperator, name))
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options is not None:
            op.builtinOptions = options
            op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return op

    def insert(self, op: schema.OperatorT, *, before: Tensor) -> None:
        """Inserts an op before another one."""
        self.graph.operators.insert(next(i for i, each in enumerate(self.graph.operators) if each is before), op)

    def remove(self, op: schema.OperatorT) -> None:
        """Removes an op."""
        self.graph.operators = [each for each in self.graph.operators if each is not op]

    def copy_tensor(self, index: int, suffix: str) -> int:
        """Appends a tensor with the type, shape, range and buffer of another one, and returns its index."""
        tensor = copy.copy(self.tensors[index])
        tensor.name += suffix.encode()
        tensor.quantization = copy.copy(tensor.quantization)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def is_activation(self, index: int) -> bool:
        """Whether a tensor is computed or an input, not a constant and not an omitted input (-1)."""
        return index >= 0 and not self._has_data(index)

    def constant(self, index: int) -> np.ndarray:
        """The values of a constant as an array [size]."""
        tensor = self.tensors[index]
        return np.frombuffer(bytes(self.model.buffers[tensor.buffer].data), _DTYPES[tensor.type])

    def set_constant(self, index: int, values: np.ndarray) -> None:
        """Gives a tensor a new buffer, since tensors may share one; its type follows from the values."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.tensors[index].buffer = len(self.model.buffers) - 1
        self.tensors[index].type = next(code for code, dtype in _DTYPES.items() if dtype == values.dtype)

    def replace_constant(
        self, op: schema.OperatorT, position: int, values: np.ndarray, scales: np.ndarray | None = None
    ) -> None:
        """Gives one op another constant; other ops that read the same tensor keep the old one.

        Args:
            op: The op.
            position: Position of the constant among the op's inputs.
            values: The new values; their type becomes the tensor's.
            scales: The new quantization scales, if there are any.
        """
        index = int(op.inputs[position])
        if self.readers()[index] > 1:
            index = self.copy_tensor(index, f"/own{len(self.tensors)}")
            self.set_input(op, position, index)
        self.set_constant(index, values)
        if scales is not None:
            self.tensors[index].quantization.scale = scales.astype(np.float32)

    def replace_int4(self, op: schema.OperatorT, position: int, values: np.ndarray, scales: np.ndarray) -> None:
        """Gives one op other weights of 4 bits, two in a byte with the first in the lower half.

        Args:
            op: The op, whose weights have 4 bits.
            position: Position of the weights among the op's inputs.
            values: The new values, -8..7.
            scales: The new quantization scales.
        """
        index = int(op.inputs[position])
        if self.readers()[index] > 1:
            index = self.copy_tensor(index, f"/own{len(self.tensors)}")
            self.set_input(op, position, index)
        nibbles = values.astype(np.int8).ravel().view(np.uint8) & 15
        nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
        self.set_constant(index, (nibbles[0::2] | nibbles[1::2] << 4).view(np.int8))
        self.tensors[index].type = schema.TensorType.INT4
        self.tensors[index].quantization.scale = scales.astype(np.float32)

    def set_input(self, op: schema.OperatorT, position: int, index: int) -> None:
        """Lets an op read another tensor."""
        op.inputs = op.inputs.copy()  # arrays that were read from a file cannot be written
        op.inputs[position] = index

    def new_constant(self, values: np.ndarray, name: str) -> int:
        """Appends a constant without quantization, and returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(values.shape, np.int32)
        self.tensors.append(tensor)
        self.set_constant(len(self.tensors) - 1, values)
        return len(self.tensors) - 1

    def readers(self) -> dict[int, int]:
        """The number of readers by tensor index; the model's inputs and outputs are read by its caller."""
        counts: dict[int, int] = {}
        for indices in (*(op.inputs for op in self.graph.operators), self.graph.inputs, self.graph.outputs):
            for index in indices:
                counts[int(index)] = counts.get(int(index), 0) + 1
        return counts

    def _has_data(self, index: int) -> bool:
        data = self.model.buffers[self.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _remove_unused_codes(self) -> None:
        ops = [op for graph in self.model.subgraphs for op in graph.operators]
        used = sorted({op.opcodeIndex for op in ops})
        for op in ops:
            op.opcodeIndex = used.index(op.opcodeIndex)
        self.model.operatorCodes = [self.model.operatorCodes[index] for index in used]

    def _code(self, builtin: int) -> int:
        codes = self.model.operatorCodes
        for index, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, _MAX_OLD_CODE), 1
        codes.append(code)
        return len(codes) - 1
