"""The inputs and outputs of a program.

The generated C takes and returns integers, each input and output of its own type. In a model with float inputs and
outputs, the first ops are QUANTIZE and the last ones DEQUANTIZE. They are removed from the graph and left to the
caller: to `tfkd_<name>_quantize` and `tfkd_<name>_dequantize` in the C header, and to `IOTensor` here. Both round as
AffineQuantize and Dequantize in TensorFlow Lite Micro's reference_ops do: halves away from 0, then the zero point is
added, then the sum is saturated. Beyond 2^31 quantization steps, where the interpreter's cast to an integer is
undefined, they saturate too. Shapes do not change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfkd.conversion.tflite import TensorInfo
from tfkd.errors import InputError, ModelError
from tfkd.micro.graph import Graph, Op, Tensor

_QUANTIZED = ("int8", "int16", "uint8")
_IO_TYPES = (*_QUANTIZED, "int32", "bool")


@dataclasses.dataclass(frozen=True)
class IOTensor:
    """An input or an output of a program.

    Args:
        tensor: The integer tensor.
        offset: Bytes from the start of the arena to the tensor.
    """

    tensor: Tensor
    offset: int

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Quantizes float32 values exactly as QUANTIZE does; integers are returned unchanged.

        Args:
            x: [N, ...] float32 values, or integers of the tensor's dtype.

        Returns:
            [N, ...] of the tensor's dtype.

        Raises:
            InputError: `x` holds NaN.
        """
        if x.dtype != np.float32:
            return x
        if np.isnan(x).any():
            raise InputError(f"features for {self.tensor.name!r} must be numbers. Received: NaN. Clean the data first.")
        limits = np.iinfo(self.tensor.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # infinities saturate
            scaled = x / np.float32(self.tensor.scale)
            rounded = np.trunc(scaled)
            rounded += np.where(np.abs(scaled - rounded) >= 0.5, np.sign(scaled), np.float32(0))
        return np.clip(rounded + np.float32(self.tensor.zero_point), limits.min, limits.max).astype(self.tensor.dtype)

    def dequantize(self, quantized: np.ndarray) -> np.ndarray:
        """The float32 values of quantized values, exactly as DEQUANTIZE computes them."""
        return (quantized.astype("float32") - np.float32(self.tensor.zero_point)) * np.float32(self.tensor.scale)


def remove_float_io(graph: Graph) -> Graph:
    """Removes QUANTIZE after float inputs and DEQUANTIZE before float outputs.

    The integer tensors between them become the graph's inputs and outputs, in the same order and with the same shapes.
    A float input stays where another op reads it too or two QUANTIZE ops give it different scales; a float output stays
    where another op reads it.

    Args:
        graph: A model.

    Returns:
        The graph without these ops.
    """
    renamed: dict[int, int] = {}
    inputs = []
    for i in graph.inputs:
        quantized = _quantized(graph, i)
        renamed |= dict.fromkeys(quantized, quantized[0]) if quantized else {}
        inputs.append(quantized[0] if quantized else i)
    read = {i for op in graph.ops for i in op.inputs}
    dequantized = {op.outputs[0]: op.inputs[0] for op in graph.ops if _converts(graph, op, "DEQUANTIZE")}
    dequantized = {i: source for i, source in dequantized.items() if i in graph.outputs and i not in read}
    ops = []
    for op in graph.ops:
        if op.outputs[0] not in dequantized and op.outputs[0] not in renamed:
            ops.append(dataclasses.replace(op, inputs=tuple(renamed.get(i, i) for i in op.inputs)))
    outputs = tuple(dequantized.get(i, i) for i in graph.outputs)
    return dataclasses.replace(
        graph, ops=tuple(ops), inputs=tuple(inputs), outputs=tuple(renamed.get(i, i) for i in outputs)
    )


def _quantized(graph: Graph, index: int) -> Sequence[int]:
    """The integer tensors that a float input is quantized to, all of one scale; none where the floats are needed."""
    readers = [op for op in graph.ops if index in op.inputs]
    if index in graph.outputs or not all(_converts(graph, op, "QUANTIZE") for op in readers):
        return ()
    found = [op.outputs[0] for op in readers]
    quantizations = {(t.dtype, t.scales, t.zero_points) for t in (graph.tensors[i] for i in found)}
    return found if len(quantizations) == 1 else ()


def _converts(graph: Graph, op: Op, kind: str) -> bool:
    """Whether an op only converts between float32 and an integer tensor of one scale and the same shape."""
    if op.kind != kind or len(op.inputs) != 1 or len(op.outputs) != 1 or op.inputs[0] < 0:
        return False
    source, output = (graph.tensors[i] for i in (op.inputs[0], op.outputs[0]))
    real, quantized = (source, output) if kind == "QUANTIZE" else (output, source)
    return (
        real.dtype == "float32"
        # TensorFlow Lite Micro dequantizes uint8 but does not quantize to it.
        and quantized.dtype in (("int8", "int16") if kind == "QUANTIZE" else _QUANTIZED)
        and len(quantized.scales) == 1
        and real.shape == quantized.shape
    )


def check_io(tensors: Sequence[Tensor | TensorInfo], ops: Sequence[Op] = ()) -> None:
    """Refuses inputs and outputs that the C functions cannot take.

    Args:
        tensors: The model's inputs and outputs.
        ops: The model's ops, of which messages name those that read or write such a tensor.

    Raises:
        ModelError: They are not int8, int16 or uint8 with at most one scale, nor int32 or bool.
    """
    for tensor in tensors:
        if tensor.dtype == "string":
            raise ModelError(
                f"micro.emit: inputs and outputs must be numbers. Received: {tensor.name!r} of strings. Compute token "
                "ids from the text in your own code, and convert a model that takes them."
            )
        if tensor.dtype not in _IO_TYPES or len(tensor.scales) > 1:
            remedy = "Cast it to int32 in the Keras model, or end the model before it."
            if tensor.dtype == "float32":
                remedy = (
                    "The model, or the part of it at that end, computes in floats. Convert the Keras model with "
                    "`tfkd convert --mode full_int8` or `int16x8`, and end it before an op that stays in floats."
                )
            raise ModelError(
                "micro.emit: inputs and outputs must be int8, int16, uint8, int32 or bool with at most one scale each, "
                f"or float32 with one QUANTIZE or DEQUANTIZE each. Received: {tensor.name!r} of {tensor.dtype} with "
                f"{len(tensor.scales)} scales{_beside(tensor, ops)}. {remedy}"
            )


def _beside(tensor: Tensor | TensorInfo, ops: Sequence[Op]) -> str:
    """The kinds of the ops that read or write a tensor, for a message."""
    kinds = {op.kind for op in ops if isinstance(tensor, Tensor) and tensor.index in (*op.inputs, *op.outputs)}
    return f", beside {', '.join(sorted(kinds))}" if kinds else ""
