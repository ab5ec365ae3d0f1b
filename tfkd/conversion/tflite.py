"""TFLiteModel: inputs, outputs, ops, size and weights of a .tflite, read from its bytes without running it."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd._internal import atomic
from tfkd._internal.types import JsonObject, Tensor
from tfkd.conversion import tflite_reader
from tfkd.conversion.tflite_reader import TensorInfo, TFLiteGraph
from tfkd.errors import InputError, ModelError

__all__ = ["CalibrationAudit", "TFLiteGraph", "TFLiteModel", "TensorInfo", "op_macs"]

# Bits per element of the types that weights have.
_WEIGHT_BITS = {"int4": 4, "int8": 8, "int16": 16, "float16": 16, "float32": 32}


@dataclasses.dataclass(frozen=True)
class CalibrationAudit:
    """Statistics and findings of the samples that the quantization ranges were calibrated with.

    Args:
        samples: Number of samples.
        minimum: Smallest input value.
        maximum: Largest input value.
        mean: Mean input value.
        classes_covered: Number of classes with at least one sample.
        classes_total: Number of classes.
        digest: SHA-256 of the samples, hexadecimal.
        overlap: Number of samples that are in the test split too.
        saturation: Share of input values outside the input's quantized range, 0..1; None for a float input.
        accuracy: Accuracy of the Keras model on the samples, 0..1; None where their labels are not its classes.
        accuracy_samples: Number of samples that it was measured on: fewer than all for a large model; 0 for none.
        findings: Sentences about weaknesses of the calibration set that do not forbid the conversion.
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
    accuracy: float | None = None
    accuracy_samples: int = 0
    findings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """A .tflite file and its metadata. Nothing here runs the model.

    Args:
        content: Bytes of the file.
        path: Path of the file, or None for a model in memory.
        audit: Audit of the calibration set, where tfkd converted the model with one.
        findings: Findings of the comparison with the Keras model, where tfkd converted it, as sentences.
        changes: What tfkd changed in the conversion so that int8 loses less, as sentences.

    Raises:
        ModelError: The bytes are not a .tflite, or (on reading `graph`) the file is damaged.
    """

    content: bytes = dataclasses.field(repr=False)
    path: Path | None = None
    audit: CalibrationAudit | None = None
    findings: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.content) < 16 or self.content[4:8] != b"TFL3":
            raise ModelError(
                f"{self._where}: must be a .tflite file (identifier TFL3). Received: {len(self.content)} bytes that "
                f"start with {self.content[:8]!r}. Convert a Keras model with `tfkd convert`."
            )

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes | TFLiteModel) -> TFLiteModel:
        """Reads and checks a .tflite.

        Args:
            source: Path or bytes of a file; a TFLiteModel is returned as it is.

        Raises:
            InputError: The file cannot be read.
            ModelError: The file is not a .tflite, or is damaged.
        """
        if isinstance(source, TFLiteModel):
            return source
        if isinstance(source, bytes):
            model = cls(source)
        else:
            path = Path(source)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: cannot read the .tflite file: {error.strerror}.") from None
            model = cls(content, path)
        _ = model.graph
        return model

    @property
    def _where(self) -> str:
        return str(self.path or "TFLiteModel")

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        return len(self.content)

    @functools.cached_property
    def compressed_bytes(self) -> int:
        """Size of the file in bytes after gzip -9: the transfer size of a download or an update."""
        return len(gzip.compress(self.content, 9, mtime=0))

    @functools.cached_property
    def zstd_bytes(self) -> int:
        """Size of the file in bytes after zstd -19."""
        from numcodecs.zstd import Zstd

        return len(Zstd(level=19).encode(self.content))

    @functools.cached_property
    def weight_zeros(self) -> float | None:
        """Share of zeros in the weights (constants with two or more dimensions), 0..1; None without weights."""
        weights = self.weights().values()
        total = sum(values.size for values in weights)
        return sum(int(np.sum(values == 0)) for values in weights) / total if total else None

    def weights(self) -> dict[str, np.ndarray]:
        """The stored weights by tensor name: constants with two or more dimensions and 4 to 32 bits per element."""
        weights = {}
        for index, tensor in enumerate(self.graph.tensors):
            values = self.constant(index) if len(tensor.shape) >= 2 else None
            if values is not None:
                weights[tensor.name] = values
        return weights

    def constant(self, index: int) -> np.ndarray | None:
        """The stored values of a constant of 4 to 32 bits per element; None for another tensor.

        Args:
            index: Tensor index.
        """
        tensor = self.graph.tensors[index]
        count = math.prod(abs(d) for d in tensor.shape)
        length = -(-count * _WEIGHT_BITS.get(tensor.dtype, 0) // 8)
        # An activation has no bytes; a sparse or damaged constant has too few.
        if not 0 < length <= self.graph.constants[index]:
            return None
        buffer = schema.Model.GetRootAs(self.content, 0).Subgraphs(0).Tensors(index).Buffer()
        data = schema.Model.GetRootAs(self.content, 0).Buffers(buffer).DataAsNumpy()[:length]
        values = _unpack_int4(data)[:count] if tensor.dtype == "int4" else data.view(tensor.dtype)
        return values.reshape([abs(d) for d in tensor.shape])

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def subgraphs(self) -> tuple[TFLiteGraph, ...]:
        """Tensors and ops of the model itself, and after it those of the bodies of loops and branches."""
        return tflite_reader.read(self.content, self._where)

    @property
    def graph(self) -> TFLiteGraph:
        """Tensors and ops of the first subgraph."""
        return self.subgraphs[0]

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
        """The number of occurrences of each op in all subgraphs."""
        return dict(sorted(Counter(op.name for graph in self.subgraphs for op in graph.ops).items()))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference in convolutions and matrix products; a loop body is counted once."""
        return sum(
            op_macs(op.name, op.inputs, op.outputs, [tensor.shape for tensor in graph.tensors])
            for graph in self.subgraphs
            for op in graph.ops
        )

    @property
    def parameter_bytes(self) -> int:
        """Size of all constants in bytes: weights, biases and shape operands."""
        model = schema.Model.GetRootAs(self.content, 0)
        subgraphs = [model.Subgraphs(i) for i in range(len(self.subgraphs))]
        # Subgraphs may share a constant.
        used = {graph.Tensors(i).Buffer() for graph in subgraphs for i in range(graph.TensorsLength())}
        return sum(model.Buffers(index).DataLength() for index in used)

    @property
    def float_ops(self) -> tuple[str, ...]:
        """Ops that compute in floating point, as `NAME (output tensor)`; QUANTIZE and DEQUANTIZE are not counted."""
        return tuple(
            f"{op.name} ({graph.tensors[(op.outputs or op.inputs)[0]].name})"
            for graph in self.subgraphs
            for op in graph.ops
            if op.name not in ("QUANTIZE", "DEQUANTIZE")
            and any(graph.tensors[i].dtype.startswith("float") for i in (*op.inputs, *op.outputs) if i >= 0)
        )

    @property
    def is_quantized(self) -> bool:
        """Whether all ops and the input are quantized to integers."""
        return not self.float_ops and bool(self.inputs) and self.inputs[0].dtype in ("int8", "int16", "uint8")

    def quantize_input(self, x: Tensor, index: int = 0) -> np.ndarray:
        """Converts features to the type of an input, quantizing them where the input is quantized.

        Values round to the nearest step, ties to even, as in LiteRT's optimized kernels (its reference kernels and
        TensorFlow Lite Micro round ties away from 0), and saturate.

        Args:
            x: [N, ...] features in the range that the Keras model takes. An array that has the input's type already
                is taken as quantized and returned unchanged.
            index: Index of the input.

        Returns:
            [N, ...] of the input's type.

        Raises:
            InputError: x has NaN and the input is quantized.
            ModelError: The input is not of a type of NumPy, such as strings.
        """
        tensor, x = self.inputs[index], np.asarray(x)
        tensor.check_numbers(self._where)
        if x.dtype == tensor.dtype or not tensor.scales:
            return x.astype(tensor.dtype, copy=False)
        if np.isnan(x).any():
            raise InputError(f"{self._where}: features contain NaN. Clean the data first.")
        limits = np.iinfo(tensor.dtype)
        steps = np.round(x.astype("float32") / np.float32(tensor.scales[0])) + tensor.zero_points[0]
        return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)

    def dequantize_output(self, y: Tensor, index: int = 0) -> np.ndarray:
        """Converts the raw values of an output to real values.

        Args:
            y: [N, ...] of the output's type.
            index: Index of the output.

        Returns:
            [N, ...] float32.
        """
        tensor, y = self.outputs[index], np.asarray(y)
        if not tensor.scales or y.dtype.kind == "f":
            return y.astype("float32")
        return (y.astype("float32") - np.float32(tensor.zero_points[0])) * np.float32(tensor.scales[0])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> TFLiteModel:
        """Writes the file atomically.

        Args:
            path: Path of the new file.
            overwrite: Whether an existing file is replaced.

        Returns:
            The model with its new path.

        Raises:
            InputError: The file exists and `overwrite` is False.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise InputError(f"{path} already exists. Pass overwrite=True or another path.")
        atomic.write(path, self.content)
        return dataclasses.replace(self, path=path)

    def to_json(self) -> JsonObject:
        """The metadata as plain JSON values."""
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
            "findings": list(self.findings),
            "changes": list(self.changes),
        }


def _unpack_int4(data: np.ndarray) -> np.ndarray:
    """Signed 4-bit values as int8; each byte holds two, the first in the lower half."""
    low, high = (data << 4).view("int8") >> 4, data.view("int8") >> 4
    return np.stack([low, high], axis=1).ravel()


def op_macs(name: str, inputs: Sequence[int], outputs: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> int:
    """Multiply-accumulates of one op at batch 1; 0 for ops other than convolutions and matrix products.

    Args:
        name: Name of the op, such as `CONV_2D`.
        inputs: Tensor indices of its inputs. Weights are [O, H, W, I] for CONV_2D, [1, H, W, O] for
            DEPTHWISE_CONV_2D and [O, I] for FULLY_CONNECTED.
        outputs: Tensor indices of its outputs.
        shapes: Shapes of all tensors of the model.
    """

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
    if name == "BATCH_MATMUL":
        # [..., M, K] x [..., K, N] needs M·N·K; the last two axes of the left matrix, M·K or K·M, over M give K.
        rows = max(1, size(outputs[0], slice(-2, -1)))
        return output * (size(inputs[0], slice(-2, None)) // rows)
    if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        # At each of T steps of the input [1, T, F], a product with four input and four recurrent matrices.
        return size(inputs[0], slice(1, 2)) * sum(size(i) for i in inputs[1:9] if i >= 0)
    return 0
