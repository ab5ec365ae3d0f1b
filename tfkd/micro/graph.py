"""The graph of an integer .tflite: tensors with their quantization and constants, ops with their options.

All indices, shapes, sizes, scales and the order of the ops are checked here; later passes rely on them. Tensors keep
their index in the file, and shapes are fixed.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Container, Mapping
from typing import Any, NoReturn

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import tflite_reader
from tfkd.conversion.tflite import TensorInfo, TFLiteGraph, TFLiteModel
from tfkd.errors import ModelError
from tfkd.micro.resolver_names import missing

# No model for a microcontroller has a tensor near this size: a larger one means a damaged file.
_MAX_BYTES = 2**28
_NUMPY = {
    "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "uint8": "u1", "uint32": "<u4", "uint64": "<u8",
    "bool": "?", "float32": "<f4",
}  # fmt: skip
# What to do about constants of other types.
_REMEDIES = {"int4": "Convert the Keras model again without int4 layers: leave out --int4, and weight_bits=4 of QAT."}
_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}
# The least number of inputs and outputs of the ops of resource variables; other ops have one of each.
_COUNTS = {"VAR_HANDLE": (0, 1), "READ_VARIABLE": (1, 1), "ASSIGN_VARIABLE": (2, 0), "CALL_ONCE": (0, 0)}
# Ops whose output has the bytes of their first input.
VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
# The options of an op that are numbers of subgraphs.
_BODIES = {
    "CALL_ONCE": ("InitSubgraphIndex",),
    "IF": ("ThenSubgraphIndex", "ElseSubgraphIndex"),
    "WHILE": ("CondSubgraphIndex", "BodySubgraphIndex"),
}
# What the flatbuffers reader and NumPy raise on damaged bytes.
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError)
_OPTION_TYPES = {value: name for name, value in vars(schema.BuiltinOptions).items() if isinstance(value, int)}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor.

    Args:
        index: Index in the file.
        name: Name in the file.
        shape: Dimensions, all fixed.
        dtype: `int8`, `int16`, `int32` and so on.
        scales: One scale for the tensor or one for each channel; empty for a tensor that is not quantized.
        zero_points: As many zero points as scales.
        axis: Axis of the channels.
        data: Values of a constant, else None.
        variable: Whether the tensor keeps its values between runs.
        initial: Values of a variable before the first run; None for its zero point, or 0 without one.
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
    initial: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: all dimensions but a first one of size 1, the batch axis."""
        return self.shape[1:] if self.shape[:1] == (1,) else self.shape

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.elements * np.dtype(_NUMPY[self.dtype]).itemsize

    @property
    def scale(self) -> float:
        """The scale of a tensor with one scale."""
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        """The zero point of a tensor with one zero point."""
        return self.zero_points[0]


class UnsupportedFile(ModelError):
    """A file that is undamaged, but of a kind that no C is generated from; the message says what to do."""


class MissingOption(ModelError):
    """An op lacks an option that it must have."""


class Options(dict[str, Any]):
    """Fields of an op's options table by the schema's names; activation and padding as words."""

    def __missing__(self, name: str) -> NoReturn:
        raise MissingOption(f"has no option {name!r}. The file is damaged")


@dataclasses.dataclass(frozen=True)
class Op:
    """An op.

    Args:
        kind: Name in the schema, such as `CONV_2D`.
        inputs: Tensor indices, -1 for a missing optional input.
        outputs: Tensor indices.
        options: Options, which must not be changed.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options


@dataclasses.dataclass(frozen=True)
class Graph:
    """A subgraph of a model, the first one unless it is one of `bodies`.

    Args:
        tensors: All tensors, each at its index.
        ops: Ops in an order in which they can run.
        inputs: Tensor indices of the model's inputs.
        outputs: Tensor indices of the model's outputs.
        bodies: Other subgraphs, which CALL_ONCE, IF and WHILE run, by their number in the file.
    """

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bodies: Mapping[int, Graph] = dataclasses.field(default_factory=dict)

    def input_of(self, op: Op, i: int) -> Tensor | None:
        """Input `i` of an op, or None where it is missing."""
        return self.tensors[op.inputs[i]] if i < len(op.inputs) and op.inputs[i] >= 0 else None

    def label(self, op: Op) -> str:
        """`KIND (tensor)`: the op and the name of its output, or of an input where it has none."""
        named = [self.tensors[i].name for i in (*op.outputs, *op.inputs) if i >= 0]
        return f"{op.kind} ({named[0]})" if named else op.kind


def check_custom_ops(model: TFLiteModel, supported: Container[str]) -> None:
    """Refuses a model with custom ops that no C is generated for.

    Args:
        model: A model.
        supported: Names of the ops that C is generated for.

    Raises:
        ModelError: The model has such ops; the message names all of them, or the compiler that wrote them.
    """
    where = model.path or "micro.emit"
    if why := tflite_reader.compiled(model.subgraphs):
        raise ModelError(f"{where}: {why}")
    found = [op for op in tflite_reader.custom_ops(model.subgraphs) if op not in supported]
    if not found:
        return
    remedy = "Replace their layers, or end the model before them and compute the rest in your own code"
    if not missing(found):
        remedy += ". TensorFlow Lite Micro has kernels for them: `tfkd export-c --format tflm`"
    raise ModelError(
        f"{where}: must have no custom ops, for which there are no C kernels. Received: {', '.join(found)}. {remedy}."
    )


def read(model: TFLiteModel) -> Graph:
    """Reads a model's graph.

    Args:
        model: A model, whose indices, names, shapes and quantization TFLiteModel has checked.

    Raises:
        ModelError: The file is damaged, or has a dynamic shape.
    """
    model = TFLiteModel.load(model)
    where = str(model.path or "micro.read")
    try:
        return _read(model)
    except UnsupportedFile as error:
        raise ModelError(f"{where}: {error}") from None
    except _DAMAGE as error:
        raise ModelError(
            f"{where}: must be an undamaged .tflite. Received: {error or type(error).__name__}. Copy it again, or "
            "convert the Keras model again with `tfkd convert --mode full_int8`."
        ) from None


def _read(model: TFLiteModel) -> Graph:
    root = schema.Model.GetRootAs(model.content, 0)
    graph = _subgraph(model, root, 0)
    _check_order(graph)
    bodies: dict[int, Graph] = {}
    _add_bodies(model, root, graph, bodies)
    return dataclasses.replace(graph, bodies=bodies)


def _add_bodies(model: TFLiteModel, root: schema.Model, graph: Graph, bodies: dict[int, Graph]) -> None:
    """Reads the subgraphs that the ops of a graph run, and those that these run."""
    for op in graph.ops:
        for i in (op.options[option] for option in _BODIES.get(op.kind, ())):
            if not 0 < i < len(model.subgraphs):
                raise ModelError(f"{op.kind} of subgraph {i} of {len(model.subgraphs)}")
            if i not in bodies:
                bodies[i] = _subgraph(model, root, i)
                if op.kind != "CALL_ONCE":
                    _check_order(bodies[i])
                _add_bodies(model, root, bodies[i], bodies)


def _subgraph(model: TFLiteModel, root: schema.Model, number: int) -> Graph:
    """A subgraph by its number in the file; `root` is the model's flatbuffers table."""
    subgraph, described = root.Subgraphs(number), model.subgraphs[number]
    _check_shapes(described)
    tensors = tuple(
        _tensor(i, info, subgraph.Tensors(i), root, len(model.content)) for i, info in enumerate(described.tensors)
    )
    ops = tuple(
        Op(op.name, op.inputs, op.outputs, _options(subgraph.Operators(i))) for i, op in enumerate(described.ops)
    )
    return Graph(tensors, ops, described.inputs, described.outputs)


def _check_shapes(graph: TFLiteGraph) -> None:
    """Refuses inputs and computed tensors with a dimension that is open or empty.

    Other tensors may be empty: those of an LSTM that only hold scales, and the new shape of a RESHAPE to a scalar.
    """
    computed = {*graph.inputs, *graph.outputs, *(i for op in graph.ops for i in op.outputs)}
    for tensor in (graph.tensors[i] for i in sorted(computed - {-1})):
        if -1 in tensor.shape:
            raise UnsupportedFile(
                f"tensor {tensor.name!r} must have a fixed shape. Received: {tensor.shape}. Convert the model with "
                "fixed sizes: `tfkd convert` fixes the batch at 1; the other sizes are those of keras.Input."
            )
        if 0 in tensor.shape:
            raise UnsupportedFile(
                f"tensor {tensor.name!r} must have values. Received: shape {tensor.shape}. Convert the model again "
                "with sizes >= 1."
            )


def _tensor(index: int, info: TensorInfo, raw: schema.Tensor, root: schema.Model, limit: int) -> Tensor:
    """A tensor with its constant values.

    Args:
        index: Index of the tensor.
        info: What TFLiteModel read and checked.
        raw: The tensor's flatbuffers table.
        root: The model's flatbuffers table.
        limit: Bytes of the file.
    """
    if any(d < 0 for d in info.shape):
        raise ModelError(f"tensor {info.name!r} of shape {info.shape}")
    if raw.Sparsity() is not None:
        raise UnsupportedFile(
            f"tensor {info.name!r} must be dense. Received: sparse storage, which TensorFlow Lite Micro does not read. "
            "Convert the model without sparse weights."
        )
    _check_quantization(info)
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
    buffer = root.Buffers(raw.Buffer())
    if info.dtype not in _NUMPY:
        if buffer.DataLength():
            remedy = _REMEDIES.get(info.dtype, "Convert the Keras model with `tfkd convert --mode full_int8`.")
            raise UnsupportedFile(
                f"tensor {info.name!r} must hold constants of a type that C is generated for ({', '.join(_NUMPY)}). "
                f"Received: {info.dtype}. {remedy}"
            )
        return tensor
    if tensor.bytes > _MAX_BYTES:
        raise ModelError(f"tensor {info.name!r} of {tensor.bytes} bytes")
    if not buffer.DataLength():
        empty = info.shape == (0,) and info.dtype == "int32"  # the new shape of a RESHAPE to a scalar
        return dataclasses.replace(tensor, data=np.zeros(0, "int32")) if empty else tensor
    start = buffer._tab.Vector(buffer._tab.Offset(4))
    if buffer.DataLength() != tensor.bytes or start + tensor.bytes > limit:
        raise ModelError(f"tensor {info.name!r}: {buffer.DataLength()} bytes of data for shape {info.shape}")
    data = np.frombuffer(root._tab.Bytes, _NUMPY[info.dtype], tensor.elements, start).reshape(info.shape)
    return dataclasses.replace(tensor, data=data)


def _check_quantization(info: TensorInfo) -> None:
    # Lowerings check the number, the axis and the size of scales where these count: those of a bias do not.
    if info.dtype in ("int8", "int16", "uint8"):
        limits = np.iinfo(info.dtype)
        if any(not limits.min <= point <= limits.max for point in info.zero_points):
            raise ModelError(f"tensor {info.name!r} with a zero point outside of {info.dtype}")


def _options(op: schema.Operator) -> Options:
    """The scalar fields of an op's options table; of a custom op its options, as bytes."""
    if op.CustomOptionsLength():
        return Options(CustomOptions=op.CustomOptionsAsNumpy().tobytes())
    kind, table = _OPTION_TYPES.get(op.BuiltinOptionsType(), "NONE"), op.BuiltinOptions()
    if table is None or kind == "NONE":
        return Options()
    options = getattr(schema, kind)()
    options.Init(table.Bytes, table.Pos)
    fields = Options()
    for name in dir(options):
        # Vectors (`NewShape` with its `NewShapeLength`) repeat an input tensor.
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
    return fields


def _check_order(graph: Graph) -> None:
    """Refuses cycles and writes to constants: each tensor is written once, before an op reads it."""
    known = {i for i, tensor in enumerate(graph.tensors) if tensor.data is not None or tensor.variable}
    for i in graph.inputs:
        if i in known:
            raise ModelError(f"input {graph.tensors[i].name!r} is a constant or listed twice")
        known.add(i)
    for op in graph.ops:
        inputs, outputs = _COUNTS.get(op.kind, (1, 1))
        if len(op.inputs) < inputs or len(op.outputs) < outputs:
            raise ModelError(f"{op.kind} without inputs or outputs")
        for i in op.inputs:
            if i >= 0 and i not in known:
                raise ModelError(f"{graph.label(op)} reads {graph.tensors[i].name!r} before it is computed")
        for i in op.outputs:
            # The output of this op is a state: the buffer itself.
            if i in known and not (op.kind == "CIRCULAR_BUFFER" and graph.tensors[i].variable):
                raise ModelError(f"{graph.label(op)} writes {graph.tensors[i].name!r} a second time")
            known.add(i)
    for i in graph.outputs:
        if i not in known:
            raise ModelError(f"output {graph.tensors[i].name!r} is not computed")
