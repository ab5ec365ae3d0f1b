"""Where a model begins and ends. A program's own ends are integers; a float model's are its QUANTIZE and DEQUANTIZE.

These ops are taken out of the graph and left to the caller: to `tfkd_<name>_quantize` and `tfkd_<name>_dequantize` in
the C header, and here in NumPy. Both round as AffineQuantize and Dequantize in TensorFlow Lite Micro's reference_ops:
halves away from 0, then the zero point is added, saturated. Beyond 2^31 steps, where the interpreter's cast to an
integer is undefined, they saturate too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfkd.conversion.tflite import TensorInfo
from tfkd.errors import InputError
from tfkd.micro.graph import Graph, Op, Tensor


@dataclasses.dataclass(frozen=True)
class End:
    """An input or an output of a program.

    Args:
        tensor: its integers.
        place: bytes from the arena's start to it.
    """

    tensor: Tensor
    place: int

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Steps for float32 values, as QUANTIZE gives them; integers are returned as they are.

        Raises:
            ValueError: NaN.
        """
        if x.dtype != np.float32:
            return x
        if np.isnan(x).any():
            raise InputError(f"features for {self.tensor.name!r} must be numbers. Received: NaN. Clean the data first.")
        limits = np.iinfo(self.tensor.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # infinities saturate
            steps = x / np.float32(self.tensor.scale)
            whole = np.trunc(steps)
            whole += np.where(np.abs(steps - whole) >= 0.5, np.sign(steps), np.float32(0))
        return np.clip(whole + np.float32(self.tensor.zero_point), limits.min, limits.max).astype(self.tensor.dtype)

    def dequantize(self, steps: np.ndarray) -> np.ndarray:
        """float32 values of steps, as DEQUANTIZE gives them."""
        return (steps.astype("float32") - np.float32(self.tensor.zero_point)) * np.float32(self.tensor.scale)


def integer_ends(graph: Graph) -> Graph:
    """Takes QUANTIZE behind float inputs and DEQUANTIZE before float outputs out of a graph.

    Their integers become the graph's inputs and outputs, in the same order. Where a float end is read by anything
    else, or quantized in two ways, it stays.
    """
    renamed: dict[int, int] = {}
    inputs = []
    for i in graph.inputs:
        found = _quantized(graph, i)
        renamed |= dict.fromkeys(found, found[0]) if found else {}
        inputs.append(found[0] if found else i)
    read = {i for op in graph.ops for i in op.inputs}
    ends = {op.outputs[0]: op.inputs[0] for op in graph.ops if _converts(graph, op, "DEQUANTIZE")}
    ends = {i: of for i, of in ends.items() if i in graph.outputs and i not in read}
    ops = []
    for op in graph.ops:
        if op.outputs[0] not in ends and op.outputs[0] not in renamed:
            ops.append(dataclasses.replace(op, inputs=tuple(renamed.get(i, i) for i in op.inputs)))
    outputs = tuple(ends.get(i, i) for i in graph.outputs)
    return dataclasses.replace(
        graph, ops=tuple(ops), inputs=tuple(inputs), outputs=tuple(renamed.get(i, i) for i in outputs)
    )


def _quantized(graph: Graph, index: int) -> Sequence[int]:
    """The integer tensors that a float input becomes, all with the same steps; none where it is needed as it is."""
    readers = [op for op in graph.ops if index in op.inputs]
    if index in graph.outputs or not all(_converts(graph, op, "QUANTIZE") for op in readers):
        return ()
    found = [op.outputs[0] for op in readers]
    kinds = {(t.dtype, t.scales, t.zero_points) for t in (graph.tensors[i] for i in found)}
    return found if len(kinds) == 1 else ()


def _converts(graph: Graph, op: Op, kind: str) -> bool:
    """Whether an op only converts between float32 and integers of one step."""
    if op.kind != kind or len(op.inputs) != 1 or len(op.outputs) != 1 or op.inputs[0] < 0:
        return False
    source, output = (graph.tensors[i] for i in (op.inputs[0], op.outputs[0]))
    real, steps = (source, output) if kind == "QUANTIZE" else (output, source)
    return (
        real.dtype == "float32"
        and steps.dtype in ("int8", "int16")
        and len(steps.scales) == 1
        and real.shape == steps.shape
    )


def check_ends(ends: Sequence[Tensor | TensorInfo]) -> None:
    """Refuses inputs and outputs that the C functions cannot take.

    Raises:
        ValueError: they are not all int8 or all int16 with one step.
    """
    for tensor in ends:
        if tensor.dtype not in ("int8", "int16") or tensor.dtype != ends[0].dtype or len(tensor.scales) != 1:
            raise InputError(
                "micro.emit: inputs and outputs must be all int8 or all int16, or floats that one QUANTIZE or "
                f"DEQUANTIZE converts. Received: {tensor.name!r} of {tensor.dtype}. Convert with "
                "`tfkd convert --mode full_int8` or `int16x8`."
            )
