"""A model with inputs and outputs that LiteRT.js takes: it knows float32, int32 and uint8 only.

The ops and constants of the model stay as they are. QUANTIZE in front of a quantized int8 or int16 input and DEQUANTIZE
behind such an output, or CAST where a tensor has no scale, lead to the values that the model has without them:

    float32 input -> QUANTIZE -> int8 input ... the model ... int8 output -> DEQUANTIZE -> float32 output
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.conversion.tflite_reader import TensorInfo
from tfkd.errors import DeviceError, InputError, ModelError

_TAKEN = ("float32", "int32", "uint8")
_CAST = ("int8", "int16", "int64", "bool")
_INT32 = np.iinfo("int32")


@dataclasses.dataclass(frozen=True)
class End:
    """An input or output of a model, and how LiteRT.js sees it.

    Args:
        tensor: The tensor of the model.
        op: `QUANTIZE`, `DEQUANTIZE` or `CAST`; empty where LiteRT.js takes the tensor as it is.
    """

    tensor: TensorInfo
    op: str = ""

    @property
    def dtype(self) -> str:
        """Data type that LiteRT.js sees."""
        return {"": self.tensor.dtype, "CAST": "int32"}.get(self.op, "float32")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The values of an input as LiteRT.js takes them.

        Args:
            values: [N, ...] of the model's data type.

        Raises:
            InputError: A value of an int64 input is beyond int32.
        """
        if self.op == "QUANTIZE":
            return _real(self.tensor, values)
        if self.op == "CAST" and values.dtype == "int64" and not (np.abs(values) <= _INT32.max).all():
            raise InputError(
                f"browser: input {self.tensor.name!r} must be within int32. Received: {values.min()}..{values.max()}. "
                "Use the target host."
            )
        return values.astype(self.dtype, copy=False)

    def decode(self, values: np.ndarray, *, exact: bool) -> np.ndarray:
        """The values of an output in the model's data type.

        Args:
            values: [N, ...] as LiteRT.js returned them.
            exact: Whether each value must be one that DEQUANTIZE gives; a GPU rounds them.

        Raises:
            DeviceError: A value is none.
        """
        if self.op != "DEQUANTIZE":
            return values.astype(self.tensor.dtype, copy=False)
        limits = np.iinfo(self.tensor.dtype)
        steps = np.round(values / np.float64(self.tensor.scales[0])) + self.tensor.zero_points[0]
        integers = np.clip(steps, limits.min, limits.max).astype(self.tensor.dtype)
        if exact and not np.array_equal(_real(self.tensor, integers), values):
            raise DeviceError(
                f"browser: output {self.tensor.name!r} has values that no {self.tensor.dtype} stands for. Run it again."
            )
        return integers


@dataclasses.dataclass(frozen=True)
class SentModel:
    """What is sent to a browser.

    Args:
        content: The .tflite, that of the model or a changed one.
        inputs: The inputs.
        outputs: The outputs.
        names: Names of the inputs and of the outputs in the signature; None where the file has one input and output.
    """

    content: bytes
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    names: tuple[list[str], list[str]] | None

    @property
    def changes(self) -> tuple[str, ...]:
        """Each op that was added, as `QUANTIZE before 'name'`."""
        before = [f"{end.op} before {end.tensor.name!r}" for end in self.inputs if end.op]
        return (*before, *(f"{end.op} behind {end.tensor.name!r}" for end in self.outputs if end.op))


def prepare(model: TFLiteModel) -> SentModel:
    """The model as LiteRT.js takes it; the same bytes if it takes the file as it is.

    Args:
        model: The model.

    Raises:
        ModelError: An input or output has a data type for which there is no such op, or a tensor is variable.
    """
    _check_variables(model)
    inputs = tuple(End(tensor, _op(tensor, "QUANTIZE")) for tensor in model.inputs)
    outputs = tuple(End(tensor, _op(tensor, "DEQUANTIZE")) for tensor in model.outputs)
    changed = any(end.op for end in (*inputs, *outputs))
    if not changed and len(inputs) == len(outputs) == 1:
        return SentModel(model.content, inputs, outputs, None)
    names = ([f"input_{i}" for i in range(len(inputs))], [f"output_{i}" for i in range(len(outputs))])
    return SentModel(_changed(model, inputs, outputs, names), inputs, outputs, names)


def _check_variables(model: TFLiteModel) -> None:
    """Checks that no tensor is variable, as the state of an LSTM is: LiteRT.js does not load such a model."""
    root = schema.Model.GetRootAs(model.content, 0)
    graphs = (root.Subgraphs(i) for i in range(root.SubgraphsLength()))
    for tensor in (graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())):
        if tensor.IsVariable():
            name = (tensor.Name() or b"").decode(errors="replace")
            raise ModelError(
                "browser: the model must have no variable tensor, such as the state of an LSTM: LiteRT.js loads none. "
                f"Received: {name!r}. Use the target host, or convert the layer with unroll=True."
            )


def _op(tensor: TensorInfo, quantizing: str) -> str:
    if tensor.dtype in _TAKEN:
        return ""
    if tensor.dtype not in _CAST:
        raise ModelError(
            f"browser: {tensor.name!r} must be one of {', '.join((*_TAKEN, *_CAST))}. Received: {tensor.dtype}, which "
            "LiteRT.js does not take. Use the target host."
        )
    return quantizing if _is_exact(tensor) else "CAST"


def _is_exact(tensor: TensorInfo) -> bool:
    """Whether each value of a quantized tensor comes back from float32, however the division is computed."""
    if tensor.dtype not in ("int8", "int16") or len(tensor.scales) != 1 or not tensor.scales[0] > 0:
        return False
    limits, scale = np.iinfo(tensor.dtype), np.float32(tensor.scales[0])
    values = np.arange(limits.min, limits.max + 1)
    real = _real(tensor, values)
    with np.errstate(over="ignore", invalid="ignore"):
        ways = (np.round(real / scale), np.round(real * (np.float32(1) / scale)))
    return all(np.array_equal(way + tensor.zero_points[0], values) for way in ways)


def _real(tensor: TensorInfo, values: np.ndarray) -> np.ndarray:
    return (values.astype("float32") - np.float32(tensor.zero_points[0])) * np.float32(tensor.scales[0])


def _changed(
    model: TFLiteModel, inputs: Sequence[End], outputs: Sequence[End], names: tuple[list[str], list[str]]
) -> bytes:
    """The file with the ops and with one signature, whose order is that of the inputs and outputs."""
    editor = ModelEditor(model.content)
    ends = [list(map(int, editor.graph.inputs)), list(map(int, editor.graph.outputs))]
    front = [_added(editor, end, ends[0], i, is_input=True) for i, end in enumerate(inputs) if end.op]
    behind = [_added(editor, end, ends[1], i, is_input=False) for i, end in enumerate(outputs) if end.op]
    editor.graph.operators = [*front, *(editor.graph.operators or []), *behind]
    editor.graph.inputs, editor.graph.outputs = (np.array(indices, "int32") for indices in ends)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = (
        [_entry(name, index) for name, index in zip(side, indices, strict=True)]
        for side, indices in zip(names, ends, strict=True)
    )
    editor.model.signatureDefs = [signature]
    return editor.pack()


def _added(editor: ModelEditor, end: End, indices: list[int], position: int, *, is_input: bool) -> schema.TensorT:
    """The op at one end, with a new tensor that takes its place among the inputs or outputs."""
    inner, tensor = indices[position], schema.TensorT()
    tensor.name = editor.tensors[inner].name + b"/browser"
    tensor.shape, tensor.shapeSignature = editor.tensors[inner].shape, editor.tensors[inner].shapeSignature
    tensor.type = schema.TensorType.INT32 if end.op == "CAST" else schema.TensorType.FLOAT32
    tensor.buffer = 0
    editor.tensors.append(tensor)
    indices[position] = len(editor.tensors) - 1
    ways = [indices[position], inner] if is_input else [inner, indices[position]]
    options = None
    if end.op == "CAST":
        options, types = schema.CastOptionsT(), [editor.tensors[way].type for way in ways]
        options.inDataType, options.outDataType = types
    return editor.new_op(end.op, ways[:1], ways[1:], options)


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
