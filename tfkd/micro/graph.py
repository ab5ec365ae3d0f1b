"""The graph of an integer .tflite: tensors with their quantization and constants, ops with their options.

Everything is checked before it is trusted; what comes after may index without looking.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError

# A graph for a microcontroller has no tensor near this size; larger ones are damage, and code for them would not link.
_MAX_BYTES = 2**28
_NUMPY = {"int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "bool": "?", "float32": "<f4", "uint8": "u1"}
_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}
_OPTION_TYPES = {value: name for name, value in vars(schema.BuiltinOptions).items() if isinstance(value, int)}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor.

    Args:
        index: its number in the file.
        name: its name in the file.
        shape: its dimensions, all known.
        dtype: `int8`, `int16`, `int32`, ...
        scales: one quantization step for the tensor or one per channel; empty where it is not quantized.
        zero_points: as many as scales.
        axis: the channels' axis.
        data: its values, where it is constant.
        variable: whether it keeps its values from one run to the next.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: np.ndarray | None = dataclasses.field(default=None, repr=False)
    variable: bool = False

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return self.elements * np.dtype(_NUMPY[self.dtype]).itemsize

    @property
    def scale(self) -> float:
        """The step of a tensor that has one."""
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        """The zero point of a tensor that has one."""
        return self.zero_points[0]


@dataclasses.dataclass(frozen=True)
class Op:
    """An op.

    Args:
        kind: its name in the schema, such as `CONV_2D`.
        inputs: tensor numbers, -1 for an input left out.
        outputs: tensor numbers.
        options: the fields of its options table, by the schema's names; activation and padding as words.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The first subgraph of a model, its ops in an order in which they can run."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def of(self, op: Op, input: int) -> Tensor | None:
        """An input of an op, or None where it is left out."""
        return self.tensors[op.inputs[input]] if input < len(op.inputs) and op.inputs[input] >= 0 else None

    def label(self, op: Op) -> str:
        """`KIND (layer)`: the op and the name of what it computes."""
        return f"{op.kind} ({self.tensors[op.outputs[0]].name})"


def read(model: TFLiteModel) -> Graph:
    """Reads a model's graph.

    Raises:
        ValueError: the file is damaged, or has more than one subgraph or a tensor of open shape.
    """
    model = TFLiteModel.load(model)  # checks indices, names, shapes and quantization
    where = str(model.path or "micro.read")
    try:
        return _read(model)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
        raise InputError(
            f"{where}: must be an undamaged .tflite of one subgraph with fixed shapes. "
            f"Received: {error or type(error).__name__}. Convert the model with `tfkd convert --mode full_int8`."
        ) from None


def _read(model: TFLiteModel) -> Graph:
    root = schema.Model.GetRootAs(model.content, 0)
    if root.SubgraphsLength() != 1:
        raise InputError(f"{root.SubgraphsLength()} subgraphs (a loop or a branch)")
    subgraph = root.Subgraphs(0)
    described = model.graph
    # An LSTM has tensors without values, which only tell steps of quantization.
    used = {*described.inputs, *described.outputs, *(i for op in described.ops for i in (*op.inputs, *op.outputs))}
    for i in used - {-1}:
        if any(d < 1 for d in described.tensors[i].shape):
            raise InputError(f"tensor {described.tensors[i].name!r} of shape {described.tensors[i].shape}")
    tensors = tuple(
        _tensor(i, info, subgraph.Tensors(i), root, len(model.content)) for i, info in enumerate(described.tensors)
    )
    ops = tuple(
        Op(op.name, op.inputs, op.outputs, _options(subgraph.Operators(i))) for i, op in enumerate(described.ops)
    )
    graph = Graph(tensors, ops, described.inputs, described.outputs)
    _check_order(graph)
    return graph


def _tensor(index: int, info: Any, raw: Any, root: Any, limit: int) -> Tensor:
    if any(d < 0 for d in info.shape):
        raise InputError(f"tensor {info.name!r} of shape {info.shape}")
    if raw.Sparsity() is not None:
        raise InputError(f"tensor {info.name!r} is stored sparse")
    data = None
    tensor = Tensor(
        index,
        info.name,
        info.shape,
        info.dtype,
        info.scales,
        info.zero_points,
        info.quantized_dimension,
        variable=bool(raw.IsVariable()),
    )
    channels = len(info.scales)
    if channels > 1 and not (0 <= tensor.axis < len(info.shape) and info.shape[tensor.axis] == channels):
        raise InputError(f"tensor {info.name!r} of shape {info.shape} with {channels} scales on axis {tensor.axis}")
    if not all(1e-18 < scale < 1e18 for scale in info.scales):
        raise InputError(f"tensor {info.name!r} with a scale of {min(info.scales)} to {max(info.scales)}")
    if info.dtype in ("int8", "int16"):
        limits = np.iinfo(info.dtype)
        if any(not limits.min <= point <= limits.max for point in info.zero_points):
            raise InputError(f"tensor {info.name!r} with a zero point outside {info.dtype}")
    if info.dtype not in _NUMPY:
        if root.Buffers(raw.Buffer()).DataLength():
            raise InputError(f"tensor {info.name!r} holds constants of type {info.dtype}")
        return tensor
    if tensor.bytes > _MAX_BYTES:
        raise InputError(f"tensor {info.name!r} of {tensor.bytes} bytes")
    buffer = root.Buffers(raw.Buffer())
    if buffer.DataLength():
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        if buffer.DataLength() != tensor.bytes or start + tensor.bytes > limit:
            raise InputError(f"tensor {info.name!r}: {buffer.DataLength()} bytes of data for shape {info.shape}")
        data = np.frombuffer(root._tab.Bytes, _NUMPY[info.dtype], tensor.elements, start).reshape(info.shape)
    return dataclasses.replace(tensor, data=data)


def _options(op: Any) -> Mapping[str, Any]:
    """The fields of an op's options table, whatever their type."""
    kind, table = _OPTION_TYPES.get(op.BuiltinOptionsType(), "NONE"), op.BuiltinOptions()
    if table is None or kind == "NONE":
        return MappingProxyType({})
    options = getattr(schema, kind)()
    options.Init(table.Bytes, table.Pos)
    fields: dict[str, Any] = {}
    for name in dir(options):
        # Vectors (`NewShape` with its `NewShapeLength`) repeat what an input tensor says.
        if name[0] == "_" or name == "Init" or name.startswith("GetRoot") or name.endswith("BufferHasIdentifier"):
            continue
        if name.endswith(("Length", "AsNumpy", "IsNone")) or hasattr(options, f"{name}Length"):
            continue
        fields[name] = getattr(options, name)()
    if "FusedActivationFunction" in fields:
        code = fields["FusedActivationFunction"]
        fields["FusedActivationFunction"] = _ACTIVATIONS.get(code, f"activation {code}")
    if "Padding" in fields:
        fields["Padding"] = {0: "same", 1: "valid"}[fields["Padding"]]
    return MappingProxyType(fields)


def _check_order(graph: Graph) -> None:
    """Each tensor is known before an op reads it, and is written once: no cycle, no write to a constant."""
    known = {i for i, tensor in enumerate(graph.tensors) if tensor.data is not None or tensor.variable}
    for i in graph.inputs:
        if i in known:
            raise InputError(f"input {graph.tensors[i].name!r} is constant or given twice")
        known.add(i)
    for op in graph.ops:
        if not op.inputs or not op.outputs:
            raise InputError(f"{op.kind} without inputs or outputs")
        for i in op.inputs:
            if i >= 0 and i not in known:
                raise InputError(f"{graph.label(op)} reads {graph.tensors[i].name!r} before it is computed")
        for i in op.outputs:
            if i in known:
                raise InputError(f"{graph.label(op)} writes {graph.tensors[i].name!r} a second time")
            known.add(i)
    for i in graph.outputs:
        if i not in known:
            raise InputError(f"output {graph.tensors[i].name!r} is not computed")
