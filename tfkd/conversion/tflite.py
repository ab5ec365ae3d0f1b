"""TFLiteModel: what a .tflite says of itself, read from its bytes without running it."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import math
import os
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from tfkd._internal import atomic

from tfkd.errors import InputError

# So many items of its vectors, at most, are read of a file: more is damage, and following it would take for ever.
_MAX_ITEMS = 5_000_000

_DTYPES = {
    value: name.lower()
    for name, value in vars(tflite.TensorType).items()
    if not name.startswith("_") and isinstance(value, int)
}
# The types that weights have, in bits.
_WEIGHTS = {"int4": 4, "int8": 8, "int16": 16, "float16": 16, "float32": 32}
_OP_NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}


@dataclasses.dataclass(frozen=True)
class CalibrationAudit:
    """What was found of the samples that a quantized model's ranges come from.

    Args:
        samples: number of samples.
        minimum: smallest input value.
        maximum: largest input value.
        mean: mean input value.
        classes_covered: number of classes with a sample.
        classes_total: number of classes.
        digest: sha256 of the samples.
        overlap: number of samples that are in the test split too.
        saturation: share of input values beyond the input's quantized range; None where the input is not quantized.
        findings: what a reader should know, in sentences; nothing that forbids the conversion.
    """

    samples: int
    minimum: float
    maximum: float
    mean: float
    classes_covered: int
    classes_total: int
    digest: str
    overlap: int
    saturation: float | None = None
    findings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor of a .tflite.

    Args:
        name: its name.
        shape: its dimensions, -1 where the file leaves one open.
        dtype: numpy's name of its type.
        scales: quantization step sizes, one per tensor or per channel; empty for floats.
        zero_points: as many as scales.
        quantized_dimension: axis of the channels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    quantized_dimension: int = 0


@dataclasses.dataclass(frozen=True)
class _Op:
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TFLiteGraph:
    tensors: tuple[TensorInfo, ...]
    constants: tuple[int, ...]  # bytes of each tensor's constant, 0 for an activation
    ops: tuple[_Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """A .tflite as bytes, and what they say.

    Args:
        content: the file.
        path: where it lies, or None.
        audit: of the calibration that its ranges come from, where tfkd converted it.

    Raises:
        ValueError: when the bytes are not a .tflite or contradict themselves.
    """

    content: bytes = dataclasses.field(repr=False)
    path: Path | None = None
    audit: CalibrationAudit | None = None

    def __post_init__(self) -> None:
        if len(self.content) < 16 or self.content[4:8] != b"TFL3":
            raise InputError(
                f"{self._where}: must be a .tflite file (identifier TFL3). Received: {len(self.content)} bytes that "
                f"start with {self.content[:8]!r}. Convert a Keras model with `tfkd convert`."
            )

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes | TFLiteModel) -> TFLiteModel:
        """Reads a file or bytes, and checks that they make sense; a TFLiteModel is returned as it is."""
        if isinstance(source, TFLiteModel):
            return source
        if isinstance(source, bytes):
            model = cls(source)
        else:
            path = Path(source)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: must be a readable .tflite file. Received: {error.strerror}.") from None
            model = cls(content, path)
        _ = model.graph
        return model

    @property
    def _where(self) -> str:
        return str(self.path or "TFLiteModel")

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self.content)

    @functools.cached_property
    def compressed_bytes(self) -> int:
        """Size of the file under gzip -9: what a download or an update costs."""
        return len(gzip.compress(self.content, 9, mtime=0))

    @functools.cached_property
    def zstd_bytes(self) -> int:
        """Size of the file under zstd -19."""
        from numcodecs.zstd import Zstd

        return len(Zstd(level=19).encode(self.content))

    @functools.cached_property
    def weight_zeros(self) -> float | None:
        """The share of zeros in the weights, constants of two or more dimensions; None where there are none."""
        weights = self.weights().values()
        total = sum(values.size for values in weights)
        return sum(int(np.sum(values == 0)) for values in weights) / total if total else None

    def weights(self) -> dict[str, np.ndarray]:
        """The weights as they are stored, by tensor: constants of two or more dimensions, of 4 to 32 bits."""
        model, found = tflite.Model.GetRootAs(self.content, 0), {}
        for index, (tensor, size) in enumerate(zip(self.graph.tensors, self.graph.constants, strict=True)):
            count = math.prod(abs(d) for d in tensor.shape)
            length = -(-count * _WEIGHTS.get(tensor.dtype, 0) // 8)
            if len(tensor.shape) < 2 or not 0 < length <= size:
                continue  # an activation has no bytes, a sparse or damaged constant too few
            data = model.Buffers(model.Subgraphs(0).Tensors(index).Buffer()).DataAsNumpy()[:length]
            if tensor.dtype == "int4":
                low = np.stack([data << 4, data], axis=1).view("int8") >> 4
                found[tensor.name] = low.ravel()[:count].reshape(tensor.shape)
            else:
                found[tensor.name] = data.view(tensor.dtype).reshape(tensor.shape)
        return found

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def graph(self) -> TFLiteGraph:
        try:
            return _read(self.content)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
            raise InputError(
                f"{self._where}: must be an undamaged .tflite file. Received: {error or type(error).__name__}. "
                "Copy or convert it again."
            ) from None

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs."""
        return tuple(self.graph.tensors[i] for i in self.graph.inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs."""
        return tuple(self.graph.tensors[i] for i in self.graph.outputs)

    @property
    def ops(self) -> dict[str, int]:
        """How often each op occurs."""
        return dict(sorted(Counter(op.name for op in self.graph.ops).items()))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, of convolutions and matrix products; not of the body of a loop."""
        shapes = [tensor.shape for tensor in self.graph.tensors]
        return sum(op_macs(op.name, op.inputs, op.outputs, shapes) for op in self.graph.ops)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the constants: weights, biases, shapes."""
        return sum(self.graph.constants)

    @property
    def float_ops(self) -> tuple[str, ...]:
        """Ops that compute in floating point, as `NAME (output tensor)`; conversions at the border do not count."""
        graph = self.graph
        return tuple(
            f"{op.name} ({graph.tensors[(op.outputs or op.inputs)[0]].name})"
            for op in graph.ops
            if op.name not in ("QUANTIZE", "DEQUANTIZE")
            and any(graph.tensors[i].dtype.startswith("float") for i in (*op.inputs, *op.outputs) if i >= 0)
        )

    @property
    def is_quantized(self) -> bool:
        """Whether it computes in integers throughout."""
        return not self.float_ops and bool(self.inputs) and self.inputs[0].dtype in ("int8", "int16", "uint8")

    def quantize_input(self, x: Any, index: int = 0) -> np.ndarray:
        """Turns features into what the model takes.

        Args:
            x: [N, ...] features, in the range that the Keras model takes; an array that has the input's dtype already
                is taken to be quantized.
            index: which input.

        Returns:
            [N, ...] of the input's dtype: for a quantized input rounded to steps (ties to the even one, as LiteRT's
            optimized kernels do; its reference kernels and TensorFlow Lite Micro round them away from 0), saturated.

        Raises:
            ValueError: NaN for a quantized input.
        """
        tensor, x = self.inputs[index], np.asarray(x)
        if x.dtype == tensor.dtype or not tensor.scales:
            return x.astype(tensor.dtype, copy=False)
        if np.isnan(x).any():
            raise InputError(f"{self._where}: features must be numbers. Received: NaN. Clean the data first.")
        limits = np.iinfo(tensor.dtype)
        steps = np.round(x.astype("float32") / np.float32(tensor.scales[0])) + tensor.zero_points[0]
        return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)

    def dequantize_output(self, y: Any, index: int = 0) -> np.ndarray:
        """Turns raw outputs [N, ...] into float32 values."""
        tensor, y = self.outputs[index], np.asarray(y)
        if not tensor.scales or y.dtype.kind == "f":
            return y.astype("float32")
        return (y.astype("float32") - np.float32(tensor.zero_points[0])) * np.float32(tensor.scales[0])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> TFLiteModel:
        """Writes the file, whole or not at all.

        Returns:
            The model with its new path.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise InputError(
                f"{path}: must not exist. Received: an existing file. Pass overwrite=True or another path."
            )
        atomic.write(path, self.content)
        return dataclasses.replace(self, path=path)

    def to_json(self) -> dict[str, Any]:
        """What it says of itself, as plain JSON values."""
        return {
            "path": str(self.path) if self.path else None,
            "size_bytes": self.size_bytes,
            "compressed_bytes": self.compressed_bytes,
            "zstd_bytes": self.zstd_bytes,
            "weight_zeros": self.weight_zeros,
            "sha256": self.sha256,
            "inputs": [dataclasses.asdict(tensor) for tensor in self.inputs],
            "outputs": [dataclasses.asdict(tensor) for tensor in self.outputs],
            "ops": self.ops,
            "macs": self.macs,
            "parameter_bytes": self.parameter_bytes,
            "float_ops": list(self.float_ops),
        }


class _Counter:
    """Checks the lengths of vectors: as they do not overlap, they have fewer items than the file has bytes."""

    def __init__(self, content: bytes) -> None:
        self.left = min(len(content), _MAX_ITEMS)

    def __call__(self, length: int, what: str) -> range:
        if not 0 <= length <= self.left:
            raise InputError(f"{length} {what}")
        self.left -= length
        return range(length)


def _read(content: bytes) -> TFLiteGraph:
    model, count = tflite.Model.GetRootAs(content, 0), _Counter(content)
    if not count(model.SubgraphsLength(), "subgraphs"):
        raise InputError("no subgraph")
    graph = model.Subgraphs(0)
    codes = [_op_name(model.OperatorCodes(i)) for i in count(model.OperatorCodesLength(), "operator codes")]
    tensors, constants = [], []
    for i in count(graph.TensorsLength(), "tensors"):
        tensor = graph.Tensors(i)
        buffer = tensor.Buffer()
        if not 0 <= buffer < model.BuffersLength():
            raise InputError(f"tensor {i} refers to buffer {buffer} of {model.BuffersLength()}")
        size = model.Buffers(buffer).DataLength()
        if not 0 <= size <= len(content):
            raise InputError(f"buffer {buffer} has {size} bytes in a file of {len(content)}")
        tensors.append(_tensor(tensor, count))
        constants.append(size)
    ops = tuple(_op(graph.Operators(i), codes, len(tensors), count) for i in count(graph.OperatorsLength(), "ops"))
    inputs = _indices([graph.Inputs(i) for i in count(graph.InputsLength(), "inputs")], len(tensors))
    outputs = _indices([graph.Outputs(i) for i in count(graph.OutputsLength(), "outputs")], len(tensors))
    if not inputs or not outputs:
        raise InputError("no input or no output")
    return TFLiteGraph(tuple(tensors), tuple(constants), ops, inputs, outputs)


def _indices(values: list[int], tensors: int, *, optional: bool = False) -> tuple[int, ...]:
    for value in values:
        if not (0 <= value < tensors or (optional and value == -1)):
            raise InputError(f"tensor index {value} of {tensors}")
    return tuple(values)


def _op_name(code: Any) -> str:
    # The 8-bit field overflowed at op 127; newer files use the wider one, and some leave the old one empty. There the
    # generated BuiltinCode() gives 0, as it reads the old field whenever that could hold the op.
    start = code._tab.Pos + code._tab.Offset(10)
    wide = int.from_bytes(code._tab.Bytes[start : start + 4], "little", signed=True) if code._tab.Offset(10) else 0
    number = max(wide, code.DeprecatedBuiltinCode())
    if number not in _OP_NAMES:
        raise InputError(f"op code {number}")
    name = _OP_NAMES[number]
    return (code.CustomCode() or b"CUSTOM").decode(errors="replace") if name == "CUSTOM" else name


def _op(op: Any, codes: list[str], tensors: int, count: _Counter) -> _Op:
    inputs = [op.Inputs(i) for i in count(op.InputsLength(), "inputs of an op")]
    outputs = [op.Outputs(i) for i in count(op.OutputsLength(), "outputs of an op")]
    if not 0 <= op.OpcodeIndex() < len(codes):
        raise InputError(f"op code index {op.OpcodeIndex()} of {len(codes)}")
    name = codes[op.OpcodeIndex()]
    if not outputs and name not in ("ASSIGN_VARIABLE", "CALL_ONCE"):
        raise InputError(f"{name} without an output")
    return _Op(name, _indices(inputs, tensors, optional=True), _indices(outputs, tensors))


def _tensor(tensor: Any, count: _Counter) -> TensorInfo:
    signature = tensor.ShapeSignatureLength()
    read = tensor.ShapeSignature if signature else tensor.Shape
    shape = tuple(int(read(i)) for i in count(signature or tensor.ShapeLength(), "dimensions"))
    if any(d < -1 for d in shape) or math.prod(abs(d) for d in shape) >= 2**40:
        raise InputError(f"a tensor of shape {shape[:8]}")
    if tensor.Type() not in _DTYPES:
        raise InputError(f"tensor type {tensor.Type()}")
    quantization = tensor.Quantization()
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis = 0
    if quantization is not None and quantization.ScaleLength():
        scales = tuple(float(quantization.Scale(i)) for i in count(quantization.ScaleLength(), "scales"))
        points = count(quantization.ZeroPointLength(), "zero points")
        zero_points = tuple(int(quantization.ZeroPoint(i)) for i in points) or (0,) * len(scales)
        axis = quantization.QuantizedDimension()
        if len(zero_points) != len(scales) or not all(0 < scale < math.inf for scale in scales):
            raise InputError(f"quantization with scales {scales[:3]} and {len(zero_points)} zero points")
    name = (tensor.Name() or b"").decode(errors="replace")
    return TensorInfo(name, shape, _DTYPES[tensor.Type()], scales, zero_points, axis)


def op_macs(name: str, inputs: Sequence[int], outputs: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> int:
    """Multiply-accumulates of one op at batch 1; shapes are [O, H, W, I] for CONV_2D, [1, H, W, O] for depthwise."""

    def size(index: int, axes: slice = slice(None)) -> int:
        return math.prod(abs(d) for d in shapes[index][axes])

    if len(inputs) < 2 or min(inputs[:2]) < 0 or not outputs:
        return 0
    output = size(outputs[0])
    if name == "CONV_2D":
        return output * size(inputs[1], slice(1, None))
    if name == "DEPTHWISE_CONV_2D":
        return output * size(inputs[1], slice(1, 3))
    if name == "FULLY_CONNECTED":
        return output * size(inputs[1], slice(-1, None))
    if name == "TRANSPOSE_CONV" and len(inputs) > 2 and inputs[2] >= 0:
        return size(inputs[2]) * size(inputs[1], slice(0, 3))
    if name == "BATCH_MATMUL":  # rows times the inner dimension, which either may come first in the left matrix
        rows = max(1, size(outputs[0], slice(-2, -1)))
        return output * (size(inputs[0], slice(-2, None)) // rows)
    if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":  # input [1, T, F], then eight matrices
        return size(inputs[0], slice(1, 2)) * sum(size(i) for i in inputs[1:9] if i >= 0)
    return 0
