"""Reads the tensors and ops of a .tflite from its flatbuffer, and checks every offset, length and index.

A .tflite is untrusted input. The generated flatbuffers code checks nothing, so a damaged file could make it return
garbage or loop over billions of items. No code of TensorFlow Lite runs here.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.errors import ModelError

# Largest number of vector items that are read from one file. Vectors of a damaged file may overlap, so that their
# lengths sum up to more than the file could hold; reading them would take hours.
_MAX_ITEMS = 5_000_000
# Tensors with more elements than this do not occur; such a shape is damage.
_MAX_ELEMENTS = 2**40

_DTYPES = {
    value: name.lower()
    for name, value in vars(schema.TensorType).items()
    if not name.startswith("_") and isinstance(value, int)
}
_OP_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
# Offset of `builtin_code` in the vtable of an OperatorCode.
_BUILTIN_CODE = 10
# Offset of `data` in the vtable of a Buffer.
_BUFFER_DATA = 4
_OPS_WITHOUT_OUTPUT = ("ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT")

# The custom op into which Arm's compiler Vela puts all that an NPU computes.
VELA = "ethos-u"
# The compilers for an accelerator that write such custom ops, and what runs these.
_COMPILED = {VELA: ("Vela", "an Ethos-U NPU"), "edgetpu-custom-op": ("edgetpu_compiler", "an Edge TPU")}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor of a .tflite.

    Args:
        name: Name of the tensor in the file.
        shape: Dimensions. An open one has the size that the file gives for it, which all engines take.
        dtype: Name of the NumPy type, such as `int8`; types that NumPy lacks have their name in the schema (`int4`).
        scales: Quantization step sizes, one per tensor or per channel; empty for floats; 0 where a file has no more
            than that for a tensor that is always 0.
        zero_points: Quantized values that stand for 0, as many as scales.
        quantized_dimension: Axis of the channels that the scales belong to.
        open_axes: Axes whose size may be changed before a run, often that of the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    quantized_dimension: int = 0
    open_axes: tuple[int, ...] = ()

    @property
    def has_batch_axis(self) -> bool:
        """Whether the first axis is that of the samples: it has size 1."""
        return self.shape[:1] == (1,)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: all dimensions but the batch axis, or all where there is none."""
        return self.shape[1:] if self.has_batch_axis else self.shape

    def check_numbers(self, where: str) -> None:
        """Refuses an input of a type that NumPy lacks, such as `string`.

        Args:
            where: Beginning of the message.

        Raises:
            ModelError: The type is not one of NumPy's.
        """
        try:
            np.dtype(self.dtype)
        except TypeError:
            raise ModelError(
                f"{where}: input {self.name!r} of the model must be of a type of NumPy. Received: {self.dtype}. "
                "Convert a model whose inputs are numbers, such as the token ids of a text."
            ) from None


@dataclasses.dataclass(frozen=True)
class OpInfo:
    """An op of a .tflite.

    Args:
        name: Name in the schema, such as `CONV_2D`; of a custom op, its custom code.
        inputs: Tensor indices; -1 for an optional input that is left out.
        outputs: Tensor indices.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TFLiteGraph:
    """A subgraph of a .tflite: the model itself, or the body of a loop or a branch.

    Args:
        tensors: All tensors, in the order of the file.
        constants: Size of each tensor's constant in bytes, 0 for an activation.
        ops: All ops, in the order of execution.
        inputs: Tensor indices of the subgraph's inputs.
        outputs: Tensor indices of the subgraph's outputs.
    """

    tensors: tuple[TensorInfo, ...]
    constants: tuple[int, ...]
    ops: tuple[OpInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def custom_ops(graphs: Iterable[TFLiteGraph]) -> list[str]:
    """Names of the custom ops of subgraphs, sorted."""
    return sorted({op.name for graph in graphs for op in graph.ops} - set(_OP_NAMES.values()))


def compiled(graphs: Iterable[TFLiteGraph]) -> str:
    """Why a file that a compiler made for an accelerator runs nowhere else, and what to do; empty for other files."""
    for op in custom_ops(graphs):
        if op in _COMPILED:
            compiler, accelerator = _COMPILED[op]
            return (
                f"{compiler} has compiled this file already: its op {op} holds commands that only {accelerator} runs. "
                f"Pass the file that {compiler} was given."
            )
    return ""


def read(content: bytes, where: str) -> tuple[TFLiteGraph, ...]:
    """Reads and checks all subgraphs.

    Args:
        content: The .tflite file.
        where: Path or name of the model, for the message.

    Returns:
        The subgraphs in the order of the file. The first is the model itself.

    Raises:
        ModelError: The file is damaged.
    """
    try:
        return _read(content)
    # What the generated code raises where a damaged file sends it.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
        raise ModelError(
            f"{where}: the .tflite file is damaged: {error or type(error).__name__}. Copy or convert it again."
        ) from None


class _ItemBudget:
    """Checks vector lengths. Vectors of an undamaged file do not overlap: in total they have fewer items than bytes."""

    def __init__(self, content: bytes) -> None:
        self.left = min(len(content), _MAX_ITEMS)

    def indices(self, length: int, what: str) -> range:
        """The indices of a vector of this length."""
        if not 0 <= length <= self.left:
            raise ModelError(f"{length} {what}")
        self.left -= length
        return range(length)


def _read(content: bytes) -> tuple[TFLiteGraph, ...]:
    model, budget = schema.Model.GetRootAs(content, 0), _ItemBudget(content)
    subgraphs = budget.indices(model.SubgraphsLength(), "subgraphs")
    codes = [_op_name(model.OperatorCodes(i)) for i in budget.indices(model.OperatorCodesLength(), "operator codes")]
    graphs = tuple(_graph(model, model.Subgraphs(i), codes, budget, len(content)) for i in subgraphs)
    if not graphs:
        raise ModelError("no subgraph")
    if not graphs[0].inputs or not graphs[0].outputs:
        raise ModelError("no input or no output")
    for tensor in (graphs[0].tensors[i] for i in (*graphs[0].inputs, *graphs[0].outputs)):
        if 0.0 in tensor.scales:
            raise ModelError(f"{tensor.name!r} with a scale of 0")
    return graphs


def _graph(
    model: schema.Model, graph: schema.SubGraph, codes: list[str], budget: _ItemBudget, limit: int
) -> TFLiteGraph:
    """Reads a subgraph of a file of `limit` bytes."""
    tensors, constants = [], []
    for i in budget.indices(graph.TensorsLength(), "tensors"):
        tensor = graph.Tensors(i)
        buffer = tensor.Buffer()
        if not 0 <= buffer < model.BuffersLength():
            raise ModelError(f"tensor {i} refers to buffer {buffer} of {model.BuffersLength()}")
        size = _buffer_size(model.Buffers(buffer), buffer, limit)
        tensors.append(_tensor(tensor, budget))
        constants.append(size)
    ops = [_op(graph.Operators(i), codes, len(tensors), budget) for i in budget.indices(graph.OperatorsLength(), "ops")]
    inputs = [graph.Inputs(i) for i in budget.indices(graph.InputsLength(), "inputs")]
    outputs = [graph.Outputs(i) for i in budget.indices(graph.OutputsLength(), "outputs")]
    return TFLiteGraph(
        tuple(tensors),
        tuple(constants),
        tuple(ops),
        _tensor_indices(inputs, len(tensors)),
        _tensor_indices(outputs, len(tensors)),
    )


def _buffer_size(buffer: schema.Buffer, index: int, limit: int) -> int:
    """The size of a buffer's data in bytes, all of which lie in the file."""
    size: int = buffer.DataLength()
    start = buffer._tab.Vector(buffer._tab.Offset(_BUFFER_DATA)) if size else 0
    if min(size, start) < 0 or start + size > limit:
        raise ModelError(f"buffer {index} has {size} bytes in a file of {limit}")
    return size


def _tensor_indices(values: list[int], tensors: int, *, optional: bool = False) -> tuple[int, ...]:
    for value in values:
        if not (0 <= value < tensors or (optional and value == -1)):
            raise ModelError(f"tensor index {value} of {tensors}")
    return tuple(values)


def _op_name(code: schema.OperatorCode) -> str:
    # An OperatorCode has an 8-bit field, which overflowed at op 127, and a 32-bit one. New files fill both, some only
    # the 32-bit one; there the generated BuiltinCode() returns 0, as it reads the 8-bit field for every small number.
    offset = code._tab.Offset(_BUILTIN_CODE)
    start = code._tab.Pos + offset
    wide = int.from_bytes(code._tab.Bytes[start : start + 4], "little", signed=True) if offset else 0
    number = max(wide, code.DeprecatedBuiltinCode())
    if number not in _OP_NAMES:
        raise ModelError(f"op code {number}")
    name = _OP_NAMES[number]
    return (code.CustomCode() or b"CUSTOM").decode(errors="replace") if name == "CUSTOM" else name


def _op(op: schema.Operator, codes: list[str], tensors: int, budget: _ItemBudget) -> OpInfo:
    inputs = [op.Inputs(i) for i in budget.indices(op.InputsLength(), "inputs of an op")]
    outputs = [op.Outputs(i) for i in budget.indices(op.OutputsLength(), "outputs of an op")]
    if not 0 <= op.OpcodeIndex() < len(codes):
        raise ModelError(f"op code index {op.OpcodeIndex()} of {len(codes)}")
    name = codes[op.OpcodeIndex()]
    if not outputs and name not in _OPS_WITHOUT_OUTPUT:
        raise ModelError(f"{name} without an output")
    return OpInfo(name, _tensor_indices(inputs, tensors, optional=True), _tensor_indices(outputs, tensors))


def _tensor(tensor: schema.Tensor, budget: _ItemBudget) -> TensorInfo:
    # The signature has -1 where a dimension is open; it is absent where all are fixed.
    signature = [int(tensor.ShapeSignature(i)) for i in budget.indices(tensor.ShapeSignatureLength(), "dimensions")]
    shape = tuple(int(tensor.Shape(i)) for i in budget.indices(tensor.ShapeLength(), "dimensions"))
    if any(d < -1 for d in (*shape, *signature)) or math.prod(abs(d) for d in shape) >= _MAX_ELEMENTS:
        raise ModelError(f"a tensor of shape {shape[:8]}")
    if tensor.Type() not in _DTYPES:
        raise ModelError(f"tensor type {tensor.Type()}")
    quantization, name = tensor.Quantization(), (tensor.Name() or b"").decode(errors="replace")
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis = 0
    if quantization is not None and quantization.ScaleLength():
        budget.indices(quantization.ScaleLength(), "scales")
        scales = tuple(quantization.ScaleAsNumpy().tolist())
        if budget.indices(quantization.ZeroPointLength(), "zero points"):
            zero_points = tuple(quantization.ZeroPointAsNumpy().tolist())
        else:
            zero_points = (0,) * len(scales)
        axis = quantization.QuantizedDimension()
        if len(zero_points) != len(scales):
            raise ModelError(f"{len(scales)} scales and {len(zero_points)} zero points of {name!r}")
        if not all(0 <= scale < math.inf for scale in scales):
            raise ModelError(f"scales {scales[:3]} of {name!r}, as of values that are not finite")
    open_axes = tuple(i for i, size in enumerate(signature) if size == -1)
    return TensorInfo(name, shape, _DTYPES[tensor.Type()], scales, zero_points, axis, open_axes)
